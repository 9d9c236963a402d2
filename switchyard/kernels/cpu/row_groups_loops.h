// Sixteen rows of packed blocks at a time against int8 columns (row_groups.h), for vectors of any width: one lane a row, so that two
// vectors of eight lanes make a group where one of sixteen does not. A source includes it once, behind the lanes of its level
// (lanes_avx512.h, lanes_avx2.h) and under the compiler options of that level; bits are equal at all. Internal to kernels/.
#pragma once

#include <algorithm>
#include <cstring>
#include <string_view>
#include <type_traits>

#include "switchyard/kernels/cpu/blocks.h"
#include "switchyard/kernels/cpu/row_groups.h"

namespace switchyard::kernels::cpu {
namespace {

constexpr int64_t kRows = kGroupRows, kValues = kGroupStep;  ///< rows of a group; values of a row that are unpacked at once
constexpr int64_t kVectors = kRows / kLanes;                 ///< that hold one number of each row

/// What 256 values of kLanes rows stand for, for each run of values with one scale: scale u - offset.
struct Scales { Floats scale[kValues / 16], offset[kValues / 16]; };

SWITCHYARD_INLINE Ints low_nibbles(Ints v) { return both(v, each_byte(15)); }
SWITCHYARD_INLINE Ints high_nibbles(Ints v) { return low_nibbles(right_halves(v, 4)); }
/// Byte i of each lane.
SWITCHYARD_INLINE Ints byte_of(Ints v, int i) { return both(right(v, 8 * i), each_lane(255)); }

// A step of a format, 256 values of a row, is some heads (scales that stand before blocks: kHeadBytes each, head s at head(s)) and some
// pieces of 16 bytes (piece i at piece(i)). Where the rows of a group lie, one behind the other, or turned: heads first, each of sixteen
// rows, then the dwords of the pieces, each of sixteen rows. Both take the same room. The last step of blocks of 32 values may be shorter:
// an even number of blocks. A source gives kLanes rows of a step.

/// How many runs of 32 values a step has.
template <bool kWhole>
struct Length {
  static constexpr bool whole = kWhole;
  int64_t count = 8;
  [[gnu::always_inline]] int64_t runs() const { return kWhole ? 8 : count; }
};

template <typename Format>
struct Lying : Length<true> {
  static constexpr bool kTurned = false;
  const uint8_t* p;  ///< the step of the first row
  int64_t stride;    ///< from row to row
  [[gnu::always_inline]] void piece(int i, Ints* dwords) const { turn(p + Format::piece(i), stride, dwords); }
  [[gnu::always_inline]] Floats words(int s) const { return cpu::words(p + Format::head(s), stride); }
  [[gnu::always_inline]] Ints bytes(int s) const { return cpu::bytes(p + Format::head(s), stride); }
};

template <typename Format, bool kWhole>
struct Turned : Length<kWhole> {
  static constexpr bool kTurned = true;
  const uint8_t *heads, *pieces;  ///< those of the first row
  [[gnu::always_inline]] void piece(int i, Ints* dwords) const {
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) dwords[c] = load(pieces + 256 * i + 64 * c);
  }
  [[gnu::always_inline]] Floats words(int s) const { return cpu::words(heads + 32 * s); }
  [[gnu::always_inline]] Ints bytes(int s) const { return cpu::bytes(heads + 16 * s); }
};

/// The header of Q4_K and Q5_K (codecs/k_blocks.h): eight scales and offsets of 6 bits, times the block's two halves.
template <typename Source>
SWITCHYARD_INLINE void k_header(const Source& rows, Scales& g) {
  Ints head[4];
  rows.piece(0, head);
  const Floats d = low_halves(head[0]), least = low_halves(right(head[0], 16));
  const Ints six = each_byte(0x3f), four = each_byte(0x0f), two = each_byte(0x30);
  const auto more = [&](Ints low, Ints top) __attribute__((always_inline)) {
    return either(both(low, four), both(right(top, 2), two));
  };
  const Ints scale[2] = {both(head[1], six), more(head[3], head[1])};
  const Ints offset[2] = {both(head[2], six), more(right(head[3], 4), head[2])};
#pragma GCC unroll 8
  for (int s = 0; s < 8; ++s) {
    g.scale[s] = times(d, to_floats(byte_of(scale[s / 4], s % 4)));
    g.offset[s] = times(least, to_floats(byte_of(offset[s / 4], s % 4)));
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
  static constexpr int kMost = 15;
  SWITCHYARD_INLINE constexpr int64_t head(int) { return 0; }
  SWITCHYARD_INLINE constexpr int64_t piece(int i) { return 16 * i; }
  template <typename Source> SWITCHYARD_INLINE void scales(const Source& rows, Scales& g) { k_header(rows, g); }
  template <int j, typename Source> SWITCHYARD_INLINE void part(const Source& rows, Ints*, Ints* u) {
    Ints q[8];
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
  static constexpr int kMost = 31;
  SWITCHYARD_INLINE constexpr int64_t head(int) { return 0; }
  SWITCHYARD_INLINE constexpr int64_t piece(int i) { return 16 * i; }
  template <typename Source> SWITCHYARD_INLINE void scales(const Source& rows, Scales& g) { k_header(rows, g); }
  template <int j, typename Source> SWITCHYARD_INLINE void part(const Source& rows, Ints* top, Ints* u) {
    if constexpr (j == 0) {
      rows.piece(1, top);
      rows.piece(2, top + 4);
    }
    const Ints sixteen = each_byte(16);
    Ints q[8];
    rows.piece(3 + 2 * j, q);
    rows.piece(4 + 2 * j, q + 4);
#pragma GCC unroll 8
    for (int c = 0; c < 8; ++c) {  // bits 2 j and 2 j + 1 become bit 4
      const Ints low = j < 2 ? left_halves(top[c], 4 - 2 * j) : right_halves(top[c], 2 * j - 4);
      const Ints high = j < 2 ? left_halves(top[c], 3 - 2 * j) : right_halves(top[c], 2 * j - 3);
      u[c] = either(low_nibbles(q[c]), both(low, sixteen));
      u[8 + c] = either(high_nibbles(q[c]), both(high, sixteen));
    }
  }
};

struct Q6_K {
  static constexpr int64_t kLength = 256, kBytes = 210, kRun = 16, kHeads = 1, kHeadBytes = 2, kPieces = 13;
  static constexpr int kMost = 63;
  SWITCHYARD_INLINE constexpr int64_t head(int) { return 208; }
  SWITCHYARD_INLINE constexpr int64_t piece(int i) { return 16 * i; }
  SWITCHYARD_INLINE constexpr int first(int j) { return 4 * (j / 2) + j % 2; }
  SWITCHYARD_INLINE constexpr int second(int j) { return first(j) + 2; }
  template <typename Source> SWITCHYARD_INLINE void scales(const Source& rows, Scales& g) {
    Ints scales[4];
    rows.piece(12, scales);
    const Floats d = rows.words(0), zero = each(32);
#pragma GCC unroll 16
    for (int s = 0; s < 16; ++s) {
      const Ints whole = signed_right(left(scales[s / 4], 24 - 8 * (s % 4)), 24);
      g.scale[s] = times(d, to_floats(whole));
      g.offset[s] = times(g.scale[s], zero);
    }
  }
  template <int j, typename Source> SWITCHYARD_INLINE void part(const Source& rows, Ints* top, Ints* u) {
    constexpr bool kEven = j % 2 == 0;
    if constexpr (kEven) {
      rows.piece(8 + j, top);
      rows.piece(9 + j, top + 4);
    }
    const Ints two_bits = each_byte(0x30);
    Ints q[8];
    rows.piece(2 * j, q);
    rows.piece(2 * j + 1, q + 4);
#pragma GCC unroll 8
    for (int c = 0; c < 8; ++c) {  // bits 0 and 4 of `top` and the next ones, or 2 and 6
      const Ints low = left_halves(top[c], kEven ? 4 : 2), high = kEven ? top[c] : right_halves(top[c], 2);
      u[c] = either(low_nibbles(q[c]), both(low, two_bits));
      u[8 + c] = either(high_nibbles(q[c]), both(high, two_bits));
    }
  }
};

/// Eight blocks of 32 values make 256, each with a float16 for a scale; values are `zero` too large.
template <typename Source>
SWITCHYARD_INLINE void block_scales(const Source& rows, float zero, Scales& g) {
  for (int s = 0; s < rows.runs(); ++s) {
    g.scale[s] = rows.words(s);
    g.offset[s] = times(g.scale[s], each(zero));
  }
}

struct Q8_0 : Halves {
  static constexpr int64_t kLength = 32, kBytes = 34, kRun = 32, kHeads = 8, kHeadBytes = 2, kPieces = 16;
  static constexpr int kMost = 255;
  SWITCHYARD_INLINE constexpr int64_t head(int s) { return kBytes * s; }
  SWITCHYARD_INLINE constexpr int64_t piece(int i) { return kBytes * (i / 2) + 2 + 16 * (i % 2); }
  template <typename Source> SWITCHYARD_INLINE void scales(const Source& rows, Scales& g) { block_scales(rows, 128, g); }
  template <int j, typename Source> SWITCHYARD_INLINE void part(const Source& rows, Ints*, Ints* u) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) rows.piece(4 * j + i, u + 4 * i);
#pragma GCC unroll 16
    for (int c = 0; c < 16; ++c) u[c] = differing(u[c], each_byte(128));
  }
};

struct Q4_0 : Halves {
  static constexpr int64_t kLength = 32, kBytes = 18, kRun = 32, kHeads = 8, kHeadBytes = 2, kPieces = 8;
  static constexpr int kMost = 15;
  SWITCHYARD_INLINE constexpr int64_t head(int s) { return kBytes * s; }
  SWITCHYARD_INLINE constexpr int64_t piece(int i) { return kBytes * i + 2; }
  template <typename Source> SWITCHYARD_INLINE void scales(const Source& rows, Scales& g) { block_scales(rows, 8, g); }
  template <int j, typename Source> SWITCHYARD_INLINE void part(const Source& rows, Ints*, Ints* u) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      Ints q[4];
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
  static constexpr int kMost = 24;
  SWITCHYARD_INLINE constexpr int64_t head(int s) { return kBytes * s; }
  SWITCHYARD_INLINE constexpr int64_t piece(int i) { return kBytes * i + 1; }
  /// Of twice a value plus 12, so that it is unsigned: 2^(e - 128), a subnormal for the two smallest exponents.
  template <typename Source> SWITCHYARD_INLINE void scales(const Source& rows, Scales& g) {
    for (int s = 0; s < rows.runs(); ++s) {
      const Ints e = rows.bytes(s);
      const Ints normal = left(minus(e, each_lane(1)), 23);
      g.scale[s] = as_floats(where_less(e, 2, left_by(each_lane(0x00200000), e), normal));
      g.offset[s] = times(g.scale[s], each(12));
    }
  }
  template <int j, typename Source> SWITCHYARD_INLINE void part(const Source& rows, Ints* top, Ints* u) {
    const __m128i table = _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0);
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      rows.piece(2 * j + half, top);
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) {
        u[8 * half + c] = look_up(table, low_nibbles(top[c]));
        u[8 * half + 4 + c] = look_up(table, high_nibbles(top[c]));
      }
    }
  }
};

