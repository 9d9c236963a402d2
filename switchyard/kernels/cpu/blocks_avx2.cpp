#include "switchyard/kernels/cpu/blocks.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

// What is not compiled for this level alone comes first.
#include <algorithm>
#include <cstring>
#include <string_view>
#include <type_traits>
#include <vector>

#include "switchyard/kernels/cpu/byte_dots.h"
#include "switchyard/kernels/cpu/row_groups.h"
#include "switchyard/kernels/cpu/stack.h"

#include <immintrin.h>

#pragma GCC push_options
#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math", "fp-contract=off")
#pragma GCC target("avx2,fma,f16c")

#include "switchyard/kernels/cpu/for_columns.h"

namespace switchyard::kernels::cpu {
namespace {

#define SWITCHYARD_INLINE [[gnu::always_inline]] static inline

SWITCHYARD_INLINE float half_at(const uint8_t* p) {
  uint16_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits)));
}
SWITCHYARD_INLINE __m128i load16(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
SWITCHYARD_INLINE __m256i load32(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
SWITCHYARD_INLINE uint32_t word_at(const uint8_t* p) {
  uint32_t word;
  std::memcpy(&word, p, sizeof word);
  return word;
}
SWITCHYARD_INLINE __m256i both(__m256i v, int mask) { return _mm256_and_si256(v, _mm256_set1_epi8(static_cast<char>(mask))); }
/// The low nibbles of 16 bytes, then the high ones.
SWITCHYARD_INLINE __m256i nibbles(const uint8_t* p) {
  const __m128i bytes = load16(p);
  return both(_mm256_inserti128_si256(_mm256_castsi128_si256(bytes), _mm_srli_epi16(bytes, 4), 1), 15);
}
/// The low or the high nibbles of 32 bytes.
SWITCHYARD_INLINE __m256i nibbles_of(const uint8_t* p, int which) { return both(_mm256_srli_epi16(load32(p), 4 * which), 15); }
/// Bits `from` and so many more of bytes, shifted to `to`.
SWITCHYARD_INLINE __m256i bits_at(__m256i v, int from, int to, int mask) {
  return both(from < to ? _mm256_slli_epi16(v, to - from) : _mm256_srli_epi16(v, from - to), mask);
}

// A format gives 32 consecutive values as signed bytes, part 0, 1, ... of a block, and for each kRun values what they stand for: scale q, or
// scale q - offset. Multiplications and subtractions are those of the codec, so values are equal bit for bit.

struct Scales { float scale[16], offset[16]; };

struct Short {  // blocks of 32 values
  static constexpr int64_t kLength = 32, kRun = 32;
  static constexpr bool kOffset = false;
};
struct Q8_0 : Short {
  static constexpr std::string_view kName = "Q8_0";
  static constexpr int64_t kBytes = 34;
  SWITCHYARD_INLINE void scales(const uint8_t* block, Scales& s) { s.scale[0] = half_at(block); }
  SWITCHYARD_INLINE __m256i bytes(const uint8_t* block, int) { return load32(block + 2); }
};
struct Q4_0 : Short {
  static constexpr std::string_view kName = "Q4_0";
  static constexpr int64_t kBytes = 18;
  SWITCHYARD_INLINE void scales(const uint8_t* block, Scales& s) { s.scale[0] = half_at(block); }
  SWITCHYARD_INLINE __m256i bytes(const uint8_t* block, int) { return _mm256_sub_epi8(nibbles(block + 2), _mm256_set1_epi8(8)); }
};
struct MXFP4 : Short {
  static constexpr std::string_view kName = "MXFP4";
  static constexpr int64_t kBytes = 17;
  SWITCHYARD_INLINE void scales(const uint8_t* block, Scales& s) {  // 2^(e - 128), a subnormal for the two smallest exponents
    const uint32_t e = block[0];
    s.scale[0] = __builtin_bit_cast(float, e < 2 ? 0x00200000u << e : (e - 1) << 23);
  }
  SWITCHYARD_INLINE __m256i bytes(const uint8_t* block, int) {  // twice the values
    const __m128i table = _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), nibbles(block + 1));
  }
};

