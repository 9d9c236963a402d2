#include "switchyard/kernels/cpu/tiles.h"
#include "switchyard/kernels/cpu/vector_moves.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 on its own intrinsics, whose masked-off lanes are undefined
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math")
#pragma GCC target("avx2,fma,bmi,bmi2")

namespace switchyard::kernels::cpu {
namespace {

constexpr int64_t kLanes = 8;
using Words = __m256i;
[[gnu::always_inline]] inline Words load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
[[gnu::always_inline]] inline void store(void* p, Words v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }

/// bf16 in the upper half of each word, the lower one zero: nearest even, and NaN stays NaN.
[[gnu::always_inline]] inline __m256i upper_halves(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x), odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
  return _mm256_and_si256(_mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc00000), _mm256_castps_si256(nan)), _mm256_set1_epi32(static_cast<int>(0xffff0000u)));
}
[[gnu::always_inline]] inline __m128i narrowed(__m256 x) {
  const __m256i words = _mm256_srli_epi32(upper_halves(x), 16);
  return _mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_packus_epi32(words, words), 0x88));
}
[[gnu::always_inline]] inline Words pairs_at(const float* a, const float* b) {
  return _mm256_or_si256(_mm256_srli_epi32(upper_halves(_mm256_loadu_ps(a)), 16), upper_halves(_mm256_loadu_ps(b)));
}
[[gnu::always_inline]] inline Words pairs_at(const c10::BFloat16* a, const c10::BFloat16* b) {
  const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(a)), high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(b));
  return _mm256_set_m128i(_mm_unpackhi_epi16(low, high), _mm_unpacklo_epi16(low, high));
}

void narrow_loop(const float* src, int64_t count, c10::BFloat16* dst) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) _mm_storeu_si128(reinterpret_cast<__m128i*>(dst + i), narrowed(_mm256_loadu_ps(src + i)));
  for (; i < count; ++i) dst[i] = from_float<c10::BFloat16>(src[i]);
}
void narrow_loop(const float* src, int64_t count, float scale, c10::BFloat16* dst) {
  const __m256 by = _mm256_set1_ps(scale);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) _mm_storeu_si128(reinterpret_cast<__m128i*>(dst + i), narrowed(_mm256_mul_ps(_mm256_loadu_ps(src + i), by)));
  for (; i < count; ++i) dst[i] = from_float<c10::BFloat16>(src[i] * scale);
}
[[gnu::always_inline]] inline c10::BFloat16 half(float x) { return from_float<c10::BFloat16>(x); }
[[gnu::always_inline]] inline c10::BFloat16 half(c10::BFloat16 x) { return x; }
template <typename S>
[[gnu::always_inline]] inline void interleave(const S* a, const S* b, int64_t count, uint32_t* out) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(out + i, pairs_at(a + i, b + i));
  for (; i < count; ++i) out[i] = uint32_t{half(a[i]).x} | uint32_t{half(b[i]).x} << 16;
}
void interleave_loop(const float* a, const float* b, int64_t count, uint32_t* out) { interleave(a, b, count, out); }
void interleave_loop(const c10::BFloat16* a, const c10::BFloat16* b, int64_t count, uint32_t* out) { interleave(a, b, count, out); }

[[gnu::always_inline]] inline void turn(__m256i (&v)[kLanes]) {
  __m256i a[kLanes];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    a[2 * i] = _mm256_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
    a[2 * i + 1] = _mm256_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {  // v[4 i + c]: column c of each half, rows 4 i to 4 i + 3
    v[4 * i] = _mm256_unpacklo_epi64(a[4 * i], a[4 * i + 2]);
    v[4 * i + 1] = _mm256_unpackhi_epi64(a[4 * i], a[4 * i + 2]);
    v[4 * i + 2] = _mm256_unpacklo_epi64(a[4 * i + 1], a[4 * i + 3]);
    v[4 * i + 3] = _mm256_unpackhi_epi64(a[4 * i + 1], a[4 * i + 3]);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) a[c] = v[4 + c];
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    v[4 + c] = _mm256_permute2x128_si256(v[c], a[c], 0x31);
    v[c] = _mm256_permute2x128_si256(v[c], a[c], 0x20);
  }
}

#include "switchyard/kernels/cpu/vector_moves_loops.h"

}  // namespace

const VectorMoves* vector_moves_avx2() { return &kMoves; }

}  // namespace switchyard::kernels::cpu

#pragma GCC pop_options

#else

namespace switchyard::kernels::cpu {
const VectorMoves* vector_moves_avx2() { return nullptr; }
}  // namespace switchyard::kernels::cpu

#endif