/// How runs of a format are summed: kRun values a scale, kDwords vectors before a sum is widened.
template <int run, int dwords>
struct Run { static constexpr int kRun = run, kDwords = dwords; };
template <typename Format>
using RunOf = Run<Format::kRun, std::min<int>(Format::kRun / 4, kTogether<Format::kMost>)>;

/// A group's 256 values as unsigned bytes, four consecutive values of a row in its lane.
struct alignas(64) Group {
  Ints u[kVectors][kValues / 4];
  Scales scales[kVectors];
};

/// total[kTimes n + v] += <rows of vector v, column n> over 32 values, run `run` of the eight, for kTimes vectors and N columns. u: the
/// run's eight vectors, those of the next vector of rows a step of values behind. x: of these 256 values, columns k apart.
template <typename R, int kTimes, int N>
SWITCHYARD_INLINE void meet_run(const Ints* u, int run, const Scales* scales, const IntColumns& x, int64_t k, Floats* total) {
  constexpr int kRun = R::kRun, kDwords = R::kDwords, kSums = kTimes * N;
#pragma GCC unroll 2
  for (int s = 0; s < 32 / kRun; ++s) {
    Ints whole[kSums];
#pragma GCC unroll 8
    for (int first = 0; first < kRun / 4; first += kDwords) {
      Ints part[kSums];
#pragma GCC unroll 8
      for (int c = 0; c < kDwords; ++c) {
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) {
          const Ints four = each_four(x.q + n * k + 32 * run + kRun * s + 4 * (first + c));
#pragma GCC unroll 2
          for (int v = 0; v < kTimes; ++v) {
            const Ints values = u[v * kValues / 4 + kRun / 4 * s + first + c];
            Ints& sum = part[kTimes * n + v];
            sum = c == 0 ? products(values, four) : plus_products(sum, values, four);
          }
        }
      }
#pragma GCC unroll 8
      for (int i = 0; i < kSums; ++i) whole[i] = first == 0 ? sum_of(part[i]) : plus(whole[i], sum_of(part[i]));
    }
    const int scale = 32 / kRun * run + s;
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      const float* sum = x.sum + n * (k / 16) + 2 * run + s;
      const Floats unit = each(x.scale[n * (k / 64) + run / 2]), sums = each(kRun == 16 ? sum[0] : sum[0] + sum[1]);
#pragma GCC unroll 2
      for (int v = 0; v < kTimes; ++v) {
        Floats& to = total[kTimes * n + v];
        to = plus_product(to, to_floats(whole[kTimes * n + v]), times(scales[v].scale[scale], unit));
        to = minus_product(to, scales[v].offset[scale], sums);
      }
    }
  }
}