struct WithOffsets {  // the 6-bit scales and offsets of Q4_K and Q5_K (codecs/k_blocks.h), times the block's two halves
  static constexpr int64_t kLength = 256, kRun = 32;
  static constexpr bool kOffset = true;
  SWITCHYARD_INLINE __m256 eight(uint32_t low, uint32_t high) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(uint64_t{high} << 32 | low))));
  }
  SWITCHYARD_INLINE void scales(const uint8_t* block, Scales& s) {
    const uint32_t a = word_at(block + 4), b = word_at(block + 8), c = word_at(block + 12);
    const __m256 scale = eight(a & 0x3f3f3f3fu, (c & 0x0f0f0f0fu) | (a >> 2 & 0x30303030u));
    const __m256 offset = eight(b & 0x3f3f3f3fu, (c >> 4 & 0x0f0f0f0fu) | (b >> 2 & 0x30303030u));
    _mm256_storeu_ps(s.scale, _mm256_mul_ps(_mm256_set1_ps(half_at(block)), scale));
    _mm256_storeu_ps(s.offset, _mm256_mul_ps(_mm256_set1_ps(half_at(block + 2)), offset));
  }
};
struct Q4_K : WithOffsets {
  static constexpr std::string_view kName = "Q4_K";
  static constexpr int64_t kBytes = 144;
  SWITCHYARD_INLINE __m256i bytes(const uint8_t* block, int part) { return nibbles_of(block + 16 + 32 * (part / 2), part % 2); }
};
struct Q5_K : WithOffsets {
  static constexpr std::string_view kName = "Q5_K";
  static constexpr int64_t kBytes = 176;
  SWITCHYARD_INLINE __m256i bytes(const uint8_t* block, int part) {
    return _mm256_or_si256(nibbles_of(block + 48 + 32 * (part / 2), part % 2), bits_at(load32(block + 16), part, 4, 16));
  }
};
struct Q6_K {
  static constexpr std::string_view kName = "Q6_K";
  static constexpr int64_t kLength = 256, kBytes = 210, kRun = 16;
  static constexpr bool kOffset = false;
  SWITCHYARD_INLINE void scales(const uint8_t* block, Scales& s) {
    const __m256 d = _mm256_set1_ps(half_at(block + 208));
    for (int i = 0; i < 2; ++i) {
      const __m128i eight = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(block + 192 + 8 * i));
      _mm256_storeu_ps(s.scale + 8 * i, _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight))));
    }
  }
  SWITCHYARD_INLINE __m256i bytes(const uint8_t* block, int part) {
    const __m256i low = nibbles_of(block + 64 * (part / 4) + 32 * (part % 2), part / 2 % 2);
    const __m256i high = bits_at(load32(block + 128 + 32 * (part / 4)), 2 * (part % 4), 4, 48);
    return _mm256_sub_epi8(_mm256_or_si256(low, high), _mm256_set1_epi8(32));
  }
};

/// Eight of 32 signed bytes.
SWITCHYARD_INLINE __m256 eight_of(__m256i bytes, int i) {
  const __m128i half = i < 2 ? _mm256_castsi256_si128(bytes) : _mm256_extracti128_si256(bytes, 1);
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(i % 2 ? _mm_srli_si128(half, 8) : half));
}

/// Calls sink(i, v) with each 8 consecutive values of a block.
template <typename Format, typename Sink>
SWITCHYARD_INLINE void visit(const uint8_t* block, const Sink& sink) {
  Scales s;
  Format::scales(block, s);
#pragma GCC unroll 8
  for (int part = 0; part < Format::kLength / 32; ++part) {
    const __m256i bytes = Format::bytes(block, part);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const int64_t run = (32 * part + 8 * i) / Format::kRun;
      __m256 v = _mm256_mul_ps(_mm256_set1_ps(s.scale[run]), eight_of(bytes, i));
      if constexpr (Format::kOffset) v = _mm256_sub_ps(v, _mm256_set1_ps(s.offset[run]));
      sink(4 * part + i, v);
    }
  }
}

