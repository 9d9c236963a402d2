#include "switchyard/layer/routing_station.h"

#include "switchyard/base/error.h"
#include "switchyard/experts/bank.h"

namespace switchyard {

RoutingStation::RoutingStation(const RoutingOptions& options, int64_t width, int64_t experts)
    : options_(options), width_(width), experts_(experts) {
  check(static_cast<bool>(options.router), "layer.router", "a mixture needs a router; the default is sparse-topk");
  router_ = options.router.make();
  if (options.admission) admission_ = options.admission.make();
  combine_ = options.combine.value_or(router_->combine());
  for (const auto& loss : options.losses) losses_.push_back(loss.make());
  for (const auto& controller : options.controllers) controllers_.push_back(controller.make());
}

void RoutingStation::declare(const Schema& schema) {
  site_ = schema.prefix();
  const Schema router = schema.in("router");
  router_->declare(router, {.width = width_, .experts = experts_});
  for (const auto& controller : controllers_) controller->bind(router);
}

Reach RoutingStation::reach(const Overrides& overrides, Phase phase) const {
  const Reach router = router_->reach(overrides, phase);
  return admission_ ? larger(router, admission_->reach(overrides, phase)) : router;
}

Routed RoutingStation::route(const at::Tensor& x, const Context& context,
                             const std::function<at::Tensor()>& dense_outputs) const {
  if (context.training() && context.facts.segments.causal && !options_.allow_leak) {
    const Reach reach = this->reach(context.wishes(), context.phase);
    check(!reach.future, "routing.leak",
          "{}: {} lets a token see later ones, so a causal model would learn to cheat; choose another, train with "
          "causal: false, or accept it with allow_leak: true", site_, reach.because);
  }
  Routed routed;
  routed.engagement = router_->route({x, dense_outputs}, context);
  auto* selection = std::get_if<Selection>(&routed.engagement);
  if (selection == nullptr) return routed;
  const bool trained_elsewhere = !losses_.empty() || !controllers_.empty();
  if (selection->run != Run::rows) {
    check(combine_.on == WeighOn::output, "routing.run", "{}: a merged or gated mixture has no rows to weigh; use on: output", site_);
    check(!admission_ || options_.admission.slug == "dropless", "routing.run",
          "{}: a merged or gated mixture has no places to limit; use admission: dropless instead of {}", site_,
          options_.admission.slug);
    if (combine_.renormalise != Renormalise::never || combine_.scale != 1 || combine_.evaluation_scale != 1) {
      *selection = with_pairs(std::move(*selection));
      routed.weight = combine_weights(*selection, combine_, context.phase, trained_elsewhere);
    }
    return routed;
  }
  *selection = with_pairs(over_rows(std::move(*selection)));
  if (admission_) admit(*selection, *admission_, context);
  routed.weight = combine_weights(*selection, combine_, context.phase, trained_elsewhere);
  routed.plan = make_plan(*selection);
  return routed;
}

std::shared_ptr<const Routed> RoutingStation::decide(const at::Tensor& x, const Context& context,
                                                     const std::function<at::Tensor()>& dense_outputs) const {
  RoutedStore* store = options_.share_routing.empty() ? nullptr : context.routed;
  if (store)
    if (auto found = store->find(options_.share_routing); found != store->end()) return found->second;
  auto routed = std::make_shared<const Routed>(route(x, context, dense_outputs));
  if (store) (*store)[options_.share_routing] = routed;
  return routed;
}

Record RoutingStation::record(std::shared_ptr<const Routed> routed, const Context& context) const {
  Record record;
  record.place = context.place;
  record.micro = context.micro;
  record.routed = *routed;
  record.segments = context.facts.segments;
  return record;
}

}  // namespace switchyard
