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

/// Adds `sum`, of the products from dword `first` of a part's run i on, to what the run makes, as integers.
template <typename Format>
SWITCHYARD_INLINE void add_sum(Ints& whole, bool begins, Ints sum, const Scales& scales, int i, int first) {
  Ints scaled;
  if constexpr (Format::kScaled) scaled = scaled_sum(sum, scales.scale[32 / Format::kRun * i + 4 * first / Format::kRun]);
  else scaled = sum_of(sum);
  whole = begins ? scaled : plus(whole, scaled);
}

/// Adds part j to the total of one column, whose x is that of these 256 values: whole[0] and whole[1] of its two runs.
template <typename Format>
SWITCHYARD_INLINE Floats with_part(Floats total, const Ints* whole, const Scales& scales, int j, const IntColumns& x) {
  const int runs[2] = {Format::first(j), Format::second(j)};
  const auto offset = [&](int i) __attribute__((always_inline)) { return products_of_halves(scales.offset[i], each_four(x.sum + 2 * runs[i])); };
  if constexpr (Format::kLeast) {  // both runs have one unit
    const Floats unit = each(x.scale[j]);
    total = plus_product(total, to_floats(plus(whole[0], whole[1])), times(scales.unit[0], unit));
    return minus_product(total, to_floats(plus(offset(0), offset(1))), times(scales.least, unit));
  } else {
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) total = plus_product(total, to_floats(minus(whole[i], offset(i))), times(scales.unit[i], each(x.scale[runs[i] / 2])));
    return total;
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

/// sums[kVectors n + v] += <rows of vector v, the values of part j of column n>, for N columns and V vectors from `first` on.
template <typename Format, int j, int N, int V>
SWITCHYARD_INLINE void meet_vectors(const uint8_t* step, int64_t runs, int64_t first, const Heads* heads, const IntColumns& x, int64_t k, Floats* sums) {
  constexpr int kSums = V * N, kTimes = Format::kShared ? std::min(4, kDwords<Format>) : kDwords<Format>;
  Ints part[2][kSums], whole[kSums][2];
  Scales scales[V];
#pragma GCC unroll 2
  for (int v = 0; v < V; ++v) Format::template scales<j>(heads[first + v], scales[v]);
#pragma GCC unroll 8
  for (int c = 0; c < 8; ++c) {
    const int run = Format::kShared ? c / 4 : 0, at = c % 4;
    const auto add = [&](int n, int v, int i, Ints values, Ints four) __attribute__((always_inline)) {
      Ints& sum = part[i][V * n + v];
      sum = c % kTimes == 0 ? products(values, four) : plus_products(sum, values, four);
    };
    Ints values[V][2];
    if constexpr (V == 1) {
      Format::template pair<j>(Step<Format>(step, runs, first), c, values[0][0], values[0][1]);
#pragma GCC unroll 3
      for (int n = 0; n < N; ++n) {
        const int8_t* q = x.q + n * k;
        const Ints four[2] = {each_four(q + 4 * Format::low_at(j, c)), each_four(q + 4 * Format::high_at(j, c))};
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i) add(n, 0, i, values[0][i], four[i]);
      }
    } else {
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) Format::template pair<j>(Step<Format>(step, runs, first + v), c, values[v][0], values[v][1]);
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) {
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i) {
          const Ints four = each_four(x.q + n * k + 4 * (i == 0 ? Format::low_at(j, c) : Format::high_at(j, c)));
#pragma GCC unroll 2
          for (int v = 0; v < V; ++v) add(n, v, i, values[v][i], four);
        }
      }
    }
    if (c % kTimes != kTimes - 1) continue;
#pragma GCC unroll 6
    for (int s = 0; s < kSums; ++s) {
      const Scales& of = scales[s % V];
      if constexpr (Format::kShared) {
        add_sum<Format>(whole[s][run], at < kTimes, part[0][s], of, run, at);
        add_sum<Format>(whole[s][run], false, part[1][s], of, run, at);
      } else {
        for (int i = 0; i < 2; ++i) add_sum<Format>(whole[s][i], c < kTimes, part[i][s], of, i, c);
      }
    }
  }
#pragma GCC unroll 6
  for (int s = 0; s < kSums; ++s) {
    Floats& total = sums[kVectors * (s / V) + first + s % V];
    total = with_part<Format>(total, whole[s], scales[s % V], j, x.from(s / V, k));
  }
}

template <typename Format, int j, int N>
[[gnu::noinline]] void meet_part(const uint8_t* step, int64_t runs, const Heads* heads, const IntColumns& x, int64_t k, Floats* sums) {
  if constexpr (N == 1 || (N == 2 && Format::kRun == 32)) meet_vectors<Format, j, N, kVectors>(step, runs, 0, heads, x, k, sums);
  else
    for (int64_t v = 0; v < kVectors; ++v) meet_vectors<Format, j, N, 1>(step, runs, v, heads, x, k, sums);
}

