// Sixteen rows of packed blocks at a time against int8 columns (row_groups.h), for vectors of any width: one lane a row, so that two
// vectors of eight lanes make a group where one of sixteen does not. A source includes it once, behind the lanes of its level
// (lanes_avx512.h, lanes_avx2.h) and under the compiler options of that level; bits are equal at all. Internal to kernels/.
#pragma once

#include <algorithm>
#include <cstring>
#include <string_view>
#include <type_traits>

#include "switchyard/kernels/cpu/row_group_formats.h"
#include "switchyard/kernels/cpu/rows_apart.h"

namespace switchyard::kernels::cpu {
namespace {

/// How many vectors of products of a run are summed before the sum is widened.
template <typename Format>
constexpr int kDwords = std::min<int>(Format::kRun / 4, kTogether<Format::kMost>);

/// What the two runs of a part make as integers: one sum of both where they have one unit, as what is subtracted has another, else one of each.
template <typename Format>
struct Whole {
  Ints of[Format::kLeast ? 1 : 2];
};

/// Adds `sum`, of the products from dword `first` of run i on; begins: of the first ones of the run.
template <typename Format>
SWITCHYARD_INLINE void add_sum(Whole<Format>& whole, bool begins, Ints sum, const Scales& scales, int i, int first) {
  Ints& to = whole.of[Format::kLeast ? 0 : i];
  Ints scaled;
  if constexpr (Format::kScaled) scaled = scaled_sum(sum, scales.scale[32 / Format::kRun * i + 4 * first / Format::kRun]);
  else scaled = sum_of(sum);
  to = begins && (i == 0 || !Format::kLeast) ? scaled : plus(to, scaled);
}

/// Adds part j to the total of one column, whose x is that of these 256 values.
template <typename Format>
SWITCHYARD_INLINE Floats with_part(Floats total, const Whole<Format>& whole, const Scales& scales, int j, const IntColumns& x) {
  if constexpr (Format::kLeast) {
    const Ints offset = products_of_halves(scales.offset[0], each_four(sums_of_32(x, j)));
    const Floats part = minus_product(times(to_floats(whole.of[0]), scales.unit[0]), to_floats(offset), scales.least);
    return plus_product(total, part, each(x.scale[j]));
  } else {
    const int runs[2] = {Format::first(j), Format::second(j)};
    const auto run = [&](int i) __attribute__((always_inline)) {
      return to_floats(minus(whole.of[i], products_of_halves(scales.offset[i], each_four(sums_of_16(x, runs[i])))));
    };
    const auto unit = [&](int i) __attribute__((always_inline)) { return each(x.scale[runs[i] / 2]); };
    if constexpr (Format::kScaled) return plus_product(total, plus_product(times(run(0), unit(0)), run(1), unit(1)), scales.unit[0]);
    else return plus_product(total, plus_product(times(run(0), scales.unit[0]), run(1), scales.unit[1]), unit(0));
  }
}

/// Calls f with the parts 0 to 3, or those that a shorter step has, as constants.
template <typename F>
SWITCHYARD_INLINE void for_parts(int64_t runs, const F& f) {
  f(std::integral_constant<int, 0>());
  if (runs > 2) f(std::integral_constant<int, 1>());
  if (runs > 4) f(std::integral_constant<int, 2>());
  if (runs > 6) f(std::integral_constant<int, 3>());
}

// Few columns meet values as they are unpacked.

/// Dword s of the sixteen of a part, in the order in which they are met: which of the pair, and of which pair. Where registers are few one side
/// of the pairs is met before the other; where a vector holds all rows both alternate, so that no sum waits for itself.
template <typename Format>
struct Dword {
  static constexpr bool kAlternate = kVectors == 1;
  int i, c;
  constexpr explicit Dword(int s)
      : i(kAlternate ? s % 2 : Format::kShared ? s / 4 % 2 : s / 8), c(kAlternate ? s / 2 : Format::kShared ? s / 8 * 4 + s % 4 : s % 8) {}
};

/// sums[kVectors n + v] += <rows of vector v, the values of part j of column n>, for N columns.
template <typename Format, int j, int N>
[[gnu::noinline]] void meet_part(const uint8_t* step, int64_t runs, const Heads* heads, const IntColumns& x, int64_t k, Floats* sums) {
  constexpr int kSums = kVectors * N, kTimes = Format::kShared ? std::min(4, kDwords<Format>) : kDwords<Format>;
  Ints part[2][kSums];
  Whole<Format> whole[kSums];
  Scales scales[kVectors];
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) Format::template scales<j>(heads[v], scales[v]);
#pragma GCC unroll 16
  for (int s = 0; s < 16; ++s) {
    const auto [i, c] = Dword<Format>(s);
    if (!Dword<Format>::kAlternate && i == 1 && c % (Format::kShared ? 4 : 8) == 0) asm volatile("" ::: "memory");  // what was read is read again, not kept
    Ints* const of = part[Dword<Format>::kAlternate ? i : 0];
    Ints values[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      Ints pair[2];
      Format::template pair<j>(Step<Format>(step, runs, v), c, pair[0], pair[1]);
      values[v] = pair[i];
    }
#pragma GCC unroll 3
    for (int n = 0; n < N; ++n) {
      const Ints four = each_four(x.q + n * k + 4 * (i == 0 ? Format::low_at(j, c) : Format::high_at(j, c)));
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        Ints& sum = of[kVectors * n + v];
        sum = c % kTimes == 0 ? products(values[v], four) : plus_products(sum, values[v], four);
      }
    }
    if (c % kTimes != kTimes - 1) continue;
#pragma GCC unroll 6
    for (int t = 0; t < kSums; ++t) {
      if constexpr (Format::kShared) add_sum(whole[t], i == 0 && c % 4 < kTimes, of[t], scales[t % kVectors], c / 4, c % 4);
      else add_sum(whole[t], c < kTimes, of[t], scales[t % kVectors], i, c);
    }
  }
#pragma GCC unroll 6
  for (int t = 0; t < kSums; ++t) sums[t] = with_part(sums[t], whole[t], scales[t % kVectors], j, x.from(t / kVectors, k));
}

