// Noisy top-k gating (Shazeer et al. 2017, eq. 3-5): Gaussian noise with a learned, token-dependent scale
// an expert joins the logits in training, so that balance losses can see how near a choice was.
#include <ATen/TensorOperators.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/softplus.h>

#include "switchyard/routing/select.h"

namespace switchyard {
namespace {

struct NoisyTopKOptions : SelectOptions {
  int64_t k = 2;
  double floor = 0;
  /// All experts begin tied: the paper starts both maps at zero.
  NoisyTopKOptions() { scorer.options["deviation"] = Node("0"); }
  static void describe(Fields<NoisyTopKOptions>& f) {
    f.title("Noisy top-k gate", "The k best logits after learned Gaussian noise engage their experts.");
    f("k", &NoisyTopKOptions::k, "experts that a token engages").range(1, 1 << 20);
    f("floor", &NoisyTopKOptions::floor, "added to the noise's standard deviation (0.01 in public ports)").range(0);
    describe_fields(f);
  }
};

class NoisyTopK : public Router {
 public:
  explicit NoisyTopK(NoisyTopKOptions options) : options_(std::move(options)), scorer_(options_.scorer.make()) {}

  void declare(const Schema& schema, const RouterSize& size) override {
    check_k(options_.k, size.experts, "noisy-topk");
    scorer_->declare(schema, size);
    noise_ = schema.add("noise", {size.experts, size.width}, Role::router, Init::zeros(), 0);
  }

  Engagement route(const RouterInput& input, const Context& context) const override {
    RoutingPrecision precision;
    Gate gate = scorer_->score(input, context);
    if (context.training()) {
      gate.noise_std = at::softplus(router_logits(input.x, context[noise_])) + options_.floor;
      const at::Tensor draw =
          context.random.normal(gate.scores.sizes(), context.key("router.noise"), gate.scores.scalar_type());
      gate.scores = gate.scores + draw.to(gate.scores.device()) * gate.noise_std;
    }
    const at::Tensor ids = choose(gate.scores, options_.k, context);
    const at::Tensor weights = kept_softmax(gate.scores, ids);
    return selection_of(ids, weights, std::move(gate), options_.run);
  }

  double engaged(int64_t) const override { return static_cast<double>(options_.k); }

 private:
  NoisyTopKOptions options_;
  std::shared_ptr<Scorer> scorer_;
  Parameter noise_;
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(noisy_topk) {
  using namespace switchyard;
  registry.add<Router, NoisyTopK, NoisyTopKOptions>(
      {.slug = "noisy-topk", .name = "Noisy top-k gate", .paper = "Shazeer et al., Outrageously large neural networks",
       .year = 2017, .section = "4.1.1", .room = "routing/token_choice", .coupling = "none",
       .line = "top-k after Gaussian noise whose scale is learned for each token and expert",
       .recipe = "recipes/methods/noisy-topk.yaml"});
}
