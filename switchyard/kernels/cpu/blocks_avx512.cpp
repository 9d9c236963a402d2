#include "switchyard/kernels/cpu/blocks.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>
#include <type_traits>

#include "switchyard/kernels/cpu/row_groups.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 on its own intrinsics, whose masked-off lanes are undefined
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#pragma GCC push_options
#ifndef SWITCHYARD_EMULATED_LEVEL
#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math", "fp-contract=off")
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16,avx2,fma,f16c,bmi,bmi2")
#endif

#include "switchyard/kernels/cpu/for_columns.h"

namespace switchyard::kernels::cpu {
namespace {

// A format gives, of one block, vectors of 16 consecutive values: `visit(block, sink)` calls sink(i, v) for i = 0, 1, ...
// Multiplications and subtractions are those of the codec and in its order, so values are equal bit for bit.
#define SWITCHYARD_INLINE [[gnu::always_inline]] static inline

SWITCHYARD_INLINE float half_at(const uint8_t* p) {
  uint16_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits)));
}
SWITCHYARD_INLINE __m128i load16(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
SWITCHYARD_INLINE __m256i load32(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
SWITCHYARD_INLINE __m128i low_half(__m256i v) { return _mm256_castsi256_si128(v); }
SWITCHYARD_INLINE __m128i high_half(__m256i v) { return _mm256_extracti128_si256(v, 1); }
SWITCHYARD_INLINE uint32_t word_at(const uint8_t* p) {
  uint32_t word;
  std::memcpy(&word, p, sizeof word);
  return word;
}
SWITCHYARD_INLINE __m512 counts() { return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }

struct Q8_0 {
  static constexpr std::string_view kName = "Q8_0";
  static constexpr int64_t kLength = 32, kBytes = 34;
  template <typename Sink>
  SWITCHYARD_INLINE void visit(const uint8_t* block, const Sink& sink) {
    const __m512 d = _mm512_set1_ps(half_at(block));
    sink(0, _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load16(block + 2)))));
    sink(1, _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load16(block + 18)))));
  }
};

/// Nibbles that are looked up in a table of 16 values: the lookup reads only the low four bits of each lane.
template <typename Sink>
SWITCHYARD_INLINE void nibbles_of_16(const uint8_t* bytes, __m512 table, const Sink& sink) {
  const __m512i q = _mm512_cvtepu8_epi32(load16(bytes));
  sink(0, _mm512_permutexvar_ps(q, table));
  sink(1, _mm512_permutexvar_ps(_mm512_srli_epi32(q, 4), table));
}

struct Q4_0 {
  static constexpr std::string_view kName = "Q4_0";
  static constexpr int64_t kLength = 32, kBytes = 18;
  template <typename Sink>
  SWITCHYARD_INLINE void visit(const uint8_t* block, const Sink& sink) {
    nibbles_of_16(block + 2, _mm512_mul_ps(_mm512_set1_ps(half_at(block)), _mm512_sub_ps(counts(), _mm512_set1_ps(8))), sink);
  }
};

struct MXFP4 {
  static constexpr std::string_view kName = "MXFP4";
  static constexpr int64_t kLength = 32, kBytes = 17;
  template <typename Sink>
  SWITCHYARD_INLINE void visit(const uint8_t* block, const Sink& sink) {
    nibbles_of_16(block + 1, table(block), sink);
  }
  SWITCHYARD_INLINE constexpr float half_scale(uint32_t e) {  // 2^(e - 128), a subnormal for the two smallest exponents
    return __builtin_bit_cast(float, e < 2 ? 0x00200000u << e : (e - 1) << 23);
  }
  SWITCHYARD_INLINE __m512 table(const uint8_t* block) {
    return _mm512_mul_ps(_mm512_set1_ps(half_scale(block[0])), _mm512_setr_ps(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12));
  }
};

/// Eight bytes as floats, in the low lanes.
SWITCHYARD_INLINE __m512 eight_floats(uint32_t low, uint32_t high) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(uint64_t{high} << 32 | low))));
}

