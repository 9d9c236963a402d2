#include "switchyard/kernels/cpu/row_groups.h"

#include <cstring>
#include <type_traits>

#include "switchyard/kernels/cpu/blocks.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 on its own intrinsics, whose masked-off lanes are undefined
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math", "fp-contract=off")
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c,bmi,bmi2")

namespace switchyard::kernels::cpu {
namespace {

#define SWITCHYARD_INLINE [[gnu::always_inline]] static inline

constexpr int64_t kRows = kGroupRows, kValues = kGroupStep;  ///< rows of a group; values of a row that are unpacked at once

/// Sixteen rows of 256 values: unsigned bytes u, four consecutive values of a row in its lane, and for each run of values with one
/// scale what they stand for: scale u - offset.
struct alignas(64) Group {
  __m512i u[kValues / 4];
  __m512 scale[kValues / 16], offset[kValues / 16];
};

SWITCHYARD_INLINE __m128i load16(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }

/// 16 bytes of each of 16 rows, `stride` apart: dword c of row r becomes lane r of turned[c].
SWITCHYARD_INLINE void turn(const uint8_t* p, int64_t stride, __m512i* turned) {
  __m512i a[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const uint8_t* row = p + i * stride;
    a[i] = _mm512_castsi128_si512(load16(row));
    a[i] = _mm512_inserti32x4(a[i], load16(row + 4 * stride), 1);
    a[i] = _mm512_inserti32x4(a[i], load16(row + 8 * stride), 2);
    a[i] = _mm512_inserti32x4(a[i], load16(row + 12 * stride), 3);
  }
  const __m512i low01 = _mm512_unpacklo_epi32(a[0], a[1]), high01 = _mm512_unpackhi_epi32(a[0], a[1]);
  const __m512i low23 = _mm512_unpacklo_epi32(a[2], a[3]), high23 = _mm512_unpackhi_epi32(a[2], a[3]);
  turned[0] = _mm512_unpacklo_epi64(low01, low23);
  turned[1] = _mm512_unpackhi_epi64(low01, low23);
  turned[2] = _mm512_unpacklo_epi64(high01, high23);
  turned[3] = _mm512_unpackhi_epi64(high01, high23);
}
SWITCHYARD_INLINE __m512i low_nibbles(__m512i v) { return _mm512_and_si512(v, _mm512_set1_epi8(15)); }
SWITCHYARD_INLINE __m512i high_nibbles(__m512i v) { return low_nibbles(_mm512_srli_epi16(v, 4)); }
/// Byte i of each lane.
SWITCHYARD_INLINE __m512i byte_of(__m512i v, int i) { return _mm512_and_si512(_mm512_srli_epi32(v, 8 * i), _mm512_set1_epi32(255)); }
/// The low and high halves of each lane as float16.
SWITCHYARD_INLINE __m512 low_halves(__m512i v) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v)); }
SWITCHYARD_INLINE __m512 high_halves(__m512i v) { return low_halves(_mm512_srli_epi32(v, 16)); }

SWITCHYARD_INLINE uint16_t word_at(const uint8_t* p) {
  uint16_t word;
  std::memcpy(&word, p, sizeof word);
  return word;
}
/// One float16, or one byte, of each row.
SWITCHYARD_INLINE __m256i words_at(const uint8_t* p, int64_t stride) {
  const auto at = [=](int r) __attribute__((always_inline)) { return static_cast<short>(word_at(p + r * stride)); };
  return _mm256_setr_epi16(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7), at(8), at(9), at(10), at(11), at(12), at(13), at(14), at(15));
}
SWITCHYARD_INLINE __m128i bytes_at(const uint8_t* p, int64_t stride) {
  const auto at = [=](int r) __attribute__((always_inline)) { return static_cast<char>(p[r * stride]); };
  return _mm_setr_epi8(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7), at(8), at(9), at(10), at(11), at(12), at(13), at(14), at(15));
}

// A step of a format, 256 values of a row, is some heads (scales that stand before blocks: kHeadBytes each, head s at head(s)) and some
// pieces of 16 bytes (piece i at piece(i)). Where the rows of a group lie, one behind the other, or turned: heads first, each of sixteen
// rows, then the dwords of the pieces, each of sixteen rows. Both take the same room.

