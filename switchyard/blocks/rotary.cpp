#include "switchyard/blocks/rotary.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>

#include "switchyard/base/differentiable.h"
#include "switchyard/base/error.h"
#include "switchyard/base/node.h"
#include "switchyard/base/registry.h"
#include "switchyard/kernels/row_math.h"

namespace switchyard {

void RotaryScaling::describe(Fields<RotaryScaling>& f) {
  using R = RotaryScaling;
  f.title("Rotary scaling", "Lower rotary frequencies, for contexts longer than the training's.");
  f("kind", &R::kind, "which frequencies: none, all of them, a larger base with the length, or only the slow ones by the rule "
    "of Llama 3.1, YaRN or LongRoPE").choices({"none", "linear", "dynamic", "llama3", "yarn", "longrope"});
  f("factor", &R::factor, "divides the frequencies").range(1);
  f("low", &R::low, "llama3: waves longer than original / low are divided").range(1e-6);
  f("high", &R::high, "llama3: waves shorter than original / high are left alone").range(1e-6);
  f("original", &R::original, "context of the training").range(1).unit("tokens");
  f("alpha", &R::alpha, "dynamic: the base grows by alpha^(n/(n-2)) whatever the length; 0 = by the length").range(0);
  f("fast", &R::fast, "yarn: pairs that turn more often than this in the training's context keep their frequency").range(1e-6);
  f("slow", &R::slow, "yarn: pairs that turn less often are divided").range(1e-6);
  f("truncate", &R::truncate, "yarn: the blend begins and ends at whole pairs");
  f("mscale", &R::mscale, "yarn: strength of the multiplier; 0 = 1").range(0);
  f("mscale_all", &R::mscale_all, "yarn: strength of what divides the multiplier again; 0 = nothing does").range(0);
  f("multiplier", &R::multiplier, "yarn, longrope: of what turns; 0 = by the rule").range(0);
  f("short_factors", &R::short_factors, "longrope: what divides each frequency within the training's context");
  f("long_factors", &R::long_factors, "longrope: the same beyond it");
  f("short_multiplier", &R::short_multiplier, "longrope: multiplier within the training's context; 0 = multiplier").range(0);
  f("long_multiplier", &R::long_multiplier, "longrope: multiplier beyond it; 0 = multiplier").range(0);
}

double yarn_multiplier(double factor, double mscale) { return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1; }

namespace {

using Scaling = RotaryScaling;

at::Tensor llama3(const at::Tensor& frequency, const Scaling& scaling) {
  const at::Tensor turns = frequency * (static_cast<double>(scaling.original) / (2 * M_PI));  // original / wavelength
  const at::Tensor keep = scaling.low == scaling.high ? turns.ge(scaling.low).to(turns.scalar_type())  // a step
                                                      : ((turns - scaling.low) / (scaling.high - scaling.low)).clamp(0, 1);
  return frequency * keep + frequency / scaling.factor * (1 - keep);
}

at::Tensor yarn(const at::Tensor& frequency, const Scaling& scaling, double theta, int64_t n) {
  // The pair that turns `times` times in the training's context.
  const auto pair = [&](double times) {
    return static_cast<double>(n) * std::log(static_cast<double>(scaling.original) / (2 * M_PI * times)) / (2 * std::log(theta));
  };
  double first = pair(scaling.fast), last = pair(scaling.slow);
  if (scaling.truncate) {
    first = std::floor(first);
    last = std::ceil(last);
  }
  first = std::max(first, 0.0);
  last = std::min(last, static_cast<double>(n - 1));
  if (first == last) last += 0.001;
  const at::Tensor ramp = ((at::arange(0, n / 2, frequency.options()) - first) / (last - first)).clamp(0, 1);
  return frequency / scaling.factor * ramp + frequency * (1 - ramp);
}

double yarn_rule(const Scaling& scaling) {
  if (scaling.multiplier > 0) return scaling.multiplier;
  if (scaling.mscale > 0 && scaling.mscale_all > 0)
    return yarn_multiplier(scaling.factor, scaling.mscale) / yarn_multiplier(scaling.factor, scaling.mscale_all);
  return yarn_multiplier(scaling.factor, 1);
}

double longrope_rule(const Scaling& scaling, bool beyond) {
  const double given = beyond ? scaling.long_multiplier : scaling.short_multiplier;
  if (given > 0) return given;
  if (scaling.multiplier > 0) return scaling.multiplier;
  return scaling.factor <= 1 ? 1 : std::sqrt(1 + std::log(scaling.factor) / std::log(static_cast<double>(scaling.original)));
}

}  // namespace

Rotary::Rotary(RotaryOptions options, int64_t head_dim)
    : options_(std::move(options)), head_dim_(head_dim),
      turning_(static_cast<int64_t>(std::llround(options_.fraction * static_cast<double>(head_dim)))) {
  const Scaling& scaling = options_.scaling;
  check(turning_ % 2 == 0 && turning_ > 0 && turning_ <= head_dim, "blocks.rotary",
        "rotary positions turn pairs of coordinates, but {} of a head's {} would turn; choose an even head_dim",
        turning_, head_dim);
  check(scaling.kind != Scaling::Kind::llama3 || scaling.low <= scaling.high, "blocks.rotary",
        "rotary scaling blends between low {} and high {}, so low must not be the greater", scaling.low, scaling.high);
  check(scaling.kind != Scaling::Kind::dynamic || turning_ > 2, "blocks.rotary", "dynamic rotary scaling needs more than one pair");
  check(scaling.kind != Scaling::Kind::yarn || options_.theta > 1, "blocks.rotary", "yarn needs a rope_theta above 1, not {}",
        options_.theta);
  if (scaling.kind == Scaling::Kind::longrope)
    for (const auto* list : {&scaling.short_factors, &scaling.long_factors}) {
      check(static_cast<int64_t>(list->size()) == turning_ / 2, "blocks.rotary",
            "longrope lists one factor a pair: {} pairs turn, but a list has {}", turning_ / 2, list->size());
      check(std::all_of(list->begin(), list->end(), [](double f) { return f > 0; }), "blocks.rotary",
            "longrope divides by its factors, so they are above 0");
    }
  key_ = fmt::format("angles of {} in {} by {}", options_.theta, turning_, to_json(write_options(scaling), 0));
  if (!depends_on_length())
    for (const at::ScalarType type : {at::kFloat, at::kDouble}) fixed_.push_back(frequencies(0, type));
}

bool Rotary::depends_on_length() const {
  const Scaling& scaling = options_.scaling;
  return scaling.kind == Scaling::Kind::longrope || (scaling.kind == Scaling::Kind::dynamic && scaling.alpha == 0);
}

std::pair<at::Tensor, double> Rotary::frequencies(int64_t length, at::ScalarType type) const {
  const Scaling& scaling = options_.scaling;
  double theta = options_.theta;
  if (scaling.kind == Scaling::Kind::dynamic) {
    const double n = static_cast<double>(turning_), past = static_cast<double>(length) / static_cast<double>(scaling.original);
    const double growth = scaling.alpha > 0 ? scaling.alpha : past > 1 ? scaling.factor * past - (scaling.factor - 1) : 1;
    theta *= std::pow(growth, n / (n - 2));
  }
  const at::Tensor exponent = at::arange(0, turning_, 2, at::TensorOptions().dtype(type)) / static_cast<double>(turning_);
  const at::Tensor frequency = at::pow(theta, exponent).reciprocal();
  switch (scaling.kind) {
    case Scaling::Kind::none:
    case Scaling::Kind::dynamic: return {frequency, 1};
    case Scaling::Kind::linear: return {frequency / scaling.factor, 1};
    case Scaling::Kind::llama3: return {llama3(frequency, scaling), 1};
    case Scaling::Kind::yarn: return {yarn(frequency, scaling, theta, turning_), yarn_rule(scaling)};
    case Scaling::Kind::longrope: break;
  }
  const bool beyond = length > scaling.original;
  const at::Tensor factors = at::tensor(beyond ? scaling.long_factors : scaling.short_factors, at::kDouble).to(type);
  return {frequency / factors, longrope_rule(scaling, beyond)};
}

Rotary::Angles Rotary::angles(const at::Tensor& positions, bool wide, const at::Tensor& length) const {
  const at::ScalarType type = wide ? at::kDouble : at::kFloat;
  const at::Tensor position = positions.to(type).unsqueeze(1);
  const auto turned = [&](const at::Tensor& at, int64_t tokens) -> Angles {
    const auto [frequency, multiplier] = fixed_.empty() ? frequencies(tokens, type) : fixed_[wide ? 1 : 0];
    const at::Tensor angle = at * frequency.to(positions.device());
    if (multiplier == 1) return {angle.cos(), angle.sin()};
    return {angle.cos() * multiplier, angle.sin() * multiplier};
  };
  if (!depends_on_length() || !length.defined()) return turned(position, 0);
  // Rows of one length lie together: sequence after sequence.
  const at::Tensor lengths = length.cpu().contiguous();
  const int64_t* of_row = lengths.const_data_ptr<int64_t>();
  std::vector<at::Tensor> cosines, sines;
  for (int64_t first = 0, last = 0; first < lengths.size(0); first = last) {
    while (last < lengths.size(0) && of_row[last] == of_row[first]) ++last;
    Angles part = turned(position.narrow(0, first, last - first), of_row[first]);
    cosines.push_back(std::move(part.cosine));
    sines.push_back(std::move(part.sine));
  }
  if (cosines.empty()) return turned(position, 0);
  return {at::cat(cosines, 0), at::cat(sines, 0)};
}

Rotary::Angles Rotary::angles(const Facts& facts, std::string_view who, bool wide) const {
  if (!depends_on_length()) {
    const std::vector<at::Tensor> both = facts.once(key_ + (wide ? " wide" : ""), [&]() -> std::vector<at::Tensor> {
      const Angles made = angles(facts.row("position", who), wide);
      return {made.cosine, made.sine};
    });
    return {both[0], both[1]};
  }
  const at::Tensor positions = facts.row("position", who);
  // A row knows the tokens up to the end of this pass.
  const Segments& segments = facts.segments;
  at::Tensor length = at::empty({segments.rows()}, at::kLong);
  for (int64_t s = 0; s < segments.count(); ++s)
    length.narrow(0, segments.begin[static_cast<size_t>(s)], segments.length(s)).fill_(segments.past_of(s) + segments.length(s));
  return angles(positions, wide, length);
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
    for (int64_t t = begin; t < end; ++t)
      kernels::rotate_row(x + t * heads * d, cos + t * half, sin + t * half, y + t * heads * d, heads, d, half, sign);
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

at::Tensor Rotary::turn(const at::Tensor& given, const Angles& angles) const {
  at::Tensor x = given;
  if (options_.pairs == RotaryPairs::adjacent) {
    const at::Tensor pairs = x.narrow(-1, 0, turning_).unflatten(-1, {turning_ / 2, 2});
    std::vector<at::Tensor> parts{pairs.select(-1, 0), pairs.select(-1, 1)};
    if (turning_ < x.size(-1)) parts.push_back(x.narrow(-1, turning_, x.size(-1) - turning_));
    x = at::cat(parts, -1);
  }
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
