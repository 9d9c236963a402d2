// Sixteen lanes of 32 bits in one vector, AVX-512 with VNNI: the operations in which row_groups_loops.h is written. For sources that are
// compiled for that level; lanes_avx2.h gives the same names in eight lanes. Internal to kernels/.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace switchyard::kernels::cpu {
namespace {

#define SWITCHYARD_INLINE [[gnu::always_inline]] static inline

constexpr int64_t kLanes = 16;
constexpr int64_t kTurnedAhead = 0;   ///< steps by which turned groups are read ahead; 0: the hardware follows their stream better by itself
constexpr int64_t kGroupStreams = 1;  ///< turned groups that few columns read at once, each the beginning of a stream
constexpr bool kManyLose = false;  ///< GroupPath::many_lose: not measured
using Ints = __m512i;
using Floats = __m512;

SWITCHYARD_INLINE __m128i load16(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
SWITCHYARD_INLINE Ints load(const uint8_t* p) { return _mm512_loadu_si512(p); }
SWITCHYARD_INLINE void store(uint8_t* p, Ints v) { _mm512_storeu_si512(p, v); }
SWITCHYARD_INLINE void store(float* p, Floats v) { _mm512_storeu_ps(p, v); }
SWITCHYARD_INLINE Floats no_floats() { return _mm512_setzero_ps(); }
SWITCHYARD_INLINE Floats each(float x) { return _mm512_set1_ps(x); }
SWITCHYARD_INLINE Ints each_byte(int x) { return _mm512_set1_epi8(static_cast<char>(x)); }
SWITCHYARD_INLINE Ints each_lane(int x) { return _mm512_set1_epi32(x); }
/// Four bytes, in every lane.
SWITCHYARD_INLINE Ints each_four(const void* p) {
  int32_t four;
  std::memcpy(&four, p, sizeof four);
  return _mm512_set1_epi32(four);
}

SWITCHYARD_INLINE Ints both(Ints a, Ints b) { return _mm512_and_si512(a, b); }
SWITCHYARD_INLINE Ints either(Ints a, Ints b) { return _mm512_or_si512(a, b); }
SWITCHYARD_INLINE Ints differing(Ints a, Ints b) { return _mm512_xor_si512(a, b); }
SWITCHYARD_INLINE Ints plus(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
SWITCHYARD_INLINE Ints minus(Ints a, Ints b) { return _mm512_sub_epi32(a, b); }
// Shifts of lanes, or of their halves.
SWITCHYARD_INLINE Ints left(Ints v, int n) { return _mm512_slli_epi32(v, n); }
SWITCHYARD_INLINE Ints right(Ints v, int n) { return _mm512_srli_epi32(v, n); }
SWITCHYARD_INLINE Ints signed_right(Ints v, int n) { return _mm512_srai_epi32(v, n); }
SWITCHYARD_INLINE Ints left_halves(Ints v, int n) { return _mm512_slli_epi16(v, n); }
SWITCHYARD_INLINE Ints right_halves(Ints v, int n) { return _mm512_srli_epi16(v, n); }
SWITCHYARD_INLINE Ints signed_right_halves(Ints v, int n) { return _mm512_srai_epi16(v, n); }
SWITCHYARD_INLINE Ints left_by(Ints v, Ints n) { return _mm512_sllv_epi32(v, n); }
/// a where v < limit, b elsewhere.
SWITCHYARD_INLINE Ints where_less(Ints v, int limit, Ints a, Ints b) { return _mm512_mask_mov_epi32(b, _mm512_cmplt_epi32_mask(v, each_lane(limit)), a); }
/// Of 16 bytes those whose numbers, 0 to 15, are the bytes of v.
SWITCHYARD_INLINE Ints look_up(__m128i table, Ints v) { return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), v); }
/// Bytes a, b, c, d of each lane as its bytes; -1: zero.
SWITCHYARD_INLINE Ints rearranged(Ints v, int a, int b, int c, int d) {
  const auto at = [](int byte, int lane) __attribute__((always_inline)) { return static_cast<char>(byte < 0 ? -1 : byte + 4 * lane); };
  return _mm512_shuffle_epi8(v, _mm512_broadcast_i32x4(_mm_setr_epi8(at(a, 0), at(b, 0), at(c, 0), at(d, 0), at(a, 1), at(b, 1), at(c, 1), at(d, 1),
                                                                     at(a, 2), at(b, 2), at(c, 2), at(d, 2), at(a, 3), at(b, 3), at(c, 3), at(d, 3))));
}

SWITCHYARD_INLINE Floats as_floats(Ints bits) { return _mm512_castsi512_ps(bits); }
SWITCHYARD_INLINE Floats to_floats(Ints v) { return _mm512_cvtepi32_ps(v); }
SWITCHYARD_INLINE Floats times(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
SWITCHYARD_INLINE Floats plus_product(Floats sum, Floats a, Floats b) { return _mm512_fmadd_ps(a, b, sum); }
SWITCHYARD_INLINE Floats minus_product(Floats sum, Floats a, Floats b) { return _mm512_fnmadd_ps(a, b, sum); }
/// The low half of each lane as float16.
SWITCHYARD_INLINE Floats low_halves(Ints v) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v)); }

