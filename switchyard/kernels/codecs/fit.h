// The best real scale (and offset) for a few values and the integers that they will be rounded to, by weighted squared error. For
// sixteen trial steps side by side the integers follow by rounding, the scale for those integers by least squares, and the error in
// closed form.
//
// Loops over kTrials are the inner ones, so that the compiler makes vectors of them. Sources that include this give at_level_exactly
// what they call, after `#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math", "fp-contract=off")`.
#pragma once

#include <cmath>
#include <limits>

namespace switchyard::codecs {

inline constexpr int kTrials = 16;

/// The nearest whole number within [low, high], halves to even; no number gives low. Sizes beyond 2^22 are cut, not rounded.
inline float nearest_within(float x, int low, int high) {
  constexpr float kMagic = 12582912.0f;  // 1.5 · 2^23, beside which a float has no fraction
  x = (x + kMagic) - kMagic;
  x = x > static_cast<float>(low) ? x : static_cast<float>(low);
  return x < static_cast<float>(high) ? x : static_cast<float>(high);
}

/// Halves onto halves, so that the compiler need not keep an order of sixteen steps.
template <typename Join>
float folded(const float* x, const Join& join) {
  float a[8], b[4];
  for (int k = 0; k < 8; ++k) a[k] = join(x[k], x[k + 8]);
  for (int k = 0; k < 4; ++k) b[k] = join(a[k], a[k + 4]);
  return join(join(b[0], b[2]), join(b[1], b[3]));
}
inline float larger(float x, float y) { return y > x ? y : x; }
inline float smaller(float x, float y) { return y < x ? y : x; }
inline float total(const float* x) { return folded(x, [](float a, float b) { return a + b; }); }

/// Of the sixteen, the first of the least; numbers only.
inline int place_of_least(const float* x) {
  const float least = folded(x, smaller);
  int place = 0;
  for (int k = kTrials; k-- > 0;) place = x[k] == least ? k : place;
  return place;
}

/// The largest size among count values, which fill rows of kTrials.
inline float largest_size(const float* v, int count) {
  float sizes[kTrials] = {};
  for (int i = 0; i < count; i += kTrials)
    for (int k = 0; k < kTrials; ++k) sizes[k] = larger(sizes[k], std::fabs(v[i + k]));
  return folded(sizes, larger);
}

/// v = scale q - offset.
struct Affine {
  float scale = 0, offset = 0;
};

/// The best scale >= 0 and offset (of either sign only when kFree, else >= 0) that the trial steps find, q from 0 to kMost.
template <int kSize, int kMost, bool kFree>
Affine fit_affine(const float* v, const float* w) {
  float x[kSize], least_[kTrials], most_[kTrials], w_[kTrials] = {}, x_[kTrials] = {}, xx_[kTrials] = {};
  for (int k = 0; k < kTrials; ++k) least_[k] = most_[k] = v[k];
  for (int i = kTrials; i < kSize; i += kTrials)
    for (int k = 0; k < kTrials; ++k) least_[k] = smaller(least_[k], v[i + k]), most_[k] = larger(most_[k], v[i + k]);
  float least = folded(least_, smaller);
  const float most = folded(most_, larger);
  if (!kFree && least > 0) least = 0;
  if (!(most > least)) return {0, -least};
  // With x = v - least the sums cancel less.
  for (int i = 0; i < kSize; i += kTrials)
    for (int k = 0; k < kTrials; ++k) {
      x[i + k] = v[i + k] - least;
      w_[k] += w[i + k], x_[k] += w[i + k] * x[i + k], xx_[k] += w[i + k] * x[i + k] * x[i + k];
    }
  const float sum_w = total(w_), sum_x = total(x_), sum_xx = total(xx_), range = most - least;
  float to_q[kTrials], q_[kTrials] = {}, qq_[kTrials] = {}, qx_[kTrials] = {}, scale[kTrials], low[kTrials], error[kTrials];
  for (int k = 0; k < kTrials; ++k) to_q[k] = (0.98f + (static_cast<float>(k) - 7.5f) * 0.02f) * (kMost / range);
  for (int i = 0; i < kSize; ++i)
    for (int k = 0; k < kTrials; ++k) {
      const float q = nearest_within(x[i] * to_q[k], 0, kMost), wq = w[i] * q;
      q_[k] += wq, qq_[k] += wq * q, qx_[k] += wq * x[i];
    }
  constexpr float kNone = std::numeric_limits<float>::infinity();
  for (int k = 0; k < kTrials; ++k) {  // x = scale q + low
    const float determinant = sum_w * qq_[k] - q_[k] * q_[k];
    scale[k] = (sum_w * qx_[k] - q_[k] * sum_x) / determinant;
    low[k] = (qq_[k] * sum_x - q_[k] * qx_[k]) / determinant;
    const bool above = !kFree && low[k] + least > 0;  // where the offset would be negative, it is 0
    scale[k] = above ? (qx_[k] + least * q_[k]) / qq_[k] : scale[k];
    low[k] = above ? -least : low[k];
    const float here = sum_xx - 2 * (scale[k] * qx_[k] + low[k] * sum_x) + scale[k] * scale[k] * qq_[k] + 2 * scale[k] * low[k] * q_[k] +
                       low[k] * low[k] * sum_w;
    error[k] = scale[k] > 0 && here < kNone ? here : kNone;
  }
  const int k = place_of_least(error);
  if (error[k] == kNone) return {range / kMost, -least};
  return {scale[k], kFree ? -(low[k] + least) : larger(0, -(low[k] + least))};
}

/// v = scale q: the best scale of either sign that the trial steps find, q from kLow to -kLow - 1; the range has one more place
/// below zero, so signs matter.
template <int kSize, int kLow>
float fit_scale(const float* v, const float* w) {
  const float size = largest_size(v, kSize);
  if (size == 0) return 0;
  float to_q[kTrials], qq_[kTrials] = {}, qv_[kTrials] = {}, loss[kTrials];
  for (int k = 0; k < kTrials; ++k) to_q[k] = (0.975f + (static_cast<float>(k % 8) - 3.5f) * 0.04f) * (k < 8 ? -kLow : kLow) / size;
  for (int i = 0; i < kSize; ++i)
    for (int k = 0; k < kTrials; ++k) {
      const float q = nearest_within(v[i] * to_q[k], kLow, -kLow - 1), wq = w[i] * q;
      qq_[k] += wq * q, qv_[k] += wq * v[i];
    }
  for (int k = 0; k < kTrials; ++k) {  // the error is sum w v^2 less the gain
    const float gain = qv_[k] * (qv_[k] / qq_[k]);
    loss[k] = gain > 0 ? -gain : 0;
  }
  const int k = place_of_least(loss);
  return loss[k] < 0 ? qv_[k] / qq_[k] : 0;
}

}  // namespace switchyard::codecs