/// Calls f with the parts 0 to 3, or those that a shorter step has, as constants.
template <typename Source, typename F>
SWITCHYARD_INLINE void for_parts(const Source& rows, const F& f) {
  f(std::integral_constant<int, 0>());
  if (rows.runs() > 2) f(std::integral_constant<int, 1>());
  if (rows.runs() > 4) f(std::integral_constant<int, 2>());
  if (rows.runs() > 6) f(std::integral_constant<int, 3>());
}

/// A quarter of what these rows' step reads ahead, in the order of addresses; into the second-level cache, since sixteen rows fill the
/// first. All of it at once would take every buffer that waits for memory. ahead null: nothing.
template <typename Format, typename Source>
SWITCHYARD_INLINE void fetch(const uint8_t* ahead, int part) {
  if constexpr (Source::kTurned && kTurnedAhead == 0) return;
  if (!ahead) return;
  constexpr int64_t kBytes = kLanes * kValues / Format::kLength * Format::kBytes / 4;
  for (int64_t at = 0; at < kBytes; at += 64) _mm_prefetch(reinterpret_cast<const char*>(ahead + part * kBytes + at), _MM_HINT_T1);
}

/// sums[kVectors n] += <kLanes rows, the values of a step of column n>, for N columns: the values meet them as they are unpacked.
template <typename Format, int N, typename Source>
[[gnu::noinline]] void meet_packed(Source rows, const uint8_t* ahead, const IntColumns& x, int64_t k, Floats* sums) {
  using R = RunOf<Format>;
  Scales scales;
  Format::scales(rows, scales);
  Floats total[N];
  Ints top[8];
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n) total[n] = sums[kVectors * n];
  for_parts(rows, [&](auto j) __attribute__((always_inline)) {
    Ints u[16];
    fetch<Format, Source>(ahead, j);
    Format::template part<j>(rows, top, u);
    meet_run<R, 1, N>(u, Format::first(j), &scales, x, k, total);
    meet_run<R, 1, N>(u + 8, Format::second(j), &scales, x, k, total);
  });
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n) sums[kVectors * n] = total[n];
}

