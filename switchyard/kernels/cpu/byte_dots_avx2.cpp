#include "switchyard/kernels/cpu/byte_dots.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

// What is not compiled for this level alone comes first.
#include <algorithm>
#include <bit>
#include <cstring>
#include <type_traits>
#include <vector>

#include "switchyard/kernels/cpu/int_columns.h"
#include "switchyard/kernels/cpu/rows_apart.h"

#include <immintrin.h>

#pragma GCC push_options
#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math", "fp-contract=off", "no-tree-reassoc", "no-tree-ter")
#pragma GCC target("avx2,fma,f16c")

#include "switchyard/kernels/cpu/for_columns.h"
#include "switchyard/kernels/cpu/lanes_avx2.h"

namespace switchyard::kernels::cpu {
namespace {

constexpr int64_t kBlock = 32, kBlockBytes = 34;  ///< values, and their bytes: a half that scales them, then themselves

SWITCHYARD_INLINE float half_at(const uint8_t* p) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(word_at(p)))); }
SWITCHYARD_INLINE Ints load(const int8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
SWITCHYARD_INLINE float sum_of(Floats v) {
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}

// Few columns: bytes meet bytes, or floats, as they lie.

/// R rows, so many bytes apart, and N columns, w x = |w| (x with the sign of w); results go `step` apart.
template <int R, int N>
void few_dots_of(const uint8_t* packed, int64_t apart, int64_t blocks, const IntColumns& x, float* out, int64_t ld, int64_t step) {
  const int64_t k = kBlock * blocks;
  Floats sums[R][N];
  for (auto& row : sums)
    for (Floats& sum : row) sum = no_floats();
  for (int64_t b = 0; b < blocks; ++b) {
    Ints w[R], size[R];
    float scale[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const uint8_t* block = packed + r * apart + b * kBlockBytes;
      w[r] = load(block + 2);
      size[r] = _mm256_abs_epi8(w[r]);
      scale[r] = half_at(block);
    }
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      const Ints q = load(x.q + n * k + kBlock * b);
      const float unit = x.scale[n * (k / 64) + b / 2];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
        sums[r][n] = plus_product(sums[r][n], to_floats(sum_of(products(size[r], _mm256_sign_epi8(q, w[r])))), each(scale[r] * unit));
    }
  }
  for (int n = 0; n < N; ++n)
    for (int r = 0; r < R; ++r) out[n * ld + r * step] = sum_of(sums[r][n]);
}

/// The same with float columns, [N, k].
template <int R, int N>
void few_dots_of(const uint8_t* packed, int64_t apart, int64_t blocks, const float* x, float* out, int64_t ld, int64_t step) {
  const int64_t k = kBlock * blocks;
  Floats sums[R][N];
  for (auto& row : sums)
    for (Floats& sum : row) sum = no_floats();
  for (int64_t b = 0; b < blocks; ++b, x += kBlock) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const uint8_t* block = packed + r * apart + b * kBlockBytes;
      const Floats scale = each(half_at(block));
      Floats w[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) w[i] = to_floats(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(block + 2 + 8 * i))));
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
        Floats sum = times(w[0], _mm256_loadu_ps(x + n * k));
#pragma GCC unroll 3
        for (int i = 1; i < 4; ++i) sum = plus_product(sum, w[i], _mm256_loadu_ps(x + n * k + 8 * i));
        sums[r][n] = plus_product(sums[r][n], sum, scale);
      }
    }
  }
  for (int n = 0; n < N; ++n)
    for (int r = 0; r < R; ++r) out[n * ld + r * step] = sum_of(sums[r][n]);
}

/// Columns: int8 or floats.
template <int N, typename Columns>
void few_dots_of(const uint8_t* packed, int64_t rows, int64_t blocks, const Columns& x, float* out, int64_t ld) {
  const int64_t row_bytes = blocks * kBlockBytes;
  constexpr int kStreams = N <= 2 ? 8 / N : 2;
  int64_t r = 0;
  for (int64_t step; (step = rows_apart(rows - r, kStreams, row_bytes)) > 0; r += (kStreams - 1) * step)
    for (const int64_t end = r + step; r < end; ++r) few_dots_of<kStreams, N>(packed + r * row_bytes, step * row_bytes, blocks, x, out + r, ld, step);
  for (; r < rows; ++r) few_dots_of<1, N>(packed + r * row_bytes, row_bytes, blocks, x, out + r, ld, 1);
}

