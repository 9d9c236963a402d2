#include "switchyard/kernels/cpu/fma_product.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <type_traits>

#include "switchyard/kernels/cpu/vector_moves.h"
#include "switchyard/kernels/dispatch.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 on its own intrinsics
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math")
#pragma GCC target("avx2,fma,bmi,bmi2")

namespace switchyard::kernels::cpu {
namespace {

#define SWITCHYARD_INLINE [[gnu::always_inline]] static inline

constexpr int64_t kDepth = 256;   ///< a strip of B stays in the first-level cache, beside the rows that meet it
constexpr int64_t kStrip = 16;    ///< columns of B at once: two vectors
constexpr int kTile = 6;          ///< rows of A at once: twelve sums, which hide what each product takes
constexpr int64_t kWidth = 256;   ///< columns of B that stay in the second-level cache
constexpr int64_t kTogether = 8;  ///< strips of B that may be read from the second-level cache for every tile
constexpr int64_t kRows = 96;     ///< rows of A whose slices stay there too while strip after strip meets them

SWITCHYARD_INLINE __m256 widened(__m128i halves) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16)); }
SWITCHYARD_INLINE __m128i halves_at(const c10::BFloat16* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }

/// What products ask memory for meanwhile: as many rows, a line of each after every `every` products; null: nothing.
struct Ahead {
  const char* at = nullptr;
  int64_t ld = 0, every = kDepth;  ///< bytes; products
};

/// c (+)= a strip: R rows of A, one strip. strip: [depth, kStrip].
template <int R>
[[gnu::noinline]] void meet(int64_t depth, const float* a, int64_t lda, const float* strip, float* c, int64_t ldc, bool add, const Ahead& ahead) {
  __m256 left[R], right[R];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) left[r] = right[r] = _mm256_setzero_ps();
  const char* line = ahead.at;
  for (int64_t first = 0; first < depth; first += ahead.every, line += 64) {
    if (ahead.at)
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) _mm_prefetch(line + r * ahead.ld, _MM_HINT_T0);
    const int64_t last = std::min(depth, first + ahead.every);
#pragma GCC unroll 4  // a core that two threads of the host share is bound by how many instructions there are
    for (int64_t p = first; p < last; ++p) {
      const __m256 b0 = _mm256_load_ps(strip + p * kStrip), b1 = _mm256_load_ps(strip + p * kStrip + 8);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) {
        const __m256 one = _mm256_broadcast_ss(a + r * lda + p);
        left[r] = _mm256_fmadd_ps(one, b0, left[r]);
        right[r] = _mm256_fmadd_ps(one, b1, right[r]);
      }
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
    float* to = c + r * ldc;
    _mm256_storeu_ps(to, add ? _mm256_add_ps(_mm256_loadu_ps(to), left[r]) : left[r]);
    _mm256_storeu_ps(to + 8, add ? _mm256_add_ps(_mm256_loadu_ps(to + 8), right[r]) : right[r]);
  }
}

void meet_rows(int64_t rows, int64_t depth, const float* a, int64_t lda, const float* strip, float* c, int64_t ldc, bool add, const Ahead& ahead) {
  switch (rows) {
    case 1: return meet<1>(depth, a, lda, strip, c, ldc, add, ahead);
    case 2: return meet<2>(depth, a, lda, strip, c, ldc, add, ahead);
    case 3: return meet<3>(depth, a, lda, strip, c, ldc, add, ahead);
    case 4: return meet<4>(depth, a, lda, strip, c, ldc, add, ahead);
    case 5: return meet<5>(depth, a, lda, strip, c, ldc, add, ahead);
    default: return meet<6>(depth, a, lda, strip, c, ldc, add, ahead);
  }
}

/// The same where the strip has `width` columns.
void meet_tile(int64_t rows, int64_t width, int64_t depth, const float* a, int64_t lda, const float* strip, float* c, int64_t ldc, bool add,
               const Ahead& ahead = {}) {
  if (width == kStrip) return meet_rows(rows, depth, a, lda, strip, c, ldc, add, ahead);
  alignas(32) float edge[kTile * kStrip];
  meet_rows(rows, depth, a, lda, strip, edge, kStrip, false, ahead);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t x = 0; x < width; ++x) c[r * ldc + x] = (add ? c[r * ldc + x] : 0.0f) + edge[r * kStrip + x];
}

