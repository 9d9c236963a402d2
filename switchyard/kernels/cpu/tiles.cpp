#include "switchyard/kernels/cpu/tiles.h"

#include <algorithm>
#include <cstring>

#include "switchyard/kernels/cpu/parallel.h"
#include "switchyard/kernels/cpu/vector_moves.h"

#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math")

namespace switchyard::kernels::cpu {
namespace {

/// Side of the squares that a transposition works through: one cache line of 32-bit words.
constexpr int64_t kSquare = 16;
/// Rows that are fetched ahead, into the second-level cache, where there are more buffers for what is under way.
constexpr int64_t kAhead = 24;

/// A value as bf16 in the low half of a word.
template <typename T> inline uint32_t bits_of(c10::BFloat16 x) { return x.x; }
template <typename T> inline uint32_t bits_of(float x) { return from_float<T>(x).x; }

}  // namespace

template <typename T>
void pack_columns(const T* x, int64_t width, const int64_t* index, int64_t n, int64_t columns, T* dst) {
  // A pair of bf16 moves as one 32-bit word, so both types are a transposition of words.
  const int64_t words = width / kPair<T>;
  const uint32_t* source = reinterpret_cast<const uint32_t*>(x);
  uint32_t* target = reinterpret_cast<uint32_t*>(dst);
  if (transpose_fast(source, words, index, n, words, target, columns)) {
    for (int64_t w = 0; w < words; ++w) std::fill(target + w * columns + n, target + (w + 1) * columns, 0u);
    return;
  }
  at_level([=] {
    for (int64_t w0 = 0; w0 < words; w0 += kSquare) {
      const int64_t w1 = std::min(words, w0 + kSquare);
      for (int64_t j = 0; j < n; ++j) {
        const uint32_t* row = source + (index ? index[j] : j) * words;
        for (int64_t w = w0; w < w1; ++w) target[w * columns + j] = row[w];
      }
      for (int64_t w = w0; w < w1; ++w)
        for (int64_t j = n; j < columns; ++j) target[w * columns + j] = 0;
    }
  });
}

template <typename S, typename T>
void pack_rows(const S* x, int64_t ld, const int64_t* index, int64_t n, int64_t depth, int64_t width, T* dst, int64_t dst_ld) {
  if (dst_ld == 0) dst_ld = width;
  const auto row = [&](int64_t i) { return x + (index ? index[i] : i) * ld; };
  if constexpr (kPair<T> == 1) {
    for (int64_t i = 0; i < n; ++i) std::memcpy(dst + i * dst_ld, row(i), sizeof(T) * width);
    for (int64_t i = n; i < depth; ++i) std::memset(dst + i * dst_ld, 0, sizeof(T) * width);
  } else {
    uint32_t* target = reinterpret_cast<uint32_t*>(dst);
    for (int64_t i = 0; i < depth; i += 2) {
      const S* a = i < n ? row(i) : nullptr;
      const S* b = i + 1 < n ? row(i + 1) : nullptr;
      for (int64_t ahead = i + kAhead; ahead < std::min(n, i + kAhead + 2); ++ahead)  // strips of wide rows defeat the hardware's
        for (int64_t j = 0; j < width; j += 64 / sizeof(S)) __builtin_prefetch(row(ahead) + j, 0, 2);
      uint32_t* out = target + i / 2 * dst_ld;
      if (a && b && interleave_fast(a, b, width, out)) continue;
      at_level([=] {
        if (a && b)
          for (int64_t j = 0; j < width; ++j) out[j] = bits_of<T>(a[j]) | bits_of<T>(b[j]) << 16;
        else
          for (int64_t j = 0; j < width; ++j) out[j] = a ? bits_of<T>(a[j]) : 0;
      });
    }
  }
}

template <typename T>
void store_transposed(const float* tile, int64_t rows, int64_t columns, int64_t n, T* dst, int64_t ld) {
  if (transpose_fast(tile, columns, rows, n, dst, ld)) return;
  at_level([=] {
    for (int64_t i0 = 0; i0 < rows; i0 += kSquare) {
      const int64_t i1 = std::min(rows, i0 + kSquare);
      for (int64_t j = 0; j < n; ++j)
        for (int64_t i = i0; i < i1; ++i) dst[j * ld + i] = from_float<T>(tile[i * columns + j]);
    }
  });
}

template <typename T>
void transpose(const T* src, int64_t src_ld, int64_t n, int64_t width, T* dst, int64_t ld) {
  if (transpose_fast(src, src_ld, n, width, dst, ld)) return;
  at_level([=] {
    for (int64_t i0 = 0; i0 < width; i0 += kSquare) {
      const int64_t i1 = std::min(width, i0 + kSquare);
      for (int64_t j = 0; j < n; ++j)
        for (int64_t i = i0; i < i1; ++i) dst[i * ld + j] = src[j * src_ld + i];
    }
  });
}

#define SWITCHYARD_TILES(T)                                                                                     \
  template void pack_columns<T>(const T*, int64_t, const int64_t*, int64_t, int64_t, T*);                       \
  template void pack_rows<T, T>(const T*, int64_t, const int64_t*, int64_t, int64_t, int64_t, T*, int64_t);     \
  template void store_transposed<T>(const float*, int64_t, int64_t, int64_t, T*, int64_t);                      \
  template void transpose<T>(const T*, int64_t, int64_t, int64_t, T*, int64_t);
SWITCHYARD_TILES(float)
SWITCHYARD_TILES(c10::BFloat16)
template void pack_rows<float, c10::BFloat16>(const float*, int64_t, const int64_t*, int64_t, int64_t, int64_t, c10::BFloat16*,
                                              int64_t);

}  // namespace switchyard::kernels::cpu
