#include "switchyard/kernels/cpu/vector_moves.h"

#include "switchyard/kernels/dispatch.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 on its own intrinsics, whose masked-off lanes are undefined
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")

namespace switchyard::kernels::cpu {
namespace {

constexpr int64_t kLanes = 16;

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

/// load(j, i): dwords of columns i to i + 15 of row j (of rows 2 j and 2 j + 1 where dwords are pairs); rows: how many dwords there are
/// of a column; store(i, j, dwords): of column i, rows j to j + 15. Sixteen by sixteen; what is left at the edges is left(j, i).
template <typename Load, typename Store, typename Left>
[[gnu::always_inline]] inline void turn_all(int64_t rows, int64_t width, const Load& load, const Store& store, const Left& left) {
  const int64_t whole_rows = rows / kLanes * kLanes, whole_width = width / kLanes * kLanes;
  for (int64_t i = 0; i < whole_width; i += kLanes)
    for (int64_t j = 0; j < whole_rows; j += kLanes) {
      __m512i v[kLanes];
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) v[r] = load(j + r, i);
      turn(v);
#pragma GCC unroll 16
      for (int c = 0; c < kLanes; ++c) store(i + c, j, v[c]);
    }
  for (int64_t j = 0; j < rows; ++j)
    for (int64_t i = j < whole_rows ? whole_width : 0; i < width; ++i) left(j, i);
}

void transpose_loop(const uint32_t* src, int64_t src_ld, const int64_t* index, int64_t n, int64_t width, uint32_t* dst, int64_t ld) {
  const auto row = [=](int64_t j) { return src + (index ? index[j] : j) * src_ld; };
  turn_all(
      n, width, [&](int64_t j, int64_t i) __attribute__((always_inline)) { return _mm512_loadu_si512(row(j) + i); },
      [&](int64_t i, int64_t j, __m512i v) __attribute__((always_inline)) { _mm512_storeu_si512(dst + i * ld + j, v); },
      [&](int64_t j, int64_t i) { dst[i * ld + j] = row(j)[i]; });
}

void transpose_loop(const c10::BFloat16* src, int64_t src_ld, int64_t n, int64_t width, c10::BFloat16* dst, int64_t ld) {
  turn_all(
      n / 2, width,
      [&](int64_t j, int64_t i) __attribute__((always_inline)) {
        return pairs(halves_at(src + 2 * j * src_ld + i), halves_at(src + (2 * j + 1) * src_ld + i));
      },
      [&](int64_t i, int64_t j, __m512i v) __attribute__((always_inline)) { _mm512_storeu_si512(dst + i * ld + 2 * j, v); },
      [&](int64_t j, int64_t i) {
        dst[i * ld + 2 * j] = src[2 * j * src_ld + i];
        dst[i * ld + 2 * j + 1] = src[(2 * j + 1) * src_ld + i];
      });
  for (int64_t i = 0; n % 2 == 1 && i < width; ++i) dst[i * ld + n - 1] = src[(n - 1) * src_ld + i];
}

void transpose_loop(const float* src, int64_t src_ld, int64_t n, int64_t width, c10::BFloat16* dst, int64_t ld) {
  const auto one = [=](int64_t j, int64_t i) { narrow_loop(src + j * src_ld + i, 1, dst + i * ld + j); };
  turn_all(
      n / 2, width,
      [&](int64_t j, int64_t i) __attribute__((always_inline)) {
        const float* at = src + 2 * j * src_ld + i;
        return pairs(_mm512_loadu_ps(at), _mm512_loadu_ps(at + src_ld));
      },
      [&](int64_t i, int64_t j, __m512i v) __attribute__((always_inline)) { _mm512_storeu_si512(dst + i * ld + 2 * j, v); },
      [&](int64_t j, int64_t i) {
        one(2 * j, i);
        one(2 * j + 1, i);
      });
  for (int64_t i = 0; n % 2 == 1 && i < width; ++i) one(n - 1, i);
}

}  // namespace
}  // namespace switchyard::kernels::cpu

#pragma GCC pop_options

namespace switchyard::kernels::cpu {

bool narrow_fast(const float* src, int64_t count, c10::BFloat16* dst) {
  if (cpu_level() < CpuLevel::avx512bf16) return false;
  narrow_loop(src, count, dst);
  return true;
}
bool narrow_fast(const float* src, int64_t count, float scale, c10::BFloat16* dst) {
  if (cpu_level() < CpuLevel::avx512bf16) return false;
  narrow_loop(src, count, scale, dst);
  return true;
}
bool interleave_fast(const float* a, const float* b, int64_t count, uint32_t* out) {
  if (cpu_level() < CpuLevel::avx512bf16) return false;
  interleave_loop(a, b, count, out);
  return true;
}
bool interleave_fast(const c10::BFloat16* a, const c10::BFloat16* b, int64_t count, uint32_t* out) {
  if (cpu_level() < CpuLevel::avx512bf16) return false;
  interleave_loop(a, b, count, out);
  return true;
}

bool transpose_fast(const uint32_t* src, int64_t src_ld, const int64_t* index, int64_t n, int64_t width, uint32_t* dst, int64_t ld) {
  if (cpu_level() < CpuLevel::avx512bf16) return false;
  transpose_loop(src, src_ld, index, n, width, dst, ld);
  return true;
}
bool transpose_fast(const c10::BFloat16* src, int64_t src_ld, int64_t n, int64_t width, c10::BFloat16* dst, int64_t ld) {
  if (cpu_level() < CpuLevel::avx512bf16) return false;
  transpose_loop(src, src_ld, n, width, dst, ld);
  return true;
}
bool transpose_fast(const float* src, int64_t src_ld, int64_t n, int64_t width, c10::BFloat16* dst, int64_t ld) {
  if (cpu_level() < CpuLevel::avx512bf16) return false;
  transpose_loop(src, src_ld, n, width, dst, ld);
  return true;
}

}  // namespace switchyard::kernels::cpu

#else

namespace switchyard::kernels::cpu {

bool narrow_fast(const float*, int64_t, c10::BFloat16*) { return false; }
bool narrow_fast(const float*, int64_t, float, c10::BFloat16*) { return false; }
bool interleave_fast(const float*, const float*, int64_t, uint32_t*) { return false; }
bool interleave_fast(const c10::BFloat16*, const c10::BFloat16*, int64_t, uint32_t*) { return false; }
bool transpose_fast(const uint32_t*, int64_t, const int64_t*, int64_t, int64_t, uint32_t*, int64_t) { return false; }
bool transpose_fast(const c10::BFloat16*, int64_t, int64_t, int64_t, c10::BFloat16*, int64_t) { return false; }
bool transpose_fast(const float*, int64_t, int64_t, int64_t, c10::BFloat16*, int64_t) { return false; }

}  // namespace switchyard::kernels::cpu

#endif
