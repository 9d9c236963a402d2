// Selective state spaces: Mamba (Gu and Dao 2023), a state of n numbers a channel whose decay, input and output depend on the token,
// here with the norms of Jamba (Lieber et al. 2024); and Mamba-2 (Dao and Gu 2024), one decay a head of channels.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/softplus.h>

#include <cmath>

#include "switchyard/base/error.h"
#include "switchyard/base/registry.h"
#include "switchyard/blocks/body.h"
#include "switchyard/blocks/norm.h"
#include "switchyard/blocks/recurrent.h"
#include "switchyard/blocks/scan.h"
#include "switchyard/blocks/site_linear.h"

namespace switchyard {
namespace {

void check_causal(const Context& context, const std::string& who) {
  check(context.facts.segments.causal, "blocks.causal", "{}: a running state sees earlier rows only; use it in causal models", who);
}

/// States are kept in float32 whatever the rows are.
at::Tensor wide(const at::Tensor& x) { return x.scalar_type() == at::kDouble ? x : x.to(at::kFloat); }

struct MambaOptions {
  int64_t expand = 2, state = 16, convolution = 4, step_rank = 0;
  bool convolution_bias = true, bias = false, norms = true;
  std::string activation = "silu";

  static void describe(Fields<MambaOptions>& f) {
    using O = MambaOptions;
    f.title("Mamba", "A selective state space: what is kept of the past depends on the token.");
    f("expand", &O::expand, "inner width, in model widths").range(1, 64);
    f("state", &O::state, "numbers a channel keeps").range(1, 1 << 16);
    f("convolution", &O::convolution, "rows that the convolution before sees").range(1, 1 << 10).unit("tokens");
    f("step_rank", &O::step_rank, "rank of the map to step sizes; 0 = width / 16").range(0, 1 << 16);
    f("convolution_bias", &O::convolution_bias, "a bias on the convolution");
    f("bias", &O::bias, "biases on the maps into and out of the inner width");
    f("norms", &O::norms, "RMSNorm of step sizes, inputs and outputs of the state (Jamba)");
    describe_curve(f, &O::activation, "what rows pass behind the convolution");
  }
};

class Mamba : public Body {
 public:
  explicit Mamba(const MambaOptions& options) : o_(options) {}

  void prepare(const BodyPlace& place) override {
    name_ = place.name;
    inner_ = o_.expand * place.width;
    rank_ = o_.step_rank > 0 ? o_.step_rank : (place.width + 15) / 16;
    in_ = SiteLinear(place, "in", place.width, 2 * inner_, o_.bias);
    select_ = SiteLinear(place, "select", inner_, rank_ + 2 * o_.state, false);
    step_ = SiteLinear(place, "step", rank_, inner_, true);
    out_ = SiteLinear(place, "out", inner_, place.width, o_.bias);
    if (!o_.norms) return;
    step_norm_ = std::make_shared<RmsNorm>(rank_, place.norm_eps);
    input_norm_ = std::make_shared<RmsNorm>(o_.state, place.norm_eps);
    output_norm_ = std::make_shared<RmsNorm>(o_.state, place.norm_eps);
  }

  void declare(const Schema& schema) override {
    for (SiteLinear* map : {&in_, &select_, &step_, &out_}) map->declare(schema);
    const double spread = 1 / std::sqrt(static_cast<double>(o_.convolution));
    convolution_ = schema.in("convolution").add("weight", {inner_, o_.convolution}, Role::projection, Init::uniform(spread));
    if (o_.convolution_bias) convolution_bias_ = schema.in("convolution").add("bias", {inner_}, Role::bias, Init::zeros());
    const int64_t inner = inner_, state = o_.state;
    decay_ = schema.add("decay", {inner_, o_.state}, Role::bias, Init::computed([inner, state] {
                          return at::arange(1, state + 1, at::kFloat).log().unsqueeze(0).expand({inner, state}).contiguous();
                        }));
    skip_ = schema.add("skip", {inner_}, Role::bias, Init::ones());
    if (!o_.norms) return;
    step_norm_->declare(schema.in("step_norm"));
    input_norm_->declare(schema.in("input_norm"));
    output_norm_->declare(schema.in("output_norm"));
  }

