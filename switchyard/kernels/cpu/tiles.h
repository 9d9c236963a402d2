// Moving tiles of rows in and out of the layouts that `product` wants. Internal to kernels/.
#pragma once

#include <c10/util/BFloat16.h>

#include <cstdint>

namespace switchyard::kernels::cpu {

inline float to_float(float x) { return x; }
inline float to_float(c10::BFloat16 x) {
  const uint32_t bits = uint32_t{x.x} << 16;
  return __builtin_bit_cast(float, bits);
}
template <typename T> T from_float(float x);
template <> inline float from_float<float>(float x) { return x; }
/// Nearest even; NaN stays NaN.
template <> inline c10::BFloat16 from_float<c10::BFloat16>(float x) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, x);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  return c10::BFloat16(static_cast<uint16_t>(nan ? 0x7fc0u : rounded), c10::BFloat16::from_bits());
}

/// How many depth elements `product` keeps together in B: 1 for float, 2 for bf16.
template <typename T> inline constexpr int64_t kPair = 4 / sizeof(T);

/// Rows as columns of B: dst is B[width, columns] in product's layout, column j = row index[j] of x (row j when index is
/// null), columns from n on are zero. width is a multiple of kPair<T>.
template <typename T>
void pack_columns(const T* x, int64_t width, const int64_t* index, int64_t n, int64_t columns, T* dst);

/// Rows as rows of B: dst is B[depth, width] in product's layout with stride dst_ld (0: width); row i = row index[i] of x; rows
/// from n to depth are zero. depth is a multiple of kPair<T>. S: T, or float where T is bf16.
template <typename S, typename T>
void pack_rows(const S* x, int64_t ld, const int64_t* index, int64_t n, int64_t depth, int64_t width, T* dst, int64_t dst_ld = 0);

/// dst[j * ld + i] = tile[i * columns + j] for i < rows, j < n: a float tile written out as rows.
template <typename T>
void store_transposed(const float* tile, int64_t rows, int64_t columns, int64_t n, T* dst, int64_t ld);

/// dst[i * ld + j] = src[j * src_ld + i], i < width, j < n.
template <typename T>
void transpose(const T* src, int64_t src_ld, int64_t n, int64_t width, T* dst, int64_t ld);

}  // namespace switchyard::kernels::cpu
