// Eight- and four-bit floats by their codes: E4M3 (no infinity, NaN 0x7f and 0xff), E5M2 (IEEE-like), the power of two E8M0,
// and E2M1. Micikevicius et al., FP8 Formats for Deep Learning, 2022; OCP Microscaling Formats v1.0.
#pragma once

#include <array>
#include <cstdint>

namespace switchyard {

/// The values of all 256 codes.
const std::array<float, 256>& e4m3fn_values();
const std::array<float, 256>& e5m2_values();
/// Without negative zero, whose code is the one NaN; the bias is one larger.
const std::array<float, 256>& e4m3fnuz_values();
const std::array<float, 256>& e5m2fnuz_values();
/// 2^(e - 127); 255 is NaN.
const std::array<float, 256>& e8m0_values();

/// The nearest code, ties to the even one; beyond the largest value E4M3, which has no infinity, stays at it, and E5M2 gives infinity.
uint8_t float_to_e4m3fn(float value);
uint8_t float_to_e5m2(float value);

namespace codecs {

/// E2M1, and twice of it, which are whole numbers.
inline constexpr std::array<float, 16> kFloat4{0, .5f, 1, 1.5f, 2, 3, 4, 6, -0.f, -.5f, -1, -1.5f, -2, -3, -4, -6};
inline constexpr std::array<float, 16> kTwiceFloat4{0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/// 2^(e - 128), a subnormal for the two smallest exponents.
float power_of_two_half(uint8_t e);

}  // namespace codecs
}  // namespace switchyard