template <typename Format>
struct Lying {
  static constexpr bool kTurned = false;
  const uint8_t* p;  ///< the step of the first row
  int64_t stride;    ///< from row to row
  [[gnu::always_inline]] void piece(int i, __m512i* dwords) const { turn(p + Format::piece(i), stride, dwords); }
  [[gnu::always_inline]] __m256i words(int s) const { return words_at(p + Format::head(s), stride); }
  [[gnu::always_inline]] __m128i bytes(int s) const { return bytes_at(p + Format::head(s), stride); }
};

template <typename Format>
struct Turned {
  static constexpr bool kTurned = true;
  static constexpr int64_t kFirst = kRows * Format::kHeads * Format::kHeadBytes;
  const uint8_t* p;
  [[gnu::always_inline]] void piece(int i, __m512i* dwords) const {
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) dwords[c] = _mm512_loadu_si512(p + kFirst + 256 * i + 64 * c);
  }
  [[gnu::always_inline]] __m256i words(int s) const { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32 * s)); }
  [[gnu::always_inline]] __m128i bytes(int s) const { return load16(p + 16 * s); }
};

/// The header of Q4_K and Q5_K (codecs/k_blocks.h): eight scales and offsets of 6 bits, times the block's two halves.
template <typename Source>
SWITCHYARD_INLINE void k_header(const Source& rows, Group& g) {
  __m512i head[4];
  rows.piece(0, head);
  const __m512 d = low_halves(head[0]), least = high_halves(head[0]);
  const __m512i six = _mm512_set1_epi8(0x3f), four = _mm512_set1_epi8(0x0f), two = _mm512_set1_epi8(0x30);
  const auto more = [&](__m512i low, __m512i top) __attribute__((always_inline)) {
    return _mm512_or_si512(_mm512_and_si512(low, four), _mm512_and_si512(_mm512_srli_epi32(top, 2), two));
  };
  const __m512i scale[2] = {_mm512_and_si512(head[1], six), more(head[3], head[1])};
  const __m512i offset[2] = {_mm512_and_si512(head[2], six), more(_mm512_srli_epi32(head[3], 4), head[2])};
#pragma GCC unroll 8
  for (int s = 0; s < 8; ++s) {
    g.scale[s] = _mm512_mul_ps(d, _mm512_cvtepi32_ps(byte_of(scale[s / 4], s % 4)));
    g.offset[s] = _mm512_mul_ps(least, _mm512_cvtepi32_ps(byte_of(offset[s / 4], s % 4)));
  }
}

// A format unpacks 64 values of the sixteen rows at a time, part j of four: two runs of 32 values, which are runs first(j) and second(j)
// of the eight, as eight dwords each. Bits that several parts share are turned once and kept in `top`.

struct Halves {  // the two runs follow one another
  SWITCHYARD_INLINE constexpr int first(int j) { return 2 * j; }
  SWITCHYARD_INLINE constexpr int second(int j) { return 2 * j + 1; }
};

struct Q4_K : Halves {
  static constexpr int64_t kLength = 256, kBytes = 144, kRun = 32, kHeads = 0, kHeadBytes = 0, kPieces = 9;
  SWITCHYARD_INLINE constexpr int64_t head(int) { return 0; }
  SWITCHYARD_INLINE constexpr int64_t piece(int i) { return 16 * i; }
  template <typename Source> SWITCHYARD_INLINE void scales(const Source& rows, Group& g) { k_header(rows, g); }
  template <int j, typename Source> SWITCHYARD_INLINE void part(const Source& rows, __m512i*, __m512i* u) {
    __m512i q[8];
    rows.piece(1 + 2 * j, q);
    rows.piece(2 + 2 * j, q + 4);
#pragma GCC unroll 8
    for (int c = 0; c < 8; ++c) {
      u[c] = low_nibbles(q[c]);
      u[8 + c] = high_nibbles(q[c]);
    }
  }
};

