// What tests of the grouped kernels share: shapes, and how near to the float64 reference a result must be.
#pragma once

#include <ATen/ATen.h>

namespace switchyard::testing {

struct GroupedShape { int64_t rows, experts, in, hidden, out; };

/// Largest difference over the largest magnitude of what is expected; 1 where the shapes differ.
inline double relative(const at::Tensor& got, const at::Tensor& expected) {
  if (got.sizes() != expected.sizes()) return 1;
  if (expected.numel() == 0) return 0;
  const double scale = std::max(expected.abs().max().item<double>(), 1e-3);
  return (got.detach().cpu().to(at::kDouble) - expected.detach()).abs().max().item<double>() / scale;
}

/// float32: sums of some hundred terms. bf16: 8 bits of mantissa, rounded at x, h, dh and the result.
inline double tolerance(at::ScalarType type) { return type == at::kFloat ? 2e-5 : 4e-2; }

}  // namespace switchyard::testing
