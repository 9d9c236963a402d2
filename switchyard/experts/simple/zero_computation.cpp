// Experts that cost nothing: zero gives nothing back, copy gives the row itself (MoE++, Jin et al. 2024), constant a vector.
#include <ATen/ops/zeros_like.h>

#include "switchyard/base/registry.h"
#include "switchyard/experts/kind.h"

namespace switchyard {
namespace {

/// Both map a row to a row of the same width.
class SameWidth : public ExpertKind {
 public:
  std::vector<ExpertTensor> tensors(int64_t in, int64_t out) const override {
    check(in == out, "experts.width", "zero and copy experts cannot turn rows of width {} into width {}", in, out);
    return {};
  }
  at::Tensor apply_grouped(const Params& params, const GroupedRows& rows, const Context& context) const override {
    return apply(params, rows.x.defined() ? rows.x : rows.source.index_select(0, rows.row), context);
  }
};

class ZeroExpert : public SameWidth {
 public:
  at::Tensor apply(const Params&, const at::Tensor& rows, const Context&) const override {
    return at::zeros_like(rows);
  }
};

class CopyExpert : public SameWidth {
 public:
  at::Tensor apply(const Params&, const at::Tensor& rows, const Context&) const override { return rows; }
};

/// A learned vector, whatever the row: a bias of the mixture where every token passes it (JetMoE).
class ConstantExpert : public ExpertKind {
 public:
  std::vector<ExpertTensor> tensors(int64_t, int64_t out) const override { return {{"value", {out}, Init::zeros()}}; }
  at::Tensor apply(const Params& params, const at::Tensor& rows, const Context&) const override {
    return params["value"].to(rows.scalar_type()).unsqueeze(0).expand({rows.size(0), -1});
  }
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(zero_computation_experts) {
  using namespace switchyard;
  registry.add<ExpertKind, ZeroExpert, NoOptions>(
      {.slug = "zero-expert", .name = "Zero expert", .paper = "Jin et al., MoE++", .year = 2024, .section = "beyond",
       .room = "experts/simple", .coupling = "none", .line = "returns nothing: a token may skip the layer",
       .recipe = "recipes/methods/zero-expert.yaml"});
  registry.add<ExpertKind, CopyExpert, NoOptions>(
      {.slug = "copy-expert", .name = "Copy expert", .paper = "Jin et al., MoE++", .year = 2024, .section = "beyond",
       .room = "experts/simple", .coupling = "none", .line = "returns the row itself, weighted",
       .recipe = "recipes/methods/copy-expert.yaml"});
  registry.add<ExpertKind, ConstantExpert, NoOptions>(
      {.slug = "constant-expert", .name = "Constant vector", .paper = "Shen et al., JetMoE", .year = 2024, .section = "beyond",
       .room = "experts/simple", .coupling = "none", .line = "returns a learned vector whatever the token: always on, it is the mixture's bias",
       .recipe = "recipes/methods/constant-expert.yaml"});
}
