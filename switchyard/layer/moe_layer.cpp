#include "switchyard/layer/moe_layer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linear.h>

#include "switchyard/base/error.h"

namespace switchyard {
namespace {

ExpertBank bank_of(const MoeOptions& options, int64_t in, int64_t out) {
  std::vector<ExpertBank::Stack> stacks{{options.expert.make(), options.experts}};
  for (const ExtraExpertOptions& extra : options.extra) stacks.push_back({extra.expert.make(), extra.count});
  return ExpertBank(std::move(stacks), in, out);
}

}  // namespace

void SharedExpertOptions::describe(Fields<SharedExpertOptions>& f) {
  f("expert", &SharedExpertOptions::expert, "the kind of expert");
  f("count", &SharedExpertOptions::count, "how many, each always on").range(1, 1024);
  f("gate", &SharedExpertOptions::gate, "what weighs its output: nothing, a learned sigmoid, or a learned softmax "
    "against the mixture").choices({"none", "sigmoid", "softmax"});
}

void ExtraExpertOptions::describe(Fields<ExtraExpertOptions>& f) {
  f("expert", &ExtraExpertOptions::expert, "the kind of expert").required();
  f("count", &ExtraExpertOptions::count, "how many").range(1, 1 << 20);
}

void MoeOptions::describe(Fields<MoeOptions>& f) {
  f.title("Mixture of experts", "A router, a bank of experts, and what stands between and beside them.");
  describe_fields(f);
}

MoeLayer::MoeLayer(const MoeOptions& options, int64_t in, int64_t out)
    : options_(options), in_(in), out_(out), bank_(bank_of(options, in, out)), router_(options.router.make()) {
  check(router_ != nullptr, "layer.router", "a mixture needs a router; the default is sparse-topk");
  if (options.admission) admission_ = options.admission.make();
  combine_ = options.combine.value_or(router_->combine());
  for (const SharedExpertOptions& shared : options.shared)
    for (int64_t i = 0; i < shared.count; ++i) shared_.push_back({shared.expert.make(), shared.gate, {}, {}});
  for (const auto& loss : options.losses) losses_.push_back(loss.make());
  for (const auto& controller : options.controllers) controllers_.push_back(controller.make());
}

void MoeLayer::declare(const Schema& schema) {
  site_ = schema.prefix();
  const Schema router = schema.in("router");
  router_->declare(router, {.width = in_, .experts = bank_.experts()});
  bank_.declare(schema.in("experts"));
  for (size_t i = 0; i < shared_.size(); ++i) {
    const Schema place = schema.in(shared_.size() == 1 ? "shared" : "shared." + std::to_string(i));
    for (const ExpertTensor& tensor : shared_[i].kind->tensors(in_, out_)) {
      const Role role = tensor.shape.size() > 1 ? Role::projection : Role::bias;
      shared_[i].tensors.emplace_back(tensor.name, place.add(tensor.name, tensor.shape, role, tensor.init));
    }
    const int64_t gates = shared_[i].gate == SharedGate::sigmoid ? 1 : 2;
    if (shared_[i].gate != SharedGate::none)
      shared_[i].gate_weight = place.add("mix", {gates, in_}, Role::router, Init::normal(0.02));
  }
  for (const auto& controller : controllers_) controller->bind(router);
}

Reach MoeLayer::reach(const Overrides& overrides, Phase phase) const {
  const Reach router = router_->reach(overrides, phase);
  return admission_ ? larger(router, admission_->reach(overrides, phase)) : router;
}

Routed MoeLayer::route(const at::Tensor& x, const Context& context) const {
  if (context.training() && context.facts.segments.causal && !options_.allow_leak) {
    const Reach reach = this->reach(context.wishes(), context.phase);
    check(!reach.future, "routing.leak",
          "{}: {} lets a token see later ones, so a causal model would learn to cheat; choose another, train with "
          "causal: false, or accept it with allow_leak: true", site_, reach.because);
  }
  const RouterInput input{x, [&] { return bank_.run_all(x, context); }};
  Routed routed;
  routed.engagement = router_->route(input, context);
  auto* selection = std::get_if<Selection>(&routed.engagement);
  if (selection == nullptr || selection->run != Run::rows) return routed;
  *selection = with_pairs(over_rows(std::move(*selection)));
  if (admission_) admit(*selection, *admission_, context);
  const bool trained_elsewhere = !losses_.empty() || !controllers_.empty();
  routed.weight = combine_weights(*selection, combine_, context.phase, trained_elsewhere);
  routed.plan = make_plan(*selection);
  return routed;
}

std::pair<at::Tensor, Record> MoeLayer::run(const at::Tensor& x, const Context& outer,
                                            std::shared_ptr<const Routed> given) const {
  const Context context = outer.at(site_);
  RoutedStore* store = options_.share_routing.empty() ? nullptr : context.routed;
  if (!given && store)
    if (auto found = store->find(options_.share_routing); found != store->end()) given = found->second;
  if (!given) {
    given = std::make_shared<const Routed>(route(x, context));
    if (store) (*store)[options_.share_routing] = given;
  }
  const at::Tensor y = join(x, bank_.run(x, *given, combine_, context), given->selection(), context);
  Record record;
  record.place = context.place;
  record.micro = context.micro;
  record.routed = *given;
  record.segments = context.facts.segments;
  return {y, std::move(record)};
}

at::Tensor MoeLayer::forward(const at::Tensor& x, const Context& context) const {
  auto [y, record] = run(x, context);
  if (context.records) context.records->add(std::move(record));
  return y;
}

at::Tensor MoeLayer::join(const at::Tensor& x, const at::Tensor& routed, const Selection* selection,
                          const Context& context) const {
  if (shared_.empty() || context.wishes().always_off) return routed;
  at::Tensor y = routed;
  for (size_t i = 0; i < shared_.size(); ++i) {
    Params params;
    for (const auto& [name, parameter] : shared_[i].tensors) params.values.emplace_back(name, context[parameter]);
    at::Tensor always = shared_[i].kind->apply(params, x, context);
    if (selection && selection->always.defined())
      always = always * selection->always.select(1, static_cast<int64_t>(i)).unsqueeze(1).to(always.scalar_type());
    if (shared_[i].gate == SharedGate::none) {
      y = y + always;
      continue;
    }
    const at::Tensor mix = at::linear(x, context[shared_[i].gate_weight]);
    if (shared_[i].gate == SharedGate::sigmoid) {
      y = y + mix.sigmoid() * always;
    } else {
      const at::Tensor part = mix.softmax(-1);
      y = part.narrow(1, 0, 1) * y + part.narrow(1, 1, 1) * always;
    }
  }
  return y;
}

}  // namespace switchyard
