#include "switchyard/kernels/cpu/int_columns.h"

#include <limits>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 on its own intrinsics, whose masked-off lanes are undefined
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math", "fp-contract=off")
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,bmi,bmi2")

namespace switchyard::kernels::cpu {
namespace {

#define SWITCHYARD_INLINE [[gnu::always_inline]] static inline

/// 64 values, the largest of them, and what makes them integers of at most `most`.
struct Sixty {
  static constexpr float kNothing = 1e-30f;  ///< values below it count for nothing
  __m512 v[4];
  float unit;
  __m512 to_q;

  SWITCHYARD_INLINE Sixty of(const float* x, float most) {
    Sixty all;
    __m512 largest = _mm512_setzero_ps();
    __mmask16 none = 0;
    for (int i = 0; i < 4; ++i) {
      all.v[i] = _mm512_loadu_ps(x + 16 * i);
      const __mmask16 finite = _mm512_cmp_ps_mask(_mm512_abs_ps(all.v[i]), _mm512_set1_ps(std::numeric_limits<float>::max()), _CMP_LE_OQ);
      none |= static_cast<__mmask16>(~finite);
      all.v[i] = _mm512_maskz_mov_ps(finite, all.v[i]);
      largest = _mm512_max_ps(largest, _mm512_abs_ps(all.v[i]));
    }
    const float top = _mm512_reduce_max_ps(largest);
    all.unit = none ? std::numeric_limits<float>::quiet_NaN() : top / most;  // which all 64 then give
    all.to_q = _mm512_set1_ps(top < kNothing ? 0 : most / top);
    return all;
  }
  SWITCHYARD_INLINE void store(__m512i whole, int8_t* q, float scale, float* sum) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q), _mm512_cvtsepi32_epi8(whole));
    *sum = scale * static_cast<float>(_mm512_reduce_add_epi32(whole));
  }
};

void quantise_part(const float* x, int8_t* q, float* scale, float* sum) {
  const Sixty all = Sixty::of(x, 127);
  *scale = all.unit;
  for (int i = 0; i < 4; ++i)
    Sixty::store(_mm512_cvtps_epi32(_mm512_mul_ps(all.v[i], all.to_q)), q + 16 * i, all.unit, sum + i);  // nearest, ties to even
}

/// The digits of the 64 values, `k` apart.
void quantise_part_to_digits(const float* x, int64_t k, int8_t* q, float* scale, float* sum) {
  const Sixty all = Sixty::of(x, 127 * 65536);
  const float units[kDigits] = {all.unit * 65536, all.unit * 256, all.unit};
  for (int64_t digit = 0; digit < kDigits; ++digit) scale[digit * (k / 64)] = units[digit];
  for (int i = 0; i < 4; ++i) {
    __m512i rest = _mm512_cvtps_epi32(_mm512_mul_ps(all.v[i], all.to_q));
    for (int64_t digit = kDigits - 1; digit >= 0; --digit) {
      const __m512i low = digit == 0 ? rest : _mm512_srai_epi32(_mm512_slli_epi32(rest, 24), 24);
      Sixty::store(low, q + digit * k + 16 * i, units[digit], sum + digit * (k / 16) + i);
      rest = _mm512_srai_epi32(_mm512_sub_epi32(rest, low), 8);
    }
  }
}

}  // namespace
}  // namespace switchyard::kernels::cpu

#pragma GCC pop_options

namespace switchyard::kernels::cpu {

void quantise_columns(const float* x, int64_t n, int64_t k, int8_t* q, float* scale, float* sum) {
  for (int64_t part = 0; part < n * k / 64; ++part) quantise_part(x + 64 * part, q + 64 * part, scale + part, sum + 4 * part);
}

void quantise_digits(const float* x, int64_t n, int64_t k, int8_t* q, float* scale, float* sum) {
  for (int64_t j = 0; j < n; ++j, x += k, q += kDigits * k, scale += kDigits * (k / 64), sum += kDigits * (k / 16))
    for (int64_t part = 0; part < k / 64; ++part)
      quantise_part_to_digits(x + 64 * part, k, q + 64 * part, scale + part, sum + 4 * part);
}

}  // namespace switchyard::kernels::cpu

#else

namespace switchyard::kernels::cpu {

void quantise_columns(const float*, int64_t, int64_t, int8_t*, float*, float*) {}  // nobody asks for them without a path
void quantise_digits(const float*, int64_t, int64_t, int8_t*, float*, float*) {}

}  // namespace switchyard::kernels::cpu

#endif
