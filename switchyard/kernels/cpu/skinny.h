// The feed-forward of experts with few rows each, as in decoding: every weight is read once and meets all rows of its
// expert on the way. Bounded by memory, so work is cut over rows of weights, not over rows of x. Internal to kernels/.
#pragma once

#include "switchyard/kernels/cpu/grouped_ffn.h"

namespace switchyard::kernels::cpu {

/// Rows an expert up to which this path is taken.
constexpr int64_t kSkinnyRows = 4;

/// out[j * ld + r] = <w[r], x[j]> (+ bias[r]) for r < rows, j < n <= kSkinnyRows: w [rows, k], x [n, k] float32.
template <typename T>
void dots(int64_t n, const T* w, int64_t rows, int64_t k, const float* x, const T* bias, float* out, int64_t ld);

/// As ffn_forward; no expert has more than kSkinnyRows rows.
template <typename T>
void ffn_forward_skinny(const FfnWeights<T>& w, const FfnRows<T>& rows, T* y, T* keep_gate, T* keep_up);

}  // namespace switchyard::kernels::cpu
