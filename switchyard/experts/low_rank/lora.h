// LoRA as an expert: y = s · B(A x), rank r, beside whatever it adapts (Hu et al. 2021; survey 4.3).
#pragma once

#include "switchyard/base/options.h"
#include "switchyard/experts/kind.h"

namespace switchyard {

struct LoraOptions {
  int64_t rank = 8;
  double alpha = 16;
  bool rank_stabilised = false;
  static void describe(Fields<LoraOptions>& f);
};

/// Tensors: "a" [r, in], "b" [out, r]. b starts at zero, so that a fresh adapter changes nothing.
class LoraExpert : public ExpertKind {
 public:
  explicit LoraExpert(const LoraOptions& options) : options_(options) {}
  double scale() const;
  std::vector<ExpertTensor> tensors(int64_t in, int64_t out) const override;
  at::Tensor apply(const Params& params, const at::Tensor& rows, const Context& context) const override;
  at::Tensor apply_grouped(const Params& stacked, const GroupedRows& rows, const Context& context) const override;
  /// Blends B·A, not B and A: (Σ pB)(Σ pA) ≠ Σ p·BA. The result has rank E·r.
  Params blend(const Params& stacked, const at::Tensor& coefficient) const override;

 private:
  LoraOptions options_;
};

}  // namespace switchyard
