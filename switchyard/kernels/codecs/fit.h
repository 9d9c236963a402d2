// The best real scale (and offset) for a few values and the integers that they will be rounded to, by weighted squared error. For
// a row of trial steps the integers follow by rounding, the scale for those integers by least squares, and the error in closed form.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

namespace switchyard::codecs {

/// round(x) within [low, high], as a float; NaN gives low.
inline float clamped(float x, int low, int high) {
  x = x > static_cast<float>(low) ? x : static_cast<float>(low);
  x = x < static_cast<float>(high) ? x : static_cast<float>(high);
  return static_cast<float>(static_cast<int>(x + static_cast<float>(0.5 - low)) + low);
}

/// Sums over lanes that a compiler may run side by side.
struct Sum {
  float lane[8] = {};
  float total() const { return ((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7])); }
};

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
    Sum q_, qq_, qv_;
    for (int i = 0; i < kSize; i += 8)
      for (int j = 0; j < 8; ++j) {
        const float q = clamped((v[i + j] - least) * to_q, 0, kMost), wq = w[i + j] * q;
        q_.lane[j] += wq, qq_.lane[j] += wq * q, qv_.lane[j] += wq * v[i + j];
      }
    const double q = q_.total(), qq = qq_.total(), qv = qv_.total();
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
    Sum qq_, qv_;
    for (int i = 0; i < kSize; i += 8)
      for (int j = 0; j < 8; ++j) {
        const float q = clamped(v[i + j] * to_q, kLow, -kLow - 1), wq = w[i + j] * q;
        qq_.lane[j] += wq * q, qv_.lane[j] += wq * v[i + j];
      }
    const double qq = qq_.total(), qv = qv_.total();
    if (qq > 0 && qv * qv > best_gain * qq) {  // the error is sum w v^2 less this gain
      best_gain = qv * qv / qq;
      best = static_cast<float>(qv / qq);
    }
  }
  return best;
}

}  // namespace switchyard::codecs
