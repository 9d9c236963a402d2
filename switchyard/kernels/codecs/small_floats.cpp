// Blocks of four-bit floats under a shared scale (MXFP4: OCP Microscaling Formats v1.0; NVFP4), and of ternary digits.
#include <algorithm>
#include <cmath>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math", "fp-contract=off")
#endif
#include "switchyard/kernels/codecs/float8.h"
#include "switchyard/kernels/codecs/half.h"
#include "switchyard/kernels/codecs/fit.h"
#include "switchyard/kernels/codecs/table.h"

namespace switchyard::codecs {
namespace {

/// The codes nearest to v / scale, each the first of several; codes are signed like +0 ... +6, -0 ... -6.
void nearest_fp4(const float (&v)[32], const float (&scale)[32], int (&best)[32]) {
  float best_error[32];
  for (int i = 0; i < 32; ++i) best[i] = 0, best_error[i] = std::fabs(scale[i] * kFloat4[0] - v[i]);
  for (int code = 1; code < 16; ++code) {
    const float value = kFloat4[static_cast<size_t>(code)];
    for (int i = 0; i < 32; ++i) {
      const float error = std::fabs(scale[i] * value - v[i]);
      best[i] = error < best_error[i] ? code : best[i];
      best_error[i] = error < best_error[i] ? error : best_error[i];
    }
  }
}

struct MXFP4 {
  static constexpr int64_t kLength = 32, kBytes = 17;  // exponent e, nibbles[16] (j low, j + 16 high): v = 2^(e - 127) fp4
  static void read(const uint8_t* block, float* v) {
    // Codes count halves here, so that 2^-128, the scale of e = 0 halved, is met; e = 255 is taken as 2^128.
    const float half_scale = power_of_two_half(block[0]);
    for (int i = 0; i < 16; ++i) {
      v[i] = half_scale * kTwiceFloat4[block[1 + i] & 15];
      v[i + 16] = half_scale * kTwiceFloat4[block[1 + i] >> 4];
    }
  }
  static void write(const float* v, const float*, uint8_t* block) {
    const float size = largest_size(v, 32);
    // The largest value falls between 4 and 8 times the scale.
    const int e = size > 0 ? truncate(std::floor(std::log2(size)) - 2 + 127, 0, 254) : 0;
    block[0] = static_cast<uint8_t>(e);
    const float scale = 2 * power_of_two_half(block[0]);
    float values[32], scales[32];
    int codes[32];
    for (int i = 0; i < 32; ++i) values[i] = v[i], scales[i] = scale;
    nearest_fp4(values, scales, codes);
    for (int i = 0; i < 16; ++i) block[1 + i] = static_cast<uint8_t>(codes[i] | codes[i + 16] << 4);
  }
};

struct NVFP4 {
  static constexpr int64_t kLength = 64, kBytes = 36;  // scales[4] (unsigned E4M3), nibbles[32]: 16 values a scale
  static float scale_of(uint8_t code) {
    if (code == 0x7f) return 0;  // NaN by its bits; the format's readers take it as zero
    const int exponent = code >> 3 & 15, mantissa = code & 7;
    return exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                         : std::ldexp(1 + static_cast<float>(mantissa) / 8, exponent - 7);
  }
  static void read(const uint8_t* block, float* v) {
    for (int part = 0; part < 4; ++part) {
      const float half_scale = scale_of(block[part]) * 0.5f;
      const uint8_t* nibbles = block + 4 + 8 * part;
      for (int i = 0; i < 8; ++i) {
        v[16 * part + i] = half_scale * kTwiceFloat4[nibbles[i] & 15];
        v[16 * part + 8 + i] = half_scale * kTwiceFloat4[nibbles[i] >> 4];
      }
    }
  }
  static void write(const float* v, const float*, uint8_t* block) {
    for (int part = 0; part < 4; ++part) {
      const float* here = v + 16 * part;
      // Of the scales that put the largest value near 6 or near 4, the one with the smaller error.
      const float size = largest_size(here, 16);
      const uint8_t scale_codes[2]{float_to_e4m3fn(std::min(size / 6.0f, 448.0f)), float_to_e4m3fn(std::min(size / 4.0f, 448.0f))};
      const float scale[2]{scale_of(scale_codes[0]), scale_of(scale_codes[1])};
      float values[32], scales[32];
      int codes[32];
      for (int i = 0; i < 32; ++i) values[i] = here[i % 16], scales[i] = scale[i / 16];
      nearest_fp4(values, scales, codes);
      double error[2]{};
      for (int i = 0; i < 8; ++i)
        for (int k = 0; k < 2; ++k) {
          const auto off = [&](int j) { return double{scale[k]} * kFloat4[static_cast<size_t>(codes[16 * k + j])] - here[j]; };
          error[k] += off(i) * off(i) + off(i + 8) * off(i + 8);
        }
      const int better = error[1] < error[0] ? 1 : 0;
      block[part] = scale_codes[better];
      for (int i = 0; i < 8; ++i)
        block[4 + 8 * part + i] = static_cast<uint8_t>(codes[16 * better + i] | codes[16 * better + i + 8] << 4);
    }
  }
};

/// -1, 0 or 1 for each of 256 values, stored plus one; d is the largest size.
float ternary(const float* v, uint8_t* digits) {
  const float d = largest_size(v, 256), to_q = inverse(d);
  for (int i = 0; i < 256; ++i) digits[i] = static_cast<uint8_t>(round_away(v[i] * to_q, -1, 1) + 1);
  return d;
}

/// Five ternary digits in a byte, as the fraction n / 243 of 256, so that a digit is the top of 3 times the rest.
struct TQ1_0 {
  static constexpr int64_t kLength = 256, kBytes = 54;  // 32 + 16 bytes of five digits, 4 of four, half d
  struct Run { int first, bytes, digits, values; };     // byte b holds the values first + b + k bytes, k < digits
  static constexpr Run kRuns[]{{0, 32, 5, 0}, {32, 16, 5, 160}, {48, 4, 4, 240}};
  static void read(const uint8_t* block, float* v) {
    const float d = load_half(block + 52);
    for (const Run& run : kRuns) {
      constexpr uint8_t kPowers[]{1, 3, 9, 27, 81};
      for (int k = 0; k < run.digits; ++k)
        for (int b = 0; b < run.bytes; ++b) {
          const auto rest = static_cast<uint8_t>(block[run.first + b] * kPowers[k]);
          v[run.values + k * run.bytes + b] = d * static_cast<float>((rest * 3 >> 8) - 1);
        }
    }
  }
  static void write(const float* v, const float*, uint8_t* block) {
    uint8_t digits[256];
    store_half(block + 52, ternary(v, digits));
    for (const Run& run : kRuns)
      for (int b = 0; b < run.bytes; ++b) {
        int number = 0;
        for (int k = 0; k < 5; ++k) number = 3 * number + (k < run.digits ? digits[run.values + k * run.bytes + b] : 0);
        block[run.first + b] = static_cast<uint8_t>((number * 256 + 242) / 243);
      }
  }
};

struct TQ2_0 {
  static constexpr int64_t kLength = 256, kBytes = 66;  // bit pairs [64] as in the K formats, half d
  static void read(const uint8_t* block, float* v) {
    const float d = load_half(block + 64);
    for (int half = 0; half < 2; ++half)
      for (int shift = 0; shift < 8; shift += 2)
        for (int i = 0; i < 32; ++i) *v++ = d * static_cast<float>((block[32 * half + i] >> shift & 3) - 1);
  }
  static void write(const float* v, const float*, uint8_t* block) {
    uint8_t digits[256];
    store_half(block + 64, ternary(v, digits));
    for (int i = 0; i < 64; ++i) {
      const uint8_t* first = digits + 128 * (i / 32) + i % 32;
      block[i] = static_cast<uint8_t>(first[0] | first[32] << 2 | first[64] << 4 | first[96] << 6);
    }
  }
};

constexpr BlockCodec kCodecs[]{
    codec_of<TQ1_0>("TQ1_0", 34), codec_of<TQ2_0>("TQ2_0", 35), codec_of<MXFP4>("MXFP4", 39), codec_of<NVFP4>("NVFP4", 40),
};

}  // namespace

std::span<const BlockCodec> small_float_codecs() { return kCodecs; }

}  // namespace switchyard::codecs