template <typename Format>
void decode(const uint8_t* packed, int64_t blocks, float* out) {
  for (int64_t b = 0; b < blocks; ++b) {
    float* to = out + b * Format::kLength;
    visit<Format>(packed + b * Format::kBytes, [to](int i, __m256 v) __attribute__((always_inline)) { _mm256_storeu_ps(to + 8 * i, v); });
  }
}

template <typename Format>
void decode_bf16(const uint8_t* packed, int64_t blocks, c10::BFloat16* out) {
  constexpr int64_t kStep = 1024 / Format::kLength;  // blocks whose floats stay in the first-level cache
  float floats[kStep * Format::kLength];
  for (int64_t b = 0; b < blocks; b += kStep) {
    const int64_t here = std::min(kStep, blocks - b);
    decode<Format>(packed + b * Format::kBytes, here, floats);
    narrow(floats, here * Format::kLength, out + b * Format::kLength);
  }
}

using Sum = __m256;
constexpr int64_t kSumWidth = 8;
SWITCHYARD_INLINE Sum add(Sum sum, Sum v, const float* x) { return _mm256_fmadd_ps(v, _mm256_loadu_ps(x), sum); }
SWITCHYARD_INLINE float total(Sum v) {
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}

#include "switchyard/kernels/cpu/block_dots_loops.h"

}  // namespace
}  // namespace switchyard::kernels::cpu

#pragma GCC pop_options

namespace switchyard::kernels::cpu {
namespace {

/// By groups of sixteen rows; the last rows stand in a group of their own, above nothing.
template <typename Format>
void int_dots(const uint8_t* packed, int64_t rows, int64_t blocks, int64_t n, const IntColumns& x, float* out, int64_t ld) {
  static const GroupPath& groups = *std::ranges::find(avx2_group_paths(), Format::kName, &GroupPath::format);
  const int64_t grouped = rows / kGroupRows * kGroupRows, rest = rows - grouped, row_bytes = blocks * Format::kBytes;
  if (grouped > 0) groups.dots(packed, grouped, blocks, n, x, out, ld);
  if (rest == 0) return;
  thread_local std::vector<uint8_t> last;
  thread_local std::vector<float> sums;
  last.assign(static_cast<size_t>(kGroupRows * row_bytes), 0);
  sums.resize(static_cast<size_t>(kGroupRows * n));
  std::memcpy(last.data(), packed + grouped * row_bytes, static_cast<size_t>(rest * row_bytes));
  groups.dots(last.data(), kGroupRows, blocks, n, x, sums.data(), kGroupRows);
  for (int64_t j = 0; j < n; ++j) std::copy_n(sums.data() + j * kGroupRows, rest, out + j * ld + grouped);
}

template <typename Format>
constexpr NamedBlockPath named() {
  constexpr int64_t step = Format::kLength == 32 ? 64 : 256;
  return {Format::kName, {decode<Format>, decode_bf16<Format>, dots<Format>, int_dots<Format>, step, step, true, true}};
}
// Q8_0 goes a way of its own. Its bytes become floats as fast as three products of theirs are summed.
constexpr NamedBlockPath kPaths[] = {
    {"Q8_0", {decode<Q8_0>, decode_bf16<Q8_0>, byte_dots, byte_dots, 64, 64, false, false}},
    named<Q4_0>(), named<MXFP4>(), named<Q4_K>(), named<Q5_K>(), named<Q6_K>()};

}  // namespace

std::span<const NamedBlockPath> avx2_block_paths() { return kPaths; }

}  // namespace switchyard::kernels::cpu

#else

namespace switchyard::kernels::cpu {
std::span<const NamedBlockPath> avx2_block_paths() { return {}; }
}  // namespace switchyard::kernels::cpu

#endif
