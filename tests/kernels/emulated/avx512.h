// AVX-512 for processors that lack it: the intrinsics that the kernels' sources of that level use, lane by lane, from the vendor's
// description. A source that includes this first, and then such a source of the library, has its ways compiled for any x86 processor: slow,
// but the same numbers. So the widest level is tested on every machine. What is not listed here does not compile.
#pragma once

#include <immintrin.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>

#define SWITCHYARD_EMULATED_LEVEL  // the sources keep their compiler options to themselves then

namespace emulated {

#pragma GCC diagnostic ignored "-Wpsabi"   // vectors that no register holds are passed in memory
#pragma GCC diagnostic ignored "-Wignored-attributes"

/// The bits of a vector as numbers of another type, and back.
template <typename T, typename V>
struct Lanes {
  static constexpr int count = sizeof(V) / sizeof(T);
  T at[count];
  Lanes() = default;
  explicit Lanes(const V& v) { std::memcpy(at, &v, sizeof v); }
  V vector() const {
    V v;
    std::memcpy(&v, at, sizeof v);
    return v;
  }
};
/// f(i) in every lane, of type T in a vector V.
template <typename T, typename V, typename F>
V make(const F& f) {
  Lanes<T, V> lanes;
  for (int i = 0; i < lanes.count; ++i) lanes.at[i] = static_cast<T>(f(i));
  return lanes.vector();
}
/// f(a[i], ...) in every lane.
template <typename T, typename F, typename V, typename... Vs>
V each(const F& f, const V& first, const Vs&... others) {
  return [&](const auto&... lanes) { return make<T, V>([&](int i) { return f(lanes.at[i]...); }); }(Lanes<T, V>(first), Lanes<T, V>(others)...);
}
/// Lanes of type From become lanes of type To; V has fewer bytes than R, or as many, or more.
template <typename From, typename To, typename R, typename V>
R convert(const V& v) {
  const Lanes<From, V> from(v);
  return make<To, R>([&](int i) { return static_cast<To>(from.at[i]); });
}
template <typename R, typename V>
R with_bits(const V& v) {
  R r{};
  std::memcpy(&r, &v, sizeof(V) < sizeof(R) ? sizeof(V) : sizeof(R));
  return r;
}

inline float float_of_half(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16, exponent = half >> 10 & 31, fraction = half & 1023;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | fraction << 13);
  const float size = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24) : std::ldexp(static_cast<float>(1024 + fraction), static_cast<int>(exponent) - 25);
  return std::bit_cast<float>(std::bit_cast<uint32_t>(size) | sign);
}
/// To the nearest, ties to even; what is below 1.2e-38 counts as zero.
inline uint16_t bf16_of(float x) {
  uint32_t bits = std::bit_cast<uint32_t>(x);
  if (std::isnan(x)) return static_cast<uint16_t>(bits >> 16 | 64);
  if ((bits & 0x7f800000u) == 0) bits &= 0x80000000u;
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline float float_of_bf16(uint16_t half) {
  const float x = std::bit_cast<float>(static_cast<uint32_t>(half) << 16);
  return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x;
}

inline __m512i dpbusd(__m512i sum, __m512i u, __m512i x) {
  const Lanes<uint8_t, __m512i> us(u);
  const Lanes<int8_t, __m512i> xs(x);
  const Lanes<int32_t, __m512i> sums(sum);
  return make<int32_t, __m512i>([&](int i) {
    int32_t all = sums.at[i];
    for (int b = 4 * i; b < 4 * i + 4; ++b) all += us.at[b] * xs.at[b];
    return all;
  });
}
inline __m512i products_of_halves(__m512i a, __m512i b) {
  const Lanes<int16_t, __m512i> as(a), bs(b);
  return make<int32_t, __m512i>([&](int i) { return as.at[2 * i] * bs.at[2 * i] + as.at[2 * i + 1] * bs.at[2 * i + 1]; });
}
inline __m512 dpbf16(__m512 sum, __m512bh a, __m512bh b) {
  const Lanes<uint16_t, __m512bh> as(a), bs(b);
  const Lanes<float, __m512> sums(sum);
  return make<float, __m512>([&](int i) {
    float all = sums.at[i];
    for (const int at : {2 * i + 1, 2 * i}) all = std::fma(float_of_bf16(as.at[at]), float_of_bf16(bs.at[at]), all);
    return all;
  });
}
/// Within each 16 bytes: lanes of a and b in turn, from the first or from the middle.
template <typename T>
__m512i unpack(__m512i a, __m512i b, bool high) {
  const Lanes<T, __m512i> as(a), bs(b);
  constexpr int quarter = 16 / static_cast<int>(sizeof(T));
  return make<T, __m512i>([&](int i) {
    const int from = i / quarter * quarter + i % quarter / 2 + (high ? quarter / 2 : 0);
    return i % 2 == 0 ? as.at[from] : bs.at[from];
  });
}
template <typename T, typename V>
V permute(__m512i index, const V& v) {
  using Index = std::conditional_t<sizeof(T) == 2, uint16_t, uint32_t>;
  const Lanes<T, V> from(v);
  const Lanes<Index, __m512i> at(index);
  return make<T, V>([&](int i) { return from.at[at.at[i] % from.count]; });
}
inline __m512i shuffle_bytes(__m512i table, __m512i at) {
  const Lanes<uint8_t, __m512i> from(table), index(at);
  return make<uint8_t, __m512i>([&](int i) { return index.at[i] & 128 ? 0 : from.at[i / 16 * 16 + index.at[i] % 16]; });
}
inline __m512i shuffle_quarters(__m512i a, __m512i b, int which) {
  const Lanes<uint32_t, __m512i> as(a), bs(b);
  return make<uint32_t, __m512i>([&](int i) { return (i < 8 ? as : bs).at[4 * (which >> 2 * (i / 4) & 3) + i % 4]; });
}
template <typename Small>
__m512i insert(__m512i v, const Small& small, int at) {
  std::memcpy(reinterpret_cast<char*>(&v) + at * sizeof(Small), &small, sizeof(Small));
  return v;
}
template <typename V>
V load(const void* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <typename V>
void store(void* p, const V& v) { std::memcpy(p, &v, sizeof v); }
template <typename T, typename V>
V masked_load(uint32_t mask, const void* p) {
  return make<T, V>([&](int i) {
    T value{};
    if (mask >> i & 1) std::memcpy(&value, static_cast<const char*>(p) + i * sizeof(T), sizeof(T));
    return value;
  });
}
template <typename T, typename V>
void masked_store(void* p, uint32_t mask, const V& v) {
  const Lanes<T, V> lanes(v);
  for (int i = 0; i < lanes.count; ++i)
    if (mask >> i & 1) std::memcpy(static_cast<char*>(p) + i * sizeof(T), &lanes.at[i], sizeof(T));
}
/// The first argument in the last lane.
template <typename T, typename V, typename... Ts>
V set(Ts... values) {
  const T list[] = {static_cast<T>(values)...};
  return make<T, V>([&](int i) { return list[sizeof...(Ts) - 1 - i]; });
}
template <typename T, typename V, typename... Ts>
V set_in_order(Ts... values) {
  const T list[] = {static_cast<T>(values)...};
  return make<T, V>([&](int i) { return list[i]; });
}
inline float sum_of(__m512 v) {  // halves are added until one is left
  Lanes<float, __m512> lanes(v);
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lanes.at[i] += lanes.at[i + half];
  return lanes.at[0];
}

}  // namespace emulated

// Some are macros where nothing is optimised.
#undef _mm512_set_epi16
#undef _mm512_setr_ps
#undef _mm512_setr_epi32
#undef _mm512_setr_epi64
#undef _mm512_slli_epi32
#undef _mm512_srli_epi32
#undef _mm512_srai_epi32
#undef _mm512_slli_epi16
#undef _mm512_srli_epi16
#undef _mm512_srai_epi16
#undef _mm512_inserti32x4
#undef _mm512_inserti64x4
#undef _mm512_shuffle_i32x4
#undef _mm256_setr_epi16
#undef _mm256_slli_epi16
#undef _mm256_srli_epi16
#undef _mm256_extracti128_si256

// Of 512 bits.
#define _mm512_loadu_ps(p) emulated::load<__m512>(p)
#define _mm512_loadu_si512(p) emulated::load<__m512i>(p)
#define _mm512_storeu_ps(p, v) emulated::store<__m512>(p, v)
#define _mm512_storeu_si512(p, v) emulated::store<__m512i>(p, v)
#define _mm512_maskz_loadu_ps(mask, p) emulated::masked_load<float, __m512>(mask, p)
#define _mm512_mask_storeu_epi32(p, mask, v) emulated::masked_store<uint32_t, __m512i>(p, mask, v)
#define _mm512_setzero_ps() (__m512{})
#define _mm512_setzero_si512() (__m512i{})
#define _mm512_set1_ps(x) emulated::make<float, __m512>([&](int) { return x; })
#define _mm512_set1_epi32(x) emulated::make<int32_t, __m512i>([&](int) { return x; })
#define _mm512_set1_epi8(x) emulated::make<int8_t, __m512i>([&](int) { return x; })
#define _mm512_set_epi16(...) emulated::set<int16_t, __m512i>(__VA_ARGS__)
#define _mm512_setr_ps(...) emulated::set_in_order<float, __m512>(__VA_ARGS__)
#define _mm512_setr_epi32(...) emulated::set_in_order<int32_t, __m512i>(__VA_ARGS__)
#define _mm512_setr_epi64(...) emulated::set_in_order<int64_t, __m512i>(__VA_ARGS__)
#define _mm512_and_si512(a, b) emulated::each<uint64_t>([](uint64_t x, uint64_t y) { return x & y; }, a, b)
#define _mm512_or_si512(a, b) emulated::each<uint64_t>([](uint64_t x, uint64_t y) { return x | y; }, a, b)
#define _mm512_xor_si512(a, b) emulated::each<uint64_t>([](uint64_t x, uint64_t y) { return x ^ y; }, a, b)
#define _mm512_add_epi32(a, b) emulated::each<uint32_t>([](uint32_t x, uint32_t y) { return x + y; }, a, b)
#define _mm512_sub_epi32(a, b) emulated::each<uint32_t>([](uint32_t x, uint32_t y) { return x - y; }, a, b)
#define _mm512_mullo_epi32(a, b) emulated::each<uint32_t>([](uint32_t x, uint32_t y) { return x * y; }, a, b)
#define _mm512_madd_epi16(a, b) emulated::products_of_halves(a, b)
#define _mm512_slli_epi32(v, n) emulated::each<uint32_t>([&](uint32_t x) { return (n) > 31 ? 0 : x << (n); }, v)
#define _mm512_srli_epi32(v, n) emulated::each<uint32_t>([&](uint32_t x) { return (n) > 31 ? 0 : x >> (n); }, v)
#define _mm512_srai_epi32(v, n) emulated::each<int32_t>([&](int32_t x) { return x >> (n); }, v)
#define _mm512_slli_epi16(v, n) emulated::each<uint16_t>([&](uint16_t x) { return (n) > 15 ? 0 : x << (n); }, v)
#define _mm512_srli_epi16(v, n) emulated::each<uint16_t>([&](uint16_t x) { return (n) > 15 ? 0 : x >> (n); }, v)
#define _mm512_srai_epi16(v, n) emulated::each<int16_t>([&](int16_t x) { return x >> (n); }, v)
#define _mm512_sllv_epi32(v, n) emulated::each<uint32_t>([](uint32_t x, uint32_t by) { return by > 31 ? 0 : x << by; }, v, n)
#define _mm512_srlv_epi64(v, n) emulated::each<uint64_t>([](uint64_t x, uint64_t by) { return by > 63 ? 0 : x >> by; }, v, n)
#define _mm512_add_ps(a, b) emulated::each<float>([](float x, float y) { return x + y; }, a, b)
#define _mm512_sub_ps(a, b) emulated::each<float>([](float x, float y) { return x - y; }, a, b)
#define _mm512_mul_ps(a, b) emulated::each<float>([](float x, float y) { return x * y; }, a, b)
#define _mm512_fmadd_ps(a, b, c) emulated::each<float>([](float x, float y, float z) { return std::fma(x, y, z); }, a, b, c)
#define _mm512_fnmadd_ps(a, b, c) emulated::each<float>([](float x, float y, float z) { return std::fma(-x, y, z); }, a, b, c)
#define _mm512_reduce_add_ps(v) emulated::sum_of(v)
#define _mm512_dpbusd_epi32(sum, u, x) emulated::dpbusd(sum, u, x)
#define _mm512_dpbf16_ps(sum, a, b) emulated::dpbf16(sum, a, b)
#define _mm512_castps_si512(v) emulated::with_bits<__m512i>(v)
#define _mm512_castsi512_ps(v) emulated::with_bits<__m512>(v)
#define _mm512_castps128_ps512(v) emulated::with_bits<__m512>(v)
#define _mm512_castsi128_si512(v) emulated::with_bits<__m512i>(v)
#define _mm512_castsi256_si512(v) emulated::with_bits<__m512i>(v)
#define _mm512_broadcast_i32x4(v) emulated::shuffle_quarters(emulated::with_bits<__m512i>(v), emulated::with_bits<__m512i>(v), 0)
#define _mm512_broadcast_i64x4(v) emulated::insert(emulated::with_bits<__m512i>(v), v, 1)
#define _mm512_inserti32x4(v, small, at) emulated::insert<__m128i>(v, small, at)
#define _mm512_inserti64x4(v, small, at) emulated::insert<__m256i>(v, small, at)
#define _mm512_cvtepi32_ps(v) emulated::convert<int32_t, float, __m512>(v)
#define _mm512_cvtepi32_epi16(v) emulated::convert<int32_t, int16_t, __m256i>(v)
#define _mm512_cvtepi8_epi32(v) emulated::convert<int8_t, int32_t, __m512i>(v)
#define _mm512_cvtepu8_epi32(v) emulated::convert<uint8_t, int32_t, __m512i>(v)
#define _mm512_cvtepu8_epi16(v) emulated::convert<uint8_t, int16_t, __m512i>(v)
#define _mm512_cvtepi16_epi32(v) emulated::convert<int16_t, int32_t, __m512i>(v)
#define _mm512_cvtepu16_epi32(v) emulated::convert<uint16_t, int32_t, __m512i>(v)
#define _mm512_cvtph_ps(v) emulated::halves_to_floats<__m512>(v)
#define _mm512_cvtneps_pbh(v) emulated::narrow(v)
#define _mm512_cvtne2ps_pbh(high, low) emulated::narrow_both(high, low)
#define _mm512_cmplt_epi32_mask(a, b) emulated::less(a, b)
#define _mm512_mask_mov_epi32(other, mask, v) emulated::choose<int32_t>(other, mask, v)
#define _mm512_mask_mov_ps(other, mask, v) emulated::choose<float>(other, mask, v)
#define _mm512_permutexvar_ps(index, v) emulated::permute<float>(index, v)
#define _mm512_permutexvar_epi16(index, v) emulated::permute<uint16_t>(index, v)
#define _mm512_shuffle_epi8(table, at) emulated::shuffle_bytes(table, at)
#define _mm512_shuffle_i32x4(a, b, which) emulated::shuffle_quarters(a, b, which)
#define _mm512_unpacklo_epi32(a, b) emulated::unpack<uint32_t>(a, b, false)
#define _mm512_unpackhi_epi32(a, b) emulated::unpack<uint32_t>(a, b, true)
#define _mm512_unpacklo_epi64(a, b) emulated::unpack<uint64_t>(a, b, false)
#define _mm512_unpackhi_epi64(a, b) emulated::unpack<uint64_t>(a, b, true)

// Of 256 bits and fewer, which a processor may lack as well.
#define _mm256_loadu_si256(p) emulated::load<__m256i>(p)
#define _mm256_storeu_si256(p, v) emulated::store<__m256i>(p, v)
#define _mm256_maskz_loadu_epi16(mask, p) emulated::masked_load<uint16_t, __m256i>(mask, p)
#define _mm256_mask_storeu_epi16(p, mask, v) emulated::masked_store<uint16_t, __m256i>(p, mask, v)
#define _mm256_set1_epi8(x) emulated::make<int8_t, __m256i>([&](int) { return x; })
#define _mm256_setr_epi16(...) emulated::set_in_order<int16_t, __m256i>(__VA_ARGS__)
#define _mm256_and_si256(a, b) emulated::each<uint64_t>([](uint64_t x, uint64_t y) { return x & y; }, a, b)
#define _mm256_or_si256(a, b) emulated::each<uint64_t>([](uint64_t x, uint64_t y) { return x | y; }, a, b)
#define _mm256_sub_epi8(a, b) emulated::each<uint8_t>([](uint8_t x, uint8_t y) { return x - y; }, a, b)
#define _mm256_slli_epi16(v, n) emulated::each<uint16_t>([&](uint16_t x) { return (n) > 15 ? 0 : x << (n); }, v)
#define _mm256_srli_epi16(v, n) emulated::each<uint16_t>([&](uint16_t x) { return (n) > 15 ? 0 : x >> (n); }, v)
#define _mm256_castsi256_si128(v) emulated::with_bits<__m128i>(v)
#define _mm256_extracti128_si256(v, at) emulated::load<__m128i>(reinterpret_cast<const char*>(&static_cast<const __m256i&>(v)) + 16 * (at))
#define _mm256_broadcastsi128_si256(v) emulated::twice(v)
#define _mm256_cvtepu8_epi16(v) emulated::convert<uint8_t, int16_t, __m256i>(v)
#define _mm_cvtph_ps(v) emulated::halves_to_floats<__m128>(v)

namespace emulated {

template <typename R, typename V>
R halves_to_floats(const V& v) {
  const Lanes<uint16_t, V> from(v);
  return make<float, R>([&](int i) { return float_of_half(from.at[i]); });
}
inline __m256bh narrow(__m512 v) {
  const Lanes<float, __m512> from(v);
  return make<uint16_t, __m256bh>([&](int i) { return bf16_of(from.at[i]); });
}
inline __m512bh narrow_both(__m512 high, __m512 low) {
  const Lanes<float, __m512> highs(high), lows(low);
  return make<uint16_t, __m512bh>([&](int i) { return bf16_of(i < 16 ? lows.at[i] : highs.at[i - 16]); });
}
inline __mmask16 less(__m512i a, __m512i b) {
  const Lanes<int32_t, __m512i> as(a), bs(b);
  uint32_t mask = 0;
  for (int i = 0; i < 16; ++i) mask |= static_cast<uint32_t>(as.at[i] < bs.at[i]) << i;
  return static_cast<__mmask16>(mask);
}
template <typename T, typename V>
V choose(const V& other, uint32_t mask, const V& v) {
  const Lanes<T, V> others(other), own(v);
  return make<T, V>([&](int i) { return mask >> i & 1 ? own.at[i] : others.at[i]; });
}
inline __m256i twice(__m128i v) {
  __m256i both;
  std::memcpy(&both, &v, sizeof v);
  std::memcpy(reinterpret_cast<char*>(&both) + sizeof v, &v, sizeof v);
  return both;
}

}  // namespace emulated
