// Dot products of rows of weights that are not packed with few rows of x. Internal to kernels/.
#pragma once

#include <c10/util/BFloat16.h>

#include <cstdint>

namespace switchyard::kernels::cpu {

/// out[j * ld + r] = <w[r], x[j]> for rows w [rows, k], `stride` apart, and any number of columns x [n, k], x_stride apart; false, and
/// nothing done, where there is no fast way for that k.
bool row_dots(const float* w, int64_t stride, int64_t rows, int64_t k, int64_t n, const float* x, int64_t x_stride, float* out, int64_t ld);
bool row_dots(const c10::BFloat16* w, int64_t stride, int64_t rows, int64_t k, int64_t n, const float* x, int64_t x_stride, float* out, int64_t ld);
/// With x in bf16 too: pairs of products are summed as they are made, a third of the work a weight.
bool row_dots(const c10::BFloat16* w, int64_t stride, int64_t rows, int64_t k, int64_t n, const c10::BFloat16* x, int64_t x_stride, float* out, int64_t ld);

/// Whether row_dots has a fast way for rows and x of that type and width.
template <typename T>
bool has_row_dots(int64_t k);

// The ways of one instruction set, null where it was not compiled.
template <typename W, typename X>
struct RowDotsOf {
  void (*dots)(const W* w, int64_t stride, int64_t rows, int64_t k, int64_t n, const X* x, int64_t x_stride, float* out, int64_t ld);
  int64_t step;  ///< k is a multiple of it
};
struct RowDots {
  RowDotsOf<float, float> floats;
  RowDotsOf<c10::BFloat16, float> halves_by_floats;
  RowDotsOf<c10::BFloat16, c10::BFloat16> halves;
};
const RowDots* row_dots_avx512();
const RowDots* row_dots_avx2();

}  // namespace switchyard::kernels::cpu
