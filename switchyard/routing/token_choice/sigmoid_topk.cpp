// The DeepSeek-V3 gate (2024): sigmoid affinities; a bias joins them for selection only, so that a
// controller can balance the load without a gradient; weights come from the affinities alone. Optionally
// only experts of a token's best groups (nodes) may be chosen.
#include <ATen/TensorOperators.h>

#include <algorithm>

#include "switchyard/base/error.h"
#include "switchyard/routing/select.h"

namespace switchyard {
namespace {

struct SigmoidTopKOptions : SelectOptions {
  int64_t k = 2;
  int64_t groups = 1;
  int64_t chosen_groups = 1;
  int64_t group_best = 0;
  bool bias = true;
  static void describe(Fields<SigmoidTopKOptions>& f) {
    f.title("Sigmoid top-k gate", "The k best sigmoid affinities, shifted by a balancing bias, engage their experts.");
    f("k", &SigmoidTopKOptions::k, "experts that a token engages").range(1, 1 << 20);
    f("groups", &SigmoidTopKOptions::groups, "equal groups (nodes) of consecutive experts").range(1, 1 << 20);
    f("chosen_groups", &SigmoidTopKOptions::chosen_groups, "groups that a token may reach").range(1, 1 << 20);
    f("group_best", &SigmoidTopKOptions::group_best, "a group's score is the sum of so many of its best affinities "
      "(1 = the best alone, as in DeepSeek-V2); 0 = k / chosen_groups").range(0, 1 << 20);
    f("bias", &SigmoidTopKOptions::bias, "a bias joins the affinities for selection only, for a controller to move");
    describe_fields(f);
  }
};

class SigmoidTopK : public Router {
 public:
  explicit SigmoidTopK(SigmoidTopKOptions options) : options_(std::move(options)), scorer_(options_.scorer.make()) {}

  void declare(const Schema& schema, const RouterSize& size) override {
    const auto& o = options_;
    check_k(o.k, size.experts, "sigmoid-topk");
    const int64_t group = size.experts / o.groups;
    check(size.experts % o.groups == 0 && o.chosen_groups <= o.groups && o.k <= o.chosen_groups * group && best() <= group,
          "routing.group_range", "sigmoid-topk: {} experts in {} groups, of which a token reaches {} scored by their {} best: "
          "groups must divide the experts, and the reached ones must hold k = {}", size.experts, o.groups, o.chosen_groups,
          best(), o.k);
    scorer_->declare(schema, size);
    if (o.bias) bias_ = schema.buffer("bias", {size.experts}, Init::zeros(), at::kFloat);
  }

  Engagement route(const RouterInput& input, const Context& context) const override {
    RoutingPrecision precision;
    Gate gate = scorer_->score(input, context);
    const at::Tensor affinity = gate.logits.sigmoid();
    gate.scores = mask_experts(bias_ ? affinity + context[bias_].to(affinity.options()) : affinity, context);
    gate.probabilities = affinity / affinity.sum(1, /*keepdim=*/true).clamp_min(1e-20);
    std::optional<kernels::GroupLimit> limit;
    if (options_.groups > 1) limit = {options_.groups, options_.chosen_groups, best()};
    const at::Tensor ids = choose(gate.scores, options_.k, context, limit);
    return selection_of(ids, affinity.gather(1, ids), std::move(gate), options_.run);
  }

  /// One expert keeps its affinity: a weight of 1 would leave the gate without a gradient.
  CombineOptions combine() const override {
    return {.renormalise = options_.k > 1 ? Renormalise::before_drop : Renormalise::never};
  }

  double engaged(int64_t) const override { return static_cast<double>(options_.k); }

 private:
  int64_t best() const {
    return options_.group_best > 0 ? options_.group_best : std::max<int64_t>(1, options_.k / options_.chosen_groups);
  }
  SigmoidTopKOptions options_;
  std::shared_ptr<Scorer> scorer_;
  Parameter bias_;
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(sigmoid_topk) {
  using namespace switchyard;
  registry.add<Router, SigmoidTopK, SigmoidTopKOptions>(
      {.slug = "sigmoid-topk", .name = "Sigmoid gate with a selection bias", .paper = "DeepSeek-AI, DeepSeek-V3", .year = 2024,
       .section = "beyond", .room = "routing/token_choice", .coupling = "none",
       .line = "sigmoid affinities choose with a balancing bias and weigh without it",
       .recipe = "recipes/methods/sigmoid-topk.yaml"});
  registry.add_card({.slug = "node-limited", .name = "Node-limited routing", .paper = "DeepSeek-AI, DeepSeek-V3", .year = 2024,
                     .section = "beyond", .room = "routing/token_choice", .coupling = "none",
                     .line = "a token reaches only its best groups of experts: sigmoid-topk with groups",
                     .recipe = "recipes/methods/node-limited.yaml"});
}