/// The 6-bit scales and offsets of Q4_K and Q5_K (codecs/k_blocks.h), times the block's two halves: eight of each.
struct ScalesAndOffsets { __m512 scale, offset; };
SWITCHYARD_INLINE ScalesAndOffsets scales_and_offsets(const uint8_t* block) {
  const uint32_t a = word_at(block + 4), b = word_at(block + 8), c = word_at(block + 12);
  const uint32_t scale = a & 0x3f3f3f3fu, more_scale = (c & 0x0f0f0f0fu) | (a >> 2 & 0x30303030u);
  const uint32_t offset = b & 0x3f3f3f3fu, more_offset = (c >> 4 & 0x0f0f0f0fu) | (b >> 2 & 0x30303030u);
  return {_mm512_mul_ps(_mm512_set1_ps(half_at(block)), eight_floats(scale, more_scale)),
          _mm512_mul_ps(_mm512_set1_ps(half_at(block + 2)), eight_floats(offset, more_offset))};
}

struct Q4_K {
  static constexpr std::string_view kName = "Q4_K";
  static constexpr int64_t kLength = 256, kBytes = 144;
  /// What the 16 codes of a sub-block stand for.
  SWITCHYARD_INLINE __m512 table(__m512 scale, __m512 offset, int part) {
    const __m512i all = _mm512_set1_epi32(part);
    return _mm512_sub_ps(_mm512_mul_ps(_mm512_permutexvar_ps(all, scale), counts()), _mm512_permutexvar_ps(all, offset));
  }
  template <typename Sink>
  SWITCHYARD_INLINE void visit(const uint8_t* block, const Sink& sink) {
    const auto [scale, offset] = scales_and_offsets(block);
#pragma GCC unroll 4
    for (int pair = 0; pair < 4; ++pair) {
      const __m512 low = table(scale, offset, 2 * pair), high = table(scale, offset, 2 * pair + 1);
      const __m512i q0 = _mm512_cvtepu8_epi32(load16(block + 16 + 32 * pair)), q1 = _mm512_cvtepu8_epi32(load16(block + 32 + 32 * pair));
      sink(4 * pair, _mm512_permutexvar_ps(q0, low));
      sink(4 * pair + 1, _mm512_permutexvar_ps(q1, low));
      sink(4 * pair + 2, _mm512_permutexvar_ps(_mm512_srli_epi32(q0, 4), high));
      sink(4 * pair + 3, _mm512_permutexvar_ps(_mm512_srli_epi32(q1, 4), high));
    }
  }
};

struct Q5_K {
  static constexpr std::string_view kName = "Q5_K";
  static constexpr int64_t kLength = 256, kBytes = 176;
  template <typename Sink>
  SWITCHYARD_INLINE void visit(const uint8_t* block, const Sink& sink) {
    const auto [scales, offsets] = scales_and_offsets(block);
    const __m256i top = load32(block + 16), sixteen = _mm256_set1_epi8(16), fifteen = _mm256_set1_epi8(15);
#pragma GCC unroll 8
    for (int part = 0; part < 8; ++part) {
      const __m512 scale = _mm512_permutexvar_ps(_mm512_set1_epi32(part), scales), offset = _mm512_permutexvar_ps(_mm512_set1_epi32(part), offsets);
      const __m256i bytes = load32(block + 48 + 32 * (part / 2));
      const __m256i nibble = _mm256_and_si256(_mm256_srli_epi16(bytes, 4 * (part % 2)), fifteen);
      const __m256i fifth = _mm256_and_si256(part < 4 ? _mm256_slli_epi16(top, 4 - part) : _mm256_srli_epi16(top, part - 4), sixteen);
      const __m256i q = _mm256_or_si256(nibble, fifth);
      sink(2 * part, _mm512_sub_ps(_mm512_mul_ps(scale, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(low_half(q)))), offset));
      sink(2 * part + 1, _mm512_sub_ps(_mm512_mul_ps(scale, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(high_half(q)))), offset));
    }
  }
};

struct Q6_K {
  static constexpr std::string_view kName = "Q6_K";
  static constexpr int64_t kLength = 256, kBytes = 210;
  template <typename Sink>
  SWITCHYARD_INLINE void visit(const uint8_t* block, const Sink& sink) {
    const __m512 d = _mm512_set1_ps(half_at(block + 208));
    const __m512 scales = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load16(block + 192))));
    const __m256i fifteen = _mm256_set1_epi8(15), upper = _mm256_set1_epi8(48), middle = _mm256_set1_epi8(32);
