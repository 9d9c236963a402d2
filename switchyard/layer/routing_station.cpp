#include "switchyard/layer/routing_station.h"

#include <ATen/TensorOperators.h>

#include "switchyard/base/error.h"
#include "switchyard/experts/bank.h"

namespace switchyard {

RoutingStation::RoutingStation(const RoutingOptions& options, int64_t width, int64_t experts)
    : options_(options), width_(width), experts_(experts) {
  for (const auto& loss : options.losses) losses_.push_back(loss.make());
  for (const auto& controller : options.controllers) controllers_.push_back(controller.make());
  if (!options.router) {
    check(!options.share_routing.empty(), "layer.router", "a mixture needs a router (the default is sparse-topk), or with "
          "router: none the name of another place's decision in share_routing");
    check(losses_.empty() && controllers_.empty(), "layer.router", "a mixture that follows the decision \"{}\" has no router "
          "for its losses and controllers; give them to the place that decides", options.share_routing);
    combine_ = options.combine.value_or(CombineOptions{});
    return;
  }
  router_ = options.router.make();
  combine_ = options.combine.value_or(router_->combine());
  if (options.admission && options.admission.slug != "dropless") admission_ = options.admission.make();
}

void RoutingStation::declare(const Schema& schema) {
  site_ = schema.prefix();
  if (!decides()) return;
  const Schema router = schema.in("router");
  router_->declare(router, {.width = width_, .experts = experts_});
  for (const auto& controller : controllers_) controller->bind(router);
}

Reach RoutingStation::reach(const Overrides& overrides, Phase phase) const {
  if (!decides()) return {};  // the deciding place answers for it
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
  const bool rows = selection && selection->run == Run::rows;
  check(rows || !admission_, "routing.run", "{}: {} has no places to limit; use admission: dropless instead of {}", site_,
        selection ? "a merged or gated mixture" : "a mixture of tokens", options_.admission.slug);
  if (selection == nullptr) return routed;
  if (rows) *selection = with_pairs(over_rows(std::move(*selection)));
  if (admission_) admit(*selection, *admission_, context);
  routed.weight = combine_weights(*selection, combine_, context.phase, /*router_trained_elsewhere=*/!losses_.empty());
  if (context.training() && combine_.output_masking > 0) {
    const at::Tensor draw = context.random.uniform(routed.weight.sizes(), context.key("combine.masking"), routed.weight.scalar_type());
    routed.weight = routed.weight * (draw >= combine_.output_masking).to(routed.weight.device(), routed.weight.scalar_type());
  }
  if (rows) routed.plan = make_plan(*selection);
  return routed;
}

std::shared_ptr<const Routed> RoutingStation::decide(const at::Tensor& x, const Context& context,
                                                     const std::function<at::Tensor()>& dense_outputs) const {
  const std::string& name = options_.share_routing;
  check(name.empty() || context.routed, "routing.share", "{}: this pass keeps no shared decisions, but \"{}\" is one", site_, name);
  if (decides()) {
    auto routed = std::make_shared<const Routed>(route(x, context, dense_outputs));
    if (!name.empty()) (*context.routed)[name] = routed;
    return routed;
  }
  const auto found = context.routed->find(name);
  check(found != context.routed->end(), "routing.share", "{} follows the decision \"{}\", but no place before it made one", site_, name);
  return found->second;
}

Record RoutingStation::record(std::shared_ptr<const Routed> routed, const Context& context) const {
  Record record;
  record.place = context.place;
  record.micro = context.micro;
  record.routed = *routed;
  if (!context.training() && combine_.output_masking > 0 && routed->weight.defined())
    record.routed.weight = routed->weight / (1 - combine_.output_masking);
  record.segments = context.facts.segments;
  return record;
}

}  // namespace switchyard
