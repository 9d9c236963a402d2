// Sixteen rows of packed blocks at a time, one in each lane of a vector, against int8 columns. Blocks are turned as they are
// read (dword c of row r into lane r), so that no sum over lanes is needed, one broadcast value of x meets sixteen rows, and many columns
// share the unpacking. Internal to kernels/.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace switchyard::kernels::cpu {

struct IntColumns;

constexpr int64_t kGroupRows = 16;  ///< a group's, one in each lane

/// The ways of one format through groups of sixteen rows; a row is a multiple of 64 values.
struct GroupPath {
  /// out[j * ld + r] = <row r, x[j]> for r < rows, a multiple of 16, and j < n. Equal bits from both forms.
  using Dots = void (*)(const uint8_t* packed, int64_t rows, int64_t blocks, int64_t n, const IntColumns& x, float* out, int64_t ld);

  std::string_view format;
  Dots dots;         ///< rows one behind the other
  Dots turned_dots;  ///< groups that are turned already
  bool many_lose;    ///< whether many columns, too, are slower where rows lie
  /// Groups one behind the other, each in the order in which it is read: as many bytes, one stream.
  void (*turn)(const uint8_t* packed, int64_t rows, int64_t blocks, uint8_t* turned);
  /// One row, 0 to 15, of a group that is turned, as it lay before.
  void (*lay)(const uint8_t* turned, int64_t row, int64_t blocks, uint8_t* packed);
};

/// Of the GGUF format of that name, at the level in force; null where there is none. Bits and turned groups are the same at every level.
const GroupPath* group_path(std::string_view format);

/// The ways compiled for AVX-512 with VNNI (the level avx512bf16), and for AVX2; none where the compiler has no such level.
std::span<const GroupPath> avx512_group_paths();
std::span<const GroupPath> avx2_group_paths();

}  // namespace switchyard::kernels::cpu