#pragma GCC unroll 8
    for (int group = 0; group < 8; ++group) {
      const __m256i bytes = load32(block + 64 * (group / 4) + 32 * (group % 2)), top = load32(block + 128 + 32 * (group / 4));
      const __m256i nibble = _mm256_and_si256(_mm256_srli_epi16(bytes, 4 * (group / 2 % 2)), fifteen);
      const int pair = 2 * (group % 4);
      const __m256i high = _mm256_and_si256(pair < 4 ? _mm256_slli_epi16(top, 4 - pair) : _mm256_srli_epi16(top, pair - 4), upper);
      const __m256i q = _mm256_sub_epi8(_mm256_or_si256(nibble, high), middle);
      const __m512 first = _mm512_permutexvar_ps(_mm512_set1_epi32(2 * group), scales);
      const __m512 second = _mm512_permutexvar_ps(_mm512_set1_epi32(2 * group + 1), scales);
      sink(2 * group, _mm512_mul_ps(first, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(low_half(q)))));
      sink(2 * group + 1, _mm512_mul_ps(second, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(high_half(q)))));
    }
  }
};

template <typename Block>
void decode(const uint8_t* packed, int64_t blocks, float* out) {
  for (int64_t b = 0; b < blocks; ++b) {
    float* to = out + b * Block::kLength;
    Block::visit(packed + b * Block::kBytes, [to](int i, __m512 v) __attribute__((always_inline)) { _mm512_storeu_ps(to + 16 * i, v); });
  }
}

/// Two vectors as 32 bf16, nearest even.
SWITCHYARD_INLINE __m512i rounded(__m512 first, __m512 second) { return (__m512i)_mm512_cvtne2ps_pbh(second, first); }

/// Formats of any kind: 16 values at a time.
template <typename Block>
struct ByVectors {
  SWITCHYARD_INLINE void decode(const uint8_t* block, uint16_t* to) {
    __m512 held = _mm512_setzero_ps();
    Block::visit(block, [&held, to](int i, __m512 v) __attribute__((always_inline)) {
      if (i % 2 == 0) held = v;
      else _mm512_storeu_si512(to + 16 * (i - 1), rounded(held, v));
    });
  }
};

/// Nibbles: what the 16 codes of a scale stand for is rounded once, and looked up 32 at a time. The table stands twice, so that
/// the fifth bit of an index does not matter.
SWITCHYARD_INLINE void store_looked_up(const uint8_t* bytes32, __m512i low_table, __m512i high_table, uint16_t* to) {
  const __m512i q = _mm512_cvtepu8_epi16(load32(bytes32));
  _mm512_storeu_si512(to, _mm512_permutexvar_epi16(q, low_table));
  _mm512_storeu_si512(to + 32, _mm512_permutexvar_epi16(_mm512_srli_epi16(q, 4), high_table));
}
SWITCHYARD_INLINE void store_looked_up_16(const uint8_t* bytes16, __m512i table, uint16_t* to) {
  const __m256i q = _mm256_cvtepu8_epi16(load16(bytes16));
  _mm512_storeu_si512(to, _mm512_permutexvar_epi16(_mm512_inserti64x4(_mm512_castsi256_si512(q), _mm256_srli_epi16(q, 4), 1), table));
}

struct Q4_0Tables {
  SWITCHYARD_INLINE void decode(const uint8_t* block, uint16_t* to) {
    const __m512 table = _mm512_mul_ps(_mm512_set1_ps(half_at(block)), _mm512_sub_ps(counts(), _mm512_set1_ps(8)));
    store_looked_up_16(block + 2, rounded(table, table), to);
  }
};
struct MXFP4Tables {
  SWITCHYARD_INLINE void decode(const uint8_t* block, uint16_t* to) {
    const __m512 table = MXFP4::table(block);  // whole numbers of a power of two: the upper half is all there is
    const __m256i upper = _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(table), 16));
    store_looked_up_16(block + 1, _mm512_broadcast_i64x4(upper), to);
  }
};
struct Q4_KTables {
  SWITCHYARD_INLINE void decode(const uint8_t* block, uint16_t* to) {
    const auto [scale, offset] = scales_and_offsets(block);
#pragma GCC unroll 4
    for (int pair = 0; pair < 4; ++pair) {
      const __m512 low = Q4_K::table(scale, offset, 2 * pair), high = Q4_K::table(scale, offset, 2 * pair + 1);
      store_looked_up(block + 16 + 32 * pair, rounded(low, low), rounded(high, high), to + 64 * pair);
    }
  }
};

template <typename Block, typename Way>
void decode_bf16(const uint8_t* packed, int64_t blocks, c10::BFloat16* out) {
  auto* to = reinterpret_cast<uint16_t*>(out);
  for (int64_t b = 0; b < blocks; ++b) Way::decode(packed + b * Block::kBytes, to + b * Block::kLength);
}

