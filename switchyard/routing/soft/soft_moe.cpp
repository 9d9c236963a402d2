// Soft MoE (Puigcerver et al. 2023): tokens are mixed into slots by a softmax over the group's tokens,
// experts work on slots, and each token reads a softmax mixture of all slots' outputs. Nothing is chosen,
// nothing is dropped, and every token sees the whole group: not for causal models.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "switchyard/base/registry.h"
#include "switchyard/kernels/permutation.h"
#include "switchyard/routing/gate.h"
#include "switchyard/routing/router.h"

namespace switchyard {
namespace {

struct SoftOptions {
  int64_t slots = 1;
  int64_t chunk = 0;
  bool normalise = true;
  double noise = 0;
  static void describe(Fields<SoftOptions>& f) {
    f.title("Soft MoE", "Tokens are mixed into slots, experts work on slots, tokens read mixtures of slots.");
    f("slots", &SoftOptions::slots, "slots an expert").range(1, 1 << 20);
    f("chunk", &SoftOptions::chunk, "tokens that are mixed with one another; 0 = a sequence").range(0, 1 << 30).unit("tokens");
    f("normalise", &SoftOptions::normalise, "unit-length tokens and slot vectors with a trained scale, in place of plain products");
    f("noise", &SoftOptions::noise, "standard deviation of Gaussian noise on the logits in training").range(0, 100);
  }
};

/// x over its Euclidean norm along the last dimension.
at::Tensor unit_length(const at::Tensor& x) { return x * (x.square().sum(-1, /*keepdim=*/true) + 1e-6).rsqrt(); }

/// [G, t] int64: the rows of each chunk of each segment, padded with -1 to the longest.
at::Tensor members_of(const Segments& segments, int64_t chunk) {
  std::vector<std::pair<int64_t, int64_t>> groups;
  int64_t longest = 0;
  for (int64_t s = 0; s < segments.count(); ++s)
    for (int64_t begin = segments.begin[s]; begin < segments.begin[s + 1];) {
      const int64_t end = chunk > 0 ? std::min(begin + chunk, segments.begin[s + 1]) : segments.begin[s + 1];
      groups.emplace_back(begin, end);
      longest = std::max(longest, end - begin);
      begin = end;
    }
  at::Tensor members = at::full({static_cast<int64_t>(groups.size()), longest}, -1, at::kLong);
  int64_t* row = members.mutable_data_ptr<int64_t>();
  for (size_t g = 0; g < groups.size(); ++g)
    for (int64_t r = groups[g].first; r < groups[g].second; ++r) row[g * longest + (r - groups[g].first)] = r;
  return members;
}

class SoftMoe : public Router {
 public:
  explicit SoftMoe(SoftOptions options) : options_(options) {}

  void declare(const Schema& schema, const RouterSize& size) override {
    experts_ = size.experts;
    // LeCun's initial scale, 1/√D.
    const double deviation = 1 / std::sqrt(static_cast<double>(std::max<int64_t>(size.width, 1)));
    weight_ = schema.add("weight", {size.experts, options_.slots, size.width}, Role::router, Init::normal(deviation), 0);
    if (options_.normalise) scale_ = schema.add("scale", {}, Role::router, Init::ones());
  }

  Engagement route(const RouterInput& input, const Context& context) const override {
    RoutingPrecision precision;
    refuse_generation(context, "soft-moe", "mixes all tokens of a sequence");
    const int64_t slots = experts_ * options_.slots;
    TokenBlend blend;
    blend.experts = experts_;
    blend.members = members_of(context.facts.segments, options_.chunk).to(input.x.device());
    blend.slot_expert = at::arange(experts_, blend.members.options()).repeat_interleave(options_.slots);
    const at::Tensor logits = kernels::gather_rows(this->logits(input.x, slots, context), blend.members.clamp_min(0).reshape({-1}))
                                  .view({blend.members.size(0), blend.members.size(1), slots});
    const at::Tensor padding = (blend.members < 0).unsqueeze(2);
    blend.dispatch = logits.masked_fill(padding, -std::numeric_limits<double>::infinity()).softmax(1);
    blend.combine = masked(logits, context, blend.slot_expert).softmax(2).masked_fill(padding, 0);
    return blend;
  }

  Reach reach(const Overrides&, Phase) const override {
    return {Reach::Unit::sequence, true, "mixing the tokens of a sequence (soft-moe)"};
  }

 private:
  /// [T, slots]
  at::Tensor logits(const at::Tensor& rows, int64_t slots, const Context& context) const {
    at::Tensor x = routing_rows(rows);
    at::Tensor weight = context[weight_].view({slots, -1});
    if (options_.normalise) {
      x = unit_length(x);
      weight = unit_length(routing_rows(weight)) * context[scale_];
    }
    at::Tensor logits = router_logits(x, weight);
    refuse_nan(logits, context);
    if (context.training() && options_.noise > 0)
      logits = logits + options_.noise * context.random.normal(logits.sizes(), context.key("router.noise"), logits.scalar_type())
                                             .to(logits.device());
    return logits;
  }

  /// Slots of experts that the overrides do not allow are read by nobody.
  static at::Tensor masked(const at::Tensor& logits, const Context& context, const at::Tensor& slot_expert) {
    const at::Tensor& allowed = context.wishes().allowed;
    if (!allowed.defined()) return logits;
    const at::Tensor lost = allowed.to(slot_expert.device()).index_select(0, slot_expert).logical_not();
    return logits.masked_fill(lost, -std::numeric_limits<double>::infinity());
  }

  SoftOptions options_;
  int64_t experts_ = 0;
  Parameter weight_, scale_;
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(soft_moe) {
  using namespace switchyard;
  registry.add<Router, SoftMoe, SoftOptions>(
      {.slug = "soft-moe", .name = "Soft MoE", .paper = "Puigcerver et al., From sparse to soft mixtures of experts", .year = 2023,
       .section = "4.1.3", .room = "routing/soft", .coupling = "sequence",
       .line = "experts work on slots, each a mixture of all tokens of a sequence", .recipe = "recipes/methods/soft-moe.yaml"});
}
