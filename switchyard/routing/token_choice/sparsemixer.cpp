// SparseMixer-v2 (Liu et al. 2024, GRIN; Phi-3.5-MoE): two experts, each weighed by a softmax over the scores near the best one
// that is left. Training samples them, and their weights get the gradient of a third-order estimate of what sampling does.
// The two weights are not divided by their sum.
#include <ATen/TensorOperators.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>

#include <cmath>

#include "switchyard/base/error.h"
#include "switchyard/routing/select.h"

namespace switchyard {
namespace {

struct SparseMixerOptions : SelectOptions {
  double jitter = 0.01;
  static void describe(Fields<SparseMixerOptions>& f) {
    f.title("SparseMixer gate", "Two experts, sampled in training, each weighed among the scores near the best one left.");
    f("jitter", &SparseMixerOptions::jitter, "scores count that lie within twice this share of the best").range(0, 1);
    describe_fields(f);
  }
};

class SparseMixer : public Router {
 public:
  explicit SparseMixer(SparseMixerOptions options) : options_(std::move(options)), scorer_(options_.scorer.make()) {}

  void declare(const Schema& schema, const RouterSize& size) override {
    check_k(2, size.experts, "sparsemixer");
    scorer_->declare(schema, size);
  }

  Engagement route(const RouterInput& input, const Context& context) const override {
    RoutingPrecision precision;
    Gate gate = scorer_->score(input, context);
    refuse_nan(gate.logits, context);
    const int64_t k = context.wishes().k.value_or(2);
    check(k == 1 || k == 2, "routing.k_range", "{}: sparsemixer engages two experts a token, or one; k is {}", context.place.site, k);
    const bool one = k == 1;
    const auto [first, first_weight] = pick(gate.scores, gate.scores, 0, context);
    const at::Tensor rest = gate.scores.scatter(1, first, -INFINITY);
    const auto [second, second_weight] = pick(gate.scores, rest, 1, context);
    const at::Tensor ids = one ? first : at::cat({first, second}, 1);
    const at::Tensor weights = one ? first_weight : at::cat({first_weight, second_weight}, 1);
    return selection_of(ids, weights, std::move(gate), options_.run);
  }

  double engaged(int64_t) const override { return 2; }

 private:
  /// scores: all [units, E]; left: with -inf at those taken. Returns id and weight, [units, 1].
  std::pair<at::Tensor, at::Tensor> pick(const at::Tensor& scores, const at::Tensor& left, int64_t turn,
                                         const Context& context) const {
    const at::Tensor detached = scores.detach(), best = left.detach().amax(1, /*keepdim=*/true);
    const at::Tensor size = at::where(detached.abs() > best, detached.abs(), best);
    // A score that is taken is -inf in `left` already.
    const at::Tensor far = (best - detached) / size > 2 * options_.jitter;
    const at::Tensor near = left.masked_fill(far, -INFINITY), probability = near.softmax(1);
    const at::Tensor top = best_of(left.detach(), context);
    if (!context.training()) return {top, probability.gather(1, top)};
    const std::string purpose = turn == 0 ? "router.first" : "router.second";
    const at::Tensor draw = context.random.uniform(near.sizes(), context.key(purpose), near.scalar_type()).to(near.device());
    const at::Tensor gumbel = -(-draw.clamp(1e-20, 1 - 1e-7).log()).log();
    const at::Tensor id = best_of(near.detach() + gumbel, context);
    const at::Tensor weight = probability.gather(1, id);
    // A sampled expert that is not the best counts a third, three times in four; the gradient is that of the whole weight.
    const at::Tensor coin = context.random.uniform({id.size(0), 1}, context.key(purpose + ".third"), near.scalar_type()).to(near.device());
    const at::Tensor whole = (id == probability.detach().argmax(1, true)).logical_or(coin > 0.75);
    const at::Tensor share = at::where(whole, at::ones_like(weight), at::full_like(weight, 1.0 / 3)).detach();
    return {id, weight + (share - 1) * weight.detach()};
  }

  /// [units, 1]: the best column, ties to the lower; experts that are not allowed stand at -inf in the scores already.
  static at::Tensor best_of(const at::Tensor& scores, const Context& context) {
    check(!context.wishes().forced.defined(), "routing.forced", "{}: sparsemixer draws its experts and cannot be told them",
          context.place.site);
    return kernels::top_k(scores, 1).indices;
  }

  SparseMixerOptions options_;
  std::shared_ptr<Scorer> scorer_;
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(sparsemixer) {
  using namespace switchyard;
  registry.add<Router, SparseMixer, SparseMixerOptions>(
      {.slug = "sparsemixer", .name = "SparseMixer-v2", .paper = "Liu et al., GRIN: Gradient-informed MoE", .year = 2024,
       .section = "beyond", .room = "routing/token_choice", .coupling = "none",
       .line = "two experts, sampled in training, with a third-order estimate of the gradient; weights up to 1 each",
       .recipe = "recipes/methods/sparsemixer.yaml"});
}
