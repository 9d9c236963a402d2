// Sixteen rows of packed blocks at a time, one in each lane of a vector, against int8 columns. Blocks are turned as they are
// read (dword c of row r into lane r), so that no sum over lanes is needed, one broadcast value of x meets sixteen rows, and many columns
// share the unpacking. Internal to kernels/.
#pragma once

#include <cstdint>
#include <string_view>

namespace switchyard::kernels::cpu {

struct IntColumns;

/// out[j * ld + r] = <row r, x[j]> for r < rows, a multiple of 16, and j < n; blocks of a row: a multiple of 256 values.
using GroupDots = void (*)(const uint8_t* packed, int64_t rows, int64_t blocks, int64_t n, const IntColumns& x, float* out, int64_t ld);

/// For the GGUF format of that name; null where there is none. Needs AVX-512 with VNNI.
GroupDots group_dots(std::string_view format);

}  // namespace switchyard::kernels::cpu
