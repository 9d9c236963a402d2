#include "switchyard/kernels/cpu/int_columns.h"

#include <c10/util/BFloat16.h>

#include <limits>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

#include <immintrin.h>

#pragma GCC push_options
#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math", "fp-contract=off")
#pragma GCC target("avx2,fma,f16c")

namespace switchyard::kernels::cpu {
namespace {

#define SWITCHYARD_INLINE [[gnu::always_inline]] static inline

SWITCHYARD_INLINE __m256 eight(const float* x) { return _mm256_loadu_ps(x); }
SWITCHYARD_INLINE __m256 eight(const c10::BFloat16* x) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x))), 16));
}

/// 64 values, the largest of them, and what makes them integers of at most `most`.
struct Sixty {
  static constexpr float kNothing = 1e-30f;  ///< values below it count for nothing
  __m256 v[8];
  float unit;
  __m256 to_q;

  template <typename X>
  SWITCHYARD_INLINE Sixty of(const X* x, float most) {
    Sixty all;
    const __m256 size_of = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    __m256 largest = _mm256_setzero_ps(), every = size_of;
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      const __m256 value = eight(x + 8 * i), size = _mm256_and_ps(value, size_of);
      const __m256 finite = _mm256_cmp_ps(size, _mm256_set1_ps(std::numeric_limits<float>::max()), _CMP_LE_OQ);
      every = _mm256_and_ps(every, finite);
      all.v[i] = _mm256_and_ps(value, finite);
      largest = _mm256_max_ps(largest, _mm256_and_ps(size, finite));
    }
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(largest), _mm256_extractf128_ps(largest, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    const float top = _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
    const bool none = !_mm256_testc_si256(_mm256_castps_si256(every), _mm256_castps_si256(size_of));
    all.unit = none ? std::numeric_limits<float>::quiet_NaN() : top / most;  // which all 64 then give
    all.to_q = _mm256_set1_ps(top < kNothing ? 0 : most / top);
    return all;
  }
  /// Nearest, ties to even.
  SWITCHYARD_INLINE void whole(const Sixty& all, __m256i* to) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) to[i] = _mm256_cvtps_epi32(_mm256_mul_ps(all.v[i], all.to_q));
  }
  /// The 64 as bytes, and the sums of each 16 and 32.
  SWITCHYARD_INLINE void store(const __m256i* whole, int8_t* q, int16_t* sum) {
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const __m256i* four = whole + 4 * i;
      const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(four[0], four[1]), _mm256_packs_epi32(four[2], four[3]));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(q + 32 * i), _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
    }
    const auto pair = [whole](int i) __attribute__((always_inline)) { return _mm256_add_epi32(whole[2 * i], whole[2 * i + 1]); };
    const __m256i sums = _mm256_hadd_epi32(_mm256_hadd_epi32(pair(0), pair(1)), _mm256_hadd_epi32(pair(2), pair(3)));
    const __m128i all = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    const __m128i halves = _mm_packs_epi32(_mm_hadd_epi32(all, all), _mm_setzero_si128());
    _mm_storel_epi64(reinterpret_cast<__m128i*>(sum), _mm_packs_epi32(all, all));
    _mm_storeu_si32(sum + 4, halves);
  }
};

template <typename X>
void quantise_part(const X* x, int8_t* q, float* scale, int16_t* sum) {
  const Sixty all = Sixty::of(x, 127);
  *scale = all.unit;
  __m256i whole[8];
  Sixty::whole(all, whole);
  Sixty::store(whole, q, sum);
}

/// The digits of the 64 values, `k` apart.
void quantise_part_to_digits(const float* x, int64_t k, int8_t* q, float* scale, int16_t* sum) {
  const Sixty all = Sixty::of(x, 127 * 65536);
  const float units[kDigits] = {all.unit * 65536, all.unit * 256, all.unit};
  __m256i rest[8], low[8];
  Sixty::whole(all, rest);
  for (int64_t digit = kDigits - 1; digit >= 0; --digit) {
    for (int i = 0; i < 8; ++i) {
      low[i] = digit == 0 ? rest[i] : _mm256_srai_epi32(_mm256_slli_epi32(rest[i], 24), 24);
      rest[i] = _mm256_srai_epi32(_mm256_sub_epi32(rest[i], low[i]), 8);
    }
    scale[digit * (k / 64)] = units[digit];
    Sixty::store(low, q + digit * k, sum + digit * (k / 64 * kColumnSums));
  }
}

}  // namespace
}  // namespace switchyard::kernels::cpu

#pragma GCC pop_options

namespace switchyard::kernels::cpu {

template <typename X>
void quantise_columns(const X* x, int64_t n, int64_t k, int8_t* q, float* scale, int16_t* sum) {
  for (int64_t part = 0; part < n * k / 64; ++part) quantise_part(x + 64 * part, q + 64 * part, scale + part, sum + kColumnSums * part);
}

void quantise_digits(const float* x, int64_t n, int64_t k, int8_t* q, float* scale, int16_t* sum) {
  for (int64_t j = 0; j < n; ++j, x += k, q += kDigits * k, scale += kDigits * (k / 64), sum += kDigits * (k / 64 * kColumnSums))
    for (int64_t part = 0; part < k / 64; ++part)
      quantise_part_to_digits(x + 64 * part, k, q + 64 * part, scale + part, sum + kColumnSums * part);
}

}  // namespace switchyard::kernels::cpu

#else

namespace switchyard::kernels::cpu {

template <typename X>
void quantise_columns(const X*, int64_t, int64_t, int8_t*, float*, int16_t*) {}  // nobody asks for them without a path
void quantise_digits(const float*, int64_t, int64_t, int8_t*, float*, int16_t*) {}

}  // namespace switchyard::kernels::cpu

#endif

namespace switchyard::kernels::cpu {
template void quantise_columns<float>(const float*, int64_t, int64_t, int8_t*, float*, int16_t*);
template void quantise_columns<c10::BFloat16>(const c10::BFloat16*, int64_t, int64_t, int8_t*, float*, int16_t*);
}  // namespace switchyard::kernels::cpu
