#include "switchyard/blocks/rotary.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/pow.h>

#include <cmath>

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

at::Tensor Rotary::turn(const at::Tensor& x, const Angles& angles) const {
  const int64_t half = turning_ / 2;
  const at::Tensor cosine = angles.cosine.unsqueeze(1), sine = angles.sine.unsqueeze(1);  // [T, 1, n/2]
  const at::Tensor first = x.narrow(-1, 0, half), second = x.narrow(-1, half, half);
  std::vector<at::Tensor> parts{(first * cosine - second * sine).to(x.scalar_type()),
                                (second * cosine + first * sine).to(x.scalar_type())};
  if (turning_ < head_dim_) parts.push_back(x.narrow(-1, turning_, head_dim_ - turning_));
  return at::cat(parts, -1);
}

}  // namespace switchyard

SWITCHYARD_REGISTER(rotary) {
  registry.add_card({.slug = "rope", .name = "Rotary position embedding", .paper = "Su et al., RoFormer", .year = 2024,
                     .section = "4.2.3", .room = "blocks", .coupling = "none",
                     .line = "queries and keys turn with their position: `positions: rope`",
                     .recipe = "recipes/quickstart.yaml"});
}
