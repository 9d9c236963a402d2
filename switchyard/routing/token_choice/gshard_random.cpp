// GShard's top-2 gate with random dispatch (Lepikhin et al. 2020): the first expert always, the second
// with probability min(1, w2 / threshold), so that weak second choices spare capacity. The weight of a
// kept second expert stays w2: the estimate is not made unbiased.
#include <ATen/TensorOperators.h>

#include <cmath>

#include "switchyard/routing/select.h"

namespace switchyard {
namespace {

/// What becomes of the experts after a token's first.
enum class SecondPolicy {
  random,
  threshold,
  all,
  none,
  sampling,  ///< always used, and drawn: the best of the others after Gumbel noise on the logits (NLLB Team 2022)
};
/// What the policies look at.
enum class SecondMeasure {
  share,        ///< of the chosen ones' weights, which sum to 1
  probability,  ///< under the softmax over all (NLLB)
};

struct GShardOptions : SelectOptions {
  SecondPolicy policy = SecondPolicy::random;
  SecondPolicy evaluation_policy = SecondPolicy::all;
  SecondMeasure measure = SecondMeasure::share;
  double threshold = 0.5;
  static void describe(Fields<GShardOptions>& f) {
    f.title("GShard top-2 gate", "Two experts a token; a weak second one is skipped at random.");
    const std::vector<std::string> words{"random", "threshold", "all", "none", "sampling"};
    f("policy", &GShardOptions::policy, "when the second expert is used in training: with probability weight / threshold, "
      "above the threshold, always, never, always but drawn by the probabilities of the others").choices(words);
    f("evaluation_policy", &GShardOptions::evaluation_policy, "the same outside training").choices(words);
    f("measure", &GShardOptions::measure, "a second expert's weight: of the two, summing to 1, or its probability among all (NLLB)")
        .choices({"share", "probability"});
    f("threshold", &GShardOptions::threshold, "the weight of a second expert that is surely "
      "used; 0.5 in GShard, 0.2 in Mesh TensorFlow").range(1e-6, 1);
    describe_fields(f);
  }
};

class GShardTop2 : public Router {
 public:
  explicit GShardTop2(GShardOptions options) : options_(std::move(options)), scorer_(options_.scorer.make()) {}

  void declare(const Schema& schema, const RouterSize& size) override {
    check_k(2, size.experts, "gshard-random");
    scorer_->declare(schema, size);
  }

  Engagement route(const RouterInput& input, const Context& context) const override {
    RoutingPrecision precision;
    Gate gate = scorer_->score(input, context);
    const SecondPolicy policy = context.training() ? options_.policy : options_.evaluation_policy;
    if (policy == SecondPolicy::sampling) gate.scores = drawn(gate.logits, context);
    const at::Tensor ids = choose(gate.scores, 2, context);
    const at::Tensor weights = gate.probabilities.gather(1, ids);
    Selection selection = selection_of(ids, weights, std::move(gate), options_.run);
    if (policy != SecondPolicy::all && policy != SecondPolicy::sampling) selection.kept = dispatched(weights.detach(), policy, context).reshape({-1});
    return selection;
  }

  CombineOptions combine() const override { return {.renormalise = Renormalise::before_drop}; }

  double engaged(int64_t) const override { return 2; }

 private:
  /// [units, k] bool from weights [units, k].
  at::Tensor dispatched(const at::Tensor& weights, SecondPolicy policy, const Context& context) const {
    const bool of_all = options_.measure == SecondMeasure::probability;
    const at::Tensor share = of_all ? weights : weights / weights.sum(1, /*keepdim=*/true).clamp_min(1e-9);
    at::Tensor used = share >= options_.threshold;
    if (policy == SecondPolicy::none) used = used.zero_();
    if (policy == SecondPolicy::random) {
      const at::Tensor draw = context.random.uniform(share.sizes(), context.key("router.second"), share.scalar_type());
      used = share > draw.to(share.device()) * options_.threshold;
    }
    used.narrow(1, 0, 1).fill_(true);
    return used;
  }

  /// [units, E]: a token's best logit stays its best, the others get Gumbel noise.
  static at::Tensor drawn(const at::Tensor& logits, const Context& context) {
    const at::Tensor plain = logits.detach();
    const at::Tensor draw = context.random.uniform(plain.sizes(), context.key("router.gumbel"), plain.scalar_type()).to(plain.device());
    const at::Tensor noisy = plain - (-(draw.clamp_min(1e-12).log())).clamp_min(1e-12).log();
    return noisy.scatter(1, plain.argmax(1, /*keepdim=*/true), INFINITY);
  }

  GShardOptions options_;
  std::shared_ptr<Scorer> scorer_;
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(gshard_random) {
  using namespace switchyard;
  registry.add<Router, GShardTop2, GShardOptions>(
      {.slug = "gshard-random", .name = "GShard top-2 gate, random second expert", .paper = "Lepikhin et al., GShard",
       .year = 2020, .section = "4.1.1", .room = "routing/token_choice", .coupling = "none",
       .line = "two experts a token; the second with probability 2·w2", .recipe = "recipes/methods/gshard-random.yaml"});
}