/// Columns j ... j + width of B, rows p ... p + depth, as a strip; columns from `width` on are zero.
void take_strip(const float* b, int64_t ldb, int64_t p, int64_t depth, int64_t j, int64_t width, float* strip) {
  for (int64_t i = 0; i < depth; ++i, strip += kStrip) {
    const float* from = b + (p + i) * ldb + j;
    if (width == kStrip) {
      _mm256_store_ps(strip, _mm256_loadu_ps(from));
      _mm256_store_ps(strip + 8, _mm256_loadu_ps(from + 8));
    } else {
      for (int64_t c = 0; c < kStrip; ++c) strip[c] = c < width ? from[c] : 0.0f;
    }
  }
}
/// The same of pairs of rows; p and depth are even.
void take_strip(const c10::BFloat16* b, int64_t ldb, int64_t p, int64_t depth, int64_t j, int64_t width, float* strip) {
  const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  for (int64_t i = 0; i < depth; i += 2, strip += 2 * kStrip) {
    const c10::BFloat16* from = b + ((p + i) / 2 * ldb + j) * 2;
    alignas(32) uint32_t pairs[kStrip] = {};
    if (width < kStrip) std::memcpy(pairs, from, sizeof(uint32_t) * width);
    const auto* words = width == kStrip ? reinterpret_cast<const __m256i*>(from) : reinterpret_cast<const __m256i*>(pairs);
    for (int half = 0; half < 2; ++half) {
      const __m256i v = _mm256_loadu_si256(words + half);
      _mm256_store_ps(strip + 8 * half, _mm256_castsi256_ps(_mm256_slli_epi32(v, 16)));
      _mm256_store_ps(strip + kStrip + 8 * half, _mm256_castsi256_ps(_mm256_and_si256(v, upper)));
    }
  }
}

/// A strip's place: a line longer than it is, since strips of 16 KB would displace one another in the first-level cache.
constexpr int64_t kPlace = kDepth * kStrip + kStrip;
constexpr int64_t kRowsAhead = 16;  ///< rows of B that are asked for before they are taken

/// Columns j0 ... j0 + columns of B, rows p ... p + depth, as strips kPlace apart. Row by row: lines of a column are far apart in memory, and few of
/// them stay in a cache together.
void take_strips(const float* b, int64_t ldb, int64_t p, int64_t depth, int64_t j0, int64_t columns, float* strips) {
  const int64_t whole = columns / kStrip, rest = columns % kStrip;
  for (int64_t i = 0; i < depth; ++i) {
    const float* from = b + (p + i) * ldb + j0;
    for (int64_t s = 0; s < whole; ++s, from += kStrip) {
      if (i + kRowsAhead < depth) _mm_prefetch(reinterpret_cast<const char*>(from + kRowsAhead * ldb), _MM_HINT_T0);
      float* to = strips + s * kPlace + i * kStrip;
      _mm256_store_ps(to, _mm256_loadu_ps(from));
      _mm256_store_ps(to + 8, _mm256_loadu_ps(from + 8));
    }
  }
  if (rest > 0) take_strip(b, ldb, p, depth, j0 + whole * kStrip, rest, strips + whole * kPlace);
}
void take_strips(const c10::BFloat16* b, int64_t ldb, int64_t p, int64_t depth, int64_t j0, int64_t columns, float* strips) {
  for (int64_t j = 0; j < columns; j += kStrip) take_strip(b, ldb, p, depth, j0 + j, std::min(kStrip, columns - j), strips + j / kStrip * kPlace);
}

/// Whether rows of A are made into floats first. Then they are read at once, and memory must have been asked for them before; as they lie,
/// products wait for the first of them only, and the hardware follows.
template <typename T> inline constexpr bool kMade = !std::is_same_v<T, float>;
/// Rows of A as floats: where they lie, or made in `space`, [rows, kDepth].
struct Left { const float* data; int64_t ld; };
Left as_floats(const float* a, int64_t lda, int64_t, int64_t, float*) { return {a, lda}; }
Left as_floats(const c10::BFloat16* a, int64_t lda, int64_t rows, int64_t depth, float* space) {
  for (int64_t r = 0; r < rows; ++r) {
    const c10::BFloat16* from = a + r * lda;
    float* to = space + r * kDepth;
    int64_t i = 0;
    for (; i + 8 <= depth; i += 8) _mm256_store_ps(to + i, widened(halves_at(from + i)));
    for (; i < depth; ++i) to[i] = static_cast<float>(from[i]);
  }
  return {space, kDepth};
}

