// AdamW in one pass over parameter, gradient and moments: a MoE's optimiser step is memory traffic, so it is read
// once. Bit-deterministic whatever the thread count. Decoupled weight decay (Loshchilov and Hutter, 2019).
#pragma once

#include <ATen/core/Tensor.h>

namespace switchyard::kernels {

struct AdamW {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.01;
  int64_t step = 1;         ///< 1 at the first call: the bias corrections are 1 - beta^step
  double grad_scale = 1.0;  ///< multiplies the gradient first (clipping, loss scale, token count)
};

/// In place: m = b1 m + (1-b1) g, v = b2 v + (1-b2) g^2, p = p (1 - lr wd) - lr m^ / (sqrt(v^) + eps).
/// param: float32, float64 or bf16, contiguous; m, v: its shape, float32 (float64 for a float64 parameter); grad: param's shape,
/// float32, float64 or bf16, or undefined (= zero: only decay and momentum move). Throws kernels.dtype, kernels.shape, kernels.contiguous.
void adamw_step(const at::Tensor& param, const at::Tensor& grad, const at::Tensor& m, const at::Tensor& v,
                const AdamW& options);

/// Sum of squares of all elements in float64, in a fixed order of blocks (for gradient clipping).
double sum_of_squares(const at::Tensor& x);

}  // namespace switchyard::kernels