using Sum = __m512;
constexpr int64_t kSumWidth = 16;
SWITCHYARD_INLINE Sum add(Sum sum, Sum v, const float* x) { return _mm512_fmadd_ps(v, _mm512_loadu_ps(x), sum); }
SWITCHYARD_INLINE float total(Sum v) { return _mm512_reduce_add_ps(v); }
template <typename Block, typename Sink>
SWITCHYARD_INLINE void visit(const uint8_t* block, const Sink& sink) { Block::visit(block, sink); }

#include "switchyard/kernels/cpu/block_dots_loops.h"
// Against int8 columns. A format gives 64 weights at a time as unsigned bytes u, and what they stand for: s (u - zero) for the
// formats of 32 values, s u - o with s and o a sub-block for the others. From kGrouped columns on, sixteen rows at a time
// are worth turning (row_groups.h).

/// The half block scales of two blocks, each over its half of the lanes.
SWITCHYARD_INLINE __m512 two_scales(float first, float second) {
  return _mm512_mask_mov_ps(_mm512_set1_ps(first), 0xff00, _mm512_set1_ps(second));
}
SWITCHYARD_INLINE __m512i two_of_32(const uint8_t* first, const uint8_t* second) {
  return _mm512_inserti64x4(_mm512_castsi256_si512(load32(first)), load32(second), 1);
}
/// Low and high nibbles of 16 bytes, twice: values 0 to 15, 16 to 31, and so on.
SWITCHYARD_INLINE __m512i nibbles_of_two(const uint8_t* first, const uint8_t* second) {
  const __m512i bytes = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_broadcastsi128_si256(load16(first))),
                                           _mm256_broadcastsi128_si256(load16(second)), 1);
  return _mm512_and_si512(_mm512_srlv_epi64(bytes, _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4)), _mm512_set1_epi8(15));
}

