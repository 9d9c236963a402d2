#include "switchyard/kernels/cpu/tiles.h"
#include "switchyard/kernels/cpu/vector_moves.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 on its own intrinsics, whose masked-off lanes are undefined
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#pragma GCC push_options
#ifndef SWITCHYARD_EMULATED_LEVEL
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")
#endif

namespace switchyard::kernels::cpu {
namespace {

constexpr int64_t kLanes = 16;
using Words = __m512i;
[[gnu::always_inline]] inline Words load(const void* p) { return _mm512_loadu_si512(p); }
[[gnu::always_inline]] inline void store(void* p, Words v) { _mm512_storeu_si512(p, v); }

/// Calls with the first of sixteen values and how many of them there are: a mask costs more than what is masked, so only the last has one.
template <typename Whole, typename Part>
[[gnu::always_inline]] inline void by_lanes(int64_t count, const Whole& whole, const Part& part) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) whole(i);
  if (i < count) part(i, static_cast<__mmask16>((1u << (count - i)) - 1));
}

/// Values 0 to 15 of the low half between those of the high half.
__m512i between(__m512i halves) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, halves);
}

[[gnu::always_inline]] inline __m512i pairs(__m512 low, __m512 high) { return between((__m512i)_mm512_cvtne2ps_pbh(high, low)); }
[[gnu::always_inline]] inline __m512i pairs(__m256i low, __m256i high) { return between(_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1)); }
[[gnu::always_inline]] inline __m256i halves_at(const c10::BFloat16* x) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)); }
[[gnu::always_inline]] inline Words pairs_at(const float* a, const float* b) { return pairs(_mm512_loadu_ps(a), _mm512_loadu_ps(b)); }
[[gnu::always_inline]] inline Words pairs_at(const c10::BFloat16* a, const c10::BFloat16* b) { return pairs(halves_at(a), halves_at(b)); }
[[gnu::always_inline]] inline __m256i narrowed(__m512 x) { return (__m256i)_mm512_cvtneps_pbh(x); }

void narrow_loop(const float* src, int64_t count, c10::BFloat16* dst) {
  by_lanes(
      count, [&](int64_t i) __attribute__((always_inline)) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst + i), narrowed(_mm512_loadu_ps(src + i))); },
      [&](int64_t i, __mmask16 mask) __attribute__((always_inline)) {
        _mm256_mask_storeu_epi16(dst + i, mask, narrowed(_mm512_maskz_loadu_ps(mask, src + i)));
      });
}
void narrow_loop(const float* src, int64_t count, float scale, c10::BFloat16* dst) {
  const __m512 by = _mm512_set1_ps(scale);
  by_lanes(
      count,
      [&](int64_t i) __attribute__((always_inline)) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst + i), narrowed(_mm512_mul_ps(_mm512_loadu_ps(src + i), by)));
      },
      [&](int64_t i, __mmask16 mask) __attribute__((always_inline)) {
        _mm256_mask_storeu_epi16(dst + i, mask, narrowed(_mm512_mul_ps(_mm512_maskz_loadu_ps(mask, src + i), by)));
      });
}
void interleave_loop(const float* a, const float* b, int64_t count, uint32_t* out) {
  by_lanes(
      count, [&](int64_t i) __attribute__((always_inline)) { _mm512_storeu_si512(out + i, pairs(_mm512_loadu_ps(a + i), _mm512_loadu_ps(b + i))); },
      [&](int64_t i, __mmask16 mask) __attribute__((always_inline)) {
        _mm512_mask_storeu_epi32(out + i, mask, pairs(_mm512_maskz_loadu_ps(mask, a + i), _mm512_maskz_loadu_ps(mask, b + i)));
      });
}
void interleave_loop(const c10::BFloat16* a, const c10::BFloat16* b, int64_t count, uint32_t* out) {
  by_lanes(
      count, [&](int64_t i) __attribute__((always_inline)) { _mm512_storeu_si512(out + i, pairs(halves_at(a + i), halves_at(b + i))); },
      [&](int64_t i, __mmask16 mask) __attribute__((always_inline)) {
        _mm512_mask_storeu_epi32(out + i, mask, pairs(_mm256_maskz_loadu_epi16(mask, a + i), _mm256_maskz_loadu_epi16(mask, b + i)));
      });
}

/// Dword c of v[r] becomes dword r of v[c].
[[gnu::always_inline]] inline void turn(__m512i (&v)[kLanes]) {
  __m512i a[kLanes];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    a[2 * i] = _mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
    a[2 * i + 1] = _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {  // v[4 i + c]: column c of each quarter, rows 4 i to 4 i + 3
    v[4 * i] = _mm512_unpacklo_epi64(a[4 * i], a[4 * i + 2]);
    v[4 * i + 1] = _mm512_unpackhi_epi64(a[4 * i], a[4 * i + 2]);
    v[4 * i + 2] = _mm512_unpacklo_epi64(a[4 * i + 1], a[4 * i + 3]);
    v[4 * i + 3] = _mm512_unpackhi_epi64(a[4 * i + 1], a[4 * i + 3]);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    a[c] = _mm512_shuffle_i32x4(v[c], v[4 + c], 0x88);           // quarters 0 and 2 of rows 0 to 7
    a[4 + c] = _mm512_shuffle_i32x4(v[c], v[4 + c], 0xdd);       // quarters 1 and 3
    a[8 + c] = _mm512_shuffle_i32x4(v[8 + c], v[12 + c], 0x88);  // of rows 8 to 15
    a[12 + c] = _mm512_shuffle_i32x4(v[8 + c], v[12 + c], 0xdd);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    v[c] = _mm512_shuffle_i32x4(a[c], a[8 + c], 0x88);
    v[8 + c] = _mm512_shuffle_i32x4(a[c], a[8 + c], 0xdd);
    v[4 + c] = _mm512_shuffle_i32x4(a[4 + c], a[12 + c], 0x88);
    v[12 + c] = _mm512_shuffle_i32x4(a[4 + c], a[12 + c], 0xdd);
  }
}

#include "switchyard/kernels/cpu/vector_moves_loops.h"

}  // namespace

const VectorMoves* vector_moves_avx512() { return &kMoves; }

}  // namespace switchyard::kernels::cpu

#pragma GCC pop_options

#else

namespace switchyard::kernels::cpu {
const VectorMoves* vector_moves_avx512() { return nullptr; }
}  // namespace switchyard::kernels::cpu

#endif
