// One linear map an expert over rows sorted by expert: y[a] = x[a] W[e]^T + b[e] for offset[e] <= a < offset[e+1].
// Use it wherever stacked experts meet sorted rows; it replaces the loop over W[e] and its zero-filled gradients.
#pragma once

#include <ATen/core/Tensor.h>

namespace switchyard::kernels {

/// How a stack of matrices lies: out_in is nn.Linear's [E, O, I]; in_out is [E, I, O] (gpt-oss, Llama-4).
enum class WeightLayout { out_in, in_out };

/// x: [A, I], sorted by expert; weight: [E, O, I] or [E, I, O] by layout; offset: [E+1] int64, first 0, last A,
/// ascending; bias: [E, O] or undefined. Returns [A, O] of x's type (under bf16 autocast: bf16).
/// Types: float32, float64, bfloat16 (float32 sums), and bf16 rows with float32 weights under autocast, where the
/// weights' gradient stays float32. Differentiable, also twice, in x, weight and bias; an expert without
/// rows has a zero gradient. Results do not depend on the thread count.
/// Throws kernels.shape, kernels.dtype, kernels.offset.
at::Tensor grouped_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& offset,
                          const at::Tensor& bias = {}, WeightLayout layout = WeightLayout::out_in);

}  // namespace switchyard::kernels
