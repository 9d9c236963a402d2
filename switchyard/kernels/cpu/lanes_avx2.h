// Eight lanes of 32 bits in one vector, AVX2: the operations in which row_groups_loops.h is written, as lanes_avx512.h names them. For
// sources that are compiled for that level. Internal to kernels/.
#pragma once

#include <immintrin.h>

#include <bit>
#include <cstdint>
#include <cstring>

namespace switchyard::kernels::cpu {
namespace {

#define SWITCHYARD_INLINE [[gnu::always_inline]] static inline

constexpr int64_t kLanes = 8;
constexpr int64_t kTurnedAhead = 1;
constexpr int64_t kGroupStreams = 2;
constexpr bool kManyLose = true;
using Ints = __m256i;
using Floats = __m256;

SWITCHYARD_INLINE __m128i load16(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
SWITCHYARD_INLINE Ints load(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
SWITCHYARD_INLINE void store(uint8_t* p, Ints v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
SWITCHYARD_INLINE void store(float* p, Floats v) { _mm256_storeu_ps(p, v); }
SWITCHYARD_INLINE Floats no_floats() { return _mm256_setzero_ps(); }
SWITCHYARD_INLINE Floats each(float x) { return _mm256_set1_ps(x); }
SWITCHYARD_INLINE Ints each_byte(int x) { return _mm256_set1_epi8(static_cast<char>(x)); }
SWITCHYARD_INLINE Ints each_lane(int x) { return _mm256_set1_epi32(x); }
SWITCHYARD_INLINE Ints each_four(const void* p) {
  int32_t four;
  std::memcpy(&four, p, sizeof four);
  return _mm256_set1_epi32(four);
}

SWITCHYARD_INLINE Ints both(Ints a, Ints b) { return _mm256_and_si256(a, b); }
SWITCHYARD_INLINE Ints either(Ints a, Ints b) { return _mm256_or_si256(a, b); }
SWITCHYARD_INLINE Ints differing(Ints a, Ints b) { return _mm256_xor_si256(a, b); }
SWITCHYARD_INLINE Ints plus(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
SWITCHYARD_INLINE Ints minus(Ints a, Ints b) { return _mm256_sub_epi32(a, b); }
SWITCHYARD_INLINE Ints left(Ints v, int n) { return _mm256_slli_epi32(v, n); }
SWITCHYARD_INLINE Ints right(Ints v, int n) { return _mm256_srli_epi32(v, n); }
SWITCHYARD_INLINE Ints signed_right(Ints v, int n) { return _mm256_srai_epi32(v, n); }
SWITCHYARD_INLINE Ints left_halves(Ints v, int n) { return _mm256_slli_epi16(v, n); }
SWITCHYARD_INLINE Ints right_halves(Ints v, int n) { return _mm256_srli_epi16(v, n); }
SWITCHYARD_INLINE Ints signed_right_halves(Ints v, int n) { return _mm256_srai_epi16(v, n); }
SWITCHYARD_INLINE Ints left_by(Ints v, Ints n) { return _mm256_sllv_epi32(v, n); }
SWITCHYARD_INLINE Ints where_less(Ints v, int limit, Ints a, Ints b) { return _mm256_blendv_epi8(b, a, _mm256_cmpgt_epi32(each_lane(limit), v)); }
SWITCHYARD_INLINE Ints look_up(__m128i table, Ints v) { return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), v); }
SWITCHYARD_INLINE Ints rearranged(Ints v, int a, int b, int c, int d) {
  const auto at = [](int byte, int lane) __attribute__((always_inline)) { return static_cast<char>(byte < 0 ? -1 : byte + 4 * lane); };
  return _mm256_shuffle_epi8(v, _mm256_broadcastsi128_si256(_mm_setr_epi8(at(a, 0), at(b, 0), at(c, 0), at(d, 0), at(a, 1), at(b, 1), at(c, 1), at(d, 1),
                                                                          at(a, 2), at(b, 2), at(c, 2), at(d, 2), at(a, 3), at(b, 3), at(c, 3), at(d, 3))));
}

SWITCHYARD_INLINE Floats as_floats(Ints bits) { return _mm256_castsi256_ps(bits); }
SWITCHYARD_INLINE Floats to_floats(Ints v) { return _mm256_cvtepi32_ps(v); }
SWITCHYARD_INLINE Floats times(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
SWITCHYARD_INLINE Floats plus_product(Floats sum, Floats a, Floats b) { return _mm256_fmadd_ps(a, b, sum); }
SWITCHYARD_INLINE Floats minus_product(Floats sum, Floats a, Floats b) { return _mm256_fnmadd_ps(a, b, sum); }
SWITCHYARD_INLINE Floats low_halves(Ints v) {
  const Ints low = both(v, each_lane(0xffff));
  return _mm256_cvtph_ps(_mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1)));
}

SWITCHYARD_INLINE uint16_t word_at(const uint8_t* p) {
  uint16_t word;
  std::memcpy(&word, p, sizeof word);
  return word;
}
SWITCHYARD_INLINE Floats words(const uint8_t* p) { return _mm256_cvtph_ps(load16(p)); }
SWITCHYARD_INLINE Ints bytes(const uint8_t* p) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))); }
SWITCHYARD_INLINE Floats words(const uint8_t* p, int64_t stride) {
  const auto at = [=](int r) __attribute__((always_inline)) { return static_cast<short>(word_at(p + r * stride)); };
  return _mm256_cvtph_ps(_mm_setr_epi16(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7)));
}
SWITCHYARD_INLINE Ints bytes(const uint8_t* p, int64_t stride) {
  const auto at = [=](int r) __attribute__((always_inline)) { return static_cast<int>(p[r * stride]); };
  return _mm256_setr_epi32(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7));
}

