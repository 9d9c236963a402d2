// Columns as int8, for packed weights. Internal to kernels/.
#pragma once

#include <cstdint>

namespace switchyard::kernels::cpu {

/// Sums of q that stand for 64 values: of each 16, then of each 32.
constexpr int64_t kColumnSums = 6;
/// Columns [n, k] as int8: x ≈ scale q, a scale for 64 values. k is a multiple of 64.
struct IntColumns {
  const int8_t* q = nullptr;     ///< [n, k]
  const float* scale = nullptr;  ///< [n, k/64]
  const int16_t* sum = nullptr;  ///< [n, k/64, kColumnSums]

  /// The columns from `at` on.
  IntColumns from(int64_t at, int64_t k) const { return {q + at * k, scale + at * (k / 64), sum + at * (k / 64) * kColumnSums}; }
  /// The same columns' values from `at` on, a multiple of 64.
  IntColumns values(int64_t at) const { return {q + at, scale + at / 64, sum + at / 64 * kColumnSums}; }
};
/// Two sums that lie together: of the 16s of run r, 32 values; of the two runs of part j, 64.
inline const int16_t* sums_of_16(const IntColumns& x, int64_t r) { return x.sum + r / 2 * kColumnSums + r % 2 * 2; }
inline const int16_t* sums_of_32(const IntColumns& x, int64_t j) { return x.sum + j * kColumnSums + 4; }
/// x: float or bf16. Only where there is a path: needs AVX2. A value that is not finite makes no number of what its 64 give.
template <typename X>
void quantise_columns(const X* x, int64_t n, int64_t k, int8_t* q, float* scale, int16_t* sum);
/// A float32 column as kDigits columns, whose products added are those of x: digits of an integer of 24 bits, so that x is off by no more
/// than 2e-7 of the largest of its 64 values, about what float32 sums lose anyway. q: [kDigits n, k], and so on.
constexpr int64_t kDigits = 3;
void quantise_digits(const float* x, int64_t n, int64_t k, int8_t* q, float* scale, int16_t* sum);

}  // namespace switchyard::kernels::cpu
