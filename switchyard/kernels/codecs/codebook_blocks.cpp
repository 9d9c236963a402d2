// IQ formats: 256 values as indices into a grid of points, with signs apart, under scales of sub-blocks; and IQ4, whose four-bit
// codes stand for unevenly spaced values. Only IQ4 is written here: the others need a search over their grids.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math", "fp-contract=off")
#endif
#include "switchyard/kernels/codecs/codebooks.h"
#include "switchyard/kernels/codecs/half.h"
#include "switchyard/kernels/codecs/fit.h"
#include "switchyard/kernels/codecs/table.h"

namespace switchyard::codecs {
namespace {

/// The points of a grid in full. levels: what the numbers stand for.
template <size_t kDimensions, size_t kPoints, size_t kLevels>
std::array<std::array<float, kDimensions>, kPoints> expand(const uint16_t (&grid)[kPoints], const float (&levels)[kLevels]) {
  constexpr int kBits = 16 / kDimensions == 4 ? 3 : 2;
  std::array<std::array<float, kDimensions>, kPoints> points;
  for (size_t i = 0; i < kPoints; ++i)
    for (size_t j = 0; j < kDimensions; ++j) points[i][j] = levels[grid[i] >> (kBits * j) & ((1 << kBits) - 1)];
  return points;
}

constexpr float kLevels2[]{8, 25, 43}, kLevels1[]{-1, 0, 1}, kLevels3xxs[]{4, 12, 20, 28, 36, 44, 52, 62},
    kLevels3s[]{1, 3, 5, 7, 9, 11, 13, 15};

const auto& points_2xxs() { static const auto points = expand<8>(kIq2xxs, kLevels2); return points; }
const auto& points_2xs() { static const auto points = expand<8>(kIq2xs, kLevels2); return points; }
const auto& points_2s() { static const auto points = expand<8>(kIq2s, kLevels2); return points; }
const auto& points_3xxs() { static const auto points = expand<4>(kIq3xxs, kLevels3xxs); return points; }
const auto& points_3s() { static const auto points = expand<4>(kIq3s, kLevels3s); return points; }
const auto& points_1() { static const auto points = expand<8>(kIq1s, kLevels1); return points; }

/// Seven sign bits; the eighth makes their number even.
unsigned even_signs(unsigned seven) { return seven | (std::popcount(seven) & 1u) << 7; }

template <size_t kDimensions>
float* place(float* v, float scale, const std::array<float, kDimensions>& point, unsigned signs) {
  for (size_t j = 0; j < kDimensions; ++j)
    v[j] = std::bit_cast<float>(std::bit_cast<uint32_t>(scale * point[j]) ^ (signs >> j & 1) << 31);
  return v + kDimensions;
}

struct IQ2_XXS {
  static constexpr int64_t kLength = 256, kBytes = 66;  // half d, for each 32: indices[4], u32 of 4 x 7 signs and a scale
  static void read(const uint8_t* block, float* v) {
    const float d = load_half(block);
    for (int part = 0; part < 8; ++part) {
      const uint8_t* q = block + 2 + 8 * part;
      const uint32_t word = load<uint32_t>(q + 4);
      const float scale = d * (0.5f + static_cast<float>(word >> 28)) * 0.25f;
      for (int k = 0; k < 4; ++k) v = place(v, scale, points_2xxs()[q[k]], even_signs(word >> (7 * k) & 127));
    }
  }
};

struct IQ2_XS {
  static constexpr int64_t kLength = 256, kBytes = 74;  // half d, u16[32] of 9 bits index and 7 signs, scale nibbles[8]
  static void read(const uint8_t* block, float* v) {
    const float d = load_half(block);
    for (int k = 0; k < 32; ++k) {
      const uint16_t word = load<uint16_t>(block + 2 + 2 * k);
      const int nibble = block[66 + k / 4] >> (k % 4 < 2 ? 0 : 4) & 15;
      v = place(v, d * (0.5f + static_cast<float>(nibble)) * 0.25f, points_2xs()[word & 511], even_signs(word >> 9));
    }
  }
};

struct IQ2_S {
  static constexpr int64_t kLength = 256, kBytes = 82;  // half d, low indices[32], signs[32], high bit pairs[8], scale nibbles[8]
  static void read(const uint8_t* block, float* v) {
    const float d = load_half(block);
    for (int k = 0; k < 32; ++k) {
      const size_t index = block[2 + k] | (block[66 + k / 4] >> (2 * (k % 4)) & 3u) << 8;
      const int nibble = block[74 + k / 4] >> (k % 4 < 2 ? 0 : 4) & 15;
      v = place(v, d * (0.5f + static_cast<float>(nibble)) * 0.25f, points_2s()[index], block[34 + k]);
    }
  }
};

struct IQ3_XXS {
  static constexpr int64_t kLength = 256, kBytes = 98;  // half d, indices[64], for each 32 a u32 of 4 x 7 signs and a scale
  static void read(const uint8_t* block, float* v) {
    const float d = load_half(block);
    for (int part = 0; part < 8; ++part) {
      const uint8_t* q = block + 2 + 8 * part;
      const uint32_t word = load<uint32_t>(block + 66 + 4 * part);
      const float scale = d * (0.5f + static_cast<float>(word >> 28)) * 0.5f;
      for (int k = 0; k < 4; ++k) {
        const unsigned signs = even_signs(word >> (7 * k) & 127);
        v = place(v, scale, points_3xxs()[q[2 * k]], signs);
        v = place(v, scale, points_3xxs()[q[2 * k + 1]], signs >> 4);
      }
    }
  }
};

struct IQ3_S {
  static constexpr int64_t kLength = 256, kBytes = 110;  // half d, low indices[64], high bits[8], signs[32], scale nibbles[4]
  static void read(const uint8_t* block, float* v) {
    const float d = load_half(block);
    for (int k = 0; k < 64; ++k) {
      const size_t index = block[2 + k] | (block[66 + k / 8] >> (k % 8) & 1u) << 8;
      const int nibble = block[106 + k / 16] >> (k % 16 < 8 ? 0 : 4) & 15;
      v = place(v, d * static_cast<float>(1 + 2 * nibble), points_3s()[index], block[74 + k / 2] >> (4 * (k % 2)));
    }
  }
};

/// Ternary points moved by an eighth to one side, so that few values are zero.
float* place_moved(float* v, float scale, const std::array<float, 8>& point, bool down) {
  const float move = down ? -0.125f : 0.125f;
  for (const float level : point) *v++ = scale * (level + move);
  return v;
}

struct IQ1_S {
  static constexpr int64_t kLength = 256, kBytes = 50;  // half d, low indices[32], for each 32 a u16: 4 x 3 high bits, scale, side
  static void read(const uint8_t* block, float* v) {
    const float d = load_half(block);
    for (int part = 0; part < 8; ++part) {
      const unsigned word = load<uint16_t>(block + 34 + 2 * part);
      const float scale = d * static_cast<float>(2 * (word >> 12 & 7) + 1);
      for (int k = 0; k < 4; ++k)
        v = place_moved(v, scale, points_1()[block[2 + 4 * part + k] | (word >> (3 * k) & 7) << 8], word & 0x8000);
    }
  }
};

struct IQ1_M {
  static constexpr int64_t kLength = 256, kBytes = 56;  // low indices[32], nibbles[32] of 3 high bits and a side, u16[4] of 4 x 3
  static void read(const uint8_t* block, float* v) {    // bits of scale for each 16 values; their top nibbles together are half d
    const uint8_t* scales = block + 48;
    unsigned half = 0;
    for (int i = 0; i < 4; ++i) half |= static_cast<unsigned>(load<uint16_t>(scales + 2 * i) >> 12) << (4 * i);
    const float d = half_to_float(static_cast<uint16_t>(half));
    for (int k = 0; k < 32; ++k) {
      const unsigned nibble = block[32 + k / 2] >> (4 * (k % 2)) & 15;
      const unsigned bits = load<uint16_t>(scales + 2 * (k / 8)) >> (3 * (k / 2 % 4)) & 7;
      v = place_moved(v, d * static_cast<float>(2 * bits + 1), points_1()[block[k] | (nibble & 7) << 8], nibble & 8);
    }
  }
};

// ---- IQ4: codes for unevenly spaced values

constexpr float kIq4[16]{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

float middle_iq4(int code) { return (kIq4[code - 1] + kIq4[code]) / 2; }  // what is above it is nearer to kIq4[code]

/// The scale for 32 values, by trial steps of both signs and least squares; weights null = 1.
float fit_iq4(const float* v, const float* weights) {
  float finite[32], size = 0, best = 0, best_loss = 0;
  for (int i = 0; i < 32; ++i) finite[i] = std::fabs(v[i]) <= std::numeric_limits<float>::max() ? v[i] : 0;
  size = largest_size(finite, 32);
  if (size == 0) return 0;
  for (const float sign : {1.0f, -1.0f}) {
    // The largest value falls from 0.73 to 1.33 times the end of the scale.
    float to_q[kTrials], qq_[kTrials] = {}, qv_[kTrials] = {}, loss[kTrials];
    for (int k = 0; k < kTrials; ++k) to_q[k] = (1.03f + (static_cast<float>(k) - 7.5f) * 0.04f) * (sign * kIq4[0] / size);
    for (int i = 0; i < 32; ++i) {
      const float weight = weights ? weights[i] : 1;
      for (int k = 0; k < kTrials; ++k) {
        const float at = finite[i] * to_q[k];
        float q = kIq4[0];
        for (int code = 1; code < 16; ++code) q += at > middle_iq4(code) ? kIq4[code] - kIq4[code - 1] : 0;
        const float wq = weight * q;
        qq_[k] += wq * q, qv_[k] += wq * finite[i];
      }
    }
    for (int k = 0; k < kTrials; ++k) {  // the error is sum w v^2 less the gain
      const float gain = qv_[k] * (qv_[k] / qq_[k]);
      loss[k] = gain > 0 ? -gain : 0;
    }
    const int k = place_of_least(loss);
    if (loss[k] < best_loss) best_loss = loss[k], best = qv_[k] / qq_[k];
  }
  return best;
}

/// Value j in the low nibble of byte j, value j + 16 in the high one.
void write_codes(const float* v, float d, uint8_t* nibbles) {
  const float to_q = inverse(d);
  int codes[32] = {};
  for (int code = 1; code < 16; ++code)
    for (int i = 0; i < 32; ++i) codes[i] += v[i] * to_q > middle_iq4(code);
  for (int i = 0; i < 16; ++i) nibbles[i] = static_cast<uint8_t>(codes[i] | codes[i + 16] << 4);
}

struct IQ4_NL {
  static constexpr int64_t kLength = 32, kBytes = 18;  // half d, nibbles[16]: v = d values[q]
  static void read(const uint8_t* block, float* v) {
    const float d = load_half(block);
    for (int i = 0; i < 16; ++i) {
      v[i] = d * kIq4[block[2 + i] & 15];
      v[i + 16] = d * kIq4[block[2 + i] >> 4];
    }
  }
  static void write(const float* v, const float* importance, uint8_t* block) {
    write_codes(v, store_half(block, fit_iq4(v, importance)), block + 2);
  }
};

struct IQ4_XS {
  static constexpr int64_t kLength = 256, kBytes = 136;  // half d, u16 top scale bits, scale nibbles[4], nibbles[128]
  static void read(const uint8_t* block, float* v) {
    const float d = load_half(block);
    const unsigned high = load<uint16_t>(block + 2);
    for (int part = 0; part < 8; ++part) {
      const int low = block[4 + part / 2] >> (4 * (part % 2)) & 15;
      const float scale = d * static_cast<float>((low | static_cast<int>(high >> (2 * part) & 3) << 4) - 32);
      const uint8_t* q = block + 8 + 16 * part;
      for (int i = 0; i < 16; ++i) {
        v[32 * part + i] = scale * kIq4[q[i] & 15];
        v[32 * part + 16 + i] = scale * kIq4[q[i] >> 4];
      }
    }
  }
  static void write(const float* v, const float* importance, uint8_t* block) {
    float fit[8], extreme = 0;
    for (int part = 0; part < 8; ++part) {
      fit[part] = fit_iq4(v + 32 * part, importance ? importance + 32 * part : nullptr);
      if (std::fabs(fit[part]) > std::fabs(extreme)) extreme = fit[part];
    }
    const float d = store_half(block, extreme / -32), to_scale = inverse(d);
    unsigned high = 0;
    std::fill(block + 4, block + 8, uint8_t{0});
    for (int part = 0; part < 8; ++part) {
      const int scale = round_away(fit[part] * to_scale, -32, 31), stored = scale + 32;
      block[4 + part / 2] = static_cast<uint8_t>(block[4 + part / 2] | (stored & 15) << (4 * (part % 2)));
      high |= static_cast<unsigned>(stored >> 4) << (2 * part);
      write_codes(v + 32 * part, d * static_cast<float>(scale), block + 8 + 16 * part);
    }
    store(block + 2, static_cast<uint16_t>(high));
  }
};

constexpr BlockCodec kCodecs[]{
    codec_of<IQ2_XXS>("IQ2_XXS", 16), codec_of<IQ2_XS>("IQ2_XS", 17), codec_of<IQ3_XXS>("IQ3_XXS", 18),
    codec_of<IQ1_S>("IQ1_S", 19),     codec_of<IQ4_NL>("IQ4_NL", 20), codec_of<IQ3_S>("IQ3_S", 21),
    codec_of<IQ2_S>("IQ2_S", 22),     codec_of<IQ4_XS>("IQ4_XS", 23), codec_of<IQ1_M>("IQ1_M", 29),
};

}  // namespace

std::span<const BlockCodec> codebook_codecs() { return kCodecs; }

}  // namespace switchyard::codecs