template <typename Format, typename Source>
[[gnu::noinline]] void unpack(Source rows, const uint8_t* ahead, Scales& scales, Ints* to) {
  Format::scales(rows, scales);
  Ints top[8];
  for_parts(rows, [&](auto j) __attribute__((always_inline)) {
    Ints u[16];
    fetch<Format, Source>(ahead, j);
    Format::template part<j>(rows, top, u);
#pragma GCC unroll 8
    for (int c = 0; c < 8; ++c) {
      to[8 * Format::first(j) + c] = u[c];
      to[8 * Format::second(j) + c] = u[8 + c];
    }
  });
}

/// Runs in the order of first(0), second(0), first(1), ...: that of Q6_K, the one format whose runs are of 16, is 0, 2, 1, 3, 4, 6, 5, 7.
template <typename R>
SWITCHYARD_INLINE constexpr int in_order(int i) { return R::kRun == 16 ? (i & 4) | (i & 1) << 1 | (i >> 1 & 1) : i; }

/// The same, to the bit, for values that lie unpacked.
template <typename R, int N>
[[gnu::noinline]] void meet(const Group& g, int64_t runs, const IntColumns& x, int64_t k, Floats* sums) {
  constexpr int64_t kSums = kVectors * N;
  Floats total[kSums];
#pragma GCC unroll 8
  for (int i = 0; i < kSums; ++i) total[i] = sums[i];
#pragma GCC unroll 2
  for (int64_t i = 0; i < runs; ++i) {
    const int run = in_order<R>(static_cast<int>(i));
    meet_run<R, kVectors, N>(g.u[0] + 8 * run, run, g.scales, x, k, total);
  }
#pragma GCC unroll 8
  for (int i = 0; i < kSums; ++i) sums[i] = total[i];
}

