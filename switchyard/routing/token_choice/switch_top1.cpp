// Switch routing: one expert a token, its output scaled by its probability under the full softmax,
// so that the gate keeps a gradient; the gate alone sees jittered rows in training.
#include "switchyard/routing/select.h"

namespace switchyard {
namespace {

struct SwitchOptions : SelectOptions {
  double jitter = 0.01;
  static void describe(Fields<SwitchOptions>& f) {
    f.title("Switch routing", "One expert a token, scaled by its probability.");
    f("jitter", &SwitchOptions::jitter, "half-width of the noise that multiplies what the gate sees in training").range(0, 1);
    describe_fields(f);
  }
};

class SwitchTop1 : public Router {
 public:
  explicit SwitchTop1(SwitchOptions options) : options_(std::move(options)), scorer_(options_.scorer.make()) {}

  void declare(const Schema& schema, const RouterSize& size) override { scorer_->declare(schema, size); }

  Engagement route(const RouterInput& input, const Context& context) const override {
    RoutingPrecision precision;
    const at::Tensor x = jittered(routing_rows(input.x), options_.jitter, context);
    Gate gate = scorer_->score({x, input.dense_outputs}, context);
    const at::Tensor ids = choose(gate.scores, 1, context);
    const at::Tensor weights = gate.probabilities.gather(1, ids);
    return selection_of(ids, weights, std::move(gate), options_.run);
  }

  double engaged(int64_t) const override { return 1; }

 private:
  SwitchOptions options_;
  std::shared_ptr<Scorer> scorer_;
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(switch_top1) {
  using namespace switchyard;
  registry.add<Router, SwitchTop1, SwitchOptions>(
      {.slug = "switch-top1", .name = "Switch routing", .paper = "Fedus et al., Switch Transformers", .year = 2021,
       .section = "4.1.1", .room = "routing/token_choice", .coupling = "none",
       .line = "one expert a token, scaled by its probability", .recipe = "recipes/methods/switch-top1.yaml"});
}