template <typename Format>
[[gnu::noinline]] void read_heads(const uint8_t* step, int64_t runs, Heads* heads) {
  for (int64_t v = 0; v < kVectors; ++v) Format::heads(Step<Format>(step, runs, v), heads[v]);
}

template <typename Format> constexpr int64_t kBlocks = kValues / Format::kLength;          ///< a step, of a row
template <typename Format> constexpr int64_t kStepBytes = kRows * kBlocks<Format> * Format::kBytes;

template <typename Format> constexpr uint32_t kStepLines = (kStepBytes<Format> + 63) / 64;  ///< of memory

/// Reads some lines of a step that will be needed, in the order of addresses: all at once would take every buffer that waits for memory, and
/// two places by turns are no stream. What comes next goes to the first-level cache; what comes after other rows, which fill that one, to the
/// second. Null: nothing.
template <bool kNext>
SWITCHYARD_INLINE void read_ahead(const uint8_t* step, uint32_t first, uint32_t lines) {
  for (uint32_t line = first; step && line < first + lines; ++line)
    _mm_prefetch(reinterpret_cast<const char*>(step + 64 * line), kNext ? _MM_HINT_T0 : _MM_HINT_T1);
}

/// sums[streams][kVectors n + v] += <rows, the values of a step of column n>, for N columns and groups `far` apart that are read at once, 64 values
/// of one after those of another: what is read ahead of one comes while the others are multiplied.
template <typename Format, int N, int64_t kStreams, bool kTurned>
SWITCHYARD_INLINE void meet_few(const uint8_t* step, const uint8_t* ahead, int64_t streams, int64_t far, int64_t runs, const IntColumns& x, int64_t k, Floats (*sums)[kVectors * N]) {
  Heads heads[kStreams][kVectors];
  for (int64_t s = 0; s < streams; ++s) read_heads<Format>(step + s * far, runs, heads[s]);
  for_parts(runs, [&](auto j) __attribute__((always_inline)) {
    for (int64_t s = 0; s < streams; ++s) {
      constexpr uint32_t kShare = (kStepLines<Format> + 3) / 4;
      read_ahead<kTurned>(ahead ? ahead + s * far : nullptr, kShare * j, kShare);
      meet_part<Format, j, N>(step + s * far, runs, heads[s], x, k, sums[s]);
    }
  });
}

