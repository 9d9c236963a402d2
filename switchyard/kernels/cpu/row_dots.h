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

}  // namespace switchyard::kernels::cpu
