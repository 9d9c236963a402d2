#include "switchyard/kernels/codecs/float8.h"

#include <bit>
#include <cmath>
#include <limits>

namespace switchyard {
namespace {

/// The size of a code without its sign, in a format with IEEE's subnormals.
float size_of(int code, int mantissa_bits, int bias) {
  const int exponent = code >> mantissa_bits, mantissa = code & ((1 << mantissa_bits) - 1);
  return exponent == 0 ? std::ldexp(static_cast<float>(mantissa), 1 - bias - mantissa_bits)
                       : std::ldexp(static_cast<float>(mantissa + (1 << mantissa_bits)), exponent - bias - mantissa_bits);
}

std::array<float, 256> table(int mantissa_bits, int bias, int first_special, bool infinity) {
  std::array<float, 256> values;
  for (int code = 0; code < 256; ++code) {
    const int rest = code & 127;
    float size = size_of(rest, mantissa_bits, bias);
    if (rest >= first_special)
      size = infinity && rest == first_special ? std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
    values[static_cast<size_t>(code)] = code < 128 ? size : -size;
  }
  return values;
}

std::array<float, 256> one_nan(std::array<float, 256> values) {
  values[0x80] = std::numeric_limits<float>::quiet_NaN();
  return values;
}

/// Rounds to a format of `mantissa_bits` by integer addition on the bits of the float, exactly as a shift with ties to even.
uint8_t round_to(float value, int mantissa_bits, int bias, int overflow, int nan) {
  const uint32_t bits = std::bit_cast<uint32_t>(value), rest = bits & 0x7fffffffu;
  const int sign = static_cast<int>(bits >> 24 & 0x80u);
  if (rest > 0x7f800000u) return static_cast<uint8_t>(sign | nan);
  int code;
  const float smallest_normal = std::ldexp(1.0f, 1 - bias);
  if (std::bit_cast<float>(rest) < smallest_normal) {
    code = static_cast<int>(std::nearbyint(std::ldexp(std::bit_cast<float>(rest), bias - 1 + mantissa_bits)));
  } else {
    const int shift = 23 - mantissa_bits;
    const uint64_t rounded = (uint64_t{rest} + (1u << (shift - 1)) - 1 + (rest >> shift & 1u)) >> shift;
    const int64_t rebased = static_cast<int64_t>(rounded) - ((127 - bias) << mantissa_bits);
    code = static_cast<int>(rebased < overflow ? rebased : overflow);
  }
  return static_cast<uint8_t>(sign | code);
}

}  // namespace

const std::array<float, 256>& e4m3fn_values() {
  static const std::array<float, 256> values = table(3, 7, 0x7f, false);
  return values;
}

const std::array<float, 256>& e5m2_values() {
  static const std::array<float, 256> values = table(2, 15, 0x7c, true);
  return values;
}

const std::array<float, 256>& e4m3fnuz_values() {
  static const std::array<float, 256> values = one_nan(table(3, 8, 0x80, false));
  return values;
}

const std::array<float, 256>& e5m2fnuz_values() {
  static const std::array<float, 256> values = one_nan(table(2, 16, 0x80, false));
  return values;
}

const std::array<float, 256>& e8m0_values() {
  static const std::array<float, 256> values = [] {
    std::array<float, 256> powers;
    for (int e = 0; e < 255; ++e) powers[static_cast<size_t>(e)] = std::ldexp(1.0f, e - 127);
    powers[255] = std::numeric_limits<float>::quiet_NaN();
    return powers;
  }();
  return values;
}

uint8_t float_to_e4m3fn(float value) { return round_to(value, 3, 7, 0x7e, 0x7f); }
uint8_t float_to_e5m2(float value) { return round_to(value, 2, 15, 0x7c, 0x7f); }

float codecs::power_of_two_half(uint8_t e) {
  return std::bit_cast<float>(e < 2 ? 0x00200000u << e : static_cast<uint32_t>(e - 1) << 23);
}

}  // namespace switchyard
