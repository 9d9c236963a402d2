#include "switchyard/experts/feed_forward/feed_forward.h"

#include <ATen/TensorOperators.h>

#include <array>
#include <cmath>

#include "switchyard/base/registry.h"
#include "switchyard/kernels/grouped_linear.h"
#include "switchyard/kernels/grouped_packed.h"
#include "switchyard/kernels/linear.h"
#include "switchyard/kernels/packed_weight.h"

namespace switchyard {
namespace {

using kernels::Activation;

constexpr std::array<std::pair<const char*, Activation>, 11> kActivations{{
    {"identity", Activation::identity}, {"relu", Activation::relu}, {"relu2", Activation::relu_squared},
    {"gelu", Activation::gelu}, {"gelu-tanh", Activation::gelu_tanh}, {"silu", Activation::silu},
    {"glu", Activation::glu}, {"reglu", Activation::reglu}, {"geglu", Activation::geglu},
    {"geglu-tanh", Activation::geglu_tanh}, {"swiglu", Activation::swiglu},
}};

/// Any activation by name: `expert: {type: ffn-expert, activation: reglu, hidden: 512}`.
struct NamedOptions : FeedForwardOptions {
  std::string activation = "relu";
  static void describe(Fields<NamedOptions>& f) {
    std::vector<std::string> names;
    for (const auto& [name, kind] : kActivations) names.push_back(name);
    f("activation", &NamedOptions::activation, "what stands between the linear maps").choices(names);
    f("hidden", &NamedOptions::hidden, "width F between the maps").range(1, 1 << 24).required();
    f("bias", &NamedOptions::bias, "add a bias to every map");
    f("init_deviation", &NamedOptions::init_deviation, "standard deviation of the initial weights").range(0);
  }
};

class NamedFeedForward : public FeedForwardExpert {
 public:
  explicit NamedFeedForward(const NamedOptions& o) : FeedForwardExpert(o, {.kind = activation_named(o.activation)}) {}
};

template <Activation kind>
class Fixed : public FeedForwardExpert {
 public:
  explicit Fixed(const FeedForwardOptions& o) : FeedForwardExpert(o, {.kind = kind}) {}
};

/// gpt-oss: g σ(αg) (u + 1) with g and u held within limits.
struct ClampedOptions : FeedForwardOptions {
  double limit = 7, alpha = 1.702, shift = 1;
  static void describe(Fields<ClampedOptions>& f) {
    f.inherit<FeedForwardOptions>();
    f("limit", &ClampedOptions::limit, "the gate is held below it, the other map within plus and minus it").range(0);
    f("alpha", &ClampedOptions::alpha, "steepness of the sigmoid").range(0);
    f("shift", &ClampedOptions::shift, "added to the other map");
  }
};

class ClampedSwiGlu : public FeedForwardExpert {
 public:
  explicit ClampedSwiGlu(const ClampedOptions& o)
      : FeedForwardExpert(o, {.kind = Activation::clamped_swiglu, .limit = o.limit, .alpha = o.alpha, .shift = o.shift}) {}
};

std::shared_ptr<const PackedTensor> packed_map(const Params& p, const std::string& name) {
  return kernels::packed_tensor_of(p.packed_named(name));
}

kernels::FeedForwardWeights weights_of(const Params& stacked) {
  return {.up = stacked["up"], .gate = stacked["gate"], .down = stacked["down"],
          .up_bias = stacked["up_bias"], .gate_bias = stacked["gate_bias"], .down_bias = stacked["down_bias"],
          .packed_up = packed_map(stacked, "up"), .packed_gate = packed_map(stacked, "gate"), .packed_down = packed_map(stacked, "down")};
}

}  // namespace

void FeedForwardOptions::describe(Fields<FeedForwardOptions>& f) {
  f("hidden", &FeedForwardOptions::hidden, "width F between the maps").range(1, 1 << 24).required();
  f("bias", &FeedForwardOptions::bias, "add a bias to every map");
  f("init_deviation", &FeedForwardOptions::init_deviation, "standard deviation of the initial weights").range(0);
}

kernels::Activation activation_named(const std::string& name) {
  std::vector<std::string> names;
  for (const auto& [known, kind] : kActivations) {
    if (name == known) return kind;
    names.push_back(known);
  }
  fail("experts.activation", "there is no activation \"{}\"; the nearest is \"{}\"", name, nearest(name, names));
}

FeedForwardExpert::FeedForwardExpert(FeedForwardOptions options, kernels::ActivationOptions activation)
    : options_(options), activation_(activation) {}

std::vector<ExpertTensor> FeedForwardExpert::tensors(int64_t in, int64_t out) const {
  const int64_t hidden = options_.hidden;
  const Init init = Init::normal(options_.init_deviation);
  const bool gated = kernels::is_gated(activation_.kind);
  std::vector<ExpertTensor> list;
  if (gated) list.push_back({"gate", {hidden, in}, init});
  list.push_back({"up", {hidden, in}, init});
  list.push_back({"down", {out, hidden}, init});
  if (options_.bias) {
    if (gated) list.push_back({"gate_bias", {hidden}, Init::zeros()});
    list.push_back({"up_bias", {hidden}, Init::zeros()});
    list.push_back({"down_bias", {out}, Init::zeros()});
  }
  return list;
}

namespace {

/// Whether adapters stand beside any map.
bool has_factors(const Params& p) { return p["up.a"].defined() || p["gate.a"].defined() || p["down.a"].defined(); }

/// One map with its bias and the low-rank map beside it. With `offset` the rows are sorted by expert and the tensors stacks.
at::Tensor map_rows(const Params& p, const std::string& name, const at::Tensor& rows, const at::Tensor& offset = {}) {
  const at::Tensor &a = p[name + ".a"], &b = p[name + ".b"];
  const auto times = [&](const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {}) {
    return offset.defined() ? kernels::grouped_linear(x, weight, offset, bias) : kernels::linear(x, weight, bias);
  };
  const at::Tensor& bias = p[name + "_bias"];
  const auto packed = p.packed_named(name);
  const at::Tensor y = !packed           ? times(rows, p[name], bias)
                       : offset.defined() ? kernels::grouped_linear_packed(rows, packed_map(p, name), offset, bias)
                                          : packed->linear(rows, bias);
  return a.defined() ? (y + times(times(rows.to(a.scalar_type()), a), b, p[name + ".b_bias"])).to(y.scalar_type()) : y;
}

}  // namespace

at::Tensor swiglu_gated(const at::Tensor& up, const at::Tensor& gate) {
  const int64_t hidden = up.size(-1);
  return up * kernels::activate(gate.narrow(-1, 0, hidden), gate.narrow(-1, hidden, hidden), {.kind = kernels::Activation::swiglu});
}

std::vector<std::string> FeedForwardExpert::output_maps() const {
  if (options_.bias) return {"down", "down_bias"};
  return {"down"};
}

at::Tensor FeedForwardExpert::apply(const Params& p, const at::Tensor& rows, const Context&) const {
  const at::Tensor gate = kernels::is_gated(activation_.kind) ? map_rows(p, "gate", rows) : at::Tensor();
  return map_rows(p, "down", kernels::activate(map_rows(p, "up", rows), gate, activation_));
}

at::Tensor FeedForwardExpert::apply_grouped(const Params& stacked, const GroupedRows& rows, const Context&) const {
  const at::Tensor x = rows.x.defined() ? rows.x : rows.source.index_select(0, rows.row);
  if (has_factors(stacked)) {
    const at::Tensor gate = kernels::is_gated(activation_.kind) ? map_rows(stacked, "gate", x, rows.offset) : at::Tensor();
    return map_rows(stacked, "down", kernels::activate(map_rows(stacked, "up", x, rows.offset), gate, activation_), rows.offset);
  }
  return kernels::grouped_ffn(x, rows.offset, {}, {}, weights_of(stacked), {.activation = activation_});
}

std::optional<at::Tensor> FeedForwardExpert::apply_fused(const Params& stacked, const GroupedRows& rows,
                                                         const at::Tensor& weight, const Context&) const {
  if (!rows.source.defined() || has_factors(stacked)) return std::nullopt;
  const auto packed = packed_map(stacked, "down");
  if ((packed ? packed->shape()[1] : stacked["down"].size(1)) != rows.source.size(1)) return std::nullopt;
  return kernels::grouped_ffn(rows.source, rows.offset, rows.row, weight, weights_of(stacked),
                              {.activation = activation_});
}

}  // namespace switchyard