struct Q5_K : Halves {
  static constexpr int64_t kLength = 256, kBytes = 176, kRun = 32, kHeads = 0, kHeadBytes = 0, kPieces = 11;
  SWITCHYARD_INLINE constexpr int64_t head(int) { return 0; }
  SWITCHYARD_INLINE constexpr int64_t piece(int i) { return 16 * i; }
  template <typename Source> SWITCHYARD_INLINE void scales(const Source& rows, Group& g) { k_header(rows, g); }
  template <int j, typename Source> SWITCHYARD_INLINE void part(const Source& rows, __m512i* top, __m512i* u) {
    if constexpr (j == 0) {
      rows.piece(1, top);
      rows.piece(2, top + 4);
    }
    const __m512i sixteen = _mm512_set1_epi8(16);
    __m512i q[8];
    rows.piece(3 + 2 * j, q);
    rows.piece(4 + 2 * j, q + 4);
#pragma GCC unroll 8
    for (int c = 0; c < 8; ++c) {  // bits 2 j and 2 j + 1 become bit 4
      const __m512i low = j < 2 ? _mm512_slli_epi16(top[c], 4 - 2 * j) : _mm512_srli_epi16(top[c], 2 * j - 4);
      const __m512i high = j < 2 ? _mm512_slli_epi16(top[c], 3 - 2 * j) : _mm512_srli_epi16(top[c], 2 * j - 3);
      u[c] = _mm512_or_si512(low_nibbles(q[c]), _mm512_and_si512(low, sixteen));
      u[8 + c] = _mm512_or_si512(high_nibbles(q[c]), _mm512_and_si512(high, sixteen));
    }
  }
};

struct Q6_K {
  static constexpr int64_t kLength = 256, kBytes = 210, kRun = 16, kHeads = 1, kHeadBytes = 2, kPieces = 13;
  SWITCHYARD_INLINE constexpr int64_t head(int) { return 208; }
  SWITCHYARD_INLINE constexpr int64_t piece(int i) { return 16 * i; }
  SWITCHYARD_INLINE constexpr int first(int j) { return 4 * (j / 2) + j % 2; }
  SWITCHYARD_INLINE constexpr int second(int j) { return first(j) + 2; }
  template <typename Source> SWITCHYARD_INLINE void scales(const Source& rows, Group& g) {
    __m512i scales[4];
    rows.piece(12, scales);
    const __m512 d = _mm512_cvtph_ps(rows.words(0)), zero = _mm512_set1_ps(32);
#pragma GCC unroll 16
    for (int s = 0; s < 16; ++s) {
      const __m512i whole = _mm512_srai_epi32(_mm512_slli_epi32(scales[s / 4], 24 - 8 * (s % 4)), 24);
      g.scale[s] = _mm512_mul_ps(d, _mm512_cvtepi32_ps(whole));
      g.offset[s] = _mm512_mul_ps(g.scale[s], zero);
    }
  }
  template <int j, typename Source> SWITCHYARD_INLINE void part(const Source& rows, __m512i* top, __m512i* u) {
    constexpr bool kEven = j % 2 == 0;
    if constexpr (kEven) {
      rows.piece(8 + j, top);
      rows.piece(9 + j, top + 4);
    }
    const __m512i two_bits = _mm512_set1_epi8(0x30);
    __m512i q[8];
    rows.piece(2 * j, q);
    rows.piece(2 * j + 1, q + 4);
#pragma GCC unroll 8
    for (int c = 0; c < 8; ++c) {  // bits 0 and 4 of `top` and the next ones, or 2 and 6
      const __m512i low = _mm512_slli_epi16(top[c], kEven ? 4 : 2), high = kEven ? top[c] : _mm512_srli_epi16(top[c], 2);
      u[c] = _mm512_or_si512(low_nibbles(q[c]), _mm512_and_si512(low, two_bits));
      u[8 + c] = _mm512_or_si512(high_nibbles(q[c]), _mm512_and_si512(high, two_bits));
    }
  }
};

/// Eight blocks of 32 values make 256, each with a float16 for a scale; values are `zero` too large.
template <typename Source>
SWITCHYARD_INLINE void block_scales(const Source& rows, float zero, Group& g) {
  for (int s = 0; s < 8; ++s) {
    g.scale[s] = _mm512_cvtph_ps(rows.words(s));
    g.offset[s] = _mm512_mul_ps(g.scale[s], _mm512_set1_ps(zero));
  }
}

