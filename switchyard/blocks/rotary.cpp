#include "switchyard/blocks/rotary.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/pow.h>

#include <algorithm>
#include <cmath>

#include "switchyard/base/differentiable.h"
#include "switchyard/base/error.h"
#include "switchyard/base/registry.h"

namespace switchyard {

void RotaryScaling::describe(Fields<RotaryScaling>& f) {
  using R = RotaryScaling;
  f.title("Rotary scaling", "Lower rotary frequencies, for contexts longer than the training's.");
  f("kind", &R::kind, "which frequencies: none, all of them, or the long waves as Llama 3.1").choices({"none", "linear", "llama3"});
  f("factor", &R::factor, "divides the frequencies").range(1);
  f("low", &R::low, "llama3: waves longer than original / low are divided").range(1e-6);
  f("high", &R::high, "llama3: waves shorter than original / high are left alone").range(1e-6);
  f("original", &R::original, "context of the training").range(1).unit("tokens");
}

namespace {

/// frequency: [n/2].
at::Tensor scaled(const at::Tensor& frequency, const RotaryScaling& scaling) {
  if (scaling.kind == RotaryScaling::Kind::none) return frequency;
  const at::Tensor divided = frequency / scaling.factor;
  if (scaling.kind == RotaryScaling::Kind::linear) return divided;
  const at::Tensor turns = frequency * (static_cast<double>(scaling.original) / (2 * M_PI));  // original / wavelength
  const at::Tensor keep = ((turns - scaling.low) / (scaling.high - scaling.low)).clamp(0, 1);
  return frequency * keep + divided * (1 - keep);
}

}  // namespace

Rotary::Rotary(RotaryOptions options, int64_t head_dim)
    : options_(options), head_dim_(head_dim),
      turning_(static_cast<int64_t>(std::llround(options.fraction * static_cast<double>(head_dim)))) {
  check(turning_ % 2 == 0 && turning_ > 0 && turning_ <= head_dim, "blocks.rotary",
        "rotary positions turn pairs of coordinates, but {} of a head's {} would turn; choose an even head_dim",
        turning_, head_dim);
  check(options.scaling.kind != RotaryScaling::Kind::llama3 || options.scaling.low < options.scaling.high, "blocks.rotary",
        "rotary scaling blends between low {} and high {}, so low must be the smaller", options.scaling.low,
        options.scaling.high);
}

Rotary::Angles Rotary::angles(const at::Tensor& positions, bool wide) const {
  const at::ScalarType type = wide ? at::kDouble : at::kFloat;
  const at::Tensor exponent = at::arange(0, turning_, 2, at::TensorOptions().dtype(type).device(positions.device())) /
                              static_cast<double>(turning_);
  const at::Tensor frequency = scaled(at::pow(options_.theta, exponent).reciprocal(), options_.scaling);
  const at::Tensor angle = positions.to(type).unsqueeze(1) * frequency;
  return {angle.cos(), angle.sin()};
}

namespace {

at::Tensor plain_turn(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, int64_t half) {
  const at::Tensor cosine = cos.unsqueeze(1), sine = sin.unsqueeze(1);  // [T, 1, n/2]
  const at::Tensor first = x.narrow(-1, 0, half), second = x.narrow(-1, half, half);
  std::vector<at::Tensor> parts{(first * cosine - second * sine).to(x.scalar_type()),
                                (second * cosine + first * sine).to(x.scalar_type())};
  if (2 * half < x.size(-1)) parts.push_back(x.narrow(-1, 2 * half, x.size(-1) - 2 * half));
  return at::cat(parts, -1);
}

/// x, y: [T, H, d]; cos, sin: [T, n/2]; sign −1 turns back. One pass where ATen's operations take seven.
template <typename T, typename A>
void turn_rows(const T* x, const A* cos, const A* sin, T* y, int64_t rows, int64_t heads, int64_t d, int64_t half, A sign) {
  at::parallel_for(0, rows, std::max<int64_t>(1, 16384 / (heads * d)), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const A *c = cos + t * half, *s = sin + t * half;
      for (int64_t h = 0; h < heads; ++h) {
        const T* from = x + (t * heads + h) * d;
        T* to = y + (t * heads + h) * d;
#pragma omp simd
        for (int64_t i = 0; i < half; ++i) {
          const A a = static_cast<A>(from[i]), b = static_cast<A>(from[i + half]);
          to[i] = static_cast<T>(a * c[i] - b * (sign * s[i]));
          to[i + half] = static_cast<T>(b * c[i] + a * (sign * s[i]));
        }
        std::copy(from + 2 * half, from + d, to + 2 * half);
      }
    }
  });
}

/// Linear in x, and its transpose is the turn back: so backward is this function again, at any order.
at::Tensor turned(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, bool back) {
  return differentiable({x}, [&] {
    const at::Tensor rows = x.contiguous();
    at::Tensor y = at::empty_like(rows);
    const auto run = [&]<typename T, typename A>(T, A) {
      turn_rows(rows.const_data_ptr<T>(), cos.const_data_ptr<A>(), sin.const_data_ptr<A>(), y.mutable_data_ptr<T>(), x.size(0),
                x.size(1), x.size(2), cos.size(1), A(back ? -1 : 1));
    };
    if (x.scalar_type() == at::kDouble) run(double{}, double{});
    else if (x.scalar_type() == at::kFloat) run(float{}, float{});
    else run(at::BFloat16{}, float{});
    return Computed{{y}, {cos, sin}, [back](const std::vector<at::Tensor>& saved, const std::vector<at::Tensor>& grads) {
                      return std::vector<at::Tensor>{turned(grads[0], saved[0], saved[1], !back)};
                    }};
  })[0];
}

}  // namespace

at::Tensor Rotary::turn(const at::Tensor& x, const Angles& angles) const {
  const at::ScalarType wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const bool native = x.is_cpu() && angles.cosine.scalar_type() == wide && (wide == at::kDouble || x.scalar_type() != at::kHalf);
  return native ? turned(x, angles.cosine, angles.sine, false) : plain_turn(x, angles.cosine, angles.sine, turning_ / 2);
}

}  // namespace switchyard

SWITCHYARD_REGISTER(rotary) {
  registry.add_card({.slug = "rope", .name = "Rotary position embedding", .paper = "Su et al., RoFormer", .year = 2024,
                     .section = "4.2.3", .room = "blocks", .coupling = "none",
                     .line = "queries and keys turn with their position: `positions: rope`",
                     .recipe = "recipes/quickstart.yaml"});
}
