// Fast ways through packed blocks: rows as floats, and dot products of rows with few columns straight from the blocks. Against
// float32 columns the weights are bit for bit what the codec says (codecs/block_codec.h); columns may also be quantised to
// int8, which is two to four times as fast and costs half a percent of a value. Internal to kernels/.
#pragma once

#include <c10/util/BFloat16.h>

#include <cstdint>

#include "switchyard/kernels/codecs/block_codec.h"

namespace switchyard::kernels::cpu {

/// Columns [n, k] as int8: x ≈ scale q, a scale for 64 values; sum: scale Σ q of each 16. k is a multiple of 64.
struct IntColumns {
  const int8_t* q = nullptr;     ///< [n, k]
  const float* scale = nullptr;  ///< [n, k/64]
  const float* sum = nullptr;    ///< [n, k/16]

  /// The columns from `at` on.
  IntColumns from(int64_t at, int64_t k) const { return {q + at * k, scale + at * (k / 64), sum + at * (k / 16)}; }
};
/// Only where there is a path. A value that is not finite makes no number of what its 64 give.
void quantise_columns(const float* x, int64_t n, int64_t k, int8_t* q, float* scale, float* sum);
/// A float32 column as kDigits columns, whose products added are those of x: digits of an integer of 24 bits, so that x is off by no more
/// than 2e-7 of the largest of its 64 values, about what float32 sums lose anyway. q: [kDigits n, k], and so on.
constexpr int64_t kDigits = 3;
void quantise_digits(const float* x, int64_t n, int64_t k, int8_t* q, float* scale, float* sum);

constexpr int64_t kGroupStep = 256;

struct BlockPath {
  /// The same as the codec's dequantise.
  void (*decode)(const uint8_t* packed, int64_t blocks, float* out);
  void (*decode_bf16)(const uint8_t* packed, int64_t blocks, c10::BFloat16* out);  ///< rounded to nearest even
  /// out[j * ld + r] = <row r, x[j]> for r < rows, j < n <= kSkinnyRows; x: [n, k] float32, k = blocks · length.
  void (*dots)(const uint8_t* packed, int64_t rows, int64_t blocks, int64_t n, const float* x, float* out, int64_t ld);
  /// The same with int8 columns, any number of them; k is a multiple of int_step. With a multiple of kGroupStep many are as fast as a
  /// product of bf16 (row_groups.h).
  void (*int_dots)(const uint8_t* packed, int64_t rows, int64_t blocks, int64_t n, const IntColumns& x, float* out, int64_t ld);
  int64_t int_step;
  bool always_groups;  ///< int_dots takes sixteen rows at a time however few the columns
  bool digits;         ///< for float32 columns, int_dots with their digits is faster than dots
};

/// The same for rows w [rows, k], `stride` apart, that are not packed, and any number of columns x, x_stride apart; false,
/// and nothing done, where there is no fast way for that k.
bool row_dots(const float* w, int64_t stride, int64_t rows, int64_t k, int64_t n, const float* x, int64_t x_stride, float* out, int64_t ld);
bool row_dots(const c10::BFloat16* w, int64_t stride, int64_t rows, int64_t k, int64_t n, const float* x, int64_t x_stride, float* out, int64_t ld);
/// With x in bf16 too: pairs of products are summed as they are made, a third of the work a weight.
bool row_dots(const c10::BFloat16* w, int64_t stride, int64_t rows, int64_t k, int64_t n, const c10::BFloat16* x, int64_t x_stride, float* out, int64_t ld);

/// Whether row_dots has a fast way for rows and x of that type and width.
template <typename T>
bool has_row_dots(int64_t k);

/// The path of a codec at the level in force; null where there is none but the codec's own.
const BlockPath* block_path(const BlockCodec& codec);

}  // namespace switchyard::kernels::cpu
