#include "switchyard/kernels/cpu/strip_dots.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "switchyard/kernels/cpu/rows_apart.h"
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

/// A strip: `vectors` vectors for every `group` values of k. A vector holds `group` values one behind the other of each of 8 / group
/// columns, so that one load of a group of weights, repeated over the lanes, meets them all. Layout [k / group, vectors, 8 / group, group].
struct Shape {
  int group, vectors;
  constexpr int64_t columns() const { return vectors * 8 / group; }
};
/// The narrowest shape that holds so many columns, n <= 24.
constexpr Shape shape_of(int64_t n) {
  if (n <= 3) return {8, static_cast<int>(n)};
  if (n <= 6) return {4, n <= 4 ? 2 : 3};
  if (n <= 12) return {2, n <= 8 ? 2 : 3};
  return {1, n <= 16 ? 2 : 3};
}
constexpr int64_t kWidest = 24;

/// Rows of x in strips of nearly equal size, whole eights.
struct Parts {
  int64_t n, count;
  int64_t first(int64_t p) const { return p == count ? n : std::min(n, (n + 8 * count - 1) / (8 * count) * 8 * p); }
};
constexpr Parts parts_of(int64_t n) { return {n, (n + kWidest - 1) / kWidest}; }

constexpr int64_t kRowBytes = 1 << 17;   ///< of weights that stay in the second-level cache while strip after strip meets them
constexpr int64_t kTaken = 64;           ///< values of a row of x that go to their strip at once

/// Repeated over the lanes: kGroup floats.
template <int kGroup>
SWITCHYARD_INLINE __m256 group_at(const float* p) {
  if constexpr (kGroup == 1) return _mm256_broadcast_ss(p);
  else if constexpr (kGroup == 2) return _mm256_castpd_ps(_mm256_broadcast_sd(reinterpret_cast<const double*>(p)));
  else if constexpr (kGroup == 4) return _mm256_broadcast_ps(reinterpret_cast<const __m128*>(p));
  else return _mm256_loadu_ps(p);
}

/// Those at even places of sixteen bf16, as floats, before those at odd ones.
SWITCHYARD_INLINE void unpack(const c10::BFloat16* from, float* to) {
  const __m256i pairs = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  _mm256_store_ps(to, _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)));
  _mm256_store_ps(to + 8, _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xffff0000u)))));
}

/// sums [R, V] += R rows of weights, `stride` apart, times a strip, both from their first value to `depth`.
template <int kGroup, int V, int R>
SWITCHYARD_INLINE void meet(int64_t depth, const float* w, int64_t stride, const float* strip, __m256 (&sums)[R][V]) {
  for (int64_t i = 0; i < depth; i += kGroup, strip += 8 * V) {
    __m256 x[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      x[v] = _mm256_load_ps(strip + 8 * v);
      asm("" : "+x"(x[v]));  // GCC would load it again for every row
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      __m256 group = group_at<kGroup>(w + r * stride + i);
      asm("" : "+x"(group));
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sums[r][v] = _mm256_fmadd_ps(group, x[v], sums[r][v]);
    }
  }
}

/// Asks for as many values behind R rows as are read of them meanwhile, behind the first `done` of each `more`. Rows side by side are no stream to
/// the hardware; what is asked for is one, line by line.
template <int R, typename W>
SWITCHYARD_INLINE void fetch_behind(const W* w, int64_t stride, int64_t done, int64_t more) {
  const char* line = reinterpret_cast<const char*>(w + R * (stride + done));
  for (int64_t at = 0; at < R * more * static_cast<int64_t>(sizeof(W)); at += 64) _mm_prefetch(line + at, _MM_HINT_T1);
}

template <int kGroup, int V, int R, bool kFollowed>
SWITCHYARD_INLINE void meet_row(const float* w, int64_t stride, int64_t k, const float* strip, __m256 (&sums)[R][V]) {
  if constexpr (!kFollowed) return meet<kGroup, V, R>(k, w, stride, strip, sums);
  for (int64_t i = 0; i < k; i += 16, strip += 16 / kGroup * 8 * V) {
    fetch_behind<R>(w, stride, i, 16);
    meet<kGroup, V, R>(16, w + i, stride, strip, sums);
  }
}
/// bf16 becomes floats kTaken values before they are multiplied: neither waits for the other then.
template <int kGroup, int V, int R, bool kFollowed>
SWITCHYARD_INLINE void meet_row(const c10::BFloat16* w, int64_t stride, int64_t k, const float* strip, __m256 (&sums)[R][V]) {
  constexpr int64_t kPadded = kTaken + 16;  // rows a power of two apart would displace one another in the first-level cache
  alignas(64) float floats[2][R * kPadded];
  for (int64_t i = 0; i < kTaken; i += 16)
    for (int r = 0; r < R; ++r) unpack(w + r * stride + i, floats[0] + r * kPadded + i);
  for (int64_t first = 0; first < k; first += kTaken) {
    const float* now = floats[first / kTaken % 2];
    float* next = floats[1 - first / kTaken % 2];
    const int64_t later = first + kTaken < k ? first + kTaken : first;
    for (int64_t i = 0; i < kTaken; i += 16, strip += 16 / kGroup * 8 * V) {
      if (kFollowed && i % 32 == 0) fetch_behind<R>(w, stride, first + i, 32);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) unpack(w + r * stride + later + i, next + r * kPadded + i);
      meet<kGroup, V, R>(16, now + i, kPadded, strip, sums);
    }
  }
}