SWITCHYARD_INLINE uint16_t word_at(const uint8_t* p) {
  uint16_t word;
  std::memcpy(&word, p, sizeof word);
  return word;
}
/// One float16 of each row, or one byte: side by side, or `stride` apart.
SWITCHYARD_INLINE Floats words(const uint8_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
SWITCHYARD_INLINE Ints bytes(const uint8_t* p) { return _mm512_cvtepu8_epi32(load16(p)); }
SWITCHYARD_INLINE Floats words(const uint8_t* p, int64_t stride) {
  const auto at = [=](int r) __attribute__((always_inline)) { return static_cast<short>(word_at(p + r * stride)); };
  return _mm512_cvtph_ps(_mm256_setr_epi16(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7), at(8), at(9), at(10), at(11), at(12), at(13),
                                           at(14), at(15)));
}
SWITCHYARD_INLINE Ints bytes(const uint8_t* p, int64_t stride) {
  const auto at = [=](int r) __attribute__((always_inline)) { return static_cast<char>(p[r * stride]); };
  return _mm512_cvtepu8_epi32(_mm_setr_epi8(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7), at(8), at(9), at(10), at(11), at(12), at(13),
                                            at(14), at(15)));
}

/// 16 bytes of each row, `stride` apart: dword c of row r becomes lane r of turned[c].
SWITCHYARD_INLINE void turn(const uint8_t* p, int64_t stride, Ints* turned) {
  Ints a[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const uint8_t* row = p + i * stride;
    a[i] = _mm512_castsi128_si512(load16(row));
    a[i] = _mm512_inserti32x4(a[i], load16(row + 4 * stride), 1);
    a[i] = _mm512_inserti32x4(a[i], load16(row + 8 * stride), 2);
    a[i] = _mm512_inserti32x4(a[i], load16(row + 12 * stride), 3);
  }
  const Ints low01 = _mm512_unpacklo_epi32(a[0], a[1]), high01 = _mm512_unpackhi_epi32(a[0], a[1]);
  const Ints low23 = _mm512_unpacklo_epi32(a[2], a[3]), high23 = _mm512_unpackhi_epi32(a[2], a[3]);
  turned[0] = _mm512_unpacklo_epi64(low01, low23);
  turned[1] = _mm512_unpackhi_epi64(low01, low23);
  turned[2] = _mm512_unpacklo_epi64(high01, high23);
  turned[3] = _mm512_unpackhi_epi64(high01, high23);
}

// Sums of products of unsigned bytes, at most kMost, with signed ones, four a lane: kTogether vectors, a power of two, are summed before
// they are widened. Here there is nothing to mind.
template <int kMost> constexpr int kTogether = 1 << 20;
SWITCHYARD_INLINE Ints products(Ints u, Ints x) { return _mm512_dpbusd_epi32(_mm512_setzero_si512(), u, x); }
SWITCHYARD_INLINE Ints plus_products(Ints part, Ints u, Ints x) { return _mm512_dpbusd_epi32(part, u, x); }
SWITCHYARD_INLINE Ints sum_of(Ints part) { return part; }
/// Of the signed halves of each lane, added.
SWITCHYARD_INLINE Ints products_of_halves(Ints a, Ints b) { return _mm512_madd_epi16(a, b); }
/// Byte i of each lane, unsigned or signed, as what multiplies a sum that is widened.
SWITCHYARD_INLINE Ints multiplier(Ints v, int i) { return rearranged(v, i, -1, -1, -1); }
SWITCHYARD_INLINE Ints signed_multiplier(Ints v, int i) { return signed_right(rearranged(v, -1, -1, -1, i), 24); }
SWITCHYARD_INLINE Ints scaled_sum(Ints part, Ints by) { return _mm512_mullo_epi32(part, by); }

}  // namespace
}  // namespace switchyard::kernels::cpu