struct Q8_0 : Halves {
  static constexpr int64_t kLength = 32, kBytes = 34, kRun = 32, kHeads = 8, kHeadBytes = 2, kPieces = 16;
  SWITCHYARD_INLINE constexpr int64_t head(int s) { return kBytes * s; }
  SWITCHYARD_INLINE constexpr int64_t piece(int i) { return kBytes * (i / 2) + 2 + 16 * (i % 2); }
  template <typename Source> SWITCHYARD_INLINE void scales(const Source& rows, Group& g) { block_scales(rows, 128, g); }
  template <int j, typename Source> SWITCHYARD_INLINE void part(const Source& rows, __m512i*, __m512i* u) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) rows.piece(4 * j + i, u + 4 * i);
#pragma GCC unroll 16
    for (int c = 0; c < 16; ++c) u[c] = _mm512_xor_si512(u[c], _mm512_set1_epi8(static_cast<char>(128)));
  }
};

struct Q4_0 : Halves {
  static constexpr int64_t kLength = 32, kBytes = 18, kRun = 32, kHeads = 8, kHeadBytes = 2, kPieces = 8;
  SWITCHYARD_INLINE constexpr int64_t head(int s) { return kBytes * s; }
  SWITCHYARD_INLINE constexpr int64_t piece(int i) { return kBytes * i + 2; }
  template <typename Source> SWITCHYARD_INLINE void scales(const Source& rows, Group& g) { block_scales(rows, 8, g); }
  template <int j, typename Source> SWITCHYARD_INLINE void part(const Source& rows, __m512i*, __m512i* u) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      __m512i q[4];
      rows.piece(2 * j + half, q);
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) {
        u[8 * half + c] = low_nibbles(q[c]);
        u[8 * half + 4 + c] = high_nibbles(q[c]);
      }
    }
  }
};

struct MXFP4 : Halves {
  static constexpr int64_t kLength = 32, kBytes = 17, kRun = 32, kHeads = 8, kHeadBytes = 1, kPieces = 8;
  SWITCHYARD_INLINE constexpr int64_t head(int s) { return kBytes * s; }
  SWITCHYARD_INLINE constexpr int64_t piece(int i) { return kBytes * i + 1; }
  /// Of twice a value plus 12, so that it is unsigned: 2^(e - 128), a subnormal for the two smallest exponents.
  template <typename Source> SWITCHYARD_INLINE void scales(const Source& rows, Group& g) {
    for (int s = 0; s < 8; ++s) {
      const __m512i e = _mm512_cvtepu8_epi32(rows.bytes(s));
      const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
      const __mmask16 small = _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2));
      g.scale[s] = _mm512_castsi512_ps(_mm512_mask_sllv_epi32(normal, small, _mm512_set1_epi32(0x00200000), e));
      g.offset[s] = _mm512_mul_ps(g.scale[s], _mm512_set1_ps(12));
    }
  }
  template <int j, typename Source> SWITCHYARD_INLINE void part(const Source& rows, __m512i* top, __m512i* u) {
    const __m512i table = _mm512_broadcast_i32x4(_mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      rows.piece(2 * j + half, top);
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) {
        u[8 * half + c] = _mm512_shuffle_epi8(table, low_nibbles(top[c]));
        u[8 * half + 4 + c] = _mm512_shuffle_epi8(table, high_nibbles(top[c]));
      }
    }
  }
};

/// total[n] += <sixteen rows, N columns> over 32 values, run `run` of the eight. x: of these 256 values, columns k apart.
template <int64_t kRun, int N>
SWITCHYARD_INLINE void meet_run(const __m512i* u, int run, const Group& g, const IntColumns& x, int64_t k, __m512* total) {
#pragma GCC unroll 2
  for (int s = 0; s < 32 / kRun; ++s) {
    __m512i whole[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) whole[n] = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int c = 0; c < kRun / 4; ++c) {
      const __m512i four_of_rows = u[kRun / 4 * s + c];
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) {
        int32_t four;
        std::memcpy(&four, x.q + n * k + 32 * run + kRun * s + 4 * c, sizeof four);
        whole[n] = _mm512_dpbusd_epi32(whole[n], four_of_rows, _mm512_set1_epi32(four));
      }
    }
    const int scale = 32 / kRun * run + s;
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      const float* sum = x.sum + n * (k / 16) + 2 * run + s;
      total[n] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole[n]), _mm512_mul_ps(g.scale[scale], _mm512_set1_ps(x.scale[n * (k / 64) + run / 2])), total[n]);
      total[n] = _mm512_fnmadd_ps(g.offset[scale], _mm512_set1_ps(kRun == 16 ? sum[0] : sum[0] + sum[1]), total[n]);
    }
  }
}

