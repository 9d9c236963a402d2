// Recurrences of bodies with a running state, for many rows at once: inside a block of rows by products of matrices, from block to
// block by the state. They compute what the recurrence says row by row, but for the order of sums.
#pragma once

#include <ATen/core/Tensor.h>

namespace switchyard {

/// B sequences of L rows, H heads, keys of n numbers, values of p; rows without effect (padding) have g, k, beta or step 0. All of one
/// type, float or double, but where it says bf16 or half; states as they were before the first row and after the last one.
struct Scanned {
  at::Tensor rows;   ///< [B, L, H, p], or [B, L, C]
  at::Tensor state;
};

/// S_t = e^{g_t} S_{t-1} + k_t v_tᵀ, y_t = S_tᵀ q_t (Dao and Gu 2024; Qin et al. 2024). q, k: [B, L, G, n], each of the G groups for
/// H / G heads in a row; v: [B, L, H, p]; these may be bf16 or half, what is computed is float then; g: [B, L, H], at most 0; state: [B, H, n, p].
Scanned decayed_scan(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& g, const at::Tensor& state);

/// The same with values that correct what a key brings so far, queries and keys of unit length, queries times n^-1/2:
/// S_t = e^{g_t} S_{t-1} + k_t u_tᵀ with u_t = β_t (v_t − e^{g_t} S_{t-1}ᵀ k_t) (Yang et al. 2024). beta: [B, L, H].
Scanned delta_scan(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& beta, const at::Tensor& g,
                   const at::Tensor& state);

/// h_t = e^{Δ_t a} h_{t-1} + Δ_t u_t B_tᵀ, y_t = h_t C_t, channel by channel (Gu and Dao 2023). u, step Δ: [B, L, C]; a: [C, n];
/// in B, out C: [B, L, n]; state: [B, C, n].
Scanned selective_scan(const at::Tensor& u, const at::Tensor& step, const at::Tensor& a, const at::Tensor& in, const at::Tensor& out,
                       const at::Tensor& state);

}  // namespace switchyard
