// The exponential in loops that vectorise. Internal to kernels/.
#pragma once

#include <algorithm>
#include <cstdint>

namespace switchyard::kernels::cpu {

/// e^x to 2 units in the last place, without branches: 2^n times a polynomial on [-ln2/2, ln2/2].
inline float exp_fast(float x) {
  x = std::min(std::max(x, -87.0f), 88.0f);
  const float shifted = x * 1.44269504f + 12582912.0f;  // the sum's low bits are round(x / ln 2)
  const float n = shifted - 12582912.0f;
  float r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const int32_t exponent = (__builtin_bit_cast(int32_t, shifted) - 0x4b400000 + 127) << 23;
  return p * __builtin_bit_cast(float, exponent);
}

}  // namespace switchyard::kernels::cpu
