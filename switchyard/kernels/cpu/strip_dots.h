// Dot products of rows of weights with few rows of x that lie side by side in strips, in AVX2: what is loaded of the weights meets all columns of
// a strip at once, and no sum crosses lanes before the end of a row. Internal to kernels/.
#pragma once

#include <c10/util/BFloat16.h>

#include <cstdint>

namespace switchyard::kernels::cpu {

/// Rows of x up to which weights meet them so; more make tiles, which are as fast then.
constexpr int64_t kStripRows = 48;

/// Whether there are strips for rows of that width: without AVX-512, for multiples of 64.
bool has_strips(int64_t k);

/// Columns of k floats that n rows of x take in their strips: some may be padding.
int64_t strip_columns(int64_t n);

/// The order of values in a row of x: as they lie, or as rows of bf16 weights are unpacked.
enum class StripOrder { floats, halves };

/// strips [strip_columns(n), k], 32-byte aligned, from rows x[0] ... x[n - 1].
void make_strips(const float* const* x, int64_t n, int64_t k, StripOrder order, float* strips);
void make_strips(const c10::BFloat16* const* x, int64_t n, int64_t k, StripOrder order, float* strips);

/// out[j * ld + r] = <w[r], x[j]> for rows w [rows, k], `stride` apart, and j < n; strips in the order of w's type.
void strip_dots(const float* w, int64_t stride, int64_t rows, int64_t k, int64_t n, const float* strips, float* out, int64_t ld);
void strip_dots(const c10::BFloat16* w, int64_t stride, int64_t rows, int64_t k, int64_t n, const float* strips, float* out, int64_t ld);

}  // namespace switchyard::kernels::cpu
