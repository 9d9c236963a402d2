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
    : options_(options), in_(in), out_(out), bank_(bank_of(options, in, out)),
      station_(std::make_shared<RoutingStation>(options, in, bank_.experts())) {
  for (const SharedExpertOptions& shared : options.shared)
    for (int64_t i = 0; i < shared.count; ++i) shared_.push_back({shared.expert.make(), shared.gate, {}, {}});
}

void MoeLayer::declare(const Schema& schema) {
  station_->declare(schema);
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
}

std::pair<at::Tensor, Record> MoeLayer::run(const at::Tensor& x, const Context& outer,
                                            std::shared_ptr<const Routed> given) const {
  const Context context = outer.at(station_->site());
  const std::shared_ptr<const Routed> routed =
      given ? given : station_->decide(x, context, [&] { return bank_.run_all(x, context); });
  const at::Tensor y = bank_.run(x, *routed, station_->combine(), context);
  return {join(x, y, routed->selection(), context), station_->record(routed, context)};
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
