// 16-bit floats by their bits, and reading little-endian fields from packed bytes. Rounding is to nearest, ties to even.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace switchyard::codecs {

template <typename T>
T load(const uint8_t* bytes) {
  static_assert(std::endian::native == std::endian::little);
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

template <typename T>
void store(uint8_t* bytes, T value) { std::memcpy(bytes, &value, sizeof value); }

inline float half_to_float(uint16_t half) {
  const uint32_t sign = uint32_t{half & 0x8000u} << 16, rest = half & 0x7fffu;
  if (rest < 0x400) {  // zero and subnormal: a multiple of 2^-24
    const float size = static_cast<float>(rest) * 0x1p-24f;
    return sign ? -size : size;
  }
  const uint32_t exponent = rest >= 0x7c00 ? (255u - 31u) << 23 : (127u - 15u) << 23;
  return std::bit_cast<float>(sign | ((rest << 13) + exponent));
}

inline uint16_t float_to_half(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value), rest = bits & 0x7fffffffu;
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  if (rest > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | (rest >> 13 & 0x3ffu));  // NaN, kept quiet
  if (rest >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7c00u);                          // 2^16 and more
  if (rest < 0x38800000u) {  // below 2^-14: the sum's last bit is worth 2^-24, so the addition rounds as it must
    const float size = std::bit_cast<float>(rest) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(size) - 0x3f000000u));
  }
  return static_cast<uint16_t>(sign | ((rest - (112u << 23) + 0xfffu + (rest >> 13 & 1u)) >> 13));  // may round up to infinity
}

inline float bfloat_to_float(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

inline uint16_t float_to_bfloat(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 64u);  // NaN, made quiet
  bits += 0x7fffu + (bits >> 16 & 1u);
  return static_cast<uint16_t>(bits >> 16);
}

inline float load_half(const uint8_t* bytes) { return half_to_float(load<uint16_t>(bytes)); }
/// Stores the nearest half and returns what was stored.
inline float store_half(uint8_t* bytes, float value) {
  const uint16_t half = float_to_half(value);
  store(bytes, half);
  return half_to_float(half);
}

/// 1 / x, 0 for 0.
inline float inverse(float x) { return x == 0 ? 0 : 1 / x; }

/// The integer part towards zero, within [low, high]; NaN gives low. Casting a float beyond an int's range is undefined.
inline int truncate(float x, int low, int high) {
  x = x > static_cast<float>(low) ? x : static_cast<float>(low);
  return static_cast<int>(x < static_cast<float>(high) ? x : static_cast<float>(high));
}

/// Rounds halves away from zero, within [low, high].
inline int round_away(float x, int low, int high) {
  float size = std::fabs(x);
  size = size < 8388608.0f ? size : 8388608.0f;  // from here on floats are whole, and beyond every range that is asked for
  const float whole = static_cast<float>(static_cast<int>(size)), rounded = whole + static_cast<float>(static_cast<int>(2 * (size - whole)));
  return truncate(std::copysign(rounded, x), low, high);
}

}  // namespace switchyard::codecs
