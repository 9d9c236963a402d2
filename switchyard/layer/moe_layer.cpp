#include "switchyard/layer/moe_layer.h"

#include <ATen/TensorOperators.h>

#include "switchyard/base/error.h"
#include "switchyard/contract/adaptation.h"

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
    for (int64_t i = 0; i < shared.count; ++i) shared_.push_back({shared.expert.make(), shared.gate, {}, {}, {}});
}

void MoeLayer::declare(const Schema& schema) {
  station_->declare(schema);
  bank_.declare(schema.in("experts"));
  for (size_t i = 0; i < shared_.size(); ++i) {
    const Schema place = schema.in(shared_.size() == 1 ? "shared" : "shared." + std::to_string(i));
    Shared& shared = shared_[i];
    for (const ExpertTensor& tensor : shared.kind->tensors(in_, out_)) {
      // Every token trains it: to optimiser and export it is an ordinary map, not an expert.
      const Role plain = tensor.shape.size() > 1 ? Role::projection : Role::bias;
      const Role role = tensor.role == Role::expert ? plain : tensor.role;
      shared.tensors.emplace_back(tensor.name, place.add(tensor.name, tensor.shape, role, tensor.init));
    }
    if (shared.gate == SharedGate::sigmoid) shared.mix = place.add("mix", {1, in_}, Role::router, Init::normal(0.02));
    if (shared.gate == SharedGate::softmax) {
      shared.mix = place.add("mix", {2, in_}, Role::router, Init::normal(0.02));
      shared.mix_bias = place.add("mix_bias", {2}, Role::router, Init::zeros());
    }
  }
}

std::pair<at::Tensor, Record> MoeLayer::run(const at::Tensor& x, const Context& outer,
                                            std::shared_ptr<const Routed> given) const {
  const Context context = outer.at(station_->site());
  const std::shared_ptr<const Routed> routed =
      given ? std::move(given) : station_->decide(x, context, [&] { return bank_.run_all(x, context); });
  check_fits(*routed, x.size(0));
  const at::Tensor y = bank_.run(x, *routed, station_->combine(), context);
  return {join(x, y, routed->selection(), context), station_->record(routed, context)};
}

at::Tensor MoeLayer::forward(const at::Tensor& x, const Context& context) const {
  auto [y, record] = run(x, context);
  if (context.records) context.records->add(std::move(record));
  return y;
}

void MoeLayer::check_fits(const Routed& routed, int64_t rows) const {
  const Selection* selection = routed.selection();
  const int64_t experts = selection ? selection->experts : std::get<TokenBlend>(routed.engagement).experts;
  check(experts == bank_.experts(), "layer.given", "{}: the decision is over {} experts, but this layer has {}",
        station_->site(), experts, bank_.experts());
  if (!selection) return;
  const int64_t decided = selection->unit_of_row.defined() ? selection->unit_of_row.size(0) : selection->units;
  check(decided == rows, "layer.given", "{}: the decision is over {} rows, but {} rows came", station_->site(), decided, rows);
}

at::Tensor MoeLayer::join(const at::Tensor& x, at::Tensor y, const Selection* selection, const Context& context) const {
  if (shared_.empty() || context.wishes().always_off) return y;
  check(y.size(0) == x.size(0), "layer.shared", "{}: shared experts give one output a row, but {} outputs were asked of {} rows",
        station_->site(), y.size(0), x.size(0));
  at::Tensor always;  // [rows, A]
  if (selection && selection->always.defined()) {
    always = selection->always;
    check(always.size(1) == static_cast<int64_t>(shared_.size()), "layer.shared",
          "{}: the router weighs {} shared experts, but the layer has {}", station_->site(), always.size(1), shared_.size());
    if (selection->unit_of_row.defined()) always = always.index_select(0, selection->unit_of_row);
  }
  for (size_t i = 0; i < shared_.size(); ++i) {
    const Shared& shared = shared_[i];
    Params params;
    for (const auto& [name, parameter] : shared.tensors) put_for_kernels(params, name, parameter, *shared.kind, context);
    at::Tensor beside = shared.kind->apply(params, x, context);
    if (always.defined()) beside = beside * always.narrow(1, static_cast<int64_t>(i), 1).to(beside.scalar_type());
    if (shared.gate == SharedGate::none) {
      y = y + beside;
      continue;
    }
    const at::Tensor mix = linear(x, shared.mix, shared.mix_bias, context);
    if (shared.gate == SharedGate::sigmoid) {
      y = y + mix.sigmoid() * beside;
    } else {
      const at::Tensor part = mix.softmax(-1);
      y = part.narrow(1, 0, 1) * y + part.narrow(1, 1, 1) * beside;
    }
  }
  return y;
}

}  // namespace switchyard

SWITCHYARD_REGISTER(moe_layer_presets) {
  using namespace switchyard;
  registry.add_card({.slug = "shared-expert", .name = "Shared-expert isolation", .paper = "Dai et al., DeepSeekMoE", .year = 2024,
                     .section = "4.2.4", .room = "layer", .coupling = "none",
                     .line = "experts that every token passes, beside the routed ones", .recipe = "recipes/methods/shared-expert.yaml"});
  registry.add_card({.slug = "qwen-shared-gate", .name = "Gated shared expert", .paper = "Qwen Team, Qwen1.5-MoE", .year = 2024,
                     .section = "4.2.4", .room = "layer", .coupling = "none",
                     .line = "a shared expert weighed by a learned sigmoid of each token",
                     .recipe = "recipes/methods/qwen-shared-gate.yaml"});
  registry.add_card({.slug = "residual-moe", .name = "Residual-MoE", .paper = "Rajbhandari et al., DeepSpeed-MoE", .year = 2022,
                     .section = "4.2.4", .room = "layer", .coupling = "none",
                     .line = "every token passes one fixed network and one expert, weighed by a softmax of two",
                     .recipe = "recipes/methods/residual-moe.yaml"});
  registry.add_card({.slug = "expert-size", .name = "Fine-grained experts", .paper = "Dai et al., DeepSeekMoE", .year = 2024,
                     .section = "4.2.3", .room = "layer", .coupling = "none",
                     .line = "m times as many experts of 1/m the width, m times as many chosen", .recipe = "recipes/methods/expert-size.yaml"});
}