struct Pairs {  // two blocks of 32
  static constexpr bool kSub = false, kDigitsPay = true;  // for float32 columns: see BlockPath::digits
};
struct Q8_0Bytes : Pairs, Q8_0 {
  static constexpr int64_t kGrouped = 3;
  static constexpr bool kDigitsPay = false;  // bytes become floats as fast as three products of theirs are summed
  static constexpr char kZero = static_cast<char>(128);
  SWITCHYARD_INLINE __m512i bytes(const uint8_t* b) { return _mm512_xor_si512(two_of_32(b + 2, b + 36), _mm512_set1_epi8(kZero)); }
  SWITCHYARD_INLINE __m512 scales(const uint8_t* b) { return two_scales(half_at(b), half_at(b + 34)); }
};
struct Q4_0Bytes : Pairs, Q4_0 {
  static constexpr int64_t kGrouped = 1;
  static constexpr char kZero = 8;
  SWITCHYARD_INLINE __m512i bytes(const uint8_t* b) { return nibbles_of_two(b + 2, b + 20); }
  SWITCHYARD_INLINE __m512 scales(const uint8_t* b) { return two_scales(half_at(b), half_at(b + 18)); }
};
constexpr std::array<float, 256> half_scales() {
  std::array<float, 256> table{};
  for (uint32_t e = 0; e < 256; ++e) table[e] = MXFP4::half_scale(e);
  return table;
}
constexpr std::array<float, 256> kHalfScales = half_scales();
struct MXFP4Bytes : Pairs, MXFP4 {
  static constexpr int64_t kGrouped = 1;
  static constexpr char kZero = 12;
  SWITCHYARD_INLINE __m512i bytes(const uint8_t* b) {
    const __m512i table = _mm512_broadcast_i32x4(_mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
    return _mm512_shuffle_epi8(table, nibbles_of_two(b + 1, b + 18));
  }
  SWITCHYARD_INLINE __m512 scales(const uint8_t* b) { return two_scales(kHalfScales[b[0]], kHalfScales[b[17]]); }
};

/// s and o for each 16 of 256 values.
struct SubScales { __m512 scale, offset; };
SWITCHYARD_INLINE SubScales of_pairs(const ScalesAndOffsets& eight) {
  const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  return {_mm512_permutexvar_ps(twice, eight.scale), _mm512_permutexvar_ps(twice, eight.offset)};
}
SWITCHYARD_INLINE __m512i shifted(const uint8_t* bytes, int low, int high) {
  return _mm512_srlv_epi64(_mm512_broadcast_i64x4(load32(bytes)), _mm512_setr_epi64(low, low, low, low, high, high, high, high));
}

struct Q4_KBytes : Q4_K {
  static constexpr int64_t kGrouped = 1;
  static constexpr bool kSub = true, kDigitsPay = true;
  SWITCHYARD_INLINE SubScales scales(const uint8_t* b) { return of_pairs(scales_and_offsets(b)); }
  template <int kPart> SWITCHYARD_INLINE __m512i bytes(const uint8_t* b) {
    return _mm512_and_si512(shifted(b + 16 + 32 * kPart, 0, 4), _mm512_set1_epi8(15));
  }
};
struct Q5_KBytes : Q5_K {
  static constexpr int64_t kGrouped = 1;
  static constexpr bool kSub = true, kDigitsPay = true;
  SWITCHYARD_INLINE SubScales scales(const uint8_t* b) { return of_pairs(scales_and_offsets(b)); }
  template <int kPart> SWITCHYARD_INLINE __m512i bytes(const uint8_t* b) {
    const __m512i fifth = _mm512_and_si512(shifted(b + 16, 2 * kPart, 2 * kPart + 1), _mm512_set1_epi8(1));
    return _mm512_or_si512(_mm512_and_si512(shifted(b + 48 + 32 * kPart, 0, 4), _mm512_set1_epi8(15)), _mm512_slli_epi16(fifth, 4));
  }
};
struct Q6_KBytes : Q6_K {
  static constexpr int64_t kGrouped = 4;
  static constexpr bool kSub = true, kDigitsPay = true;
  SWITCHYARD_INLINE SubScales scales(const uint8_t* b) {
    const __m512 scale = _mm512_mul_ps(_mm512_set1_ps(half_at(b + 208)), _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load16(b + 192))));
    return {scale, _mm512_mul_ps(scale, _mm512_set1_ps(32))};
  }
  template <int kPart> SWITCHYARD_INLINE __m512i bytes(const uint8_t* b) {
    const __m512i low = _mm512_and_si512(_mm512_srli_epi16(_mm512_loadu_si512(b + 64 * (kPart / 2)), 4 * (kPart % 2)), _mm512_set1_epi8(15));
    const __m512i top = _mm512_and_si512(shifted(b + 128 + 32 * (kPart / 2), 4 * (kPart % 2), 4 * (kPart % 2) + 2), _mm512_set1_epi8(3));
    return _mm512_or_si512(low, _mm512_slli_epi16(top, 4));
  }
};

/// Of 256 values of a column: scale Σ q of each 16.
SWITCHYARD_INLINE __m512 sums_of(const IntColumns& x) {
  int16_t sums[16];
#pragma GCC unroll 4
  for (int part = 0; part < 4; ++part) std::memcpy(sums + 4 * part, x.sum + part * kColumnSums, 8);
  const __m512 whole = _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(load32(reinterpret_cast<const uint8_t*>(sums))));
  const __m512i four_times = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
  return _mm512_mul_ps(whole, _mm512_permutexvar_ps(four_times, _mm512_castps128_ps512(_mm_loadu_ps(x.scale))));
}

/// Two blocks against N columns: sums += scale (xs Σ (u - zero) q).
template <typename Format, int N>
SWITCHYARD_INLINE void meet_pair(const uint8_t* block, const IntColumns& x, int64_t i, int64_t k, __m512* sums) {
  const __m512i u = Format::bytes(block), zero = _mm512_set1_epi8(Format::kZero), none = _mm512_setzero_si512();
  const __m512 scale = Format::scales(block);
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) {
    const __m512i q = _mm512_loadu_si512(x.q + n * k + 64 * i);
    const __m512i sum = _mm512_sub_epi32(_mm512_dpbusd_epi32(none, u, q), _mm512_dpbusd_epi32(none, zero, q));
    sums[n] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(scale, _mm512_set1_ps(x.scale[n * (k / 64) + i])), sums[n]);
  }
}