  at::Tensor forward(const at::Tensor& x, const Context& context) const override {
    check_causal(context, name_);
    const PaddedSequences sequences(context.facts.segments);
    const at::Tensor both = in_(x, context);
    const at::Tensor gate = both.narrow(1, inner_, inner_);
    const at::Tensor mixed = causal_convolution(sequences.spread(both.narrow(1, 0, inner_)), context[convolution_],
                                                convolution_bias_ ? context[convolution_bias_] : at::Tensor(), sequences, context,
                                                name_ + ".convolution");
    const at::Tensor u = sequences.gather(curve(mixed, o_.activation));  // [T, inner]
    const at::Tensor selected = select_(u, context);
    const auto part = [&](int64_t first, int64_t length, const std::shared_ptr<RmsNorm>& norm) {
      const at::Tensor rows = selected.narrow(1, first, length);
      return norm ? norm->forward(rows, context) : rows;
    };
    const at::Tensor step = wide(at::softplus(step_(part(0, rank_, step_norm_), context)));
    const at::Tensor in = wide(part(rank_, o_.state, input_norm_)), out = wide(part(rank_ + o_.state, o_.state, output_norm_));
    const at::Tensor y = scan(wide(u), step, in, out, sequences, context) + wide(u) * wide(context[skip_]);
    return out_(y.to(x.scalar_type()) * at::silu(gate), context);
  }

  std::vector<StateSpec> states() const override {
    return {convolution_state(name_ + ".convolution", inner_, o_.convolution),
            {.name = name_ + ".state", .kind = StateSpec::Kind::per_sequence, .shape = {inner_, o_.state}}};
  }
  Reach reach(const Overrides& overrides, Phase phase) const override {
    Reach reach;
    for (const SiteLinear* map : {&in_, &select_, &step_, &out_}) reach = larger(reach, map->site().reach(overrides, phase));
    return reach;
  }
  void each_child(const std::function<void(Part&)>& visit) override {
    for (const SiteLinear* map : {&in_, &select_, &step_, &out_}) map->site().each_child(visit);
    for (const auto& norm : {step_norm_, input_norm_, output_norm_})
      if (norm) visit(*norm);
  }

 private:
  /// h_t = exp(Δ_t A) h_{t-1} + Δ_t u_t B_t, y_t = h_t C_t. u, step: [T, inner]; in, out: [T, n]. Padding has step 0 and changes
  /// no state.
  at::Tensor scan(const at::Tensor& u, const at::Tensor& step, const at::Tensor& in, const at::Tensor& out,
                  const PaddedSequences& sequences, const Context& context) const {
    const Scanned scanned = selective_scan(sequences.spread(u), sequences.spread(step), -wide(context[decay_]).exp(), sequences.spread(in),
                                           sequences.spread(out), sequences.held(context, name_ + ".state", {inner_, o_.state}, u));
    sequences.keep(context, name_ + ".state", scanned.state);
    return sequences.gather(scanned.rows);
  }

  MambaOptions o_;
  std::string name_;
  int64_t inner_ = 0, rank_ = 0;
  SiteLinear in_, select_, step_, out_;
  std::shared_ptr<RmsNorm> step_norm_, input_norm_, output_norm_;
  Parameter convolution_, convolution_bias_, decay_, skip_;
};

struct Mamba2Options {
  int64_t heads = 8, head_dim = 64, state = 128, groups = 1, convolution = 4;
  bool convolution_bias = true, bias = false;
  double step_lowest = 0, step_highest = 0;
  std::string activation = "silu";

  static void describe(Fields<Mamba2Options>& f) {
    using O = Mamba2Options;
    f.title("Mamba-2", "A selective state space with one decay a head.");
    f("heads", &O::heads, "heads H").range(1, 1 << 16);
    f("head_dim", &O::head_dim, "channels of a head").range(1, 1 << 16);
    f("state", &O::state, "numbers a channel keeps").range(1, 1 << 16);
    f("groups", &O::groups, "groups of heads with inputs and outputs of the state in common").range(1, 1 << 16);
    f("convolution", &O::convolution, "rows that the convolution before sees").range(1, 1 << 10).unit("tokens");
    f("convolution_bias", &O::convolution_bias, "a bias on the convolution");
    f("bias", &O::bias, "biases on the maps into and out of the inner width");
    f("step_lowest", &O::step_lowest, "step sizes are at least this").range(0);
    f("step_highest", &O::step_highest, "and at most this; 0 = no limit").range(0);
    describe_curve(f, &O::activation, "what rows pass behind the convolution");
  }
};

class Mamba2 : public Body {
 public:
  explicit Mamba2(const Mamba2Options& options) : o_(options) {}

  void prepare(const BodyPlace& place) override {
    name_ = place.name;
    check(o_.heads % o_.groups == 0, "blocks.heads", "{}: {} heads do not divide among {} groups", name_, o_.heads, o_.groups);
    inner_ = o_.heads * o_.head_dim;
    mixed_ = inner_ + 2 * o_.groups * o_.state;
    norm_eps_ = place.norm_eps;
    in_ = SiteLinear(place, "in", place.width, inner_ + mixed_ + o_.heads, o_.bias);
    out_ = SiteLinear(place, "out", inner_, place.width, o_.bias);
  }