SWITCHYARD_INLINE void turn(const uint8_t* p, int64_t stride, Ints* turned) {
  Ints a[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) a[i] = _mm256_inserti128_si256(_mm256_castsi128_si256(load16(p + i * stride)), load16(p + (i + 4) * stride), 1);
  const Ints low01 = _mm256_unpacklo_epi32(a[0], a[1]), high01 = _mm256_unpackhi_epi32(a[0], a[1]);
  const Ints low23 = _mm256_unpacklo_epi32(a[2], a[3]), high23 = _mm256_unpackhi_epi32(a[2], a[3]);
  turned[0] = _mm256_unpacklo_epi64(low01, low23);
  turned[1] = _mm256_unpackhi_epi64(low01, low23);
  turned[2] = _mm256_unpacklo_epi64(high01, high23);
  turned[3] = _mm256_unpackhi_epi64(high01, high23);
}

// Products are summed in 16 bits as long as that can hold them, 2 kMost 128 a product: a digit may be -128.
template <int kMost> constexpr int kTogether = std::bit_floor(32767u / (2 * kMost * 128));
SWITCHYARD_INLINE Ints products(Ints u, Ints x) { return _mm256_maddubs_epi16(u, x); }
SWITCHYARD_INLINE Ints plus_products(Ints part, Ints u, Ints x) { return _mm256_add_epi16(part, _mm256_maddubs_epi16(u, x)); }
SWITCHYARD_INLINE Ints products_of_halves(Ints a, Ints b) { return _mm256_madd_epi16(a, b); }
SWITCHYARD_INLINE Ints sum_of(Ints part) { return products_of_halves(part, _mm256_set1_epi16(1)); }
SWITCHYARD_INLINE Ints multiplier(Ints v, int i) { return rearranged(v, i, -1, i, -1); }
SWITCHYARD_INLINE Ints signed_multiplier(Ints v, int i) { return signed_right_halves(rearranged(v, -1, i, -1, i), 8); }
SWITCHYARD_INLINE Ints scaled_sum(Ints part, Ints by) { return products_of_halves(part, by); }

}  // namespace
}  // namespace switchyard::kernels::cpu
