#include "switchyard/kernels/cpu/activation.h"

#include <algorithm>
#include <cmath>

#include "switchyard/kernels/cpu/exp.h"
#include "switchyard/kernels/cpu/parallel.h"

#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math")

namespace switchyard::kernels::cpu {
namespace {

inline float sigmoid(float x) { return 1.0f / (1.0f + exp_fast(-x)); }
inline float tanh_fast(float x) { return 2.0f * sigmoid(2.0f * x) - 1.0f; }
inline float normal_cdf(float x) { return 0.5f * (1.0f + std::erf(x * 0.70710678f)); }
inline float normal_pdf(float x) { return 0.39894228f * exp_fast(-0.5f * x * x); }

/// One-argument curves.
enum class Curve { identity, relu, relu_squared, gelu, gelu_tanh, silu, sigmoid };

template <Curve curve>
inline float value_of(float x) {
  if constexpr (curve == Curve::identity) return x;
  if constexpr (curve == Curve::relu) return x > 0 ? x : 0;
  if constexpr (curve == Curve::relu_squared) return x > 0 ? x * x : 0;
  if constexpr (curve == Curve::gelu) return x * normal_cdf(x);
  if constexpr (curve == Curve::gelu_tanh) return 0.5f * x * (1.0f + tanh_fast(0.79788456f * (x + 0.044715f * x * x * x)));
  if constexpr (curve == Curve::silu) return x * sigmoid(x);
  if constexpr (curve == Curve::sigmoid) return sigmoid(x);
}

template <Curve curve>
inline float slope_of(float x) {
  if constexpr (curve == Curve::identity) return 1;
  if constexpr (curve == Curve::relu) return x > 0 ? 1 : 0;
  if constexpr (curve == Curve::relu_squared) return x > 0 ? 2 * x : 0;
  if constexpr (curve == Curve::gelu) return normal_cdf(x) + x * normal_pdf(x);
  if constexpr (curve == Curve::gelu_tanh) {
    const float t = tanh_fast(0.79788456f * (x + 0.044715f * x * x * x));
    return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * 0.79788456f * (1.0f + 0.134145f * x * x);
  }
  if constexpr (curve == Curve::silu) {
    const float s = sigmoid(x);
    return s * (1.0f + x * (1.0f - s));
  }
  if constexpr (curve == Curve::sigmoid) {
    const float s = sigmoid(x);
    return s * (1.0f - s);
  }
}

// Results never lie on operands. The loops say so (ivdep), or the compiler gives up comparing that many pointers.

/// h = curve(gate) · up, or curve(up).
template <Curve curve>
void values(const float* gate, const float* up, float* h, int64_t count) {
  if (gate)
    at_level([=] { for (int64_t i = 0; i < count; ++i) h[i] = value_of<curve>(gate[i]) * up[i]; });
  else
    at_level([=] { for (int64_t i = 0; i < count; ++i) h[i] = value_of<curve>(up[i]); });
}

template <Curve curve>
void slopes(const float* gate, const float* up, const float* dh, float* dgate, float* dup, float* h, int64_t count) {
  if (gate)
    at_level([=] {
#pragma GCC ivdep
      for (int64_t i = 0; i < count; ++i) {
        const float g = gate[i], u = up[i], d = dh[i], v = value_of<curve>(g);
        h[i] = v * u;
        dup[i] = d * v;
        dgate[i] = d * u * slope_of<curve>(g);
      }
    });
  else
    at_level([=] {
#pragma GCC ivdep
      for (int64_t i = 0; i < count; ++i) {
        const float u = up[i], d = dh[i];
        h[i] = value_of<curve>(u);
        dup[i] = d * slope_of<curve>(u);
      }
    });
}

/// gpt-oss: g = min(gate, limit), u = clamp(up, ±limit), h = g σ(αg) (u + shift); clamped values pass no gradient.
void clamped_values(const ActivationOptions& o, const float* gate, const float* up, float* h, int64_t count) {
  const float limit = static_cast<float>(o.limit), alpha = static_cast<float>(o.alpha), shift = static_cast<float>(o.shift);
  at_level([=] {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) {
      const float g = std::min(gate[i], limit), u = std::min(std::max(up[i], -limit), limit);
      h[i] = g * sigmoid(alpha * g) * (u + shift);
    }
  });
}

void clamped_slopes(const ActivationOptions& o, const float* gate, const float* up, const float* dh, float* dgate, float* dup,
                    float* h, int64_t count) {
  const float limit = static_cast<float>(o.limit), alpha = static_cast<float>(o.alpha), shift = static_cast<float>(o.shift);
  at_level([=] {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) {
      const float g = std::min(gate[i], limit), u = std::min(std::max(up[i], -limit), limit), d = dh[i];
      const float s = sigmoid(alpha * g);
      h[i] = g * s * (u + shift);
      const float dg = d * (u + shift) * s * (1.0f + alpha * g * (1.0f - s)), du = d * g * s;
      dgate[i] = gate[i] <= limit ? dg : 0.0f;
      dup[i] = up[i] >= -limit && up[i] <= limit ? du : 0.0f;
    }
  });
}

/// Calls f with the curve of an activation as a constant.
template <typename F>
void with_curve(Activation kind, F&& f) {
  using C = Curve;
  const auto go = [&]<Curve curve>() { f.template operator()<curve>(); };
  switch (kind) {
    case Activation::identity: return go.template operator()<C::identity>();
    case Activation::relu:
    case Activation::reglu: return go.template operator()<C::relu>();
    case Activation::relu_squared: return go.template operator()<C::relu_squared>();
    case Activation::gelu:
    case Activation::geglu: return go.template operator()<C::gelu>();
    case Activation::gelu_tanh:
    case Activation::geglu_tanh: return go.template operator()<C::gelu_tanh>();
    case Activation::silu:
    case Activation::swiglu: return go.template operator()<C::silu>();
    case Activation::glu: return go.template operator()<C::sigmoid>();
    case Activation::clamped_swiglu: return;
  }
}

}  // namespace

void activate_values(const ActivationOptions& options, const float* gate, const float* up, float* h, int64_t count) {
  if (options.kind == Activation::clamped_swiglu) return clamped_values(options, gate, up, h, count);
  with_curve(options.kind, [&]<Curve curve>() { values<curve>(gate, up, h, count); });
}

void activate_slopes(const ActivationOptions& options, const float* gate, const float* up, const float* dh, float* dgate,
                     float* dup, float* h, int64_t count) {
  if (options.kind == Activation::clamped_swiglu) return clamped_slopes(options, gate, up, dh, dgate, dup, h, count);
  with_curve(options.kind, [&]<Curve curve>() { slopes<curve>(gate, up, dh, dgate, dup, h, count); });
}

}  // namespace switchyard::kernels::cpu
