// The norms of a block (survey 4.2.3): RMSNorm (Zhang and Sennrich 2019) and LayerNorm (Ba et al. 2016).
#pragma once

#include <cstdint>

#include "switchyard/contract/part.h"

namespace switchyard {

/// y = x / sqrt(mean(x²) + eps) · weight over the last axis: no mean, no bias. Computed in float32 for half
/// precision rows and given back in their type.
class RmsNorm : public Part {
 public:
  RmsNorm(int64_t width, double eps) : width_(width), eps_(eps) {}
  void declare(const Schema& schema) override;  ///< weight [width], ones
  /// x: [..., width].
  at::Tensor forward(const at::Tensor& x, const Context& context) const override;

 private:
  int64_t width_;
  double eps_;
  Parameter weight_;
};

/// y = (x − mean) / sqrt(variance + eps) · weight + bias.
class LayerNorm : public Part {
 public:
  LayerNorm(int64_t width, double eps) : width_(width), eps_(eps) {}
  void declare(const Schema& schema) override;  ///< weight [width], ones; bias [width], zeros
  at::Tensor forward(const at::Tensor& x, const Context& context) const override;

 private:
  int64_t width_;
  double eps_;
  Parameter weight_, bias_;
};

}  // namespace switchyard