/// Calls f with the parts 0 to 3 as constants.
template <typename F>
SWITCHYARD_INLINE void for_parts(const F& f) {
  f(std::integral_constant<int, 0>());
  f(std::integral_constant<int, 1>());
  f(std::integral_constant<int, 2>());
  f(std::integral_constant<int, 3>());
}

/// A quarter of what a step reads ahead, in the order of addresses; into the second-level cache, since sixteen rows fill the first. All
/// of it at once would take every buffer that waits for memory. Turned groups are one stream, which the hardware follows better by itself.
template <typename Format, typename Source>
SWITCHYARD_INLINE void fetch(const uint8_t* ahead, int part) {
  if constexpr (Source::kTurned) return;
  constexpr int64_t kBytes = kRows * kValues / Format::kLength * Format::kBytes / 4;
  for (int64_t at = 0; at < kBytes; at += 64) _mm_prefetch(reinterpret_cast<const char*>(ahead + part * kBytes + at), _MM_HINT_T1);
}

/// sums[n] += <sixteen rows, 256 values of column n>, for N columns: the values meet them as they are unpacked.
template <typename Format, int N, typename Source>
[[gnu::noinline]] void meet_packed(Source rows, const uint8_t* ahead, Group& g, const IntColumns& x, int64_t k, __m512* sums) {
  Format::scales(rows, g);
  __m512 total[N];
  __m512i top[8];
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n) total[n] = sums[n];
  for_parts([&](auto j) __attribute__((always_inline)) {
    __m512i u[16];
    fetch<Format, Source>(ahead, j);
    Format::template part<j>(rows, top, u);
    meet_run<Format::kRun, N>(u, Format::first(j), g, x, k, total);
    meet_run<Format::kRun, N>(u + 8, Format::second(j), g, x, k, total);
  });
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n) sums[n] = total[n];
}

template <typename Format, typename Source>
[[gnu::noinline]] void unpack(Source rows, const uint8_t* ahead, Group& g) {
  Format::scales(rows, g);
  __m512i top[8];
  for_parts([&](auto j) __attribute__((always_inline)) {
    __m512i u[16];
    fetch<Format, Source>(ahead, j);
    Format::template part<j>(rows, top, u);
#pragma GCC unroll 8
    for (int c = 0; c < 8; ++c) {
      g.u[8 * Format::first(j) + c] = u[c];
      g.u[8 * Format::second(j) + c] = u[8 + c];
    }
  });
}

/// The same for values that lie unpacked.
template <int64_t kRun, int N>
[[gnu::noinline]] void meet(const Group& g, const IntColumns& x, int64_t k, __m512* sums) {
  __m512 total[N];
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n) total[n] = sums[n];
#pragma GCC unroll 2
  for (int run = 0; run < 8; ++run) meet_run<kRun, N>(g.u + 8 * run, run, g, x, k, total);
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n) sums[n] = total[n];
}

