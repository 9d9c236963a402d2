#include "switchyard/kernels/cpu/row_dots.h"

#include <algorithm>
#include <type_traits>

#include "switchyard/kernels/dispatch.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 on its own intrinsics, whose masked-off lanes are undefined
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math", "fp-contract=off")
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,f16c,bmi,bmi2")

namespace switchyard::kernels::cpu {
namespace {

#define SWITCHYARD_INLINE [[gnu::always_inline]] static inline

/// Rows follow one another in memory. The hardware follows too, but not across pages; this is as far ahead as memory is away.
template <int64_t kBytes, _mm_hint kHint = _MM_HINT_T0>
SWITCHYARD_INLINE void fetch(const uint8_t* from) {
#pragma GCC unroll 4
  for (int64_t at = 0; at < kBytes; at += 64) _mm_prefetch(reinterpret_cast<const char*>(from + at), kHint);
}

/// Calls f with the number of columns, 1 to 8, as a constant.
template <typename F>
SWITCHYARD_INLINE void for_columns(int64_t n, const F& f) {
  switch (n) {
    case 1: return f(std::integral_constant<int, 1>());
    case 2: return f(std::integral_constant<int, 2>());
    case 3: return f(std::integral_constant<int, 3>());
    case 4: return f(std::integral_constant<int, 4>());
    case 5: return f(std::integral_constant<int, 5>());
    case 6: return f(std::integral_constant<int, 6>());
    case 7: return f(std::integral_constant<int, 7>());
    default: return f(std::integral_constant<int, 8>());
  }
}

// A way reads kWidth weights of a row and adds their products with as many values of x to 16 sums.
struct FloatsByFloats {
  static constexpr int64_t kWidth = 16;
  using W = float;
  using X = float;
  SWITCHYARD_INLINE __m512 weights(const float* at) { return _mm512_loadu_ps(at); }
  SWITCHYARD_INLINE __m512 add(__m512 sum, __m512 w, const float* x) { return _mm512_fmadd_ps(w, _mm512_loadu_ps(x), sum); }
};
struct HalvesByFloats {
  static constexpr int64_t kWidth = 16;
  using W = c10::BFloat16;
  using X = float;
  SWITCHYARD_INLINE __m512 weights(const c10::BFloat16* at) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at))), 16));
  }
  SWITCHYARD_INLINE __m512 add(__m512 sum, __m512 w, const float* x) { return _mm512_fmadd_ps(w, _mm512_loadu_ps(x), sum); }
};
struct HalvesByHalves {
  static constexpr int64_t kWidth = 32;
  using W = c10::BFloat16;
  using X = c10::BFloat16;
  SWITCHYARD_INLINE __m512bh weights(const c10::BFloat16* at) { return (__m512bh)_mm512_loadu_si512(at); }
  SWITCHYARD_INLINE __m512 add(__m512 sum, __m512bh w, const c10::BFloat16* x) { return _mm512_dpbf16_ps(sum, w, weights(x)); }
};

/// Few columns leave room for several sums a row, so that four products are under way at once; more share what they load of x
/// between four rows.
template <int N> constexpr int kSumsOf = N == 1 ? 4 : N <= 3 ? 2 : 1;
template <int N> constexpr int kRowsOf = N <= 2 ? 1 : 4;
constexpr int64_t kColumnsAtOnce = 6;  ///< whose sums with four rows fill the registers, and of 2048 wide rows most of the first-level cache
constexpr int64_t kRowBytesAtOnce = 1 << 18;  ///< of weights that stay in the second-level cache while block after block of columns meets them

