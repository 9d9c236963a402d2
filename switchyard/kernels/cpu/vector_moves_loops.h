// Transpositions for one instruction set: included by the source of each, inside an unnamed namespace and its target, behind Words, a vector of
// kLanes 32-bit words; load(p), store(p, words); pairs_at(a, b), kLanes values of a and of b as bf16, a's in the low halves; turn(words[kLanes]), in which
// word c of v[r] becomes word r of v[c]; and narrow_loop, interleave_loop.
#pragma once

/// load(j, i): kLanes dwords from column i on of row j (of rows 2 j and 2 j + 1 where dwords are pairs); rows: how many dwords there are
/// of a column; store(i, j, dwords): of column i, rows from j on. kLanes by kLanes; what is left at the edges is left(j, i).
template <typename Load, typename Store, typename Left>
[[gnu::always_inline]] inline void turn_all(int64_t rows, int64_t width, const Load& load, const Store& store, const Left& left) {
  const int64_t whole_rows = rows / kLanes * kLanes, whole_width = width / kLanes * kLanes;
  for (int64_t i = 0; i < whole_width; i += kLanes)
    for (int64_t j = 0; j < whole_rows; j += kLanes) {
      Words v[kLanes];
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) v[r] = load(j + r, i);
      turn(v);
#pragma GCC unroll 16
      for (int c = 0; c < kLanes; ++c) store(i + c, j, v[c]);
    }
  for (int64_t j = 0; j < rows; ++j)
    for (int64_t i = j < whole_rows ? whole_width : 0; i < width; ++i) left(j, i);
}

void transpose_loop(const uint32_t* src, int64_t src_ld, const int64_t* index, int64_t n, int64_t width, uint32_t* dst, int64_t ld) {
  const auto row = [=](int64_t j) { return src + (index ? index[j] : j) * src_ld; };
  turn_all(
      n, width, [&](int64_t j, int64_t i) __attribute__((always_inline)) { return load(row(j) + i); },
      [&](int64_t i, int64_t j, Words v) __attribute__((always_inline)) { store(dst + i * ld + j, v); },
      [&](int64_t j, int64_t i) { dst[i * ld + j] = row(j)[i]; });
}

void transpose_loop(const c10::BFloat16* src, int64_t src_ld, int64_t n, int64_t width, c10::BFloat16* dst, int64_t ld) {
  turn_all(
      n / 2, width,
      [&](int64_t j, int64_t i) __attribute__((always_inline)) {
        return pairs_at(src + 2 * j * src_ld + i, src + (2 * j + 1) * src_ld + i);
      },
      [&](int64_t i, int64_t j, Words v) __attribute__((always_inline)) { store(dst + i * ld + 2 * j, v); },
      [&](int64_t j, int64_t i) {
        dst[i * ld + 2 * j] = src[2 * j * src_ld + i];
        dst[i * ld + 2 * j + 1] = src[(2 * j + 1) * src_ld + i];
      });
  for (int64_t i = 0; n % 2 == 1 && i < width; ++i) dst[i * ld + n - 1] = src[(n - 1) * src_ld + i];
}

void transpose_loop(const float* src, int64_t src_ld, int64_t n, int64_t width, c10::BFloat16* dst, int64_t ld) {
  const auto one = [=](int64_t j, int64_t i) { narrow_loop(src + j * src_ld + i, 1, dst + i * ld + j); };
  turn_all(
      n / 2, width,
      [&](int64_t j, int64_t i) __attribute__((always_inline)) {
        const float* at = src + 2 * j * src_ld + i;
        return pairs_at(at, at + src_ld);
      },
      [&](int64_t i, int64_t j, Words v) __attribute__((always_inline)) { store(dst + i * ld + 2 * j, v); },
      [&](int64_t j, int64_t i) {
        one(2 * j, i);
        one(2 * j + 1, i);
      });
  for (int64_t i = 0; n % 2 == 1 && i < width; ++i) one(n - 1, i);
}

constexpr VectorMoves kMoves{narrow_loop, narrow_loop, interleave_loop, interleave_loop, transpose_loop, transpose_loop, transpose_loop};
