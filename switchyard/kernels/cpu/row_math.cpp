#include "switchyard/kernels/row_math.h"

#include <c10/util/BFloat16.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "switchyard/kernels/cpu/exp.h"
#include "switchyard/kernels/cpu/parallel.h"
#include "switchyard/kernels/cpu/tiles.h"

#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math")

namespace switchyard::kernels {
namespace {

using cpu::at_level;

/// Partial sums of a row, folded in a fixed order.
constexpr int64_t kLanes = 16;

template <typename A>
inline A fold(A (&part)[kLanes]) {
  for (int64_t half = kLanes / 2; half > 0; half /= 2)
    for (int64_t l = 0; l < half; ++l) part[l] += part[l + half];
  return part[0];
}

inline double wide(double x) { return x; }
inline float wide(float x) { return x; }
inline float wide(c10::BFloat16 x) { return cpu::to_float(x); }
template <typename T, typename A>
inline T as(A x) {
  if constexpr (std::is_same_v<T, A>) return x;
  else return cpu::from_float<T>(x);
}

inline double exp_of(double x) { return std::exp(x); }
inline float exp_of(float x) { return cpu::exp_fast(x); }

}  // namespace

template <typename T, typename A>
A rms_norm_row(const T* x, const A* weight, T* y, int64_t width, double eps) {
  A scale = 0;
  at_level([=, &scale] {
    A part[kLanes] = {};
    int64_t i = 0;
    for (; i + kLanes <= width; i += kLanes)
      for (int64_t l = 0; l < kLanes; ++l) part[l] += wide(x[i + l]) * wide(x[i + l]);
    for (; i < width; ++i) part[i % kLanes] += wide(x[i]) * wide(x[i]);
    const A s = A(1) / std::sqrt(fold(part) / static_cast<A>(width) + static_cast<A>(eps));
#pragma GCC ivdep
    for (int64_t j = 0; j < width; ++j) y[j] = as<T>(static_cast<A>(wide(as<T>(static_cast<A>(wide(x[j]) * s)))) * weight[j]);
    scale = s;
  });
  return scale;
}

template <typename T, typename A>
void rms_norm_row_gradient(const T* x, const A* weight, A scale, const T* grad, T* grad_x, A* grad_weight, int64_t width) {
  at_level([=] {
    A part[kLanes] = {};
    int64_t i = 0;
    for (; i + kLanes <= width; i += kLanes)
      for (int64_t l = 0; l < kLanes; ++l) part[l] += wide(grad[i + l]) * wide(x[i + l]) * weight[i + l];
    for (; i < width; ++i) part[i % kLanes] += wide(grad[i]) * wide(x[i]) * weight[i];
    const A along = fold(part) * scale * scale / static_cast<A>(width);
#pragma GCC ivdep
    for (int64_t j = 0; j < width; ++j) grad_weight[j] += wide(grad[j]) * wide(x[j]) * scale;
#pragma GCC ivdep
    for (int64_t j = 0; j < width; ++j) grad_x[j] = as<T>(static_cast<A>(scale * (wide(grad[j]) * weight[j] - wide(x[j]) * along)));
  });
}

template <typename T, typename A>
void rotate_row(const T* x, const A* c, const A* s, T* y, int64_t heads, int64_t d, int64_t half, A sign) {
  at_level([=] {
    for (int64_t h = 0; h < heads; ++h) {
      const T* from = x + h * d;
      T* to = y + h * d;
#pragma GCC ivdep
      for (int64_t i = 0; i < half; ++i) {
        const A a = wide(from[i]), b = wide(from[i + half]), sine = sign * s[i];
        to[i] = as<T>(static_cast<A>(a * c[i] - b * sine));
        to[i + half] = as<T>(static_cast<A>(b * c[i] + a * sine));
      }
      for (int64_t i = 2 * half; i < d; ++i) to[i] = from[i];
    }
  });
}

template <typename T, typename A>
A log_sum_exp_row(const T* x, int64_t width) {
  A result = 0;
  at_level([=, &result] {
    constexpr int64_t kSums = 4 * kLanes;  // additions wait for one another
    A part[kSums];
    for (A& most : part) most = -std::numeric_limits<A>::infinity();
    int64_t i = 0;
    for (; i + kSums <= width; i += kSums)
      for (int64_t l = 0; l < kSums; ++l) part[l] = std::max(part[l], static_cast<A>(wide(x[i + l])));
    for (; i < width; ++i) part[i % kSums] = std::max(part[i % kSums], static_cast<A>(wide(x[i])));
    A most = part[0];
    for (const A other : part) most = std::max(most, other);
    for (A& sum : part) sum = 0;
    for (i = 0; i + kSums <= width; i += kSums)
      for (int64_t l = 0; l < kSums; ++l) part[l] += exp_of(static_cast<A>(wide(x[i + l])) - most);
    for (; i < width; ++i) part[i % kSums] += exp_of(static_cast<A>(wide(x[i])) - most);
    for (int64_t half = kSums / 2; half > 0; half /= 2)
      for (int64_t l = 0; l < half; ++l) part[l] += part[l + half];
    result = most + std::log(part[0]);
  });
  return result;
}

template <typename T, typename A>
void token_loss_row_gradient(const T* x, A log_sum, int64_t target, A grad, T* y, int64_t width) {
  at_level([=] {
#pragma GCC ivdep
    for (int64_t i = 0; i < width; ++i) y[i] = as<T>(static_cast<A>(grad * exp_of(static_cast<A>(wide(x[i])) - log_sum)));
    y[target] = as<T>(static_cast<A>(grad * (exp_of(static_cast<A>(wide(x[target])) - log_sum) - 1)));
  });
}

#define SWITCHYARD_ROW_MATH(T, A)                                                                        \
  template A rms_norm_row(const T*, const A*, T*, int64_t, double);                                      \
  template void rms_norm_row_gradient(const T*, const A*, A, const T*, T*, A*, int64_t);                 \
  template void rotate_row(const T*, const A*, const A*, T*, int64_t, int64_t, int64_t, A);               \
  template A log_sum_exp_row<T, A>(const T*, int64_t);                                                   \
  template void token_loss_row_gradient(const T*, A, int64_t, A, T*, int64_t);
SWITCHYARD_ROW_MATH(float, float)
SWITCHYARD_ROW_MATH(double, double)
SWITCHYARD_ROW_MATH(c10::BFloat16, float)

}  // namespace switchyard::kernels