template <typename Format, bool kTurned>
void dots_of_groups(const uint8_t* packed, int64_t rows, int64_t blocks, int64_t n, const IntColumns& x, float* out, int64_t ld) {
  constexpr int64_t kStep = kValues / Format::kLength * Format::kBytes, kColumns = 64;
  const int64_t k = blocks * Format::kLength, stride = blocks * Format::kBytes;
  Group g;
  __m512 sums[kColumns];
  if constexpr (!kTurned)
    for (int64_t at = 0; at < kRows * stride; at += 64) _mm_prefetch(reinterpret_cast<const char*>(packed + at), _MM_HINT_T1);
  for (int64_t j0 = 0; j0 < n; j0 += kColumns) {
    const int64_t columns = n - j0 < kColumns ? n - j0 : kColumns;
    for (int64_t r = 0; r < rows; r += kRows) {
      const uint8_t* row = packed + r * stride;
      for (int64_t j = 0; j < columns; ++j) sums[j] = _mm512_setzero_ps();
      for (int64_t b = 0; b < k / kValues; ++b) {
        const auto source = [&] {
          if constexpr (kTurned) return Turned<Format>{row + kRows * b * kStep};
          else return Lying<Format>{row + b * kStep, stride};
        }();
        const auto at = [&](int64_t j) __attribute__((always_inline)) {
          const int64_t c = j0 + j;
          return IntColumns{x.q + c * k + b * kValues, x.scale + c * (k / 64) + b * 4, x.sum + c * (k / 16) + b * 16};
        };
        // As much of the next rows; behind the last ones lies what another task reads.
        const uint8_t* ahead = (r + kRows < rows ? row + kRows * stride : row) + kRows * b * kStep;
        if (columns == 1) meet_packed<Format, 1>(source, ahead, g, at(0), k, sums);
        else if (columns == 2) meet_packed<Format, 2>(source, ahead, g, at(0), k, sums);
        else if (columns == 3) meet_packed<Format, 3>(source, ahead, g, at(0), k, sums);
        else {
          unpack<Format>(source, ahead, g);
          int64_t j = 0;
          for (; j + 4 <= columns; j += 4) meet<Format::kRun, 4>(g, at(j), k, sums + j);
          if (columns - j == 3) meet<Format::kRun, 3>(g, at(j), k, sums + j);
          else if (columns - j == 2) meet<Format::kRun, 2>(g, at(j), k, sums + j);
          else if (columns - j == 1) meet<Format::kRun, 1>(g, at(j), k, sums + j);
        }
      }
      for (int64_t j = 0; j < columns; ++j) _mm512_storeu_ps(out + (j0 + j) * ld + r, sums[j]);
    }
  }
}

template <typename Format>
void turn_groups(const uint8_t* packed, int64_t rows, int64_t blocks, uint8_t* turned) {
  constexpr int64_t kStep = kValues / Format::kLength * Format::kBytes;
  const int64_t stride = blocks * Format::kBytes;
  for (int64_t r = 0; r < rows; r += kRows)
    for (int64_t b = 0; b < blocks * Format::kLength / kValues; ++b, turned += kRows * kStep) {
      const uint8_t* p = packed + r * stride + b * kStep;
      uint8_t* to = turned;
      for (int s = 0; s < Format::kHeads; ++s)
        for (int64_t row = 0; row < kRows; ++row, to += Format::kHeadBytes) std::memcpy(to, p + row * stride + Format::head(s), Format::kHeadBytes);
      for (int i = 0; i < Format::kPieces; ++i, to += 256) {
        __m512i dwords[4];
        turn(p + Format::piece(i), stride, dwords);
        for (int c = 0; c < 4; ++c) _mm512_storeu_si512(to + 64 * c, dwords[c]);
      }
    }
}

template <typename Format>
void lay_row(const uint8_t* turned, int64_t row, int64_t blocks, uint8_t* packed) {
  constexpr int64_t kStep = kValues / Format::kLength * Format::kBytes;
  for (int64_t b = 0; b < blocks * Format::kLength / kValues; ++b, turned += kRows * kStep, packed += kStep) {
    const uint8_t* from = turned;
    for (int s = 0; s < Format::kHeads; ++s, from += kRows * Format::kHeadBytes)
      std::memcpy(packed + Format::head(s), from + row * Format::kHeadBytes, Format::kHeadBytes);
    for (int i = 0; i < Format::kPieces; ++i)
      for (int c = 0; c < 4; ++c, from += 64) std::memcpy(packed + Format::piece(i) + 4 * c, from + 4 * row, 4);
  }
}

template <typename Format>
constexpr GroupPath path_of(std::string_view name) {
  return {name, dots_of_groups<Format, false>, dots_of_groups<Format, true>, turn_groups<Format>, lay_row<Format>};
}
constexpr GroupPath kGroupPaths[] = {path_of<Q4_K>("Q4_K"), path_of<Q5_K>("Q5_K"), path_of<Q6_K>("Q6_K"),
                                     path_of<Q8_0>("Q8_0"), path_of<Q4_0>("Q4_0"), path_of<MXFP4>("MXFP4")};

}  // namespace

const GroupPath* group_path(std::string_view format) {
  for (const GroupPath& path : kGroupPaths)
    if (path.format == format) return &path;
  return nullptr;
}

}  // namespace switchyard::kernels::cpu

#pragma GCC pop_options

#else

namespace switchyard::kernels::cpu {
const GroupPath* group_path(std::string_view) { return nullptr; }
}  // namespace switchyard::kernels::cpu

#endif