/// Where strips of B come from: B is [k, n], or pairs of its rows.
template <typename T>
struct FromRows {
  const T* b;
  int64_t ldb;
  void take(int64_t p, int64_t depth, int64_t j0, int64_t columns, float* strips, float*) const { take_strips(b, ldb, p, depth, j0, columns, strips); }
};
/// B is [n, k]: each of its rows is a column of a strip.
template <typename T>
struct FromColumns {
  const T* b;
  int64_t ldb;
  /// space: kStrip rows, where they are made into floats first.
  void take(int64_t p, int64_t depth, int64_t j0, int64_t columns, float* strips, float* space) const {
    for (int64_t j = 0; j < columns; j += kStrip, strips += kPlace) {
      const int64_t here = std::min(kStrip, columns - j);
      const Left rows = as_floats(b + (j0 + j) * ldb + p, ldb, here, depth, space);
      transpose_fast(rows.data, rows.ld, here, depth, strips, kStrip);
      for (int64_t i = 0; here < kStrip && i < depth; ++i) std::fill(strips + i * kStrip + here, strips + (i + 1) * kStrip, 0.0f);
    }
  }
};

/// Asks for what the next depth needs of some rows of A: of all its lines, the part that belongs to the strip at column j of `columns`.
template <typename T>
SWITCHYARD_INLINE void fetch_part(const T* a, int64_t lda, int64_t rows, int64_t j, int64_t columns) {
  constexpr int64_t kLine = 64 / sizeof(T), kLines = kDepth / kLine;
  const int64_t strips = (columns + kStrip - 1) / kStrip, first = kLines * (j / kStrip) / strips, last = kLines * (j / kStrip + 1) / strips;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t line = first; line < last; ++line) _mm_prefetch(reinterpret_cast<const char*>(a + r * lda + line * kLine), _MM_HINT_T1);
}

/// What a thread packs: some strips of B, and where they are not floats, rows of A.
template <typename T>
struct Packed {
  alignas(64) float strips[kWidth / kStrip][kPlace];
  alignas(64) float rows[kMade<T> ? kRows * kDepth : 16];
};

template <typename T>
Packed<T>& packed_here() {
  static thread_local const auto packed = std::make_unique<Packed<T>>();
  return *packed;
}

/// Depth after depth: strips of B stay while all rows of A meet them.
template <typename T, typename From>
void multiply_by_depth(int64_t m, int64_t n, int64_t k, const T* a, int64_t lda, const From& from, float* c, int64_t ldc, bool add, Packed<T>& packed) {
  for (int64_t p = 0; p < k || p == 0; p += kDepth) {
    const int64_t depth = std::min(kDepth, k - p);
    const bool more = add || p > 0;
    const T* next = p + kDepth < k ? a + p + kDepth : a + m * lda;  // of these rows, or of those behind them, which callers take next
    for (int64_t j0 = 0; j0 < n; j0 += kWidth) {
      const int64_t columns = std::min(kWidth, n - j0);
      from.take(p, depth, j0, columns, packed.strips[0], packed.rows);
      for (int64_t i0 = 0; i0 < m; i0 += kRows) {
        const int64_t rows = std::min(kRows, m - i0);
        const Left left = as_floats(a + i0 * lda + p, lda, rows, depth, packed.rows);
        for (int64_t j = 0; j < columns; j += kStrip)
          for (int64_t i = 0; i < rows; i += kTile) {
            if (kMade<T> && j0 == 0) fetch_part(next + (i0 + i) * lda, lda, std::min<int64_t>(kTile, rows - i), j, std::min(n, kWidth));
            meet_tile(std::min<int64_t>(kTile, rows - i), std::min(kStrip, columns - j), depth, left.data + i * left.ld, left.ld,
                      packed.strips[j / kStrip], c + (i0 + i) * ldc + j0 + j, ldc, more);
          }
      }
    }
  }
}