/// One step of a group against `columns` columns. source(v): of the rows of vector v. ahead: what may be needed later, or null.
template <typename Format, typename SourceOf>
SWITCHYARD_INLINE void meet_step(const SourceOf& source, const uint8_t* ahead, Group& g, const IntColumns& x, int64_t columns, int64_t k, Floats* sums) {
  using Source = decltype(source(0));
  constexpr int64_t kAhead = kLanes * kValues / Format::kLength * Format::kBytes;
  if constexpr (Source::whole) {
    if (columns < 4) {
      for (int64_t v = 0; v < kVectors; ++v) {
        const uint8_t* far = ahead ? ahead + v * kAhead : nullptr;
        if (columns == 1) meet_packed<Format, 1>(source(v), far, x, k, sums + v);
        else if (columns == 2) meet_packed<Format, 2>(source(v), far, x, k, sums + v);
        else meet_packed<Format, 3>(source(v), far, x, k, sums + v);
      }
      return;
    }
  }
  for (int64_t v = 0; v < kVectors; ++v) unpack<Format>(source(v), ahead ? ahead + v * kAhead : nullptr, g.scales[v], g.u[v]);
  const int64_t runs = source(0).runs();
  int64_t j = 0;
  for (; j + 4 <= columns; j += 4) meet<RunOf<Format>, 4>(g, runs, x.from(j, k), k, sums + kVectors * j);
  if (columns - j == 3) meet<RunOf<Format>, 3>(g, runs, x.from(j, k), k, sums + kVectors * j);
  else if (columns - j == 2) meet<RunOf<Format>, 2>(g, runs, x.from(j, k), k, sums + kVectors * j);
  else if (columns - j == 1) meet<RunOf<Format>, 1>(g, runs, x.from(j, k), k, sums + kVectors * j);
}

template <typename Format> constexpr int64_t kBlocks = kValues / Format::kLength;          ///< a step, of a row
template <typename Format> constexpr int64_t kStepBytes = kBlocks<Format> * Format::kBytes;  ///< of a row

/// The rows of vector v of a group that lies, or of a turned step of so many runs.
template <typename Format>
SWITCHYARD_INLINE Lying<Format> lying_rows(const uint8_t* step, int64_t stride, int64_t v) { return {{}, step + v * kLanes * stride, stride}; }
template <typename Format, bool kWhole>
SWITCHYARD_INLINE Turned<Format, kWhole> turned_rows(const uint8_t* step, int64_t runs, int64_t v) {
  const int64_t heads = Format::kHeads * (kWhole ? 8 : runs) / 8;
  return {{runs}, step + v * kLanes * Format::kHeadBytes, step + kRows * heads * Format::kHeadBytes + 4 * v * kLanes};
}

/// Turns a step of so many blocks of the sixteen rows at p, and reads ahead what lies as far as it comes; null: nothing.
template <typename Format>
void turn_step(const uint8_t* p, int64_t stride, int64_t blocks, uint8_t* turned, const uint8_t* ahead) {
  const auto fetch_as_far = [&](int64_t bytes) {
    for (int64_t at = 0; ahead && at < bytes; at += 64) _mm_prefetch(reinterpret_cast<const char*>(ahead + at), _MM_HINT_T1);
    if (ahead) ahead += bytes;
  };
  fetch_as_far(kRows * Format::kHeads * Format::kHeadBytes);
  for (int64_t s = 0; s < Format::kHeads * blocks / kBlocks<Format>; ++s)
    for (int64_t row = 0; row < kRows; ++row, turned += Format::kHeadBytes) std::memcpy(turned, p + row * stride + Format::head(s), Format::kHeadBytes);
  for (int64_t i = 0; i < Format::kPieces * blocks / kBlocks<Format>; ++i, turned += 256) {
    fetch_as_far(256);
    for (int64_t v = 0; v < kVectors; ++v) {
      Ints dwords[4];
      turn(p + v * kLanes * stride + Format::piece(i), stride, dwords);
      for (int c = 0; c < 4; ++c) store(turned + 64 * c + 4 * v * kLanes, dwords[c]);
    }
  }
}