SWITCHYARD_REGISTER(feed_forward_experts) {
  using namespace switchyard;
  const std::string room = "experts/feed_forward";
  registry.add<ExpertKind, NamedFeedForward, NamedOptions>(
      {.slug = "ffn-expert", .name = "Feed-forward expert", .paper = "Lepikhin et al., GShard", .year = 2020,
       .section = "4.2.1", .room = room, .coupling = "none", .line = "a feed-forward network an expert, stacked",
       .recipe = "recipes/methods/ffn-expert.yaml"});
  registry.add<ExpertKind, Fixed<kernels::Activation::relu>, FeedForwardOptions>(
      {.slug = "relu", .name = "ReLU", .paper = "Glorot et al., Deep sparse rectifier neural networks", .year = 2011,
       .section = "4.2.3", .room = room, .coupling = "none", .line = "down(relu(up(x)))",
       .recipe = "recipes/methods/relu.yaml"});
  registry.add<ExpertKind, Fixed<kernels::Activation::gelu>, FeedForwardOptions>(
      {.slug = "gelu", .name = "GELU", .paper = "Hendrycks and Gimpel, Gaussian error linear units", .year = 2016,
       .section = "4.2.3", .room = room, .coupling = "none", .line = "down(gelu(up(x))), the exact erf form",
       .recipe = "recipes/methods/gelu.yaml"});
  registry.add<ExpertKind, Fixed<kernels::Activation::geglu>, FeedForwardOptions>(
      {.slug = "geglu", .name = "GeGLU", .paper = "Shazeer, GLU variants improve Transformer", .year = 2020,
       .section = "4.2.3", .room = room, .coupling = "none", .line = "down(gelu(gate(x)) * up(x))",
       .recipe = "recipes/methods/geglu.yaml"});
  registry.add<ExpertKind, Fixed<kernels::Activation::swiglu>, FeedForwardOptions>(
      {.slug = "swiglu", .name = "SwiGLU", .paper = "Shazeer, GLU variants improve Transformer", .year = 2020,
       .section = "4.2.3", .room = room, .coupling = "none", .line = "down(silu(gate(x)) * up(x))",
       .recipe = "recipes/methods/swiglu.yaml"});
  registry.add<ExpertKind, ClampedSwiGlu, ClampedOptions>(
      {.slug = "clamped-swiglu", .name = "Clamped SwiGLU", .paper = "OpenAI, gpt-oss-120b and gpt-oss-20b model card", .year = 2025,
       .section = "beyond", .room = room, .coupling = "none", .line = "down(gate(x) * sigmoid(1.702 gate(x)) * (up(x) + 1)), both maps held within limits",
       .recipe = "recipes/methods/clamped-swiglu.yaml"});
  registry.add_card(
      {.slug = "glu-variants", .name = "GeGLU and SwiGLU", .paper = "Shazeer, GLU variants improve Transformer",
       .year = 2020, .section = "4.2.3", .room = room, .coupling = "none",
       .line = "the gated forms: experts geglu, swiglu, and ffn-expert with glu or reglu", .recipe = "recipes/methods/glu-variants.yaml"});
}