/// R rows and N columns; the next R rows are fetched meanwhile. Into the second-level cache: the first has few buffers for what is under
/// way, and x needs them.
template <typename Way, int N, int R>
SWITCHYARD_INLINE void meet_rows(const typename Way::W* w, int64_t stride, int64_t k, const typename Way::X* x, int64_t x_stride, float* out,
                                int64_t ld) {
  constexpr int kSums = kSumsOf<N>;
  constexpr int64_t kStep = 4 * Way::kWidth;
  const uint8_t* later = reinterpret_cast<const uint8_t*>(w) + (R == 1 ? 4096 : R * stride * static_cast<int64_t>(sizeof(*w)));
  __m512 sums[R][N][kSums];
  for (auto& row : sums)
    for (auto& column : row)
      for (__m512& sum : column) sum = _mm512_setzero_ps();
  for (int64_t i = 0; i < k; i += kStep) {
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
      fetch<kStep * sizeof(*w), N == 2 ? _MM_HINT_T0 : _MM_HINT_T1>(later + (r * stride + i) * static_cast<int64_t>(sizeof(*w)));
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const int64_t at = i + j * Way::kWidth;
      decltype(Way::weights(w)) v[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) v[r] = Way::weights(w + r * stride + at);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n)
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) sums[r][n][j % kSums] = Way::add(sums[r][n][j % kSums], v[r], x + n * x_stride + at);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int n = 0; n < N; ++n) {
      for (int s = 1; s < kSums; ++s) sums[r][n][0] = _mm512_add_ps(sums[r][n][0], sums[r][n][s]);
      out[n * ld + r] = _mm512_reduce_add_ps(sums[r][n][0]);
    }
}

template <typename Way, int N>
void meet_all_rows(const typename Way::W* w, int64_t stride, int64_t rows, int64_t k, const typename Way::X* x, int64_t x_stride, float* out,
                   int64_t ld) {
  constexpr int R = kRowsOf<N>;
  int64_t r = 0;
  for (; r + R <= rows; r += R) meet_rows<Way, N, R>(w + r * stride, stride, k, x, x_stride, out + r, ld);
  for (; r < rows; ++r) meet_rows<Way, N, 1>(w + r * stride, stride, k, x, x_stride, out + r, ld);
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

}  // namespace
}  // namespace switchyard::kernels::cpu

#pragma GCC pop_options

namespace switchyard::kernels::cpu {

template <>
bool has_row_dots<float>(int64_t k) { return cpu_level() >= CpuLevel::avx512bf16 && k % 64 == 0; }
template <>
bool has_row_dots<c10::BFloat16>(int64_t k) { return cpu_level() >= CpuLevel::avx512bf16 && k % 128 == 0; }

bool row_dots(const float* w, int64_t stride, int64_t rows, int64_t k, int64_t n, const float* x, int64_t x_stride, float* out, int64_t ld) {
  if (!has_row_dots<float>(k)) return false;
  plain_dots<FloatsByFloats>(w, stride, rows, k, n, x, x_stride, out, ld);
  return true;
}

bool row_dots(const c10::BFloat16* w, int64_t stride, int64_t rows, int64_t k, int64_t n, const float* x, int64_t x_stride, float* out, int64_t ld) {
  if (!has_row_dots<float>(k)) return false;
  plain_dots<HalvesByFloats>(w, stride, rows, k, n, x, x_stride, out, ld);
  return true;
}

bool row_dots(const c10::BFloat16* w, int64_t stride, int64_t rows, int64_t k, int64_t n, const c10::BFloat16* x, int64_t x_stride, float* out, int64_t ld) {
  if (!has_row_dots<c10::BFloat16>(k)) return false;
  plain_dots<HalvesByHalves>(w, stride, rows, k, n, x, x_stride, out, ld);
  return true;
}

}  // namespace switchyard::kernels::cpu

#else

namespace switchyard::kernels::cpu {

template <>
bool has_row_dots<float>(int64_t) { return false; }
template <>
bool has_row_dots<c10::BFloat16>(int64_t) { return false; }
bool row_dots(const float*, int64_t, int64_t, int64_t, int64_t, const float*, int64_t, float*, int64_t) { return false; }
bool row_dots(const c10::BFloat16*, int64_t, int64_t, int64_t, int64_t, const float*, int64_t, float*, int64_t) { return false; }
bool row_dots(const c10::BFloat16*, int64_t, int64_t, int64_t, int64_t, const c10::BFloat16*, int64_t, float*, int64_t) { return false; }

}  // namespace switchyard::kernels::cpu

#endif
