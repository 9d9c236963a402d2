// The loops of row_dots for one instruction set: included by the source of each, inside an unnamed namespace and its target, behind
// Sum, a vector of floats; total(sum); the ways, which read kWidth weights of a row and add their products with as many values of x to
// a Sum; kColumnsAtOnce; for N columns kSumsOf<N>, sums of a row, so that enough products are under way at once, and kRowsOf<N>, rows that
// share what is loaded of x; kLongRow, bytes from which on rows are long; and kLongRowsOf<N>, long rows that the hardware reads ahead by itself if
// so many are read at once, 0: none.
#pragma once

template <int64_t kBytes, _mm_hint kHint = _MM_HINT_T0>
SWITCHYARD_INLINE void fetch(const uint8_t* from) {
#pragma GCC unroll 16
  for (int64_t at = 0; at < kBytes; at += 64) _mm_prefetch(reinterpret_cast<const char*>(from + at), kHint);
}

constexpr int64_t kRowBytesAtOnce = 1 << 18;  ///< of weights that stay in the second-level cache while block after block of columns meets them

/// What is asked for of the next R rows while R are read. The same places of each; as many bytes, line by line, which is a stream to the hardware as
/// well, where short rows side by side are none; nothing.
enum class Ahead { places, lines, nothing };

/// R rows and N columns; the next R rows are fetched meanwhile. Into the second-level cache: the first has few buffers for what is under
/// way, and x needs them.
template <typename Way, int N, int R, Ahead kAhead>
SWITCHYARD_INLINE void meet_rows(const typename Way::W* w, int64_t stride, int64_t k, const typename Way::X* x, int64_t x_stride, float* out,
                                int64_t ld) {
  constexpr int kSums = kSumsOf<N>;
  constexpr int64_t kStep = 4 * Way::kWidth;
  const uint8_t* later = reinterpret_cast<const uint8_t*>(w) + (R == 1 ? 4096 : R * stride * static_cast<int64_t>(sizeof(*w)));
  Sum sums[R][N][kSums];
  for (auto& row : sums)
    for (auto& column : row)
      for (Sum& sum : column) sum = Sum{};
  for (int64_t i = 0; i < k; i += kStep) {
    if constexpr (kAhead == Ahead::places)
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r)
        fetch<kStep * sizeof(*w), N == 2 ? _MM_HINT_T0 : _MM_HINT_T1>(later + (r * stride + i) * static_cast<int64_t>(sizeof(*w)));
    if constexpr (kAhead == Ahead::lines) fetch<R * kStep * sizeof(*w), _MM_HINT_T1>(later + R * i * static_cast<int64_t>(sizeof(*w)));
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
      out[n * ld + r] = total(sums[r][n][0]);
    }
}

template <typename Way, int N>
void meet_all_rows(const typename Way::W* w, int64_t stride, int64_t rows, int64_t k, const typename Way::X* x, int64_t x_stride, float* out,
                   int64_t ld) {
  constexpr int R = kRowsOf<N>, kLong = kLongRowsOf<N>;
  const bool long_rows = k * static_cast<int64_t>(sizeof(*w)) >= kLongRow;
  int64_t r = 0;
  if (!long_rows && stride == k)
    for (; r + R <= rows; r += R) meet_rows<Way, N, R, Ahead::lines>(w + r * stride, stride, k, x, x_stride, out + r, ld);
  if constexpr (kLong > 0)
    for (; long_rows && r + kLong <= rows; r += kLong) meet_rows<Way, N, kLong, Ahead::nothing>(w + r * stride, stride, k, x, x_stride, out + r, ld);
  for (; r + R <= rows; r += R) meet_rows<Way, N, R, Ahead::places>(w + r * stride, stride, k, x, x_stride, out + r, ld);
  for (; r < rows; ++r) meet_rows<Way, N, 1, Ahead::places>(w + r * stride, stride, k, x, x_stride, out + r, ld);
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
