// One linear map an expert over rows sorted by expert, its weights packed as their file has them (packed_tensor.h). Use it
// where a checkpoint is quantised: what is read from memory is the packed weight, and each block is unpacked once a call.
#pragma once

#include "switchyard/kernels/packed_tensor.h"

namespace switchyard::kernels {

/// x: [A, I] float32, float64 or bfloat16, sorted by expert; weight: stands for [E, O, I], or [O, I] as one expert; offset: [E+1]
/// int64; bias: [E, O] or undefined. Returns [A, O] of x's type; sums are float32 (float64 of float64).
/// On the CPU what can be had by rows is unpacked slab by slab inside the product; the rest expert by expert, before it.
/// Differentiable in x and bias; the weights have no gradient. Results do not depend on the thread count.
/// Throws kernels.shape, kernels.dtype, kernels.offset.
at::Tensor grouped_linear_packed(const at::Tensor& x, const std::shared_ptr<const PackedTensor>& weight, const at::Tensor& offset,
                                 const at::Tensor& bias = {});

}  // namespace switchyard::kernels