// Many columns meet values that lie unpacked.

/// A group's 256 values as unsigned bytes, four consecutive values of a row in its lane.
struct alignas(64) Group {
  Ints u[kVectors][kValues / 4];
  Scales scales[kVectors][4];
};

template <typename Format>
[[gnu::noinline]] void unpack(const Step<Format>& rows, Scales* scales, Ints* to) {
  Heads heads;
  Format::heads(rows, heads);
  for_parts(rows.runs, [&](auto j) __attribute__((always_inline)) {
    Format::template scales<j>(heads, scales[j]);
#pragma GCC unroll 8
    for (int c = 0; c < 8; ++c) Format::template pair<j>(rows, c, to[Format::low_at(j, c)], to[Format::high_at(j, c)]);
  });
}

/// The same as meet_part of all parts, to the bit, for values that lie unpacked.
template <typename Format, int N>
[[gnu::noinline]] void meet(const Group& g, int64_t runs, const IntColumns& x, int64_t k, Floats* sums) {
  constexpr int kSums = kVectors * N;
  Floats total[kSums];
#pragma GCC unroll 8
  for (int i = 0; i < kSums; ++i) total[i] = sums[i];
  for (int j = 0; j < runs / 2; ++j) {
    Whole<Format> whole[kSums];
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const int run = half == 0 ? Format::first(j) : Format::second(j);
      const int8_t* q = x.q + 32 * run;
#pragma GCC unroll 8
      for (int first = 0; first < 8; first += kDwords<Format>) {
        Ints part[kSums];
#pragma GCC unroll 8
        for (int c = first; c < first + kDwords<Format>; ++c) {
#pragma GCC unroll 4
          for (int n = 0; n < N; ++n) {
            const Ints four = each_four(q + n * k + 4 * c);
#pragma GCC unroll 2
            for (int v = 0; v < kVectors; ++v) {
              Ints& sum = part[kVectors * n + v];
              sum = c == first ? products(g.u[v][8 * run + c], four) : plus_products(sum, g.u[v][8 * run + c], four);
            }
          }
        }
#pragma GCC unroll 8
        for (int i = 0; i < kSums; ++i) add_sum(whole[i], first == 0, part[i], g.scales[i % kVectors][j], half, first);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < kSums; ++i) total[i] = with_part(total[i], whole[i], g.scales[i % kVectors][j], j, x.from(i / kVectors, k));
  }
#pragma GCC unroll 8
  for (int i = 0; i < kSums; ++i) sums[i] = total[i];
}

template <typename Format>
void meet_many(const uint8_t* step, const uint8_t* ahead, int64_t runs, Group& g, const IntColumns& x, int64_t columns, int64_t k, Floats* sums) {
  constexpr int64_t kTogether = 4;
  const uint32_t times = static_cast<uint32_t>(columns + kTogether - 1) / kTogether, share = (kStepLines<Format> + times - 1) / times;
  for (int64_t v = 0; v < kVectors; ++v) unpack<Format>(Step<Format>(step, runs, v), g.scales[v], g.u[v]);
  for (int64_t j = 0; j < columns; j += kTogether) {
    read_ahead<false>(ahead, static_cast<uint32_t>(j / kTogether) * share, share);
    const IntColumns here = x.from(j, k);
    Floats* to = sums + kVectors * j;
    switch (columns - j) {
      case 1: meet<Format, 1>(g, runs, here, k, to); break;
      case 2: meet<Format, 2>(g, runs, here, k, to); break;
      case 3: meet<Format, 3>(g, runs, here, k, to); break;
      default: meet<Format, kTogether>(g, runs, here, k, to);
    }
  }
}