/// Some rows at a time, which stay in the second-level cache while four columns after the other, in the first, meet them.
void few_dots(const uint8_t* packed, int64_t rows, int64_t blocks, int64_t n, const IntColumns& x, float* out, int64_t ld) {
  const int64_t k = kBlock * blocks, row_bytes = blocks * kBlockBytes, together = std::max<int64_t>(2, (int64_t{1} << 17) / row_bytes / 2 * 2);
  for (int64_t r = 0; r < rows; r += together) {
    const int64_t here = std::min(together, rows - r);
    for (int64_t j = 0; j < n; j += 4) {
      const uint8_t* row = packed + r * row_bytes;
      float* to = out + j * ld + r;
      for_columns(std::min<int64_t>(4, n - j), [&](auto columns) {
        if constexpr (columns <= 4) few_dots_of<columns>(row, here, blocks, x.from(j, k), to, ld);
      });
    }
  }
}

void few_dots(const uint8_t* packed, int64_t rows, int64_t blocks, int64_t n, const float* x, float* out, int64_t ld) {
  for_columns(n, [=](auto columns) { few_dots_of<columns>(packed, rows, blocks, x, out, ld); });
}

// Many columns: sixteen rows at a time, one in each lane, as pairs of 16 bits. Two products of bytes would not fit in 16 bits with others, so
// each would have to be widened before it is added; a pair of 16 bits is multiplied and added to 32 at once.

constexpr int64_t kRows = 16, kVectors = kRows / kLanes;
constexpr int64_t kStep = 8;      ///< blocks of a row that are unpacked at once
constexpr int64_t kColumns = 64;  ///< whose sums are kept
constexpr int64_t kPairs = kBlock / 2;

/// The bytes of each lane as two pairs of 16 bits: bytes 0 and 2, bytes 1 and 3.
SWITCHYARD_INLINE Ints even_bytes(Ints v) { return _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8); }
SWITCHYARD_INLINE Ints odd_bytes(Ints v) { return _mm256_srai_epi16(v, 8); }

/// So many blocks of sixteen rows: pair p of block b of the rows of vector v stands in pair[b][p][v].
struct Group {
  Ints pair[kStep][kPairs][kVectors];
  Floats scale[kStep][kVectors];
};

void unpack(const uint8_t* packed, int64_t row_bytes, int64_t blocks, Group& g) {
  for (int64_t b = 0; b < blocks; ++b) {
#pragma GCC unroll 2
    for (int64_t v = 0; v < kVectors; ++v) {
      const uint8_t* block = packed + v * kLanes * row_bytes + b * kBlockBytes;
      g.scale[b][v] = words(block, row_bytes);
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        Ints four[4];
        turn(block + 2 + 16 * half, row_bytes, four);
#pragma GCC unroll 4
        for (int c = 0; c < 4; ++c) {
          g.pair[b][8 * half + c][v] = even_bytes(four[c]);
          g.pair[b][8 * half + 4 + c][v] = odd_bytes(four[c]);
        }
      }
    }
  }
}

/// x as pairs of 16 bits in the order of a group's, 32 values after 32.
void widen(const int8_t* x, int64_t count, int16_t* pairs) {
  for (int64_t i = 0; i < count; i += kBlock) {
    const Ints v = load(x + i), even = even_bytes(v), odd = odd_bytes(v);
    const auto put = [&](int64_t at, Ints low, Ints high, int half) __attribute__((always_inline)) {
      const Ints both_halves = half == 0 ? _mm256_permute2x128_si256(low, high, 0x20) : _mm256_permute2x128_si256(low, high, 0x31);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(pairs + i + at), both_halves);
    };
    put(0, even, odd, 0);
    put(16, even, odd, 1);
  }
}

