// The feed-forward expert: two or three linear maps with an activation between them, the default of
// nearly every published MoE (survey 4.2.1 and 4.2.3; Shazeer 2020, "GLU variants").
#pragma once

#include "switchyard/base/options.h"
#include "switchyard/experts/kind.h"
#include "switchyard/kernels/grouped_ffn.h"

namespace switchyard {

struct FeedForwardOptions {
  int64_t hidden = 0;  ///< F
  bool bias = false;
  double init_deviation = 0.02;
  static void describe(Fields<FeedForwardOptions>& f);
};

/// Tensors: "up" [F, in], "gate" [F, in] for the gated kinds, "down" [out, F]; with bias "up_bias", ...
class FeedForwardExpert : public ExpertKind {
 public:
  FeedForwardExpert(FeedForwardOptions options, kernels::ActivationOptions activation);

  std::vector<ExpertTensor> tensors(int64_t in, int64_t out) const override;
  at::Tensor apply(const Params& params, const at::Tensor& rows, const Context& context) const override;
  at::Tensor apply_grouped(const Params& stacked, const GroupedRows& rows, const Context& context) const override;
  std::optional<at::Tensor> apply_fused(const Params& stacked, const GroupedRows& rows, const at::Tensor& weight,
                                        const Context& context) const override;
  bool takes_factors() const override { return true; }
  bool takes_packed() const override { return true; }
  std::vector<std::string> output_maps() const override;
  int64_t hidden() const { return options_.hidden; }
  kernels::Activation activation() const { return activation_.kind; }
  const FeedForwardOptions& options() const { return options_; }

 private:
  FeedForwardOptions options_;
  kernels::ActivationOptions activation_;
};

/// "relu" → Activation::relu, ...; throws experts.activation with the nearest name.
kernels::Activation activation_named(const std::string& name);

/// OpenMoE's: u · a · silu(b) with the gate's rows [.., 2F] cut in halves a and b; up: [.., F].
at::Tensor swiglu_gated(const at::Tensor& up, const at::Tensor& gate);
inline constexpr const char* kSwiGluGated = "swiglu-gated";

}  // namespace switchyard
