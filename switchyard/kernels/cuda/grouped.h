// The experts' fronts (grouped_linear.h, grouped_ffn.h) on the CUDA kernels. Arguments are checked by the fronts; rows have the
// products' type already.
#pragma once

#include "switchyard/kernels/cuda/backend.h"
#include "switchyard/kernels/grouped_ffn.h"

namespace switchyard::kernels::cuda {

/// Whether the kernels take rows of this type and widths on x's device: float32 and bfloat16.
bool takes_products(const at::Tensor& x, at::ScalarType type, int64_t experts, std::initializer_list<int64_t> widths);

/// As kernels::grouped_linear; x: [A, I] of the products' type. Differentiable.
at::Tensor grouped_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& offset, const at::Tensor& bias,
                          WeightLayout layout);

/// As kernels::grouped_ffn, where weights multiply the output; x: [T, D] of the products' type. Differentiable.
at::Tensor grouped_ffn(const at::Tensor& x, const at::Tensor& offset, const at::Tensor& row, const at::Tensor& weight,
                       const FeedForwardWeights& weights, const FeedForwardOptions& options);

}  // namespace switchyard::kernels::cuda
