// Fast ways through packed blocks: rows as floats, and dot products of rows with few columns straight from the blocks. Against
// float32 columns the weights are bit for bit what the codec says (codecs/block_codec.h); columns may also be quantised to
// int8, which is two to four times as fast and costs half a percent of a value. Internal to kernels/.
#pragma once

#include <c10/util/BFloat16.h>

#include <cstdint>
#include <span>
#include <string_view>

#include "switchyard/kernels/codecs/block_codec.h"
#include "switchyard/kernels/cpu/int_columns.h"

namespace switchyard::kernels::cpu {

constexpr int64_t kGroupStep = 256;  ///< values of a row that a group takes at once

struct BlockPath {
  /// The same as the codec's dequantise.
  void (*decode)(const uint8_t* packed, int64_t blocks, float* out);
  void (*decode_bf16)(const uint8_t* packed, int64_t blocks, c10::BFloat16* out);  ///< rounded to nearest even
  /// out[j * ld + r] = <row r, x[j]> for r < rows, j < n <= kSkinnyRows; x: [n, k] float32, k = blocks · length.
  void (*dots)(const uint8_t* packed, int64_t rows, int64_t blocks, int64_t n, const float* x, float* out, int64_t ld);
  /// The same with int8 columns, any number of them; k is a multiple of int_step. With a multiple of group_step many are as fast as a
  /// product of bf16 (row_groups.h).
  void (*int_dots)(const uint8_t* packed, int64_t rows, int64_t blocks, int64_t n, const IntColumns& x, float* out, int64_t ld);
  int64_t int_step, group_step;
  bool always_groups;  ///< int_dots takes sixteen rows at a time however few the columns
  bool digits;         ///< for float32 columns, int_dots with their digits is faster than dots; if not, it need not take a -128, as digits have
};

/// The path of a codec at the level in force; null where there is none but the codec's own.
const BlockPath* block_path(const BlockCodec& codec);

/// The paths compiled for AVX-512 with VNNI (the level avx512bf16), and for AVX2; none where the compiler has no such level.
struct NamedBlockPath {
  std::string_view format;
  BlockPath path;
};
std::span<const NamedBlockPath> avx512_block_paths();
std::span<const NamedBlockPath> avx2_block_paths();

}  // namespace switchyard::kernels::cpu
