// Many small low-rank adapters in one pass: each row goes through the adapter it names, and rows are grouped by adapter, so
// that every A and B is read once. Use it where one batch mixes users' adapters (S-LoRA, Sheng et al. 2023; Punica, Chen et al. 2023).
#pragma once

#include <ATen/core/Tensor.h>

namespace switchyard::kernels {

/// y[t] + scale[n] · b[n] a[n] x[t] with n = adapter[t]; rows with n = -1 stay y[t].
/// y: [T, O]; x: [T, I]; a: [N, r, I]; b: [N, O, r]; scale: [N] or undefined (= 1); adapter: [T] int64 in [-1, N).
/// Returns [T, O] of y's type; products run in x's type (bf16 under autocast), sums in float32. Differentiable in y, x, a, b and
/// scale; an adapter without rows has a zero gradient. Throws kernels.shape, kernels.slot_range.
at::Tensor batched_lora(const at::Tensor& y, const at::Tensor& x, const at::Tensor& a, const at::Tensor& b, const at::Tensor& scale,
                        const at::Tensor& adapter);

}  // namespace switchyard::kernels
