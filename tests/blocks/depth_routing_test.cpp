// Mixture of Depths: proofs.
#include "switchyard/base/differentiable.h"
#include "switchyard/blocks/depth_routing.h"

#include "switchyard/base/registry.h"
#include "switchyard/layer/layer_losses.h"
#include "tests/models/decoder_support.h"

namespace switchyard::testing {
namespace {

/// The method alone around a given call, its score weight set by hand.
struct Depth {
  Depth(double capacity, const at::Tensor& weight, double auxiliary = 0.01)
      : around({.capacity = capacity, .auxiliary = auxiliary}) {
    around.declare(schema, {.site = "layers.0", .layer = 0, .in = weight.size(0), .out = weight.size(0)});
    schema.all()[0].bind(weight.clone().unsqueeze(0));
  }
  DepthRouting around;
  Schema schema;
};

const Base kTimesThree = [](const at::Tensor& x, const Context&) { return x * 3; };

TEST(Catalogue, mod_with_all_tokens_at_weight_one_is_the_block) {
  at::Tensor x = randn({12, 5}, 1);
  x.select(1, 0).fill_(1);
  at::Tensor weight = at::zeros({5}, at::kDouble);
  weight[0] = 1;  // every score is exactly 1
  const Depth depth(1, weight);
  const Pass pass(12, 3);
  EXPECT_LT(difference(depth.around.call(x, kTimesThree, pass.context), x * 3), 1e-12);
}

TEST(Catalogue, mod_without_places_is_the_identity) {
  const Depth depth(0, randn({5}, 2));
  const Pass pass(12, 3);
  const at::Tensor x = randn({12, 5}, 1);
  EXPECT_TRUE(at::equal(depth.around.call(x, kTimesThree, pass.context), x));
}

TEST(Catalogue, mod_runs_exactly_the_best_tokens_of_each_sequence) {
  const at::Tensor weight = randn({5}, 2);
  const Depth depth(0.25, weight);
  Segments segments;
  segments.begin = {0, 8, 8, 20, 21};  // 8, 0, 12 and 1 rows: 2, 0, 3 and 1 places
  const Facts facts(segments);
  const Streams random(1);
  const Context context{.facts = facts, .random = random};
  at::Tensor x = randn({21, 5}, 1);
  x.narrow(0, 0, 8).copy_(x[0].expand({8, 5}));  // ties: the first ones go
  std::vector<int64_t> seen;
  at::Tensor positions;
  const at::Tensor y = depth.around.call(
      x,
      [&](const at::Tensor& rows, const Context& inner) {
        for (int64_t s = 0; s < inner.facts.segments.count(); ++s) seen.push_back(inner.facts.segments.length(s));
        positions = inner.facts.row("position", "test");
        return rows * 3;
      },
      context);
  EXPECT_EQ(seen, (std::vector<int64_t>{2, 0, 3, 1}));
  EXPECT_TRUE(at::equal(positions.narrow(0, 0, 2), at::arange(2)));
  const at::Tensor scores = at::mv(x, weight);
  at::Tensor chosen = at::zeros({21}, at::kBool);
  chosen[0] = chosen[1] = chosen[20] = true;
  const at::Tensor best = std::get<1>(scores.narrow(0, 8, 12).topk(3)) + 8;
  chosen.index_fill_(0, best, true);
  EXPECT_TRUE(at::equal(positions.narrow(0, 2, 3), std::get<0>(best.sort()) - 8));
  // x + r (f(x) − x) for the chosen; the rest bit for bit.
  EXPECT_LT(difference(y, at::where(chosen.unsqueeze(1), x + scores.unsqueeze(1) * (x * 2), x)), 1e-12);
  EXPECT_TRUE(at::equal(y.index({chosen.logical_not()}), x.index({chosen.logical_not()})));
}

TEST(Catalogue, mod_gives_its_score_gradient_through_chosen_tokens_alone) {
  const Depth depth(0.5, randn({4}, 2), /*auxiliary=*/0);
  const Pass pass(6, 1, Phase::train);
  const at::Tensor x = randn({6, 4}, 1).requires_grad_();
  expect_gradients([&] { return depth.around.call(x, kTimesThree, pass.context); },
                   {depth.schema.all()[0].tensor(), x});
  const at::Tensor score_gradient = depth.schema.all()[0].tensor().grad().squeeze(0);
  // d/dw Σ g·(x + r·2x) = Σ over chosen (g·2x) x.
  const at::Tensor g = randn({6, 4}, 99), scores = at::mv(x, depth.schema.all()[0].tensor().squeeze(0));
  at::Tensor mask = at::zeros({6}, at::kDouble).index_fill_(0, std::get<1>(scores.topk(3)), 1);
  const at::Tensor expected = at::mv((x * (mask * (g * 2 * x).sum(1)).unsqueeze(1)).t(), at::ones({6}, at::kDouble));
  EXPECT_LT(difference(score_gradient, expected), 1e-12);
}

TEST(Catalogue, mod_auxiliary_loss_is_the_cross_entropy_of_being_chosen) {
  const at::Tensor weight = randn({4}, 2);
  const Depth depth(0.5, weight, 0.25);
  Pass pass(6, 1, Phase::train);
  const at::Tensor x = randn({6, 4}, 1);
  (void)depth.around.call(x, kTimesThree, pass.context);
  ASSERT_EQ(pass.records.all().size(), 1u);
  const at::Tensor p = at::mv(x, weight).sigmoid();
  const at::Tensor chosen = at::zeros({6}, at::kDouble).index_fill_(0, std::get<1>(p.topk(3)), 1);
  const at::Tensor expected = -(chosen * p.log() + (1 - chosen) * (1 - p).log()).mean() * 0.25;
  EXPECT_LT(difference(pass.records.all()[0].losses.at("mod"), expected), 1e-12);
  Pass evaluation(6);
  (void)depth.around.call(x, kTimesThree, evaluation.context);
  EXPECT_TRUE(evaluation.records.all().empty());
}

TEST(Catalogue, mod_looks_ahead_in_training_and_not_in_generation) {
  const Depth depth(0.5, randn({4}, 2));
  const Reach training = depth.around.reach({}, Phase::train);
  EXPECT_TRUE(training.future);
  EXPECT_THAT(training.because, ::testing::HasSubstr("layers.0"));
  EXPECT_FALSE(depth.around.reach({}, Phase::generate).future);
}

const char* const kDepthModel =
    "{vocabulary: 29, width: 16, layers: 3, attention: {type: gqa, heads: 4, kv_heads: 2}, "
    "sites: [{at: block, layers: {list: [1]}, around: {type: mod, capacity: 0.5}}]}";

TEST(Catalogue, mod_generates_by_the_sign_of_the_score_with_a_shorter_cache) {
  const auto decoder = make_decoder(kDepthModel);
  const at::Tensor first = some_ids(9, 29, 1), second = some_ids(7, 29, 2);
  // The rule r > 0 looks at the token alone, so one pass, a prefill with steps, and company agree.
  ContiguousState whole, steps;
  const at::Tensor at_once = run_cached(*decoder, first, {9}, {0}, whole, {0});
  at::Tensor y = run_cached(*decoder, at::cat({first.narrow(0, 0, 4), second.narrow(0, 0, 2)}), {4, 2}, {0, 0}, steps);
  EXPECT_LT(difference(y.narrow(0, 0, 4), at_once.narrow(0, 0, 4)), 1e-12);
  for (int64_t t = 4; t < 9; ++t) {
    y = run_cached(*decoder, first.narrow(0, t, 1), {1}, {t}, steps, {0});
    EXPECT_LT(difference(y, at_once.narrow(0, t, 1)), 1e-12) << t;
  }
  const int64_t held = steps.length("layers.1.attention.key", 0);
  EXPECT_EQ(held, whole.length("layers.1.attention.key", 0));
  EXPECT_GT(held, 0);
  EXPECT_LT(held, 9);
  EXPECT_EQ(steps.length("layers.0.attention.key", 0), 9);
}

TEST(Catalogue, mod_learns_to_predict_its_own_choice) {
  // Only the score trains, by the auxiliary loss alone: afterwards r > 0 chooses what the best C of the sequence choose.
  // In long sequences, that is: a threshold cannot know how many good tokens a short one happens to hold.
  const at::Tensor x = at::cat({randn({2048, 3}, 1, at::kFloat), at::ones({2048, 1})}, 1);
  const Depth depth(0.25, at::full({4}, 0.1f), 1);
  const at::Tensor weight = depth.schema.all()[0].tensor();
  const Pass shape(2048, 8, Phase::train);
  for (int step = 0; step < 400; ++step) {
    Pass pass(2048, 8, Phase::train);
    (void)depth.around.call(x, kTimesThree, pass.context);
    const at::Tensor gradient = gradients({pass.records.all()[0].losses.at("mod")}, {weight})[0];
    at::NoGradGuard guard;
    weight.sub_(gradient, 2.0);
  }
  const at::Tensor scores = at::mv(x, weight.squeeze(0)).detach();
  const at::Tensor best = at::zeros({8, 256}).scatter_(1, std::get<1>(scores.view({8, 256}).topk(64, 1)), 1);
  const double agreement = (best.view({-1}) == (scores > 0).to(at::kFloat)).to(at::kFloat).mean().item<double>();
  EXPECT_GT(agreement, 0.97);
}

TEST(DepthRouting, AroundAWholeModelWithGradients) {
  const auto decoder = make_decoder(
      "{vocabulary: 7, width: 4, layers: 1, attention: {type: gqa, heads: 2}, feed_forward: {type: feed-forward, hidden: 3}, "
      "sites: [{at: block, around: {type: mod, capacity: 0.5}}]}", at::kDouble, 30);
  EXPECT_EQ(decoder->schema().find("layers.0.around.router.weight").spec().shape, (std::vector<int64_t>{1, 4}));
  std::vector<at::Tensor> leaves;
  for (const Parameter& parameter : decoder->schema().all()) leaves.push_back(parameter.tensor());
  const at::Tensor ids = some_ids(6, 7);
  expect_gradients([&] { return run_logits(*decoder, ids, {4, 2}); }, leaves, 1e-5);
  EXPECT_EQ(run_logits(*decoder, at::empty({0}, at::kLong), {0}).sizes(), (std::vector<int64_t>{0, 7}));
}

}  // namespace
}  // namespace switchyard::testing