/// A quarter of a block of 256.
template <typename Format, int N, int kPart>
SWITCHYARD_INLINE void meet_quarter(const uint8_t* block, __m512 scales, const IntColumns& x, int64_t i, int64_t k, __m512* sums) {
  constexpr int g = 4 * kPart;
  const __m512i u = Format::template bytes<kPart>(block), none = _mm512_setzero_si512();
  const __m512 scale = _mm512_permutexvar_ps(_mm512_setr_epi32(g, g, g, g, g + 1, g + 1, g + 1, g + 1, g + 2, g + 2, g + 2, g + 2, g + 3,
                                                               g + 3, g + 3, g + 3), scales);
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) {
    const __m512i sum = _mm512_dpbusd_epi32(none, u, _mm512_loadu_si512(x.q + n * k + 64 * i));
    sums[n] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(scale, _mm512_set1_ps(x.scale[n * (k / 64) + i])), sums[n]);
  }
}

template <typename Format, int N>
void int_dots_of(const uint8_t* packed, int64_t rows, int64_t blocks, const IntColumns& x, float* out, int64_t ld) {
  const int64_t k = blocks * Format::kLength, row_bytes = blocks * Format::kBytes;
  for (int64_t r = 0; r < rows; ++r) {
    const uint8_t* row = packed + r * row_bytes;
    __m512 sums[N], offsets[N];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) sums[n] = offsets[n] = _mm512_setzero_ps();
    if constexpr (!Format::kSub) {
      for (int64_t i = 0; i < blocks / 2; ++i) {
        const uint8_t* block = row + 2 * i * Format::kBytes;
        fetch_ahead<2 * Format::kBytes>(block);
        meet_pair<Format, N>(block, x, i, k, sums);
      }
    } else {
      for (int64_t b = 0; b < blocks; ++b) {
        const uint8_t* block = row + b * Format::kBytes;
        fetch_ahead<Format::kBytes>(block);
        const SubScales sub = Format::scales(block);
        meet_quarter<Format, N, 0>(block, sub.scale, x, 4 * b, k, sums);
        meet_quarter<Format, N, 1>(block, sub.scale, x, 4 * b + 1, k, sums);
        meet_quarter<Format, N, 2>(block, sub.scale, x, 4 * b + 2, k, sums);
        meet_quarter<Format, N, 3>(block, sub.scale, x, 4 * b + 3, k, sums);
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) offsets[n] = _mm512_fmadd_ps(sub.offset, sums_of(x.from(n, k).values(256 * b)), offsets[n]);
      }
    }
    for (int n = 0; n < N; ++n) out[n * ld + r] = _mm512_reduce_add_ps(_mm512_sub_ps(sums[n], offsets[n]));
  }
}

template <typename Format>
void int_dots(const uint8_t* packed, int64_t rows, int64_t blocks, int64_t n, const IntColumns& x, float* out, int64_t ld) {
  const int64_t k = blocks * Format::kLength, grouped = n >= Format::kGrouped && k % kGroupStep == 0 ? rows / 16 * 16 : 0;
  if (grouped > 0) group_path(Format::kName)->dots(packed, grouped, blocks, n, x, out, ld);
  const uint8_t* rest = packed + grouped * blocks * Format::kBytes;
  for (int64_t j = 0; j < n && grouped < rows; j += 8)
    for_columns(std::min<int64_t>(8, n - j), [&](auto columns) {
      int_dots_of<Format, columns>(rest, rows - grouped, blocks, x.from(j, k), out + j * ld + grouped, ld);
    });
}

template <typename Block, typename Bytes, typename Way = ByVectors<Block>>
constexpr NamedBlockPath named() {
  return {Block::kName, {decode<Block>, decode_bf16<Block, Way>, dots<Block>, int_dots<Bytes>, Bytes::kSub ? 256 : 64, kGroupStep, Bytes::kGrouped == 1, Bytes::kDigitsPay}};
}
constexpr NamedBlockPath kPaths[] = {named<Q8_0, Q8_0Bytes>(), named<Q4_0, Q4_0Bytes, Q4_0Tables>(), named<MXFP4, MXFP4Bytes, MXFP4Tables>(),
                                     named<Q4_K, Q4_KBytes, Q4_KTables>(), named<Q5_K, Q5_KBytes>(), named<Q6_K, Q6_KBytes>()};

}  // namespace
}  // namespace switchyard::kernels::cpu

#pragma GCC pop_options

namespace switchyard::kernels::cpu {

std::span<const NamedBlockPath> avx512_block_paths() { return kPaths; }

}  // namespace switchyard::kernels::cpu

#else

namespace switchyard::kernels::cpu {
std::span<const NamedBlockPath> avx512_block_paths() { return {}; }
}  // namespace switchyard::kernels::cpu

#endif
