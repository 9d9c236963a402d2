// Dot products of packed blocks with float columns for one instruction set: included by the source of each, inside an unnamed namespace
// and its target, behind Sum, a vector of kSumWidth floats; add(sum, v, x), sum + v x[0 ... kSumWidth); total(sum); and visit<Format>(block, sink),
// which calls sink(i, v) with each kSumWidth consecutive values of a block.
#pragma once

/// Rows follow one another in memory. The hardware follows too, but not across pages; this is as far ahead as memory is away.
template <int64_t kBytes>
SWITCHYARD_INLINE void fetch_ahead(const uint8_t* block) {
#pragma GCC unroll 4
  for (int64_t at = 0; at < kBytes; at += 64) _mm_prefetch(reinterpret_cast<const char*>(block + 4096 + at), _MM_HINT_T0);
}

/// N columns, each in so many partial sums that four products or more are under way at once.
template <typename Format, int N>
void dots_of(const uint8_t* packed, int64_t rows, int64_t blocks, const float* x, float* out, int64_t ld) {
  constexpr int kSums = N == 1 ? 4 : N <= 3 ? 2 : 1;
  const int64_t k = blocks * Format::kLength, row_bytes = blocks * Format::kBytes;
  for (int64_t r = 0; r < rows; ++r) {
    const uint8_t* row = packed + r * row_bytes;
    Sum sums[N][kSums];
    for (auto& column : sums)
      for (Sum& s : column) s = Sum{};
    for (int64_t b = 0; b < blocks; ++b) {
      const uint8_t* block = row + b * Format::kBytes;
      fetch_ahead<Format::kBytes>(block);
      const float* at = x + b * Format::kLength;
      visit<Format>(block, [&sums, at, k](int i, Sum v) __attribute__((always_inline)) {
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) sums[n][i % kSums] = add(sums[n][i % kSums], v, at + n * k + kSumWidth * i);
      });
    }
    for (int n = 0; n < N; ++n) {
      for (int s = 1; s < kSums; ++s) sums[n][0] = sums[n][0] + sums[n][s];
      out[n * ld + r] = total(sums[n][0]);
    }
  }
}

template <typename Format>
void dots(const uint8_t* packed, int64_t rows, int64_t blocks, int64_t n, const float* x, float* out, int64_t ld) {
  for_columns(n, [=](auto columns) { dots_of<Format, columns>(packed, rows, blocks, x, out, ld); });
}
