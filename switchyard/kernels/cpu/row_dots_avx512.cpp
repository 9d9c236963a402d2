#include <algorithm>
#include <type_traits>

#include "switchyard/kernels/cpu/row_dots.h"
#include "switchyard/kernels/cpu/rows_apart.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 on its own intrinsics, whose masked-off lanes are undefined
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#pragma GCC push_options
#ifndef SWITCHYARD_EMULATED_LEVEL
#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math", "fp-contract=off")
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,f16c,bmi,bmi2")
#endif

#include "switchyard/kernels/cpu/for_columns.h"

namespace switchyard::kernels::cpu {
namespace {

#define SWITCHYARD_INLINE [[gnu::always_inline]] static inline

using Sum = __m512;
SWITCHYARD_INLINE float total(__m512 sum) { return _mm512_reduce_add_ps(sum); }
constexpr int64_t kColumnsAtOnce = 6;  ///< whose sums with four rows fill the registers, and of 2048 wide rows most of the first-level cache
template <int N> constexpr int kSumsOf = N == 1 ? 4 : N <= 3 ? 2 : 1;
template <int N> constexpr int kRowsOf = N <= 2 ? 1 : 4;
template <int N> constexpr int kStreams = 0;

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

#include "switchyard/kernels/cpu/row_dots_loops.h"

}  // namespace

const RowDots* row_dots_avx512() { return &kRowDots; }

}  // namespace switchyard::kernels::cpu

#pragma GCC pop_options

#else

namespace switchyard::kernels::cpu {
const RowDots* row_dots_avx512() { return nullptr; }
}  // namespace switchyard::kernels::cpu

#endif