/// Turns a step of so many blocks of the sixteen rows at p.
template <typename Format>
void turn_step(const uint8_t* p, int64_t stride, int64_t blocks, uint8_t* turned) {
  for (int64_t s = 0; s < Format::kHeads * blocks / kBlocks<Format>; ++s)
    for (int64_t row = 0; row < kRows; ++row, turned += Format::kHeadBytes) std::memcpy(turned, p + row * stride + Format::head(s), Format::kHeadBytes);
  for (int i = 0; i < Format::kPieces * blocks / kBlocks<Format>; ++i) {
    for (int64_t v = 0; v < kVectors; ++v) {
      Ints dwords[4];
      turn(p + v * kLanes * stride + Format::piece(i), stride, dwords);
      for (int c = 0; c < 4; ++c) store(turned + 64 * Format::place(4 * i + c) + 4 * v * kLanes, dwords[c]);
    }
  }
}

/// Calls f with each step of a row of so many blocks, and the runs that it has: the last may be shorter.
template <typename Format, typename F>
SWITCHYARD_INLINE void for_steps(int64_t blocks, const F& f) {
  const int64_t whole = blocks / kBlocks<Format>, rest = blocks % kBlocks<Format>;
  for (int64_t b = 0; b < whole; ++b) f(b, int64_t{8});
  if constexpr (Format::kLength == 32)
    if (rest > 0) f(whole, rest);
}

/// Where step b of the group whose first row is r stands turned, and what to read ahead meanwhile: groups that have turned.
template <typename Format>
struct TurnedGroups {
  const uint8_t* turned;
  int64_t stride;
  TurnedGroups(const uint8_t* first, int64_t, int64_t row_bytes) : turned(first), stride(row_bytes) {}
  const uint8_t* step(int64_t r, int64_t b, int64_t) { return turned + r * stride + b * kStepBytes<Format>; }
  const uint8_t* ahead(int64_t r, int64_t b) const { return kTurnedAhead > 0 ? turned + r * stride + (b + kTurnedAhead) * kStepBytes<Format> : nullptr; }
};

/// The same of groups that lie: a step turns when its turn comes, and stands until the next one does.
template <typename Format>
struct LyingGroups {
  const uint8_t* packed;
  int64_t rows, stride;
  alignas(64) uint8_t turned[kStepBytes<Format>];

  LyingGroups(const uint8_t* first, int64_t all, int64_t row_bytes) : packed(first), rows(all), stride(row_bytes) {
    for (int64_t at = 0; at < kRows * stride; at += 64) _mm_prefetch(reinterpret_cast<const char*>(packed + at), _MM_HINT_T1);
  }
  const uint8_t* step(int64_t r, int64_t b, int64_t runs) {
    turn_step<Format>(packed + r * stride + b * kStepBytes<Format> / kRows, stride, runs * kBlocks<Format> / 8, turned);
    return turned;
  }
  /// As much of the next rows; behind the last ones lies what another task reads.
  const uint8_t* ahead(int64_t r, int64_t b) const { return r + kRows < rows ? packed + (r + kRows) * stride + b * kStepBytes<Format> : nullptr; }
};
template <typename Format, bool kTurned>
using Groups = std::conditional_t<kTurned, TurnedGroups<Format>, LyingGroups<Format>>;

/// N columns. Groups that have turned are read several at once.
template <typename Format, int N, bool kTurned>
void few_meet(const uint8_t* packed, int64_t rows, int64_t blocks, const IntColumns& x, float* out, int64_t ld) {
  constexpr int64_t kStreams = kTurned ? kGroupStreams : 1;
  const int64_t k = blocks * Format::kLength, group_bytes = kRows * blocks * Format::kBytes, all = rows / kRows;
  Groups<Format, kTurned> groups(packed, rows, blocks * Format::kBytes);
  const auto meet = [&](int64_t first, int64_t streams, int64_t apart) {
    Floats sums[kStreams][kVectors * N];
    for (auto& of : sums)
      for (Floats& sum : of) sum = no_floats();
    for_steps<Format>(blocks, [&](int64_t b, int64_t runs) {
      const uint8_t* step = groups.step(first * kRows, b, runs);
      meet_few<Format, N, kStreams, kTurned>(step, groups.ahead(first * kRows, b), streams, apart * group_bytes, runs, x.values(b * kValues), k, sums);
    });
    for (int64_t s = 0; s < streams; ++s)
      for (int64_t i = 0; i < kVectors * N; ++i) store(out + i / kVectors * ld + (first + s * apart) * kRows + i % kVectors * kLanes, sums[s][i]);
  };
  int64_t g = 0;
  if constexpr (kStreams > 1)
    for (int64_t apart; (apart = rows_apart(all - g, kStreams, group_bytes)) > 0; g += (kStreams - 1) * apart)
      for (const int64_t end = g + apart; g < end; ++g) meet(g, kStreams, apart);
  for (; g < all; ++g) meet(g, 1, 0);
}

