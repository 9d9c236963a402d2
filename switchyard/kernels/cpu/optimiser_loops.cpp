#include "switchyard/kernels/cpu/optimiser_loops.h"

#include <bit>
#include <cmath>

#include "switchyard/kernels/dispatch.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define SWITCHYARD_TARGET(features) __attribute__((target(features)))
#else
#define SWITCHYARD_TARGET(features)
#endif

namespace switchyard::kernels::cpu {
namespace {

inline float load(float x) { return x; }
inline double load(double x) { return x; }
inline float load(Bf16Bits x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }
inline void store(float& to, float x) { to = x; }
inline void store(double& to, double x) { to = x; }
/// Round to nearest even; a NaN stays one.
inline void store(Bf16Bits& to, float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  to.bits = static_cast<uint16_t>(x == x ? rounded : 0x7fc0u);
}

/// The factors are a copy: moments that are written could be the factors, for all the compiler knows.
template <typename P, typename G, typename T>
[[gnu::always_inline]] inline void update(P* __restrict p, const G* __restrict g, T* __restrict m, T* __restrict v,
                                          int64_t n, const AdamWFactors<T> f) {
  for (int64_t i = 0; i < n; ++i) {
    const T gradient = static_cast<T>(load(g[i])) * f.grad_scale;
    const T mean = f.beta1 * m[i] + f.rest1 * gradient;
    const T square = f.beta2 * v[i] + f.rest2 * gradient * gradient;
    m[i] = mean;
    v[i] = square;
    store(p[i], static_cast<T>(load(p[i])) * f.keep - f.rate * mean / (std::sqrt(square) * f.root_scale + f.eps));
  }
}

template <typename P>
[[gnu::always_inline]] inline double squares(const P* x, int64_t n) {
  double sums[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int64_t j = 0; j < 8; ++j) {
      const double value = static_cast<double>(load(x[i + j]));
      sums[j] += value * value;
    }
  for (int64_t j = 0; i < n; ++i, ++j) {
    const double value = static_cast<double>(load(x[i]));
    sums[j] += value * value;
  }
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

#define SWITCHYARD_AVX512 SWITCHYARD_TARGET("avx512f,avx512bw,avx512vl,avx512dq,prefer-vector-width=512")
#define SWITCHYARD_AVX2 SWITCHYARD_TARGET("avx2")

template <typename P, typename G, typename T>
SWITCHYARD_AVX512 void update_avx512(P* p, const G* g, T* m, T* v, int64_t n, const AdamWFactors<T>& f) { update(p, g, m, v, n, f); }
template <typename P, typename G, typename T>
SWITCHYARD_AVX2 void update_avx2(P* p, const G* g, T* m, T* v, int64_t n, const AdamWFactors<T>& f) { update(p, g, m, v, n, f); }
template <typename P>
SWITCHYARD_AVX512 double squares_avx512(const P* x, int64_t n) { return squares(x, n); }
template <typename P>
SWITCHYARD_AVX2 double squares_avx2(const P* x, int64_t n) { return squares(x, n); }

}  // namespace

template <typename P, typename G, typename T>
void adamw_block(P* p, const G* g, T* m, T* v, int64_t n, const AdamWFactors<T>& f) {
  static const G kZeros[kOptimiserBlock] = {};
  const G* gradient = g ? g : kZeros;
  const CpuLevel level = cpu_level();
  if (level >= CpuLevel::avx512) update_avx512(p, gradient, m, v, n, f);
  else if (level == CpuLevel::avx2) update_avx2(p, gradient, m, v, n, f);
  else update(p, gradient, m, v, n, f);
}

template <typename P>
double squares_block(const P* x, int64_t n) {
  const CpuLevel level = cpu_level();
  return level >= CpuLevel::avx512 ? squares_avx512(x, n) : level == CpuLevel::avx2 ? squares_avx2(x, n) : squares(x, n);
}

#define SWITCHYARD_ADAMW(P, G, T) template void adamw_block(P*, const G*, T*, T*, int64_t, const AdamWFactors<T>&);
SWITCHYARD_ADAMW(float, float, float)
SWITCHYARD_ADAMW(float, double, float)
SWITCHYARD_ADAMW(float, Bf16Bits, float)
SWITCHYARD_ADAMW(Bf16Bits, float, float)
SWITCHYARD_ADAMW(Bf16Bits, double, float)
SWITCHYARD_ADAMW(Bf16Bits, Bf16Bits, float)
SWITCHYARD_ADAMW(double, float, double)
SWITCHYARD_ADAMW(double, double, double)
SWITCHYARD_ADAMW(double, Bf16Bits, double)
template double squares_block(const float*, int64_t);
template double squares_block(const double*, int64_t);
template double squares_block(const Bf16Bits*, int64_t);

}  // namespace switchyard::kernels::cpu