/// out[j * ld + r * step] for R rows and the columns that there are of a strip.
template <int kGroup, int V, int R>
[[gnu::noinline]] void write_sums(const __m256* sums, int64_t n, float* out, int64_t ld, int64_t step) {
  constexpr int kIn = 8 / kGroup;
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) {
      alignas(32) float lanes[8];
      _mm256_store_ps(lanes, sums[r * V + v]);
      for (int c = 0; c < kIn && v * kIn + c < n; ++c) {
        const float* part = lanes + c * kGroup;
        float total = part[0];
        if constexpr (kGroup == 2) total = part[0] + part[1];
        if constexpr (kGroup == 4) total = (part[0] + part[2]) + (part[1] + part[3]);
        if constexpr (kGroup == 8) total = ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
        out[(v * kIn + c) * ld + r * step] = total;
      }
    }
}

/// R rows of weights from end to end, whose results go `step` apart.
template <int kGroup, int V, int R, bool kFollowed, typename W>
[[gnu::noinline]] void meet_rows(const W* w, int64_t stride, int64_t k, int64_t n, const float* strip, float* out, int64_t ld, int64_t step) {
  __m256 sums[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sums[r][v] = _mm256_setzero_ps();
  meet_row<kGroup, V, R, kFollowed>(w, stride, k, strip, sums);
  __m256 met[R * V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) met[r * V + v] = sums[r][v];
  write_sums<kGroup, V, R>(met, n, out, ld, step);
}

template <int kGroup, int V, typename W>
void meet_all_rows(const W* w, int64_t stride, int64_t rows, int64_t k, int64_t n, const float* strip, float* out, int64_t ld) {
  constexpr int R = V <= 2 ? 6 : 4;
  constexpr bool kApart = std::is_same_v<W, float> && V == 2 && kGroup > 1;  // else products, not memory, are what takes time
  int64_t r = 0;
  if constexpr (kApart)
    for (int64_t step; (step = rows_apart(rows - r, R, stride * static_cast<int64_t>(sizeof(W)))) > 0; r += (R - 1) * step)
      for (const int64_t end = r + step; r < end; ++r) meet_rows<kGroup, V, R, false>(w + r * stride, step * stride, k, n, strip, out + r, ld, step);
  if (stride == k)  // then other rows lie behind
    for (; r + R <= rows; r += R) meet_rows<kGroup, V, R, true>(w + r * stride, stride, k, n, strip, out + r, ld, 1);
  const auto take = [&](auto count) __attribute__((always_inline)) {
    for (; r + count <= rows; r += count) meet_rows<kGroup, V, count, false>(w + r * stride, stride, k, n, strip, out + r, ld, 1);
  };
  take(std::integral_constant<int, R>());
  if constexpr (R > 4) take(std::integral_constant<int, 4>());
  take(std::integral_constant<int, 2>());
  take(std::integral_constant<int, 1>());
}

template <typename W>
void one_strip(const W* w, int64_t stride, int64_t rows, int64_t k, int64_t n, const float* strip, float* out, int64_t ld) {
  const Shape shape = shape_of(n);
#define SWITCHYARD_SHAPE(group_, vectors_) \
  if (shape.group == group_ && shape.vectors == vectors_) return meet_all_rows<group_, vectors_>(w, stride, rows, k, n, strip, out, ld)
  SWITCHYARD_SHAPE(8, 1);
  SWITCHYARD_SHAPE(8, 2);
  SWITCHYARD_SHAPE(8, 3);
  SWITCHYARD_SHAPE(4, 2);
  SWITCHYARD_SHAPE(4, 3);
  SWITCHYARD_SHAPE(2, 2);
  SWITCHYARD_SHAPE(2, 3);
  SWITCHYARD_SHAPE(1, 2);
  SWITCHYARD_SHAPE(1, 3);
#undef SWITCHYARD_SHAPE
}

/// Strip after strip meets as many rows of weights as stay in the second-level cache.
template <typename W>
void all_strips(const W* w, int64_t stride, int64_t rows, int64_t k, int64_t n, const float* strips, float* out, int64_t ld) {
  const Parts parts = parts_of(n);
  const int64_t step = parts.count == 1 ? rows : std::max<int64_t>(12, kRowBytes / (stride * static_cast<int64_t>(sizeof(W))) / 12 * 12);
  for (int64_t r = 0; r < rows; r += step) {
    const float* strip = strips;
    for (int64_t p = 0; p < parts.count; ++p) {
      const int64_t first = parts.first(p), here = parts.first(p + 1) - first;
      one_strip(w + r * stride, stride, std::min(step, rows - r), k, here, strip, out + first * ld + r, ld);
      strip += shape_of(here).columns() * k;
    }
  }
}

/// Some values of a row of x, in the order of the strips, go to their places: column j of `columns`.
template <int kGroup>
void spread(const float* values, int64_t count, int64_t columns, int64_t j, float* strip) {
  for (int64_t i = 0; i < count / kGroup; ++i) std::memcpy(strip + (i * columns + j) * kGroup, values + i * kGroup, kGroup * sizeof(float));
}

/// Quarters 0, 2, 1, 3.
SWITCHYARD_INLINE __m256 unwoven(__m256 v) { return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(v), 0xd8)); }