template <typename Format, bool kTurned>
void many_meet(const uint8_t* packed, int64_t rows, int64_t blocks, int64_t n, const IntColumns& x, float* out, int64_t ld) {
  constexpr int64_t kColumns = 64;
  const int64_t k = blocks * Format::kLength;
  Group g;
  Floats sums[kVectors * kColumns];
  Groups<Format, kTurned> groups(packed, rows, blocks * Format::kBytes);
  for (int64_t j0 = 0; j0 < n; j0 += kColumns) {
    const int64_t columns = std::min(kColumns, n - j0);
    const IntColumns here = x.from(j0, k);
    for (int64_t r = 0; r < rows; r += kRows) {
      std::fill_n(sums, kVectors * columns, no_floats());
      for_steps<Format>(blocks, [&](int64_t b, int64_t runs) {
        meet_many<Format>(groups.step(r, b, runs), groups.ahead(r, b), runs, g, here.values(b * kValues), columns, k, sums);
      });
      for (int64_t j = 0; j < columns; ++j)
        for (int64_t v = 0; v < kVectors; ++v) store(out + (j0 + j) * ld + r + v * kLanes, sums[kVectors * j + v]);
    }
  }
}

template <typename Format, bool kTurned>
void dots_of_groups(const uint8_t* packed, int64_t rows, int64_t blocks, int64_t n, const IntColumns& x, float* out, int64_t ld) {
  if (n == 1) few_meet<Format, 1, kTurned>(packed, rows, blocks, x, out, ld);
  else if (n == 2) few_meet<Format, 2, kTurned>(packed, rows, blocks, x, out, ld);
  else if (n == 3) few_meet<Format, 3, kTurned>(packed, rows, blocks, x, out, ld);
  else many_meet<Format, kTurned>(packed, rows, blocks, n, x, out, ld);
}

template <typename Format>
void turn_groups(const uint8_t* packed, int64_t rows, int64_t blocks, uint8_t* turned) {
  const int64_t stride = blocks * Format::kBytes;
  for (int64_t r = 0; r < rows; r += kRows)
    for (int64_t b = 0; b < blocks; b += kBlocks<Format>) {
      const int64_t here = std::min(kBlocks<Format>, blocks - b);
      turn_step<Format>(packed + r * stride + b * Format::kBytes, stride, here, turned);
      turned += kRows * here * Format::kBytes;
    }
}

template <typename Format>
void lay_row(const uint8_t* turned, int64_t row, int64_t blocks, uint8_t* packed) {
  for (int64_t b = 0; b < blocks; b += kBlocks<Format>, packed += kStepBytes<Format> / kRows) {
    const int64_t here = std::min(kBlocks<Format>, blocks - b);
    for (int64_t s = 0; s < Format::kHeads * here / kBlocks<Format>; ++s, turned += kRows * Format::kHeadBytes)
      std::memcpy(packed + Format::head(s), turned + row * Format::kHeadBytes, Format::kHeadBytes);
    const int pieces = static_cast<int>(Format::kPieces * here / kBlocks<Format>);
    for (int i = 0; i < 4 * pieces; ++i) std::memcpy(packed + Format::piece(i / 4) + 4 * (i % 4), turned + 64 * Format::place(i) + 4 * row, 4);
    turned += 256 * pieces;
  }
}

template <typename Format>
constexpr GroupPath path_of(std::string_view name) {
  return {name, dots_of_groups<Format, false>, dots_of_groups<Format, true>, kManyLose, turn_groups<Format>, lay_row<Format>};
}

}  // namespace
}  // namespace switchyard::kernels::cpu