template <typename Format>
[[gnu::noinline]] void read_heads(const uint8_t* step, int64_t runs, Heads* heads) {
  for (int64_t v = 0; v < kVectors; ++v) Format::heads(Step<Format>(step, runs, v), heads[v]);
}

template <typename Format> constexpr int64_t kBlocks = kValues / Format::kLength;          ///< a step, of a row
template <typename Format> constexpr int64_t kStepBytes = kRows * kBlocks<Format> * Format::kBytes;

/// Reads a share of the step that comes after this one, in the order of addresses: all at once would take every buffer that waits for memory, and
/// two places by turns are no stream. It goes to the second-level cache, since sixteen rows fill the first.
template <typename Format, int64_t kShares>
SWITCHYARD_INLINE void read_ahead(const uint8_t* step, int64_t share) {
  constexpr int64_t kBytes = kStepBytes<Format> / kShares;
  const auto* at = reinterpret_cast<const char*>(step + kTurnedAhead * kStepBytes<Format> + share * kBytes);
  for (int64_t i = 0; kTurnedAhead > 0 && i < kBytes; i += 64) _mm_prefetch(at + i, _MM_HINT_T1);
}

/// sums[streams][kVectors n + v] += <rows, the values of a step of column n>, for N columns and groups `far` apart that are read at once, 64 values
/// of one after those of another: what is read ahead of one comes while the others are multiplied.
template <typename Format, int N, bool kTurned, int64_t kStreams>
SWITCHYARD_INLINE void meet_few(const uint8_t* step, int64_t streams, int64_t far, int64_t runs, const IntColumns& x, int64_t k, Floats (*sums)[kVectors * N]) {
  Heads heads[kStreams][kVectors];
  for (int64_t s = 0; s < streams; ++s) read_heads<Format>(step + s * far, runs, heads[s]);
  for_parts(runs, [&](auto j) __attribute__((always_inline)) {
    for (int64_t s = 0; s < streams; ++s) {
      if constexpr (kTurned) read_ahead<Format, 4>(step + s * far, j);
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
    Ints whole[kSums][2];
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
        for (int i = 0; i < kSums; ++i) add_sum<Format>(whole[i][half], first == 0, part[i], g.scales[i % kVectors][j], half, first);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < kSums; ++i) total[i] = with_part<Format>(total[i], whole[i], g.scales[i % kVectors][j], j, x.from(i / kVectors, k));
  }
#pragma GCC unroll 8
  for (int i = 0; i < kSums; ++i) sums[i] = total[i];
}

template <typename Format, bool kTurned>
void meet_many(const uint8_t* step, int64_t runs, Group& g, const IntColumns& x, int64_t columns, int64_t k, Floats* sums) {
  for (int64_t v = 0; v < kVectors; ++v) {
    if constexpr (kTurned) read_ahead<Format, kVectors>(step, v);
    unpack<Format>(Step<Format>(step, runs, v), g.scales[v], g.u[v]);
  }
  int64_t j = 0;
  for (; j + 4 <= columns; j += 4) meet<Format, 4>(g, runs, x.from(j, k), k, sums + kVectors * j);
  if (columns - j == 3) meet<Format, 3>(g, runs, x.from(j, k), k, sums + kVectors * j);
  else if (columns - j == 2) meet<Format, 2>(g, runs, x.from(j, k), k, sums + kVectors * j);
  else if (columns - j == 1) meet<Format, 1>(g, runs, x.from(j, k), k, sums + kVectors * j);
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
  for (int i = 0; i < Format::kPieces * blocks / kBlocks<Format>; ++i) {
    fetch_as_far(256);
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

/// Where step b of the group whose first row is r stands turned: groups that have turned.
template <typename Format>
struct TurnedGroups {
  const uint8_t* turned;
  int64_t stride;
  TurnedGroups(const uint8_t* first, int64_t, int64_t row_bytes) : turned(first), stride(row_bytes) {}
  const uint8_t* step(int64_t r, int64_t b, int64_t) { return turned + r * stride + b * kStepBytes<Format>; }
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
    const uint8_t* row = packed + r * stride;
    // As much of the next rows; behind the last ones lies what another task reads.
    const uint8_t* ahead = (r + kRows < rows ? row + kRows * stride : row) + b * kStepBytes<Format>;
    turn_step<Format>(row + b * kStepBytes<Format> / kRows, stride, runs * kBlocks<Format> / 8, turned, runs == 8 ? ahead : nullptr);
    return turned;
  }
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
      meet_few<Format, N, kTurned, kStreams>(step, streams, apart * group_bytes, runs, x.values(b * kValues), k, sums);
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
        meet_many<Format, kTurned>(groups.step(r, b, runs), runs, g, here.values(b * kValues), columns, k, sums);
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
      turn_step<Format>(packed + r * stride + b * Format::kBytes, stride, here, turned, nullptr);
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
  return {name, dots_of_groups<Format, false>, dots_of_groups<Format, true>, turn_groups<Format>, lay_row<Format>};
}

}  // namespace
}  // namespace switchyard::kernels::cpu
