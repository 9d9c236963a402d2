// Activations and their slopes on one pair of numbers, in float32. Device code; the curves are not inlined, or each of
// their many uses would be compiled anew.
#pragma once

#include "switchyard/kernels/cuda/device.h"

namespace switchyard::kernels::cuda {

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
__device__ inline float normal_cdf(float x) { return 0.5f * (1.0f + erff(x * 0.70710678f)); }
__device__ inline float tanh_curve(float x) { return tanhf(0.79788456f * (x + 0.044715f * x * x * x)); }

__device__ __noinline__ inline float curve_value(Curve curve, float x) {
  switch (curve) {
    case Curve::relu: return x > 0 ? x : 0.0f;
    case Curve::relu_squared: return x > 0 ? x * x : 0.0f;
    case Curve::gelu: return x * normal_cdf(x);
    case Curve::gelu_tanh: return 0.5f * x * (1.0f + tanh_curve(x));
    case Curve::silu: return x * sigmoid(x);
    case Curve::sigmoid: return sigmoid(x);
    default: return x;
  }
}

__device__ __noinline__ inline float curve_slope(Curve curve, float x) {
  switch (curve) {
    case Curve::relu: return x > 0 ? 1.0f : 0.0f;
    case Curve::relu_squared: return x > 0 ? 2 * x : 0.0f;
    case Curve::gelu: return normal_cdf(x) + x * 0.39894228f * expf(-0.5f * x * x);
    case Curve::gelu_tanh: {
      const float t = tanh_curve(x);
      return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * 0.79788456f * (1.0f + 0.134145f * x * x);
    }
    case Curve::silu: {
      const float s = sigmoid(x);
      return s * (1.0f + x * (1.0f - s));
    }
    case Curve::sigmoid: {
      const float s = sigmoid(x);
      return s * (1.0f - s);
    }
    default: return 1.0f;
  }
}

__device__ inline float clamp_gate(const ActivationCode& a, float gate) { return gate > a.limit ? a.limit : gate; }
__device__ inline float clamp_up(const ActivationCode& a, float up) { return up > a.limit ? a.limit : up < -a.limit ? -a.limit : up; }

/// h of an ungated kind, from u alone.
__device__ inline float activate(const ActivationCode& a, float up) { return curve_value(a.curve, up); }
/// h of a gated kind.
__device__ inline float activate(const ActivationCode& a, float gate, float up) {
  if (a.curve != Curve::clamped) return curve_value(a.curve, gate) * up;
  const float g = clamp_gate(a, gate);
  return g * sigmoid(a.alpha * g) * (clamp_up(a, up) + a.shift);
}

/// dh/dgate and dh/dup; a clamped value passes no gradient.
struct Slopes {
  float gate, up;
};
__device__ inline Slopes activation_slopes(const ActivationCode& a, float gate, float up) {
  if (a.curve != Curve::clamped) return {up * curve_slope(a.curve, gate), curve_value(a.curve, gate)};
  const float g = clamp_gate(a, gate), u = clamp_up(a, up), s = sigmoid(a.alpha * g);
  return {gate <= a.limit ? (u + a.shift) * s * (1.0f + a.alpha * g * (1.0f - s)) : 0.0f,
          up >= -a.limit && up <= a.limit ? g * s : 0.0f};
}

}  // namespace switchyard::kernels::cuda
