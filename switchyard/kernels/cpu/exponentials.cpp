#include "switchyard/kernels/cpu/exponentials.h"

#include <algorithm>

#include "switchyard/kernels/cpu/exp.h"
#include "switchyard/kernels/cpu/levels.h"

#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math")

namespace switchyard::kernels::cpu {
namespace {

constexpr int64_t kLanes = 16;

/// tanh to some units in the last place: near zero its series, elsewhere by the exponential.
inline float tanh_fast(float x) {
  const float squared = x * x, far = 1.0f - 2.0f / (exp_fast(2 * x) + 1.0f);
  const float near = x * (1.0f - squared * (1.0f / 3 - squared * (2.0f / 15 - squared * (17.0f / 315))));
  return squared < 0.0625f ? near : far;
}

}  // namespace

std::pair<float, float> exponentials(float* s, int64_t n, double by, double within, float floor) {
  const auto scale = static_cast<float>(by), cap = static_cast<float>(within);
  if (cap > 0)
    at_level([=] {
      for (int64_t j = 0; j < n; ++j) s[j] = cap * tanh_fast(s[j] * scale / cap);
    });
  float largest = 0, sum = 0;
  at_level([=, &largest, &sum] {
    const float factor = cap > 0 ? 1 : scale;
    float top[kLanes], part[kLanes] = {};
    for (float& lane : top) lane = -std::numeric_limits<float>::infinity();
    const int64_t whole = n / kLanes * kLanes;
    for (int64_t j = 0; j < n; ++j) s[j] *= factor;
    for (int64_t j = 0; j < whole; j += kLanes)
      for (int64_t l = 0; l < kLanes; ++l) top[l] = s[j + l] > top[l] ? s[j + l] : top[l];
    for (int64_t j = whole; j < n; ++j) top[0] = s[j] > top[0] ? s[j] : top[0];
    float most = std::max(floor, top[0]);
    for (const float lane : top) most = std::max(most, lane);
    for (int64_t j = 0; j < n; ++j) s[j] = exp_fast(s[j] - most);
    for (int64_t j = 0; j < whole; j += kLanes)
      for (int64_t l = 0; l < kLanes; ++l) part[l] += s[j + l];
    for (int64_t j = whole; j < n; ++j) part[0] += s[j];
    float all = 0;
    for (const float lane : part) all += lane;
    largest = most;
    sum = all;
  });
  return {largest, sum};
}

}  // namespace switchyard::kernels::cpu