/// N columns meet so many blocks of the group.
template <int N>
[[gnu::noinline]] void meet(const Group& g, int64_t blocks, const int16_t* x, const float* unit, int64_t k, Floats* sums) {
  const int16_t* at[N];
  for (int n = 0; n < N; ++n) at[n] = x + n * k;
  for (int64_t b = 0; b < blocks; ++b) {
    Ints whole[N][kVectors];
#pragma GCC unroll 16
    for (int64_t p = 0; p < kPairs; ++p) {
      const Ints w0 = g.pair[b][p][0], w1 = g.pair[b][p][1];
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) {
        const Ints both_values = each_four(at[n] + 2 * p);
        const Ints one = _mm256_madd_epi16(w0, both_values), other = _mm256_madd_epi16(w1, both_values);
        whole[n][0] = p == 0 ? one : plus(whole[n][0], one);
        whole[n][1] = p == 0 ? other : plus(whole[n][1], other);
      }
    }
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      const Floats each_unit = each(unit[n * (k / 64) + b / 2]);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v)
        sums[kVectors * n + v] = plus_product(sums[kVectors * n + v], to_floats(whole[n][v]), times(g.scale[b][v], each_unit));
      at[n] += kBlock;
    }
    asm volatile("" ::: "memory");  // sums go back to memory: kept, they would take the registers of the products
  }
}

void many_dots(const uint8_t* packed, int64_t rows, int64_t blocks, int64_t n, const IntColumns& x, float* out, int64_t ld) {
  const int64_t k = kBlock * blocks, row_bytes = blocks * kBlockBytes;
  thread_local std::vector<int16_t> wide;
  wide.resize(static_cast<size_t>(std::min(n, kColumns) * k));
  Group g;
  Floats sums[kVectors * kColumns];
  for (int64_t j0 = 0; j0 < n; j0 += kColumns) {
    const int64_t columns = std::min(kColumns, n - j0), share = (kRows * kStep * kBlockBytes / 64 + (columns + 3) / 4) / ((columns + 3) / 4);
    const float* unit = x.scale + j0 * (k / 64);
    widen(x.q + j0 * k, columns * k, wide.data());
    for (int64_t r = 0; r < rows; r += kRows) {
      std::fill_n(sums, kVectors * columns, no_floats());
      for (int64_t b = 0; b < blocks; b += kStep) {
        const int64_t here = std::min(kStep, blocks - b);
        const uint8_t* group = packed + r * row_bytes;
        // As much of the next rows, a share at a time: all at once would take every buffer that waits for memory.
        const uint8_t* ahead = r + kRows < rows ? group + kRows * (row_bytes + b * kBlockBytes) : nullptr;
        unpack(group + b * kBlockBytes, row_bytes, here, g);
        for (int64_t j = 0; j < columns; j += 4) {
          for (int64_t line = 0; ahead && line < share; ++line, ahead += 64) _mm_prefetch(reinterpret_cast<const char*>(ahead), _MM_HINT_T1);
          const int16_t* at = wide.data() + j * k + b * kBlock;
          const float* at_unit = unit + j * (k / 64) + b / 2;
          for_columns(std::min<int64_t>(4, columns - j), [&](auto count) {
            if constexpr (count <= 4) meet<count>(g, here, at, at_unit, k, sums + kVectors * j);
          });
        }
      }
      for (int64_t j = 0; j < columns; ++j)
        for (int64_t v = 0; v < kVectors; ++v) store(out + (j0 + j) * ld + r + v * kLanes, sums[kVectors * j + v]);
    }
  }
}

}  // namespace
}  // namespace switchyard::kernels::cpu

#pragma GCC pop_options

namespace switchyard::kernels::cpu {

void byte_dots(const uint8_t* packed, int64_t rows, int64_t blocks, int64_t n, const IntColumns& x, float* out, int64_t ld) {
  constexpr int64_t kMany = 8;  // columns from which on unpacking pays
  const int64_t grouped = n < kMany ? 0 : rows / kRows * kRows;
  if (grouped > 0) many_dots(packed, grouped, blocks, n, x, out, ld);
  if (grouped < rows) few_dots(packed + grouped * blocks * kBlockBytes, rows - grouped, blocks, n, x, out + grouped, ld);
}

void byte_dots(const uint8_t* packed, int64_t rows, int64_t blocks, int64_t n, const float* x, float* out, int64_t ld) {
  few_dots(packed, rows, blocks, n, x, out, ld);
}

}  // namespace switchyard::kernels::cpu

#else

namespace switchyard::kernels::cpu {
void byte_dots(const uint8_t*, int64_t, int64_t, int64_t, const IntColumns&, float*, int64_t) {}  // nobody asks for them
void byte_dots(const uint8_t*, int64_t, int64_t, int64_t, const float*, float*, int64_t) {}
}  // namespace switchyard::kernels::cpu

#endif
