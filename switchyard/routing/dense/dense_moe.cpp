// The dense mixture (survey eq. 1-2): every expert runs on every token and the outputs are added with
// softmax weights. What every sparse path is checked against.
#include "switchyard/routing/select.h"

namespace switchyard {
namespace {

struct DenseOptions : SelectOptions {
  DenseOptions() { run = Run::gated; }
  static void describe(Fields<DenseOptions>& f) {
    f.title("Dense gate", "Every expert runs on every token, weighted by the softmax over all.");
    describe_fields(f);
  }
};

class DenseMoe : public Router {
 public:
  explicit DenseMoe(DenseOptions options) : options_(std::move(options)), scorer_(options_.scorer.make()) {}

  void declare(const Schema& schema, const RouterSize& size) override { scorer_->declare(schema, size); }

  Engagement route(const RouterInput& input, const Context& context) const override {
    RoutingPrecision precision;
    return selection_of_all(scorer_->score(input, context), options_.run, context);
  }

 private:
  DenseOptions options_;
  std::shared_ptr<Scorer> scorer_;
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(dense_moe) {
  using namespace switchyard;
  registry.add<Router, DenseMoe, DenseOptions>(
      {.slug = "dense-moe", .name = "Dense MoE layer", .paper = "Jacobs et al., Adaptive mixtures of local experts",
       .year = 1991, .section = "2.1", .room = "routing/dense", .coupling = "none",
       .line = "every expert runs on every token, added with softmax weights", .recipe = "recipes/methods/dense-moe.yaml"});
}
