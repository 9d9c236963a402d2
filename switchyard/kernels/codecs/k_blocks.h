// K formats: 256 values in sub-blocks of 16 or 32, whose scales (and offsets) are small integers under one or two halves.
#pragma once

#include <cstdint>

namespace switchyard::codecs {

/// The eight 6-bit scales and offsets of Q4_K and Q5_K, packed in 12 bytes.
struct ScalesAndOffsets {
  uint8_t scale[8], offset[8];
  static ScalesAndOffsets unpack(const uint8_t* packed);
  void pack(uint8_t* packed) const;
};

/// The sixteen 6-bit scales of Q3_K, packed in 12 bytes, stored plus 32.
void unpack_signed_scales(const uint8_t* packed, int8_t* scales);
void pack_signed_scales(const int8_t* scales, uint8_t* packed);

// 256 values a block; importance null or one weight a value (k_quantise.cpp).
void write_q2_k(const float* v, const float* importance, uint8_t* block, int64_t blocks);
void write_q3_k(const float* v, const float* importance, uint8_t* block, int64_t blocks);
void write_q4_k(const float* v, const float* importance, uint8_t* block, int64_t blocks);
void write_q5_k(const float* v, const float* importance, uint8_t* block, int64_t blocks);
void write_q6_k(const float* v, const float* importance, uint8_t* block, int64_t blocks);

}  // namespace switchyard::codecs
