// The loops of row_dots for one instruction set: included by the source of each, inside an unnamed namespace and its target, behind
// Sum, a vector of floats; total(sum); the ways, which read kWidth weights of a row and add their products with as many values of x to
// a Sum; kColumnsAtOnce; for N columns kSumsOf<N>, sums of a row, so that enough products are under way at once, and kRowsOf<N>, rows that
// share what is loaded of x; and kStreams<N>, rows far from one another that are read at once, each the beginning of a stream that the hardware
// follows, 0: rows one behind the other, the next ones fetched meanwhile.
#pragma once

template <int64_t kBytes, _mm_hint kHint = _MM_HINT_T0>
SWITCHYARD_INLINE void fetch(const uint8_t* from) {
#pragma GCC unroll 4
  for (int64_t at = 0; at < kBytes; at += 64) _mm_prefetch(reinterpret_cast<const char*>(from + at), kHint);
}

constexpr int64_t kRowBytesAtOnce = 1 << 18;  ///< of weights that stay in the second-level cache while block after block of columns meets them

/// R rows and N columns, whose results go `step` apart. The next R rows are fetched meanwhile, if kFetch; into the second-level cache: the first has
/// few buffers for what is under way, and x needs them.
template <typename Way, int N, int R, bool kFetch>
SWITCHYARD_INLINE void meet_rows(const typename Way::W* w, int64_t stride, int64_t k, const typename Way::X* x, int64_t x_stride, float* out,
                                int64_t ld, int64_t step) {
  constexpr int kSums = kSumsOf<N>;
  constexpr int64_t kStep = 4 * Way::kWidth;
  const uint8_t* later = reinterpret_cast<const uint8_t*>(w) + (R == 1 ? 4096 : R * stride * static_cast<int64_t>(sizeof(*w)));
  Sum sums[R][N][kSums];
  for (auto& row : sums)
    for (auto& column : row)
      for (Sum& sum : column) sum = Sum{};
  for (int64_t i = 0; i < k; i += kStep) {
    if constexpr (kFetch)
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r)
        fetch<kStep * sizeof(*w), N == 2 ? _MM_HINT_T0 : _MM_HINT_T1>(later + (r * stride + i) * static_cast<int64_t>(sizeof(*w)));
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const int64_t at = i + j * Way::kWidth;
      decltype(Way::weights(w)) v[R];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) v[r] = Way::weights(w + r * stride + at);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n)
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) sums[r][n][j % kSums] = Way::add(sums[r][n][j % kSums], v[r], x + n * x_stride + at);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int n = 0; n < N; ++n) {
      for (int s = 1; s < kSums; ++s) sums[r][n][0] = sums[r][n][0] + sums[r][n][s];
      out[n * ld + r * step] = total(sums[r][n][0]);
    }
}

template <typename Way, int N>
void meet_all_rows(const typename Way::W* w, int64_t stride, int64_t rows, int64_t k, const typename Way::X* x, int64_t x_stride, float* out,
                   int64_t ld) {
  constexpr int R = kRowsOf<N>, S = kStreams<N>;
  int64_t r = 0;
  if constexpr (S > 0)
    for (int64_t step; (step = rows_apart(rows - r, S, stride * static_cast<int64_t>(sizeof(*w)))) > 0; r += (S - 1) * step)
      for (const int64_t end = r + step; r < end; ++r) meet_rows<Way, N, S, false>(w + r * stride, step * stride, k, x, x_stride, out + r, ld, step);
  for (; r + R <= rows; r += R) meet_rows<Way, N, R, true>(w + r * stride, stride, k, x, x_stride, out + r, ld, 1);
  for (; r < rows; ++r) meet_rows<Way, N, 1, true>(w + r * stride, stride, k, x, x_stride, out + r, ld, 1);
}

template <typename Way>
void plain_dots(const typename Way::W* w, int64_t stride, int64_t rows, int64_t k, int64_t n, const typename Way::X* x, int64_t x_stride,
                float* out, int64_t ld) {
  const int64_t blocks = (n + kColumnsAtOnce - 1) / kColumnsAtOnce;
  const int64_t step = blocks == 1 ? rows : std::max<int64_t>(16, kRowBytesAtOnce / (stride * static_cast<int64_t>(sizeof(*w))) / 16 * 16);
  for (int64_t r = 0; r < rows; r += step)
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t first = n * b / blocks, count = n * (b + 1) / blocks - first;
      for_columns(count, [=](auto columns) {
        if constexpr (columns <= kColumnsAtOnce)
          meet_all_rows<Way, columns>(w + r * stride, stride, std::min(step, rows - r), k, x + first * x_stride, x_stride, out + first * ld + r, ld);
      });
    }
}

template <typename Way>
constexpr RowDotsOf<typename Way::W, typename Way::X> row_dots_of() { return {plain_dots<Way>, 4 * Way::kWidth}; }
constexpr RowDots kRowDots{row_dots_of<FloatsByFloats>(), row_dots_of<HalvesByFloats>(), row_dots_of<HalvesByHalves>()};
