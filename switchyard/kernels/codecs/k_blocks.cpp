#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math", "fp-contract=off")
#endif
#include "switchyard/kernels/codecs/k_blocks.h"

#include <cmath>

#include "switchyard/kernels/codecs/half.h"
#include "switchyard/kernels/codecs/table.h"

namespace switchyard::codecs {

ScalesAndOffsets ScalesAndOffsets::unpack(const uint8_t* packed) {
  ScalesAndOffsets result;
  for (int i = 0; i < 4; ++i) {  // the first four whole; of the last four, low nibbles apart and top bits above the first
    result.scale[i] = packed[i] & 63;
    result.offset[i] = packed[i + 4] & 63;
    result.scale[i + 4] = static_cast<uint8_t>((packed[i + 8] & 15) | (packed[i] >> 6) << 4);
    result.offset[i + 4] = static_cast<uint8_t>((packed[i + 8] >> 4) | (packed[i + 4] >> 6) << 4);
  }
  return result;
}

void ScalesAndOffsets::pack(uint8_t* packed) const {
  for (int i = 0; i < 4; ++i) {
    packed[i] = static_cast<uint8_t>(scale[i] | (scale[i + 4] >> 4) << 6);
    packed[i + 4] = static_cast<uint8_t>(offset[i] | (offset[i + 4] >> 4) << 6);
    packed[i + 8] = static_cast<uint8_t>((scale[i + 4] & 15) | (offset[i + 4] & 15) << 4);
  }
}

void unpack_signed_scales(const uint8_t* packed, int8_t* scales) {
  for (int i = 0; i < 16; ++i) {  // low nibbles in 8 bytes, the top two bits in 4
    const int low = packed[i % 8] >> (i < 8 ? 0 : 4) & 15, high = packed[8 + i % 4] >> (2 * (i / 4)) & 3;
    scales[i] = static_cast<int8_t>((low | high << 4) - 32);
  }
}

void pack_signed_scales(const int8_t* scales, uint8_t* packed) {
  for (int i = 0; i < 12; ++i) packed[i] = 0;
  for (int i = 0; i < 16; ++i) {
    const int value = scales[i] + 32;
    packed[i % 8] = static_cast<uint8_t>(packed[i % 8] | (value & 15) << (i < 8 ? 0 : 4));
    packed[8 + i % 4] = static_cast<uint8_t>(packed[8 + i % 4] | (value >> 4) << (2 * (i / 4)));
  }
}

namespace {

/// Values 32 g + l of each half of 128 lie in bit pair g of byte l: two bits a value, four values a byte.
struct Q2_K {
  static constexpr int64_t kLength = 256, kBytes = 84;  // scale | offset << 4 [16], q[64], half d, half dmin: v = d s q - dmin m
  static void read(const uint8_t* block, float* v) {
    const uint8_t* q = block + 16;
    const float d = load_half(block + 80), dmin = load_half(block + 82);
    for (int part = 0; part < 16; ++part) {
      const float scale = d * static_cast<float>(block[part] & 15), offset = dmin * static_cast<float>(block[part] >> 4);
      const uint8_t* bytes = q + 32 * (part / 8) + 16 * (part % 2);
      const int shift = 2 * (part / 2 % 4);
      for (int i = 0; i < 16; ++i) *v++ = scale * static_cast<float>(bytes[i] >> shift & 3) - offset;
    }
  }
  static constexpr auto write_all = write_q2_k;
};

struct Q3_K {
  static constexpr int64_t kLength = 256, kBytes = 110;  // third bits[32], q[64], scales[12], half d: v = d s (q - 4)
  static void read(const uint8_t* block, float* v) {
    const float d = load_half(block + 108);
    int8_t scales[16];
    unpack_signed_scales(block + 96, scales);
    for (int part = 0; part < 16; ++part) {
      const float scale = d * static_cast<float>(scales[part]);
      const uint8_t* high = block + 16 * (part % 2);
      const uint8_t* bytes = block + 32 + 32 * (part / 8) + 16 * (part % 2);
      const int shift = 2 * (part / 2 % 4), bit = part / 2;
      for (int i = 0; i < 16; ++i)
        *v++ = scale * static_cast<float>((bytes[i] >> shift & 3) + ((high[i] >> bit & 1) << 2) - 4);
    }
  }
  static constexpr auto write_all = write_q3_k;
};

struct Q4_K {
  static constexpr int64_t kLength = 256, kBytes = 144;  // half d, half dmin, scales[12], nibbles[128]: v = d s q - dmin m
  static void read(const uint8_t* block, float* v) {
    const float d = load_half(block), dmin = load_half(block + 2);
    const auto scales = ScalesAndOffsets::unpack(block + 4);
    const uint8_t* q = block + 16;
    for (int part = 0; part < 8; ++part) {
      const float scale = d * static_cast<float>(scales.scale[part]), offset = dmin * static_cast<float>(scales.offset[part]);
      const uint8_t* bytes = q + 32 * (part / 2);
      const int shift = 4 * (part % 2);
      for (int i = 0; i < 32; ++i) *v++ = scale * static_cast<float>(bytes[i] >> shift & 15) - offset;
    }
  }
  static constexpr auto write_all = write_q4_k;
};

struct Q5_K {
  static constexpr int64_t kLength = 256, kBytes = 176;  // half d, half dmin, scales[12], fifth bits[32], nibbles[128]
  static void read(const uint8_t* block, float* v) {
    const float d = load_half(block), dmin = load_half(block + 2);
    const auto scales = ScalesAndOffsets::unpack(block + 4);
    const uint8_t *high = block + 16, *q = block + 48;
    for (int part = 0; part < 8; ++part) {
      const float scale = d * static_cast<float>(scales.scale[part]), offset = dmin * static_cast<float>(scales.offset[part]);
      const uint8_t* bytes = q + 32 * (part / 2);
      const int shift = 4 * (part % 2);
      for (int i = 0; i < 32; ++i)
        *v++ = scale * static_cast<float>((bytes[i] >> shift & 15) | (high[i] >> part & 1) << 4) - offset;
    }
  }
  static constexpr auto write_all = write_q5_k;
};

struct Q6_K {
  static constexpr int64_t kLength = 256, kBytes = 210;  // nibbles[128], top bits[64], int8 s[16], half d: v = d s (q - 32)
  static void read(const uint8_t* block, float* v) {
    const auto* scales = reinterpret_cast<const int8_t*>(block + 192);
    const float d = load_half(block + 208);
    for (int group = 0; group < 8; ++group) {  // of 32 values: two scales
      const uint8_t *low = block + 64 * (group / 4) + 32 * (group % 2), *high = block + 128 + 32 * (group / 4);
      const int nibble = 4 * (group / 2 % 2), pair = 2 * (group % 4);
      for (int half = 0; half < 2; ++half) {
        const float scale = d * static_cast<float>(scales[2 * group + half]);
        for (int i = 16 * half; i < 16 * half + 16; ++i)
          *v++ = scale * static_cast<float>(((low[i] >> nibble & 15) | (high[i] >> pair & 3) << 4) - 32);
      }
    }
  }
  static constexpr auto write_all = write_q6_k;
};

struct Q8_K {
  static constexpr int64_t kLength = 256, kBytes = 292;  // float d, int8 q[256], int16 sums of 16 q[16]: v = d q
  static void read(const uint8_t* block, float* v) {
    const float d = load<float>(block);
    for (int i = 0; i < 256; ++i) v[i] = d * static_cast<float>(static_cast<int8_t>(block[4 + i]));
  }
  static void write(const float* v, const float*, uint8_t* block) {
    float extreme = 0;
    for (int i = 0; i < 256; ++i)
      if (std::fabs(v[i]) > std::fabs(extreme)) extreme = v[i];
    const float to_q = extreme == 0 ? 0 : -127 / extreme;
    store(block, inverse(to_q));
    for (int i = 0; i < 256; ++i)  // halves to even here, unlike the formats for files
      block[4 + i] = static_cast<uint8_t>(truncate(std::nearbyint(to_q * v[i]), -128, 127));
    for (int part = 0; part < 16; ++part) {
      int sum = 0;
      for (int i = 0; i < 16; ++i) sum += static_cast<int8_t>(block[4 + 16 * part + i]);
      store(block + 260 + 2 * part, static_cast<int16_t>(sum));
    }
  }
};

constexpr BlockCodec kCodecs[]{
    codec_of<Q2_K>("Q2_K", 10), codec_of<Q3_K>("Q3_K", 11), codec_of<Q4_K>("Q4_K", 12),
    codec_of<Q5_K>("Q5_K", 13), codec_of<Q6_K>("Q6_K", 14), codec_of<Q8_K>("Q8_K", 15),
};

}  // namespace

std::span<const BlockCodec> k_codecs() { return kCodecs; }

}  // namespace switchyard::codecs
