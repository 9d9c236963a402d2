// Columns as int8, for packed weights. Internal to kernels/.
#pragma once

#include <cstdint>

namespace switchyard::kernels::cpu {

/// Columns [n, k] as int8: x ≈ scale q, a scale for 64 values; sum: Σ q of each 16. k is a multiple of 64.
struct IntColumns {
  const int8_t* q = nullptr;     ///< [n, k]
  const float* scale = nullptr;  ///< [n, k/64]
  const int16_t* sum = nullptr;  ///< [n, k/16]

  /// The columns from `at` on.
  IntColumns from(int64_t at, int64_t k) const { return {q + at * k, scale + at * (k / 64), sum + at * (k / 16)}; }
  /// The same columns' values from `at` on, a multiple of 64.
  IntColumns values(int64_t at) const { return {q + at, scale + at / 64, sum + at / 16}; }
};
/// Only where there is a path: needs AVX2. A value that is not finite makes no number of what its 64 give.
void quantise_columns(const float* x, int64_t n, int64_t k, int8_t* q, float* scale, int16_t* sum);
/// A float32 column as kDigits columns, whose products added are those of x: digits of an integer of 24 bits, so that x is off by no more
/// than 2e-7 of the largest of its 64 values, about what float32 sums lose anyway. q: [kDigits n, k], and so on.
constexpr int64_t kDigits = 3;
void quantise_digits(const float* x, int64_t n, int64_t k, int8_t* q, float* scale, int16_t* sum);

}  // namespace switchyard::kernels::cpu
