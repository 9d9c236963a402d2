// What is done to one row after another, compiled for each instruction level: RMSNorm, rotary positions, the loss of a token. T: the rows' type, float,
// double or bfloat16; A: what is computed in, double for double, else float. Pointers to host memory; a row is contiguous.
#pragma once

#include <cstdint>

namespace switchyard::kernels {

/// y = T(x s) w with s = 1 / sqrt(mean(x²) + eps), which is returned. x, y: [width]; weight: [width].
template <typename T, typename A>
A rms_norm_row(const T* x, const A* weight, T* y, int64_t width, double eps);

/// grad_x = s (w g - x s² mean(w g x)); grad_weight += g x s. All [width]; scale: what rms_norm_row gave.
template <typename T, typename A>
void rms_norm_row_gradient(const T* x, const A* weight, A scale, const T* grad, T* grad_x, A* grad_weight, int64_t width);

/// Pairs (i, i + half) of each head turn by the angle with cosine c[i] and sine sign · s[i]; what lies behind 2 half is copied.
/// x, y: [heads, d], not the same memory; c, s: [half].
template <typename T, typename A>
void rotate_row(const T* x, const A* c, const A* s, T* y, int64_t heads, int64_t d, int64_t half, A sign);

/// ln Σ exp(x[i]), i < width: no overflow; NaN where a value is none or the largest is infinite.
template <typename T, typename A>
A log_sum_exp_row(const T* x, int64_t width);

/// y[i] = T(grad exp(x[i] - log_sum)), and of `target`, 0 to width - 1, T(grad (exp(x[target] - log_sum) - 1)): the gradient of
/// grad (log_sum - x[target]).
template <typename T, typename A>
void token_loss_row_gradient(const T* x, A log_sum, int64_t target, A grad, T* y, int64_t width);

}  // namespace switchyard::kernels
