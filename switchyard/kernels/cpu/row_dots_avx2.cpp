#include <algorithm>
#include <type_traits>

#include "switchyard/kernels/cpu/row_dots.h"
#include "switchyard/kernels/cpu/rows_apart.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 on its own intrinsics, whose masked-off lanes are undefined
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math", "fp-contract=off")
#pragma GCC target("avx2,fma,f16c,bmi,bmi2")

#include "switchyard/kernels/cpu/for_columns.h"

namespace switchyard::kernels::cpu {
namespace {

#define SWITCHYARD_INLINE [[gnu::always_inline]] static inline

using Sum = __m256;
SWITCHYARD_INLINE float total(__m256 sum) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1)), two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
constexpr int64_t kColumnsAtOnce = 6;
template <int N> constexpr int kSumsOf = 1;
template <int N> constexpr int kRowsOf = N <= 3 ? 4 : N == 4 ? 3 : 2;
template <int N> constexpr int kStreams = N == 1 ? 8 : N == 2 ? 6 : kRowsOf<N>;

struct FloatsByFloats {
  static constexpr int64_t kWidth = 8;
  using W = float;
  using X = float;
  SWITCHYARD_INLINE __m256 weights(const float* at) { return _mm256_loadu_ps(at); }
  SWITCHYARD_INLINE __m256 add(__m256 sum, __m256 w, const float* x) { return _mm256_fmadd_ps(w, _mm256_loadu_ps(x), sum); }
};
struct HalvesByFloats {
  static constexpr int64_t kWidth = 8;
  using W = c10::BFloat16;
  using X = float;
  SWITCHYARD_INLINE __m256 weights(const c10::BFloat16* at) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at))), 16));
  }
  SWITCHYARD_INLINE __m256 add(__m256 sum, __m256 w, const float* x) { return _mm256_fmadd_ps(w, _mm256_loadu_ps(x), sum); }
};
/// Sixteen values as two vectors of floats: those at even places, those at odd ones.
struct Sixteen { __m256 even, odd; };
struct HalvesByHalves {
  static constexpr int64_t kWidth = 16;
  using W = c10::BFloat16;
  using X = c10::BFloat16;
  SWITCHYARD_INLINE Sixteen weights(const c10::BFloat16* at) {
    const __m256i pairs = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
    const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)), _mm256_castsi256_ps(_mm256_and_si256(pairs, upper))};
  }
  SWITCHYARD_INLINE __m256 add(__m256 sum, Sixteen w, const c10::BFloat16* x) {
    const Sixteen v = weights(x);
    return _mm256_fmadd_ps(w.odd, v.odd, _mm256_fmadd_ps(w.even, v.even, sum));
  }
};

#include "switchyard/kernels/cpu/row_dots_loops.h"

}  // namespace

const RowDots* row_dots_avx2() { return &kRowDots; }

}  // namespace switchyard::kernels::cpu

#pragma GCC pop_options

#else

namespace switchyard::kernels::cpu {
const RowDots* row_dots_avx2() { return nullptr; }
}  // namespace switchyard::kernels::cpu

#endif
