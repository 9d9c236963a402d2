// Rows of Q8_0 where the processor sums no four products of bytes at once (AVX2). Internal to kernels/.
#pragma once

#include <cstdint>

namespace switchyard::kernels::cpu {

struct IntColumns;

/// BlockPath::int_dots of Q8_0, needs AVX2; blocks is even, x without a -128.
void byte_dots(const uint8_t* packed, int64_t rows, int64_t blocks, int64_t n, const IntColumns& x, float* out, int64_t ld);
/// BlockPath::dots of Q8_0, needs AVX2: 32 values are multiplied as whole numbers, and their sum by what scales them.
void byte_dots(const uint8_t* packed, int64_t rows, int64_t blocks, int64_t n, const float* x, float* out, int64_t ld);

}  // namespace switchyard::kernels::cpu
