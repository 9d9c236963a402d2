// Attention with a local filter (Wu et al. 2023, Yuan 2.0): queries and keys are made from rows that two short convolutions over
// time have mixed with the rows before them, values from the rows themselves. As published, the maps of queries and keys lie one
// behind the other and are cut head by head, so that half of the heads take both from one map.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>

#include "switchyard/base/registry.h"
#include "switchyard/blocks/attend.h"
#include "switchyard/blocks/body.h"
#include "switchyard/blocks/norm.h"
#include "switchyard/blocks/recurrent.h"
#include "switchyard/blocks/site_linear.h"
#include "switchyard/kernels/linear.h"

namespace switchyard {
namespace {

struct FilteredOptions {
  int64_t heads = 8, head_dim = 0;
  static void describe(Fields<FilteredOptions>& f) {
    using O = FilteredOptions;
    f.title("Attention with a local filter", "Queries and keys come from rows mixed with the two before them.");
    f("heads", &O::heads, "heads H").range(1, 1 << 16);
    f("head_dim", &O::head_dim, "width of a head; 0 = model width / heads").range(0, 1 << 16);
  }
};

class FilteredAttention : public Body {
 public:
  explicit FilteredAttention(const FilteredOptions& options) : heads_(options.heads), head_dim_(options.head_dim) {}

  void prepare(const BodyPlace& place) override {
    name_ = place.name;
    width_ = place.width;
    check(head_dim_ > 0 || width_ % heads_ == 0, "blocks.heads", "{}: a width of {} does not divide among {} heads; set head_dim", name_,
          width_, heads_);
    if (head_dim_ == 0) head_dim_ = width_ / heads_;
    check(width_ % 2 == 0, "blocks.width", "{}: the filter halves the width, and {} is odd", name_, width_);
    for (auto [map, name] : {std::pair{&query_, "query"}, std::pair{&key_, "key"}, std::pair{&value_, "value"}})
      *map = SiteLinear(place, name, width_, heads_ * head_dim_, false);
    output_ = SiteLinear(place, "output", heads_ * head_dim_, width_, false);
    filter_norm_ = std::make_shared<RmsNorm>(width_, place.norm_eps);
    deviation_ = place.init_deviation;
    if (place.rotary) rotary_.emplace(*place.rotary, head_dim_);
  }

  void declare(const Schema& schema) override {
    for (SiteLinear* map : {&query_, &key_, &value_, &output_}) map->declare(schema);
    const auto convolution = [&](const char* name, int64_t in, int64_t out) -> Filter {
      const Schema place = schema.in(name);
      return {place.add("weight", {out, in, 2}, Role::projection, Init::normal(deviation_)), place.add("bias", {out}, Role::bias, Init::zeros())};
    };
    first_ = convolution("filter_first", width_, width_ / 2);
    second_ = convolution("filter_second", width_ / 2, width_);
    filter_norm_->declare(schema.in("filter_norm"));
  }

  at::Tensor forward(const at::Tensor& x, const Context& context) const override {
    check(context.facts.segments.causal, "blocks.causal", "{}: the filter sees earlier rows only; use it in causal models", name_);
    const PaddedSequences sequences(context.facts.segments);
    const at::Tensor inner = convolve(sequences.spread(x), first_, "first", width_, sequences, context);
    const at::Tensor mixed = sequences.gather(convolve(inner, second_, "second", width_ / 2, sequences, context));
    const at::Tensor rows = filter_norm_->forward(mixed + x, context);
    const at::Tensor both = at::cat({query_(rows, context), key_(rows, context)}, 1).view({x.size(0), heads_, 2 * head_dim_});
    at::Tensor q = both.narrow(2, 0, head_dim_), k = both.narrow(2, head_dim_, head_dim_);
    if (rotary_) {
      const Rotary::Angles angles = rotary_->angles(context.facts, name_, x.scalar_type() == at::kDouble);
      q = rotary_->turn(q, angles);
      k = rotary_->turn(k, angles);
    }
    const at::Tensor v = value_(x, context).view({x.size(0), heads_, head_dim_});
    return output_(attend(q, k, v, context, {.name = name_, .scale = {}}).reshape({x.size(0), heads_ * head_dim_}), context);
  }

  std::vector<StateSpec> states() const override {
    std::vector<StateSpec> list = attend_states(name_, heads_, head_dim_, head_dim_);
    list.push_back(convolution_state(name_ + ".first", width_, 2));
    list.push_back(convolution_state(name_ + ".second", width_ / 2, 2));
    return list;
  }
  Reach reach(const Overrides& overrides, Phase phase) const override {
    Reach reach;
    for (const SiteLinear* map : {&query_, &key_, &value_, &output_}) reach = larger(reach, map->site().reach(overrides, phase));
    return reach;
  }
  void each_child(const std::function<void(Part&)>& visit) override {
    for (const SiteLinear* map : {&query_, &key_, &value_, &output_}) map->site().each_child(visit);
    visit(*filter_norm_);
  }

 private:
  struct Filter { Parameter weight, bias; };

  /// W[:, :, 0] x_{t-1} + W[:, :, 1] x_t + b, zeros before a sequence begins. x: [S, L, in] → [S, L, out].
  at::Tensor convolve(const at::Tensor& x, const Filter& filter, const char* which, int64_t in, const PaddedSequences& sequences,
                      const Context& context) const {
    const std::string state = name_ + "." + which;
    const at::Tensor before = at::cat({sequences.held(context, state, {1, in}, x), x}, 1);
    if (context.state != nullptr) {
      const at::Tensor last = sequences.lengths().view({-1, 1, 1}).expand({-1, 1, in});
      sequences.keep(context, state, before.gather(1, last));
    }
    const at::Tensor& weight = context[filter.weight];
    return kernels::linear(before.narrow(1, 0, x.size(1)), weight.select(2, 0)) + kernels::linear(x, weight.select(2, 1), context[filter.bias]);
  }

  int64_t heads_, head_dim_, width_ = 0;
  std::string name_;
  double deviation_ = 0.02;
  SiteLinear query_, key_, value_, output_;
  Filter first_, second_;
  std::shared_ptr<RmsNorm> filter_norm_;
  std::optional<Rotary> rotary_;
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(filtered_attention) {
  using namespace switchyard;
  registry.add<Body, FilteredAttention, FilteredOptions>(
      {.slug = "filtered-attention", .name = "Attention with a local filter", .paper = "Wu et al., Yuan 2.0", .year = 2023, .section = "4.2.2",
       .room = "blocks", .coupling = "none", .line = "queries and keys from rows that short convolutions mixed with those before",
       .recipe = "recipes/methods/filtered-attention.yaml"});
}