  void declare(const Schema& schema) override {
    in_.declare(schema);
    out_.declare(schema);
    const double spread = 1 / std::sqrt(static_cast<double>(o_.convolution));
    convolution_ = schema.in("convolution").add("weight", {mixed_, o_.convolution}, Role::projection, Init::uniform(spread));
    if (o_.convolution_bias) convolution_bias_ = schema.in("convolution").add("bias", {mixed_}, Role::bias, Init::zeros());
    const int64_t heads = o_.heads;
    decay_ = schema.add("decay", {heads}, Role::bias, Init::computed([heads] { return at::arange(1, heads + 1, at::kFloat).log(); }));
    step_bias_ = schema.add("step_bias", {heads}, Role::bias, Init::ones());
    skip_ = schema.add("skip", {heads}, Role::bias, Init::ones());
    norm_ = schema.in("norm").add("weight", {inner_}, Role::norm, Init::ones());
  }

  at::Tensor forward(const at::Tensor& x, const Context& context) const override {
    check_causal(context, name_);
    const PaddedSequences sequences(context.facts.segments);
    const at::Tensor all = in_(x, context);
    const at::Tensor gate = all.narrow(1, 0, inner_);
    const at::Tensor mixed = causal_convolution(sequences.spread(all.narrow(1, inner_, mixed_)), context[convolution_],
                                                convolution_bias_ ? context[convolution_bias_] : at::Tensor(), sequences, context,
                                                name_ + ".convolution");
    const at::Tensor u = wide(sequences.gather(curve(mixed, o_.activation)));
    at::Tensor step = at::softplus(wide(all.narrow(1, inner_ + mixed_, o_.heads)) + wide(context[step_bias_]));  // [T, H]
    if (o_.step_lowest > 0) step = step.clamp_min(o_.step_lowest);
    if (o_.step_highest > 0) step = step.clamp_max(o_.step_highest);
    const at::Tensor rows = u.narrow(1, 0, inner_).view({-1, o_.heads, o_.head_dim});
    const auto of_groups = [&](int64_t first) { return u.narrow(1, first, o_.groups * o_.state).view({-1, o_.groups, o_.state}); };
    at::Tensor y = scan(rows, step, of_groups(inner_), of_groups(inner_ + o_.groups * o_.state), sequences, context);
    y = (y + rows * wide(context[skip_]).unsqueeze(1)).reshape({x.size(0), inner_});
    y = (y * at::silu(wide(gate))).view({x.size(0), o_.groups, inner_ / o_.groups});
    y = unit_rms(y, norm_eps_).reshape({x.size(0), inner_}).to(x.scalar_type()) * context[norm_];
    return out_(y, context);
  }

  std::vector<StateSpec> states() const override {
    return {convolution_state(name_ + ".convolution", mixed_, o_.convolution),
            {.name = name_ + ".state", .kind = StateSpec::Kind::per_sequence, .shape = {o_.heads, o_.state, o_.head_dim}}};
  }
  Reach reach(const Overrides& overrides, Phase phase) const override {
    return larger(in_.site().reach(overrides, phase), out_.site().reach(overrides, phase));
  }
  void each_child(const std::function<void(Part&)>& visit) override {
    in_.site().each_child(visit);
    out_.site().each_child(visit);
  }

 private:
  /// h_t = exp(Δ_t A) h_{t-1} + Δ_t x_t B_tᵀ, y_t = h_t C_t. rows: [T, H, p]; step: [T, H]; in, out: [T, G, n].
  at::Tensor scan(const at::Tensor& rows, const at::Tensor& step, const at::Tensor& in, const at::Tensor& out,
                  const PaddedSequences& sequences, const Context& context) const {
    const at::Tensor steps = sequences.spread(step);
    const Scanned scanned = decayed_scan(sequences.spread(out), sequences.spread(in), sequences.spread(rows) * steps.unsqueeze(-1),
                                         steps * -wide(context[decay_]).exp(),
                                         sequences.held(context, name_ + ".state", {o_.heads, o_.state, o_.head_dim}, rows));
    sequences.keep(context, name_ + ".state", scanned.state);
    return sequences.gather(scanned.rows);
  }

  Mamba2Options o_;
  std::string name_;
  int64_t inner_ = 0, mixed_ = 0;
  double norm_eps_ = 0;
  SiteLinear in_, out_;
  Parameter convolution_, convolution_bias_, decay_, step_bias_, skip_, norm_;
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(mamba) {
  using namespace switchyard;
  registry.add<Body, Mamba, MambaOptions>(
      {.slug = "mamba", .name = "Mamba", .paper = "Gu and Dao, Mamba", .year = 2023, .section = "4.2.2", .room = "blocks",
       .coupling = "none", .line = "a selective state space in place of attention", .recipe = "recipes/methods/mamba.yaml"});
  registry.add<Body, Mamba2, Mamba2Options>(
      {.slug = "mamba2", .name = "Mamba-2", .paper = "Dao and Gu, Transformers are SSMs", .year = 2024, .section = "beyond",
       .room = "blocks", .coupling = "none", .line = "a selective state space with one decay a head", .recipe = "recipes/methods/mamba2.yaml"});
}