/// kTaken values of a row of x as floats in the order of its strip.
void take(const float* x, StripOrder order, float* values) {
  for (int64_t i = 0; i < kTaken; i += 16) {
    const __m256 left = _mm256_loadu_ps(x + i), right = _mm256_loadu_ps(x + i + 8);
    if (order == StripOrder::floats) {
      _mm256_store_ps(values + i, left);
      _mm256_store_ps(values + i + 8, right);
      continue;
    }
    _mm256_store_ps(values + i, unwoven(_mm256_shuffle_ps(left, right, 0x88)));
    _mm256_store_ps(values + i + 8, unwoven(_mm256_shuffle_ps(left, right, 0xdd)));
  }
}
void take(const c10::BFloat16* x, StripOrder order, float* values) {
  for (int64_t i = 0; i < kTaken; i += 16) {
    if (order == StripOrder::halves) {
      unpack(x + i, values + i);
      continue;
    }
    for (int64_t l = 0; l < 16; l += 8) {
      const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x + i + l));
      _mm256_store_ps(values + i + l, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16)));
    }
  }
}

template <typename X>
void make_strip(const X* const* x, int64_t n, int64_t k, StripOrder order, float* strip) {
  const Shape shape = shape_of(n);
  const int64_t columns = shape.columns();
  alignas(32) float values[kTaken];
  for (int64_t i = 0; i < k; i += kTaken, strip += kTaken * columns)
    for (int64_t j = 0; j < columns; ++j) {
      if (j < n) take(x[j] + i, order, values);
      else std::fill(values, values + kTaken, 0.0f);
      switch (shape.group) {
        case 1: spread<1>(values, kTaken, columns, j, strip); break;
        case 2: spread<2>(values, kTaken, columns, j, strip); break;
        case 4: spread<4>(values, kTaken, columns, j, strip); break;
        default: spread<8>(values, kTaken, columns, j, strip);
      }
    }
}

template <typename X>
void all_of_x(const X* const* x, int64_t n, int64_t k, StripOrder order, float* strips) {
  const Parts parts = parts_of(n);
  for (int64_t p = 0; p < parts.count; ++p) {
    const int64_t first = parts.first(p), here = parts.first(p + 1) - first;
    make_strip(x + first, here, k, order, strips);
    strips += shape_of(here).columns() * k;
  }
}

}  // namespace
}  // namespace switchyard::kernels::cpu

#pragma GCC pop_options

namespace switchyard::kernels::cpu {

bool has_strips(int64_t k) { return cpu_level() >= CpuLevel::avx2 && cpu_level() < CpuLevel::avx512 && k > 0 && k % kTaken == 0; }

int64_t strip_columns(int64_t n) {
  const Parts parts = parts_of(n);
  int64_t columns = 0;
  for (int64_t p = 0; p < parts.count; ++p) columns += shape_of(parts.first(p + 1) - parts.first(p)).columns();
  return columns;
}

void make_strips(const float* const* x, int64_t n, int64_t k, StripOrder order, float* strips) { all_of_x(x, n, k, order, strips); }
void make_strips(const c10::BFloat16* const* x, int64_t n, int64_t k, StripOrder order, float* strips) { all_of_x(x, n, k, order, strips); }
void strip_dots(const float* w, int64_t stride, int64_t rows, int64_t k, int64_t n, const float* strips, float* out, int64_t ld) {
  all_strips(w, stride, rows, k, n, strips, out, ld);
}
void strip_dots(const c10::BFloat16* w, int64_t stride, int64_t rows, int64_t k, int64_t n, const float* strips, float* out, int64_t ld) {
  all_strips(w, stride, rows, k, n, strips, out, ld);
}

}  // namespace switchyard::kernels::cpu

#else

namespace switchyard::kernels::cpu {

bool has_strips(int64_t) { return false; }
int64_t strip_columns(int64_t n) { return n; }
void make_strips(const float* const*, int64_t, int64_t, StripOrder, float*) {}
void make_strips(const c10::BFloat16* const*, int64_t, int64_t, StripOrder, float*) {}
void strip_dots(const float*, int64_t, int64_t, int64_t, int64_t, const float*, float*, int64_t) {}
void strip_dots(const c10::BFloat16*, int64_t, int64_t, int64_t, int64_t, const float*, float*, int64_t) {}

}  // namespace switchyard::kernels::cpu

#endif
