// Blocks of 32 values with one scale, some with an offset: what llama.cpp began with, and still uses for speed. The scale is a
// half, the values are nibbles (value j in the low nibble of byte j, value j + 16 in the high one) with a fifth bit apart, or bytes.
#include <algorithm>
#include <cmath>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math", "fp-contract=off")
#endif
#include "switchyard/kernels/codecs/half.h"
#include "switchyard/kernels/codecs/fit.h"
#include "switchyard/kernels/codecs/table.h"

namespace switchyard::codecs {
namespace {

constexpr int kHalf = 16;

/// The value farthest from zero, the first of several.
float extreme(const float* v) {
  const float size = largest_size(v, 32);
  float best = 0;
  for (int i = 32; i-- > 0;) best = std::fabs(v[i]) == size ? v[i] : best;
  return best;
}

/// Four bits, and the fifth in `high` where there is one.
void pack_nibbles(const uint8_t* q, uint8_t* nibbles, uint8_t* high) {
  uint32_t fifth = 0;
  for (int i = 0; i < 32; ++i) fifth |= uint32_t{q[i] >> 4 & 1u} << i;
  for (int i = 0; i < kHalf; ++i) nibbles[i] = static_cast<uint8_t>((q[i] & 15) | (q[i + kHalf] & 15) << 4);
  if (high) store(high, fifth);
}

/// q is symmetric about zero: v = d (q - kZero). The extreme value falls on -kZero exactly, unless importance says better.
template <int kBits>
void write_symmetric(const float* v, const float* importance, uint8_t* scale, uint8_t* high, uint8_t* nibbles) {
  constexpr int kZero = 1 << (kBits - 1);
  float d = importance ? fit_scale<32, -kZero>(v, importance) : 0;
  if (d == 0) d = extreme(v) / -kZero;
  const float stored = store_half(scale, d), to_q = inverse(importance ? stored : d);
  uint8_t q[32];
  for (int i = 0; i < 32; ++i)
    q[i] = static_cast<uint8_t>(truncate(v[i] * to_q + (kZero + 0.5f), 0, 2 * kZero - 1));
  pack_nibbles(q, nibbles, high);
}

/// v = d q + m with m the least value, unless importance says better.
template <int kBits>
void write_offset(const float* v, const float* importance, uint8_t* scale, uint8_t* offset, uint8_t* high, uint8_t* nibbles) {
  constexpr int kMost = (1 << kBits) - 1;
  float m = v[0], most = v[0];
  for (int i = 1; i < 32; ++i) m = v[i] < m ? v[i] : m, most = v[i] > most ? v[i] : most;
  float d = (most - m) / kMost;
  if (importance) {
    const Affine fit = fit_affine<32, kMost, true>(v, importance);
    d = half_to_float(float_to_half(fit.scale));
    m = half_to_float(float_to_half(-fit.offset));
  }
  const float to_q = inverse(d);
  store_half(scale, d);
  store_half(offset, m);
  uint8_t q[32];
  for (int i = 0; i < 32; ++i) q[i] = static_cast<uint8_t>(truncate((v[i] - m) * to_q + 0.5f, 0, kMost));
  pack_nibbles(q, nibbles, high);
}

struct Q4_0 {
  static constexpr int64_t kLength = 32, kBytes = 18;  // half d, nibbles[16]: v = d (q - 8)
  static void read(const uint8_t* block, float* v) {
    const float d = load_half(block);
    for (int i = 0; i < kHalf; ++i) {
      v[i] = d * static_cast<float>((block[2 + i] & 15) - 8);
      v[i + kHalf] = d * static_cast<float>((block[2 + i] >> 4) - 8);
    }
  }
  static void write(const float* v, const float* importance, uint8_t* block) {
    write_symmetric<4>(v, importance, block, nullptr, block + 2);
  }
};

struct Q4_1 {
  static constexpr int64_t kLength = 32, kBytes = 20;  // half d, half m, nibbles[16]: v = d q + m
  static void read(const uint8_t* block, float* v) {
    const float d = load_half(block), m = load_half(block + 2);
    for (int i = 0; i < kHalf; ++i) {
      v[i] = d * static_cast<float>(block[4 + i] & 15) + m;
      v[i + kHalf] = d * static_cast<float>(block[4 + i] >> 4) + m;
    }
  }
  static void write(const float* v, const float* importance, uint8_t* block) {
    write_offset<4>(v, importance, block, block + 2, nullptr, block + 4);
  }
};

struct Q5_0 {
  static constexpr int64_t kLength = 32, kBytes = 22;  // half d, fifth bits u32, nibbles[16]: v = d (q - 16)
  static void read(const uint8_t* block, float* v) {
    const float d = load_half(block);
    const uint32_t high = load<uint32_t>(block + 2);
    for (int i = 0; i < kHalf; ++i) {
      v[i] = d * static_cast<float>(static_cast<int>((block[6 + i] & 15) | (high >> i & 1) << 4) - 16);
      v[i + kHalf] = d * static_cast<float>(static_cast<int>((block[6 + i] >> 4) | (high >> (i + kHalf) & 1) << 4) - 16);
    }
  }
  static void write(const float* v, const float* importance, uint8_t* block) {
    write_symmetric<5>(v, importance, block, block + 2, block + 6);
  }
};

struct Q5_1 {
  static constexpr int64_t kLength = 32, kBytes = 24;  // half d, half m, fifth bits u32, nibbles[16]: v = d q + m
  static void read(const uint8_t* block, float* v) {
    const float d = load_half(block), m = load_half(block + 2);
    const uint32_t high = load<uint32_t>(block + 4);
    for (int i = 0; i < kHalf; ++i) {
      v[i] = d * static_cast<float>((block[8 + i] & 15) | (high >> i & 1) << 4) + m;
      v[i + kHalf] = d * static_cast<float>((block[8 + i] >> 4) | (high >> (i + kHalf) & 1) << 4) + m;
    }
  }
  static void write(const float* v, const float* importance, uint8_t* block) {
    write_offset<5>(v, importance, block, block + 2, block + 4, block + 8);
  }
};

/// d = max|v| / 127, q rounded to nearest, halves away from zero. Returns the sum of q.
int write_bytes(const float* v, uint8_t* scale, uint8_t* q, float* d) {
  *d = largest_size(v, 32) / 127;
  const float to_q = inverse(*d);
  store_half(scale, *d);
  int sum = 0;
  for (int i = 0; i < 32; ++i) {
    const int rounded = round_away(v[i] * to_q, -128, 127);
    q[i] = static_cast<uint8_t>(rounded);
    sum += rounded;
  }
  return sum;
}

struct Q8_0 {
  static constexpr int64_t kLength = 32, kBytes = 34;  // half d, int8 q[32]: v = d q
  static void read(const uint8_t* block, float* v) {
    const float d = load_half(block);
    for (int i = 0; i < 32; ++i) v[i] = static_cast<float>(static_cast<int8_t>(block[2 + i])) * d;
  }
  static void write(const float* v, const float*, uint8_t* block) {
    float d;
    write_bytes(v, block, block + 2, &d);
  }
};

struct Q8_1 {
  static constexpr int64_t kLength = 32, kBytes = 36;  // half d, half d sum(q), int8 q[32]: v = d q
  static void read(const uint8_t* block, float* v) {
    const float d = load_half(block);
    for (int i = 0; i < 32; ++i) v[i] = static_cast<float>(static_cast<int8_t>(block[4 + i])) * d;
  }
  static void write(const float* v, const float*, uint8_t* block) {
    float d;
    const int sum = write_bytes(v, block, block + 4, &d);
    store_half(block + 2, d * static_cast<float>(sum));
  }
};

struct Q1_0 {
  static constexpr int64_t kLength = 128, kBytes = 18;  // half d, a sign bit for each value: v = d or -d
  static void read(const uint8_t* block, float* v) {
    const float d = load_half(block);
    for (int i = 0; i < 128; ++i) v[i] = (block[2 + i / 8] >> (i % 8) & 1) ? d : -d;
  }
  static void write(const float* v, const float*, uint8_t* block) {
    float sum = 0;
    std::fill(block, block + kBytes, uint8_t{0});
    for (int i = 0; i < 128; ++i) {
      sum += std::fabs(v[i]);
      block[2 + i / 8] = static_cast<uint8_t>(block[2 + i / 8] | (v[i] >= 0) << (i % 8));
    }
    store_half(block, sum / 128);  // the mean size is the best scale for signs alone
  }
};

struct Q2_0 {
  static constexpr int64_t kLength = 64, kBytes = 18;  // half d, bit pairs in order: v = d (q - 1)
  static void read(const uint8_t* block, float* v) {
    const float d = load_half(block);
    for (int i = 0; i < 64; ++i) v[i] = static_cast<float>((block[2 + i / 4] >> (2 * (i % 4)) & 3) - 1) * d;
  }
  static void write(const float* v, const float*, uint8_t* block) {
    const float d = largest_size(v, 64), to_q = inverse(d);
    store_half(block, d);
    std::fill(block + 2, block + kBytes, uint8_t{0});
    for (int i = 0; i < 64; ++i)
      block[2 + i / 4] = static_cast<uint8_t>(block[2 + i / 4] | (round_away(v[i] * to_q, -1, 2) + 1) << (2 * (i % 4)));
  }
};

constexpr BlockCodec kCodecs[]{
    codec_of<Q4_0>("Q4_0", 2), codec_of<Q4_1>("Q4_1", 3), codec_of<Q5_0>("Q5_0", 6), codec_of<Q5_1>("Q5_1", 7),
    codec_of<Q8_0>("Q8_0", 8), codec_of<Q8_1>("Q8_1", 9), codec_of<Q1_0>("Q1_0", 41), codec_of<Q2_0>("Q2_0", 42),
};

}  // namespace

std::span<const BlockCodec> simple_codecs() { return kCodecs; }

}  // namespace switchyard::codecs
