// The norms of a block (survey 4.2.3): RMSNorm (Zhang and Sennrich 2019) and LayerNorm (Ba et al. 2016).
#pragma once

#include <cstdint>

#include "switchyard/contract/part.h"

namespace switchyard {

/// The norms a model may be built with.
enum class Norm {
  rms,
  layer,
  rms_centred,     ///< RMSNorm whose weight is 1 + w, w kept around 0 (Qwen3-Next)
  layer_unbiased,  ///< LayerNorm without a bias (DBRX)
};
/// A norm of rows of that width.
PartPtr make_norm(Norm kind, int64_t width, double eps);
/// x / sqrt(mean(x²) + eps) over the last axis, without a weight; in float32 for half precision.
at::Tensor unit_rms(const at::Tensor& x, double eps);

/// y = x / sqrt(mean(x²) + eps) · weight over the last axis: no mean, no bias. Computed in float32 for half
/// precision rows and given back in their type.
class RmsNorm : public Part {
 public:
  RmsNorm(int64_t width, double eps, bool centred = false) : width_(width), eps_(eps), centred_(centred) {}
  void declare(const Schema& schema) override;  ///< weight [width]: ones, or zeros when centred (1 + weight multiplies)
  /// x: [..., width].
  at::Tensor forward(const at::Tensor& x, const Context& context) const override;

 private:
  int64_t width_;
  double eps_;
  bool centred_;
  Parameter weight_;
};

/// y = (x − mean) / sqrt(variance + eps) · weight + bias.
class LayerNorm : public Part {
 public:
  LayerNorm(int64_t width, double eps, bool biased = true) : width_(width), eps_(eps), biased_(biased) {}
  void declare(const Schema& schema) override;  ///< weight [width], ones; bias [width], zeros
  at::Tensor forward(const at::Tensor& x, const Context& context) const override;

 private:
  int64_t width_;
  double eps_;
  bool biased_;
  Parameter weight_, bias_;
};

}  // namespace switchyard
