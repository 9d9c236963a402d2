// OpenMoE's expert (Xue et al. 2024): the activation of its gate is itself a SwiGLU, so the gate's map is twice as wide and an expert
// has 4DF parameters.
#include <ATen/TensorOperators.h>

#include "switchyard/base/registry.h"
#include "switchyard/experts/feed_forward/feed_forward.h"
#include "switchyard/kernels/grouped_linear.h"
#include "switchyard/kernels/linear.h"

namespace switchyard {
namespace {

class SwiGluGated : public ExpertKind {
 public:
  explicit SwiGluGated(const FeedForwardOptions& options) : options_(options) {}

  std::vector<ExpertTensor> tensors(int64_t in, int64_t out) const override {
    const int64_t hidden = options_.hidden;
    const Init init = Init::normal(options_.init_deviation);
    std::vector<ExpertTensor> list{{"gate", {2 * hidden, in}, init}, {"up", {hidden, in}, init}, {"down", {out, hidden}, init}};
    if (options_.bias) {
      list.push_back({"gate_bias", {2 * hidden}, Init::zeros()});
      list.push_back({"up_bias", {hidden}, Init::zeros()});
      list.push_back({"down_bias", {out}, Init::zeros()});
    }
    return list;
  }

  at::Tensor apply(const Params& p, const at::Tensor& rows, const Context&) const override {
    const at::Tensor gate = kernels::linear(rows, p["gate"], p["gate_bias"]), up = kernels::linear(rows, p["up"], p["up_bias"]);
    return kernels::linear(swiglu_gated(up, gate), p["down"], p["down_bias"]);
  }

  at::Tensor apply_grouped(const Params& p, const GroupedRows& rows, const Context&) const override {
    const at::Tensor x = rows.x.defined() ? rows.x : rows.source.index_select(0, rows.row);
    const auto map = [&](const char* name, const char* bias, const at::Tensor& from) {
      return kernels::grouped_linear(from, p[name], rows.offset, p[bias]);
    };
    return map("down", "down_bias", swiglu_gated(map("up", "up_bias", x), map("gate", "gate_bias", x)));
  }

  std::vector<std::string> output_maps() const override {
    if (options_.bias) return {"down", "down_bias"};
    return {"down"};
  }

 private:
  FeedForwardOptions options_;
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(swiglu_gated_expert) {
  using namespace switchyard;
  registry.add<ExpertKind, SwiGluGated, FeedForwardOptions>(
      {.slug = kSwiGluGated, .name = "Gated SwiGLU", .paper = "Xue et al., OpenMoE", .year = 2024, .section = "4.2.3",
       .room = "experts/feed_forward", .coupling = "none", .line = "down(a(x) * silu(b(x)) * up(x)), a and b the halves of one map",
       .recipe = "recipes/methods/swiglu-gated.yaml"});
}
