// Random routing (Zuo et al. 2021, THOR): no gate at all, experts are drawn uniformly. In training one
// draw serves a whole batch, as in the authors' code; two passes of a step draw independently.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include "switchyard/routing/fixed/hash.h"
#include "switchyard/routing/select.h"

namespace switchyard {
namespace {

/// What shares a draw. `mean` draws nothing: every expert with equal weight.
enum class DrawFor { batch, sequence, token, mean };

struct RandomOptions {
  DrawFor draw = DrawFor::batch;
  DrawFor evaluation_draw = DrawFor::token;
  static void describe(Fields<RandomOptions>& f) {
    f.title("Random routing", "One uniformly random expert.");
    const std::vector<std::string> words{"batch", "sequence", "token", "mean"};
    f("draw", &RandomOptions::draw, "what shares one draw in training; mean = all experts, averaged").choices(words);
    f("evaluation_draw", &RandomOptions::evaluation_draw, "the same outside training").choices(words);
  }
};

class RandomRouting : public Router {
 public:
  explicit RandomRouting(RandomOptions options) : options_(options) {}

  void declare(const Schema&, const RouterSize& size) override { experts_ = size.experts; }

  Engagement route(const RouterInput& input, const Context& context) const override {
    const at::TensorOptions options = routing_rows(input.x).options().requires_grad(false);
    const DrawFor draw = context.training() ? options_.draw : options_.evaluation_draw;
    const int64_t rows = input.x.size(0);
    if (draw == DrawFor::mean) return select_all(at::full({rows, experts_}, 1.0 / static_cast<double>(experts_), options));
    const at::Tensor expert = hash_ids(drawn_for(draw, rows, context), context.random.word(context.key("router.draw")), experts_);
    return select_pairs(expert.to(input.x.device()).unsqueeze(1), at::ones({rows, 1}, options), experts_);
  }

  /// Draws by sequence go by its number in the batch.
  Reach reach(const Overrides&, Phase phase) const override {
    const DrawFor draw = phase == Phase::train ? options_.draw : options_.evaluation_draw;
    if (draw != DrawFor::sequence) return {};
    return {Reach::Unit::batch, false, "numbering sequences (random-routing)"};
  }

  double engaged(int64_t experts) const override { return options_.evaluation_draw == DrawFor::mean ? static_cast<double>(experts) : 1; }

 private:
  /// [T] int64: rows with equal numbers share a draw. Outside training a token goes by its position, so that a
  /// sequence is routed alike alone and in a batch.
  static at::Tensor drawn_for(DrawFor draw, int64_t rows, const Context& context) {
    if (draw == DrawFor::batch) return at::zeros({rows}, at::kLong);
    if (draw == DrawFor::sequence) return context.facts.row("segment", "random-routing");
    return context.training() ? at::arange(rows, at::kLong) : context.facts.row("position", "random-routing");
  }

  RandomOptions options_;
  int64_t experts_ = 0;
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(random_routing) {
  using namespace switchyard;
  registry.add<Router, RandomRouting, RandomOptions>(
      {.slug = "random-routing", .name = "Random routing", .paper = "Zuo et al., Taming sparsely activated transformers with stochastic experts",
       .year = 2021, .section = "4.1.1", .room = "routing/fixed", .coupling = "none", .line = "one uniformly random expert, no gate",
       .recipe = "recipes/methods/random-routing.yaml"});
}
