// The best real scale (and offset) for a few values and the integers that they will be rounded to, by weighted squared error. For
// a row of trial steps the integers follow by rounding, the scale for those integers by least squares, and the error in closed form.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace switchyard::codecs {

/// round(x) within [low, high], as a float; NaN gives low.
inline float clamped(float x, int low, int high) {
  x = x > static_cast<float>(low) ? x : static_cast<float>(low);
  x = x < static_cast<float>(high) ? x : static_cast<float>(high);
  return static_cast<float>(static_cast<int>(x + static_cast<float>(0.5 - low)) + low);
}

/// Four floats that the compiler computes with side by side.
using Lanes = float __attribute__((vector_size(16)));

inline Lanes load_lanes(const float* from) {
  Lanes lanes;
  std::memcpy(&lanes, from, sizeof lanes);
  return lanes;
}
inline Lanes lanes_of(float x) { return Lanes{x, x, x, x}; }
inline double total(Lanes x) { return double{(x[0] + x[2]) + (x[1] + x[3])}; }

inline Lanes clamped(Lanes x, int low, int high) {
  using Integers = int32_t __attribute__((vector_size(16)));
  const Lanes least = lanes_of(static_cast<float>(low)), most = lanes_of(static_cast<float>(high));
  x = x > least ? x : least;
  x = x < most ? x : most;
  return __builtin_convertvector(__builtin_convertvector(x + static_cast<float>(0.5 - low), Integers), Lanes) + static_cast<float>(low);
}

/// v = scale q - offset.
struct Affine {
  float scale = 0, offset = 0;
};

/// The best scale >= 0 and offset (of either sign only when kFree, else >= 0) that the trial steps find, q from 0 to kMost.
template <int kSize, int kMost, bool kFree>
Affine fit_affine(const float* v, const float* w) {
  float least = v[0], most = v[0];
  double sum_w = 0, sum_v = 0, sum_vv = 0;
  for (int i = 0; i < kSize; ++i) {
    least = std::min(least, v[i]);
    most = std::max(most, v[i]);
    sum_w += w[i], sum_v += double{w[i]} * v[i], sum_vv += double{w[i]} * v[i] * v[i];
  }
  if (!kFree) least = std::min(least, 0.0f);
  if (most <= least) return {0, -least};
  Affine best{(most - least) / kMost, -least};
  double best_error = std::numeric_limits<double>::infinity();
  constexpr int kTrials = 24;
  for (int trial = 0; trial < kTrials; ++trial) {
    const float steps = static_cast<float>(kMost) * (0.7f + 0.6f * static_cast<float>(trial) / (kTrials - 1));
    const float to_q = steps / (most - least);
    Lanes q_{}, qq_{}, qv_{};
    for (int i = 0; i < kSize; i += 4) {
      const Lanes x = load_lanes(v + i), step = clamped((x - least) * to_q, 0, kMost), wq = load_lanes(w + i) * step;
      q_ += wq, qq_ += wq * step, qv_ += wq * x;
    }
    const double q = total(q_), qq = total(qq_), qv = total(qv_);
    const double determinant = sum_w * qq - q * q;
    double scale = 0, low = kFree ? 0 : 1;
    if (determinant > 0) {
      scale = (sum_w * qv - q * sum_v) / determinant;
      low = (qq * sum_v - q * qv) / determinant;
    }
    if (!kFree && low > 0) {  // an offset cannot be negative
      low = 0;
      scale = qq > 0 ? qv / qq : 0;
    }
    const double error = sum_vv - scale * qv - low * sum_v;
    if (scale > 0 && error < best_error) {
      best_error = error;
      best = {static_cast<float>(scale), static_cast<float>(-low)};
    }
  }
  return best;
}

/// v = scale q: the best scale of either sign that the trial steps find, q from kLow to -kLow - 1; the range has one more place
/// below zero, so signs matter.
template <int kSize, int kLow>
float fit_scale(const float* v, const float* w) {
  float size = 0;
  for (int i = 0; i < kSize; ++i) size = std::max(size, std::fabs(v[i]));
  if (size == 0) return 0;
  float best = 0;
  double best_gain = 0;
  constexpr int kTrials = 12;
  for (int trial = 0; trial < 2 * kTrials; ++trial) {
    const float steps = static_cast<float>(-kLow) * (0.75f + 0.45f * static_cast<float>(trial / 2) / (kTrials - 1));
    const float to_q = (trial % 2 == 0 ? steps : -steps) / size;
    Lanes qq_{}, qv_{};
    for (int i = 0; i < kSize; i += 4) {
      const Lanes x = load_lanes(v + i), q = clamped(x * to_q, kLow, -kLow - 1), wq = load_lanes(w + i) * q;
      qq_ += wq * q, qv_ += wq * x;
    }
    const double qq = total(qq_), qv = total(qv_);
    if (qq > 0 && qv * qv > best_gain * qq) {  // the error is sum w v^2 less this gain
      best_gain = qv * qv / qq;
      best = static_cast<float>(qv / qq);
    }
  }
  return best;
}

}  // namespace switchyard::codecs