template <typename Format, bool kTurned>
void dots_of_groups(const uint8_t* packed, int64_t rows, int64_t blocks, int64_t n, const IntColumns& x, float* out, int64_t ld) {
  constexpr int64_t kStep = kStepBytes<Format>, kColumns = 64;
  const int64_t k = blocks * Format::kLength, stride = blocks * Format::kBytes, steps = k / kValues, runs = k % kValues / 32;
  Group g;
  Floats sums[kVectors * kColumns];
  alignas(64) uint8_t just_turned[kRows * kStep];
  if constexpr (!kTurned)
    for (int64_t at = 0; at < kRows * stride; at += 64) _mm_prefetch(reinterpret_cast<const char*>(packed + at), _MM_HINT_T1);
  for (int64_t j0 = 0; j0 < n; j0 += kColumns) {
    const int64_t columns = n - j0 < kColumns ? n - j0 : kColumns;
    const IntColumns here = x.from(j0, k);
    for (int64_t r = 0; r < rows; r += kRows) {
      const uint8_t* row = packed + r * stride;
      const auto meet_turned = [&](const uint8_t* step, int64_t b) __attribute__((always_inline)) {
        meet_step<Format>([=](int64_t v) { return turned_rows<Format, true>(step, 8, v); }, kTurned ? step + kTurnedAhead * kRows * kStep : nullptr, g, here.values(b * kValues), columns, k, sums);
      };
      for (int64_t i = 0; i < kVectors * columns; ++i) sums[i] = no_floats();
      for (int64_t b = 0; b < steps; ++b) {
        const uint8_t* step = row + (kTurned ? kRows : 1) * b * kStep;
        if constexpr (kTurned) {
          meet_turned(step, b);
        } else {
          // As much of the next rows; behind the last ones lies what another task reads.
          const uint8_t* ahead = (r + kRows < rows ? row + kRows * stride : row) + kRows * b * kStep;
          if constexpr (kTurnsFirst) {
            turn_step<Format>(step, stride, kBlocks<Format>, just_turned, ahead);
            meet_turned(just_turned, b);
          } else {
            meet_step<Format>([=](int64_t v) { return lying_rows<Format>(step, stride, v); }, ahead, g, here.values(b * kValues), columns, k, sums);
          }
        }
      }
      if constexpr (Format::kLength == 32) {
        if (runs > 0) {
          const uint8_t* step = row + (kTurned ? kRows : 1) * steps * kStep;
          if constexpr (!kTurned) turn_step<Format>(step, stride, runs, just_turned, nullptr);
          if constexpr (!kTurned) step = just_turned;
          meet_step<Format>([=](int64_t v) { return turned_rows<Format, false>(step, runs, v); }, nullptr, g, here.values(steps * kValues), columns, k, sums);
        }
      }
      for (int64_t j = 0; j < columns; ++j)
        for (int64_t v = 0; v < kVectors; ++v) store(out + (j0 + j) * ld + r + v * kLanes, sums[kVectors * j + v]);
    }
  }
}

template <typename Format>
void turn_groups(const uint8_t* packed, int64_t rows, int64_t blocks, uint8_t* turned) {
  const int64_t stride = blocks * Format::kBytes;
  for (int64_t r = 0; r < rows; r += kRows)
    for (int64_t b = 0; b < blocks; b += kBlocks<Format>) {
      const int64_t here = std::min(kBlocks<Format>, blocks - b);
      turn_step<Format>(packed + r * stride + b * Format::kBytes, stride, here, turned, nullptr);
      turned += kRows * here * Format::kBytes;
    }
}

template <typename Format>
void lay_row(const uint8_t* turned, int64_t row, int64_t blocks, uint8_t* packed) {
  for (int64_t b = 0; b < blocks; b += kBlocks<Format>, packed += kStepBytes<Format>) {
    const int64_t here = std::min(kBlocks<Format>, blocks - b);
    for (int64_t s = 0; s < Format::kHeads * here / kBlocks<Format>; ++s, turned += kRows * Format::kHeadBytes)
      std::memcpy(packed + Format::head(s), turned + row * Format::kHeadBytes, Format::kHeadBytes);
    for (int64_t i = 0; i < Format::kPieces * here / kBlocks<Format>; ++i)
      for (int c = 0; c < 4; ++c, turned += 64) std::memcpy(packed + Format::piece(i) + 4 * c, turned + 4 * row, 4);
  }
}

template <typename Format>
constexpr GroupPath path_of(std::string_view name) {
  return {name, dots_of_groups<Format, false>, dots_of_groups<Format, true>, turn_groups<Format>, lay_row<Format>};
}

}  // namespace
}  // namespace switchyard::kernels::cpu