/// Few columns, whose strips of all depths are packed together: then rows of A are met from end to end, as memory gives them. Bits are
/// those of the other order.
template <typename T, typename From>
void multiply_by_rows(int64_t m, int64_t n, int64_t k, const T* a, int64_t lda, const From& from, float* c, int64_t ldc, bool add, Packed<T>& packed) {
  const int64_t strips = (n + kStrip - 1) / kStrip;
  for (int64_t p = 0; p < k; p += kDepth) from.take(p, std::min(kDepth, k - p), 0, n, packed.strips[p / kDepth * strips], packed.rows);
  for (int64_t i = 0; i < m; i += kTile) {
    const int64_t rows = std::min<int64_t>(kTile, m - i);
    for (int64_t p = 0; p < k; p += kDepth) {
      const int64_t depth = std::min(kDepth, k - p);
      const Left left = as_floats(a + i * lda + p, lda, rows, depth, packed.rows);
      // Each strip asks for its share of what lies behind: all at once would take every buffer that waits for memory.
      const int64_t lines = (depth * static_cast<int64_t>(sizeof(T)) + 63) / 64, share = (lines + strips - 1) / strips;
      const char* behind = reinterpret_cast<const char*>(a + (i + kTile) * lda + p);
      for (int64_t s = 0; s < strips; ++s) {
        const Ahead ahead{s * share < lines ? behind + 64 * s * share : nullptr, lda * static_cast<int64_t>(sizeof(T)), (depth + share - 1) / share};
        meet_tile(rows, std::min(kStrip, n - s * kStrip), depth, left.data, left.ld, packed.strips[p / kDepth * strips + s], c + i * ldc + s * kStrip, ldc, add || p > 0, ahead);
      }
    }
  }
}

template <typename T, typename From>
void multiply(int64_t m, int64_t n, int64_t k, const T* a, int64_t lda, const From& from, float* c, int64_t ldc, bool add) {
  const int64_t strips = (n + kStrip - 1) / kStrip, depths = (k + kDepth - 1) / kDepth;
  const bool together = k > kDepth && m > kTile && strips * depths <= kTogether;
  if (together) multiply_by_rows<T>(m, n, k, a, lda, from, c, ldc, add, packed_here<T>());
  else multiply_by_depth<T>(m, n, k, a, lda, from, c, ldc, add, packed_here<T>());
}

}  // namespace
}  // namespace switchyard::kernels::cpu

#pragma GCC pop_options

namespace switchyard::kernels::cpu {

bool fma_product(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc, bool add) {
  if (cpu_level() < CpuLevel::avx2) return false;
  multiply(m, n, k, a, lda, FromRows<float>{b, ldb}, c, ldc, add);
  return true;
}
bool fma_product(int64_t m, int64_t n, int64_t k, const c10::BFloat16* a, int64_t lda, const c10::BFloat16* b, int64_t ldb, float* c,
                 int64_t ldc, bool add) {
  if (cpu_level() < CpuLevel::avx2) return false;
  multiply(m, n, k, a, lda, FromRows<c10::BFloat16>{b, ldb}, c, ldc, add);
  return true;
}

bool has_fma_product() { return cpu_level() >= CpuLevel::avx2; }
void fma_product_of_rows(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc) {
  multiply(m, n, k, a, lda, FromColumns<float>{b, ldb}, c, ldc, false);
}
void fma_product_of_rows(int64_t m, int64_t n, int64_t k, const c10::BFloat16* a, int64_t lda, const c10::BFloat16* b, int64_t ldb, float* c, int64_t ldc) {
  multiply(m, n, k, a, lda, FromColumns<c10::BFloat16>{b, ldb}, c, ldc, false);
}

}  // namespace switchyard::kernels::cpu

#else

namespace switchyard::kernels::cpu {

bool fma_product(int64_t, int64_t, int64_t, const float*, int64_t, const float*, int64_t, float*, int64_t, bool) { return false; }
bool fma_product(int64_t, int64_t, int64_t, const c10::BFloat16*, int64_t, const c10::BFloat16*, int64_t, float*, int64_t, bool) { return false; }
bool has_fma_product() { return false; }
void fma_product_of_rows(int64_t, int64_t, int64_t, const float*, int64_t, const float*, int64_t, float*, int64_t) {}
void fma_product_of_rows(int64_t, int64_t, int64_t, const c10::BFloat16*, int64_t, const c10::BFloat16*, int64_t, float*, int64_t) {}

}  // namespace switchyard::kernels::cpu

#endif
