// Token-choice routers against numbers worked out by hand.
#include "tests/routing/gate_fixture.h"

#include <cmath>

#include "switchyard/layer/moe_layer.h"
#include "switchyard/routing/select.h"

namespace switchyard {
namespace {

using namespace testing;

const at::Tensor kFixtureTop2 =
    values({.7310585786, .2689414214, 0, .2689414214, .7310585786, 0, .8807970780, 0, .1192029220, .8175744762, 0, .1824255238}, 4);

MoeOptions mixture(const std::string& yaml) { return read_options<MoeOptions>(parse_yaml(yaml, "test")); }

struct ChoiceLayer {
  explicit ChoiceLayer(const std::string& yaml, int64_t width = 4) : layer(mixture(yaml), width, width) {
    layer.declare(schema.in("moe"));
    initialise(schema, Streams(3), at::kDouble);
    at::NoGradGuard guard;
    for (const Parameter& p : schema.all())
      if (!p.spec().buffer) p.tensor().copy_(randn(p.spec().shape, stable_hash(p.name())));
  }
  at::Tensor grad_of_router() const { return schema.find("moe.router.weight").tensor().grad(); }
  Schema schema;
  MoeLayer layer;
};

TEST(Catalogue, sparse_topk_weights_of_the_fixture) {
  GateFixture f("sparse-topk", "{k: 2}", 3);
  Pass pass(4);
  const Selection s = f.select(fixture_logits(), pass.context);
  EXPECT_LT(difference(f.weights(fixture_logits(), pass.context), kFixtureTop2), 1e-9);
  EXPECT_TRUE(s.expert.equal(ids({0, 1, 1, 0, 0, 2, 0, 2})));  // best first
  EXPECT_TRUE(s.rank.equal(ids({0, 1, 0, 1, 0, 1, 0, 1})));
  EXPECT_EQ(pair_counts(s, false).sum().item<int64_t>(), 2 * 4);  // k / E of the rows an expert would see
}

TEST(Catalogue, sparse_topk_kept_softmax_is_the_renormalised_full_softmax) {
  const at::Tensor logits = randn({50, 8}, 3);
  Pass pass(50);
  const GateFixture kept("sparse-topk", "{k: 3}", 8), all("sparse-topk", "{k: 3, softmax: all}", 8);
  Selection s = all.select(logits, pass.context);
  const at::Tensor raw = s.weight;
  s.weight = combine_weights(s, {.renormalise = Renormalise::before_drop}, Phase::train);
  EXPECT_LT(difference(kept.weights(logits, pass.context), dense_weights(s)), 1e-12);
  EXPECT_LT(raw.view({-1, 3}).sum(1).max().item<double>(), 1);
}

TEST(Catalogue, sparse_topk_with_every_expert_is_the_dense_mixture) {
  const std::string rest = "experts: 5, expert: {type: gelu, hidden: 3}}";
  const ChoiceLayer sparse("{router: {type: sparse-topk, k: 5}, " + rest), dense("{router: dense-moe, " + rest);
  Pass pass(9);
  const at::Tensor x = randn({9, 4}, 2);
  EXPECT_LT(difference(sparse.layer.forward(x, pass.context), dense.layer.forward(x, pass.context)), 1e-12);
}

TEST(Catalogue, combine_order_hand_case) {
  Pass pass(1);
  const at::Tensor g = values({2, 1, 0}, 1);
  const GateFixture kept("sparse-topk", "{k: 2}", 3), all("sparse-topk", "{k: 2, softmax: all}", 3);
  EXPECT_LT(difference(kept.weights(g, pass.context), values({.7310585786, .2689414214, 0}, 1)), 1e-9);
  EXPECT_LT(difference(all.weights(g, pass.context), values({.6652409558, .2447284711, 0}, 1)), 1e-9);
  Selection s = all.select(g, pass.context);
  s.weight = combine_weights(s, {.renormalise = Renormalise::before_drop}, Phase::train);
  EXPECT_LT(difference(dense_weights(s), kept.weights(g, pass.context)), 1e-12);
  const GateFixture every("sparse-topk", "{k: 3, softmax: all}", 3), every_kept("sparse-topk", "{k: 3}", 3);
  EXPECT_LT(difference(every.weights(g, pass.context), every_kept.weights(g, pass.context)), 1e-12);
}

TEST(Catalogue, combine_order_renormalised_softmax_has_the_gradient_of_the_kept_one) {
  Pass pass(6);
  const at::Tensor weigh = randn({6, 5}, 4);
  std::vector<at::Tensor> gradients;
  for (const char* softmax : {"kept", "all"}) {
    const GateFixture f("sparse-topk", std::string("{k: 2, softmax: ") + softmax + "}", 5);
    at::Tensor x = randn({6, 5}, 1).requires_grad_();
    Selection s = f.select(x, pass.context);
    s.weight = combine_weights(s, {.renormalise = Renormalise::before_drop}, Phase::train);
    (dense_weights(s) * weigh).sum().backward();
    gradients.push_back(x.grad());
  }
  EXPECT_LT(difference(gradients[0], gradients[1]), 1e-12);
}

TEST(Catalogue, combine_order_one_expert_with_a_sum_of_one_kills_the_gradient) {
  Pass pass(5, 1, Phase::train);
  const at::Tensor x = randn({5, 4}, 1);
  for (const char* dead : {"{router: {type: sparse-topk, k: 1}, experts: 3, expert: {type: gelu, hidden: 3}}",
                           "{router: {type: sparse-topk, k: 1, softmax: all}, combine: {renormalise: before_drop}, experts: 3, "
                           "expert: {type: gelu, hidden: 3}}"}) {
    const ChoiceLayer layer(dead);
    const Error error = expect_error([&] { layer.layer.forward(x, pass.context); });
    EXPECT_EQ(error.code(), "routing.dead_gate");
    EXPECT_NE(error.message().find("softmax: all"), std::string::npos);
  }
  // Trained by a loss, it is allowed; the task alone gives the gate exactly nothing.
  const ChoiceLayer taught("{router: {type: sparse-topk, k: 1}, losses: [lb-loss], experts: 3, expert: {type: gelu, hidden: 3}}");
  taught.layer.forward(x, pass.context).square().sum().backward();
  EXPECT_FALSE(taught.grad_of_router().defined() && taught.grad_of_router().abs().max().item<double>() > 0);
  // Raw probabilities keep it alive.
  const ChoiceLayer alive("{router: {type: sparse-topk, k: 1, softmax: all}, experts: 3, expert: {type: gelu, hidden: 3}}");
  alive.layer.forward(x, pass.context).square().sum().backward();
  EXPECT_GT(alive.grad_of_router().abs().max().item<double>(), 1e-3);
}

TEST(Combine, DroppedWeightIsLostOrGoesToTheSurvivor) {
  Selection s = select_pairs(at::tensor({0, 1, 2, 0}, at::kLong).view({2, 2}), values({.6, .2, .5, .3}, 2), 3);
  s.kept = at::tensor({1, 0, 1, 1}, at::kLong).to(at::kBool);
  const auto weights = [&](CombineOptions o, Phase phase = Phase::train) { return combine_weights(s, o, phase).view({2, 2}); };
  EXPECT_LT(difference(weights({}), values({.6, 0, .5, .3}, 2)), 1e-12);
  EXPECT_LT(difference(weights({.renormalise = Renormalise::before_drop}), values({.75, 0, .625, .375}, 2)), 1e-12);
  EXPECT_LT(difference(weights({.renormalise = Renormalise::after_drop}), values({1, 0, .625, .375}, 2)), 1e-12);
  EXPECT_LT(difference(weights({.scale = 2.5, .evaluation_scale = 2}), values({1.5, 0, 1.25, .75}, 2)), 1e-12);
  EXPECT_LT(difference(weights({.scale = 2.5, .evaluation_scale = 2}, Phase::evaluate), values({3, 0, 2.5, 1.5}, 2)), 1e-12);
  // A unit that lost everything has weight zero, not 0/0.
  s.kept = at::tensor({0, 0, 1, 1}, at::kLong).to(at::kBool);
  EXPECT_LT(difference(weights({.renormalise = Renormalise::after_drop}), values({0, 0, .625, .375}, 2)), 1e-12);
}

TEST(Combine, ADetachedSumGivesNoGradientThroughTheDivisor) {
  for (const bool detach : {false, true}) {
    at::Tensor raw = values({.6, .2}, 1).requires_grad_();
    Selection s = select_pairs(at::tensor({0, 1}, at::kLong).view({1, 2}), raw, 3);
    combine_weights(s, {.renormalise = Renormalise::before_drop, .detach_sum = detach}, Phase::train)[0].backward();
    // d/da a/(a+b) = b/(a+b)² = .3125 and −a/(a+b)² = −.9375; with the sum held fixed 1/(a+b) = 1.25 and 0.
    EXPECT_LT(difference(raw.grad(), detach ? values({1.25, 0}, 1) : values({.3125, -.9375}, 1)), 1e-12);
  }
}

TEST(Combine, TheDivisorIsANormThatIsNeverTooSmall) {
  at::Tensor raw = values({.6, .2}, 1).requires_grad_();
  Selection s = select_pairs(at::tensor({0, 1}, at::kLong).view({1, 2}), raw, 3);
  const auto weights = [&](const CombineOptions& o) { return combine_weights(s, o, Phase::train).view({1, 2}); };
  const at::Tensor second = weights({.renormalise = Renormalise::before_drop, .order = 2});
  EXPECT_LT(difference(second, values({.6 / std::sqrt(.4), .2 / std::sqrt(.4)}, 1)), 1e-12);
  second.view({2})[0].backward();
  // d/da a/√(a²+b²) = b²/(a²+b²)^1.5 and −ab/(a²+b²)^1.5.
  EXPECT_LT(difference(raw.grad(), values({.04 / std::pow(.4, 1.5), -.12 / std::pow(.4, 1.5)}, 1)), 1e-12);
  EXPECT_LT(difference(weights({.renormalise = Renormalise::before_drop, .least = .5}), values({.75, .25}, 1)), 1e-12);
  EXPECT_LT(difference(weights({.renormalise = Renormalise::before_drop, .least = 1}), values({.6, .2}, 1)), 1e-12);
  // A unit that lost everything has weight zero and no gradient.
  s.kept = at::zeros({2}, at::kBool);
  raw.mutable_grad().reset();
  const at::Tensor lost = weights({.renormalise = Renormalise::after_drop, .order = 3});
  lost.sum().backward();
  EXPECT_LT(difference(lost, values({0, 0}, 1)), 1e-12);
  EXPECT_LT(difference(raw.grad(), values({0, 0}, 1)), 1e-12);
}

TEST(Combine, RowsWithDifferentNumbersOfExpertsAreSummedByUnit) {
  Selection s;
  s.units = 3;
  s.experts = 2;
  s.unit = ids({0, 0, 2});
  s.expert = ids({0, 1, 1});
  s.rank = ids({0, 1, 0});
  s.weight = at::tensor({.2, .6, .5}, at::kDouble);
  const at::Tensor w = combine_weights(s, {.renormalise = Renormalise::before_drop}, Phase::train);
  EXPECT_LT(difference(w, at::tensor({.25, .75, 1.0}, at::kDouble)), 1e-12);
}

TEST(Combine, MergedAndGatedMixturesFollowThePolicy) {
  for (const char* run : {"rows", "gated"}) {
    const std::string rest = std::string(", experts: 4, expert: {type: gelu, hidden: 3}}");
    const ChoiceLayer kept(std::string("{router: {type: sparse-topk, k: 2, run: ") + run + "}" + rest);
    const ChoiceLayer all(std::string("{router: {type: sparse-topk, k: 2, softmax: all, run: ") + run +
                    "}, combine: {renormalise: before_drop}" + rest);
    Pass pass(7);
    const at::Tensor x = randn({7, 4}, 1);
    EXPECT_LT(difference(kept.layer.forward(x, pass.context), all.layer.forward(x, pass.context)), 1e-12) << run;
  }
  const ChoiceLayer limited("{router: {type: sparse-topk, run: merged}, admission: capacity, experts: 4, expert: {type: gelu, hidden: 3}}");
  Pass pass(7);
  EXPECT_EQ(expect_error([&] { limited.layer.forward(randn({7, 4}, 1), pass.context); }).code(), "routing.run");
}

TEST(Catalogue, switch_top1_weight_is_the_probability_and_its_gradient_the_paper_s) {
  GateFixture f("switch-top1", "{}", 3);
  Pass pass(4);
  at::Tensor g = fixture_logits().requires_grad_();
  const Selection s = f.select(g, pass.context);
  EXPECT_TRUE(s.expert.equal(ids({0, 1, 0, 0})));
  EXPECT_LT(difference(s.weight, at::tensor({.6652409558, .6652409558, .8437947345, .7661572066}, at::kDouble)), 1e-9);
  // With experts f_i(x) and y = p_i f_i: dL/dg_j = p_i (δ_ij − p_j) <dL/dy, f_i>.
  const at::Tensor inner = at::tensor({.3, -.7, 1.1, .4}, at::kDouble);
  (s.weight * inner).sum().backward();
  const at::Tensor p = fixture_logits().softmax(1);
  at::Tensor expected = -s.weight.detach().unsqueeze(1) * p;
  expected.scatter_add_(1, s.expert.unsqueeze(1), s.weight.detach().unsqueeze(1));
  EXPECT_LT(difference(g.grad(), expected * inner.unsqueeze(1)), 1e-12);
}

TEST(Catalogue, switch_top1_jitter_reaches_the_gate_alone_and_only_in_training) {
  GateFixture f("switch-top1", "{jitter: 0.1}", 3);
  const at::Tensor x = fixture_logits() + 1;
  Pass train(4, 1, Phase::train), evaluate(4), again(4, 1, Phase::train);
  const at::Tensor noisy = f.select(x, train.context).gates[0].logits;
  EXPECT_LT(difference(f.select(x, evaluate.context).gates[0].logits, x), 1e-15);
  const at::Tensor ratio = noisy / x;
  EXPECT_GT((ratio - 1).abs().max().item<double>(), 0.01);
  EXPECT_LE((ratio - 1).abs().max().item<double>(), 0.1);
  EXPECT_TRUE(noisy.equal(f.select(x, again.context).gates[0].logits));  // recomputation sees the same noise
  again.context.step = 1;
  EXPECT_FALSE(noisy.equal(f.select(x, again.context).gates[0].logits));
}

TEST(Catalogue, switch_top1_routes_in_float32_whatever_the_rows) {
  GateFixture f("switch-top1", "{}", 2);
  Pass pass(1);
  at::NoGradGuard guard;
  Schema half;
  const auto router = Registry::instance().make<Router>("switch-top1", Node::map());
  router->declare(half.in("router"), {.width = 2, .experts = 2});
  initialise(half, Streams(1), at::kBFloat16);
  const at::Tensor x = randn({1, 2}, 1).to(at::kBFloat16);
  const auto s = std::get<Selection>(router->route({x, {}}, pass.context));
  EXPECT_EQ(s.gates[0].logits.scalar_type(), at::kFloat);
  EXPECT_EQ(s.weight.scalar_type(), at::kFloat);
}

TEST(Catalogue, switch_top1_with_one_expert_is_the_dense_network) {
  const ChoiceLayer layer("{router: switch-top1, experts: 1, expert: {type: gelu, hidden: 3}}");
  Pass pass(5);
  const at::Tensor x = randn({5, 4}, 1);
  EXPECT_LT(difference(layer.layer.forward(x, pass.context), layer.layer.bank().run_all(x, pass.context).squeeze(1)), 1e-12);
}

TEST(Catalogue, noisy_topk_follows_the_published_formula) {
  GateFixture f("noisy-topk", "{k: 2}", 2);
  {
    at::NoGradGuard guard;
    f.schema.find("router.weight").tensor().copy_(at::eye(2, at::kDouble));
    f.schema.find("router.noise").tensor().fill_(0.5);
  }
  Pass pass(1, 1, Phase::train);
  const at::Tensor x = values({1, 2}, 1);
  const Selection s = f.select(x, pass.context);
  const Gate& gate = s.gates[0];
  // σ = softplus(1.5) = 1.7014 for both experts; ε as the pass draws it.
  EXPECT_LT(difference(gate.noise_std, values({1.7014132780, 1.7014132780}, 1)), 1e-9);
  EXPECT_LT(difference(gate.logits, x), 1e-12);
  const at::Tensor epsilon = pass.random.normal({1, 2}, pass.context.key("router.noise"), at::kDouble);
  EXPECT_LT(difference(gate.scores, x + epsilon * 1.7014132780), 1e-8);
  EXPECT_LT(difference(dense_weights(s), gate.scores.softmax(1)), 1e-12);
  // The example by hand: ε = (1, −1) gives h = (2.7014, 0.2986) and weights (.917, .083).
  const at::Tensor h = x + values({1, -1}, 1) * gate.noise_std.detach();
  EXPECT_LT(difference(h.softmax(1), values({.9170, .0830}, 1)), 1e-3);
}

TEST(Catalogue, noisy_topk_is_quiet_outside_training_and_equal_to_sparse_topk_there) {
  GateFixture noisy("noisy-topk", "{k: 2}", 3), sparse("sparse-topk", "{k: 2}", 3);
  Pass pass(4);
  const Selection s = noisy.select(fixture_logits(), pass.context);
  EXPECT_FALSE(s.gates[0].noise_std.defined());
  EXPECT_LT(difference(noisy.weights(fixture_logits(), pass.context), kFixtureTop2), 1e-9);
  EXPECT_LT(difference(dense_weights(s), sparse.weights(fixture_logits(), pass.context)), 1e-15);
}

TEST(Catalogue, noisy_topk_begins_with_every_expert_equally_likely) {
  const int64_t tokens = 10000, experts = 8;
  const auto router = Registry::instance().make<Router>("noisy-topk", parse_yaml("{k: 2}", "test"));
  Schema schema;
  router->declare(schema.in("router"), {.width = 6, .experts = experts});
  initialise(schema, Streams(1), at::kFloat);
  Pass pass(tokens, 1, Phase::train);
  const auto s = std::get<Selection>(router->route({randn({tokens, 6}, 1, at::kFloat), {}}, pass.context));
  EXPECT_EQ(s.gates[0].logits.abs().max().item<double>(), 0);
  const at::Tensor first = at::bincount(s.expert.masked_select(s.rank == 0), {}, experts).to(at::kDouble);
  const double even = static_cast<double>(tokens) / experts;
  EXPECT_LT(((first - even).square() / even).sum().item<double>(), 18.48);  // χ² with 7 degrees of freedom, p = .01
}

TEST(Catalogue, noisy_topk_noise_scale_learns_from_kept_weights) {
  const ChoiceLayer layer("{router: {type: noisy-topk, k: 2}, experts: 4, expert: {type: gelu, hidden: 3}}");
  Pass train(6, 1, Phase::train), evaluate(6);
  const at::Tensor noise = layer.schema.find("moe.router.noise").tensor();
  layer.layer.forward(randn({6, 4}, 1), train.context).square().sum().backward();
  ASSERT_TRUE(noise.grad().defined());
  EXPECT_GT(noise.grad().abs().max().item<double>(), 1e-4);
  noise.mutable_grad() = at::Tensor();
  layer.layer.forward(randn({6, 4}, 1), evaluate.context).square().sum().backward();
  EXPECT_FALSE(noise.grad().defined());
}

TEST(Catalogue, gshard_random_dispatches_the_second_expert_as_often_as_its_weight_says) {
  const int64_t draws = 20000;
  const at::Tensor x = fixture_logits().repeat({draws, 1});
  const auto check_policy = [&](const std::string& yaml, std::vector<double> expected) {
    GateFixture f("gshard-random", yaml, 3);
    Pass pass(4 * draws, 1, Phase::train);
    const Selection s = f.select(x, pass.context);
    const at::Tensor kept = s.kept.view({draws, 4, 2}).to(at::kDouble);
    EXPECT_EQ(kept.select(2, 0).min().item<double>(), 1) << "the first expert is never skipped";
    const at::Tensor share = kept.select(2, 1).mean(0);
    for (int64_t t = 0; t < 4; ++t) {
      const double p = expected[static_cast<size_t>(t)];
      EXPECT_NEAR(share[t].item<double>(), p, 3 * std::sqrt(p * (1 - p) / draws) + 1e-12) << t;
    }
  };
  check_policy("{}", {.53788, .53788, .23841, .36485});
  check_policy("{threshold: 0.2}", {1, 1, .59601, .91213});
  check_policy("{policy: none}", {0, 0, 0, 0});
  check_policy("{policy: threshold, threshold: 0.2}", {1, 1, 0, 0});
}

TEST(Catalogue, gshard_random_keeps_the_weight_of_a_second_expert_and_all_of_them_in_evaluation) {
  GateFixture f("gshard-random", "{}", 3);
  Pass evaluate(4), train(4, 1, Phase::train);
  const Selection whole = f.select(fixture_logits(), evaluate.context);
  EXPECT_FALSE(whole.kept.defined());
  EXPECT_LT(difference(f.weights(fixture_logits(), evaluate.context), kFixtureTop2), 1e-9);
  // What is kept in training weighs as it would have without the lot.
  const at::Tensor w = f.weights(fixture_logits(), train.context);
  EXPECT_LT(difference(w, kFixtureTop2 * (w > 0).to(at::kDouble)), 1e-9);
  // Equal logits: w2 = 1/2 is always used.
  Pass many(500, 1, Phase::train);
  EXPECT_TRUE(f.select(at::zeros({500, 3}, at::kDouble), many.context).kept.all().item<bool>());
}

TEST(Catalogue, gshard_random_may_look_at_the_probability_or_draw_the_second_expert) {
  const int64_t draws = 20000;
  const at::Tensor logits = values({2, 1, 0}, 1), x = logits.repeat({draws, 1}), p = logits.softmax(1)[0];
  Pass pass(draws);
  const auto second = [&](const std::string& yaml) { return GateFixture("gshard-random", yaml, 3).select(x, pass.context); };
  // NLLB's: kept with probability 2 · p2, in evaluation too.
  const Selection random = second("{evaluation_policy: random, measure: probability}");
  EXPECT_NEAR(random.kept.view({draws, 2}).select(1, 1).to(at::kDouble).mean().item<double>(), 2 * p[1].item<double>(), 0.01);
  // The best logit stays first; the second comes as often as its share of the others says.
  const Selection drawn = second("{evaluation_policy: sampling}");
  EXPECT_TRUE(drawn.expert.view({draws, 2}).select(1, 0).eq(0).all().item<bool>());
  EXPECT_NEAR(drawn.expert.view({draws, 2}).select(1, 1).eq(1).to(at::kDouble).mean().item<double>(),
              (p[1] / (p[1] + p[2])).item<double>(), 0.01);
  EXPECT_LT(difference(drawn.weight.view({draws, 2}).select(1, 0), p[0].expand({draws})), 1e-9);
}

TEST(Combine, MaskedOutputsAreLeftOutInTrainingAndScaledOutside) {
  const std::string yaml = "{router: {type: sparse-topk, k: 2}, combine: {output_masking: 0.25}, experts: 3, expert: {type: gelu, hidden: 3}}";
  const ChoiceLayer layer(yaml), plain("{router: {type: sparse-topk, k: 2}, experts: 3, expert: {type: gelu, hidden: 3}}");
  const at::Tensor x = randn({4000, 4}, 1);
  Pass evaluate(4000), train(4000, 1, Phase::train), all(4000);
  EXPECT_LT(difference(layer.layer.forward(x, evaluate.context), plain.layer.forward(x, all.context) * 0.75), 1e-12);
  // What a report shows is what the router gave.
  EXPECT_LT(difference(evaluate.records.all().at(0).routed.weight, all.records.all().at(0).routed.weight), 1e-12);
  layer.layer.forward(x, train.context);
  const at::Tensor weight = train.records.all().at(0).routed.weight;
  EXPECT_NEAR(weight.eq(0).to(at::kDouble).mean().item<double>(), 0.25, 0.02);
  EXPECT_LT(difference(weight, all.records.all().at(0).routed.weight * weight.ne(0).to(at::kDouble)), 1e-12);
}

TEST(Catalogue, gshard_random_spares_capacity) {
  // One expert pair for all rows: what the lot skips asks for no place.
  const ChoiceLayer layer("{router: {type: gshard-random, policy: none}, admission: {type: capacity, factor: 1, minimum: 1}, experts: 3, "
                    "expert: {type: gelu, hidden: 3}}");
  Pass pass(6, 1, Phase::train);
  layer.layer.forward(randn({6, 4}, 1), pass.context);
  const Selection& s = *pass.records.all().at(0).selection();
  EXPECT_EQ(s.pairs(), 12);
  EXPECT_FALSE(s.kept.masked_select(s.rank == 1).any().item<bool>());
  EXPECT_TRUE(s.kept.masked_select(s.rank == 0).any().item<bool>());
}

TEST(Catalogue, sigmoid_topk_bias_chooses_and_does_not_weigh) {
  GateFixture f("sigmoid-topk", "{k: 2}", 3);
  Pass pass(1);
  const at::Tensor g = values({2, 1, 0}, 1);  // sigmoid .88080, .73106, .5
  EXPECT_LT(difference(f.weights(g, pass.context), values({.5464490, .4535510, 0}, 1)), 1e-6);
  const Parameter bias = f.schema.find("router.bias");
  ASSERT_TRUE(bias);
  EXPECT_TRUE(bias.spec().buffer);
  EXPECT_EQ(bias.spec().shape, std::vector<int64_t>{3});
  EXPECT_FALSE(bias.tensor().requires_grad());
  // A bias that changes no choice changes no weight.
  bias.tensor().copy_(at::tensor({-.1, 0.0, .1}, at::kFloat));
  EXPECT_LT(difference(f.weights(g, pass.context), values({.5464490, .4535510, 0}, 1)), 1e-6);
  // One that does: expert 2 replaces expert 1, weighed by its own affinity; order by the biased score.
  bias.tensor().copy_(at::tensor({0.0, 0.0, .5}, at::kFloat));
  const Selection s = f.select(g, pass.context);
  EXPECT_TRUE(s.expert.equal(ids({2, 0})));
  EXPECT_LT(difference(f.weights(g, pass.context), values({.6378907, 0, .3621093}, 1)), 1e-6);
  EXPECT_LT(difference(s.gates[0].probabilities.sum(1), at::ones({1}, at::kDouble)), 1e-12);
}

TEST(SigmoidTopK, OneExpertKeepsItsAffinityAndItsGradient) {
  const ChoiceLayer layer("{router: {type: sigmoid-topk, k: 1}, experts: 3, expert: {type: gelu, hidden: 3}}");
  Pass pass(5, 1, Phase::train);
  layer.layer.forward(randn({5, 4}, 1), pass.context).square().sum().backward();
  EXPECT_GT(layer.grad_of_router().abs().max().item<double>(), 1e-3);
}

TEST(Catalogue, node_limited_sum_of_best_and_single_best_choose_other_groups) {
  // Affinities (.9, .1 | .6, .55) as logits.
  const auto logit = [](double s) { return std::log(s / (1 - s)); };
  const at::Tensor x = values({logit(.9), logit(.1), logit(.6), logit(.55)}, 1);
  Pass pass(1);
  const GateFixture best("sigmoid-topk", "{k: 2, groups: 2, chosen_groups: 1, group_best: 1}", 4);
  const GateFixture sum("sigmoid-topk", "{k: 2, groups: 2, chosen_groups: 1}", 4);  // k / chosen_groups = 2
  EXPECT_TRUE(best.select(x, pass.context).expert.equal(ids({0, 1})));
  EXPECT_TRUE(sum.select(x, pass.context).expert.equal(ids({2, 3})));
}

TEST(Catalogue, node_limited_never_leaves_its_groups_and_all_groups_are_no_limit) {
  Pass pass(200);
  const at::Tensor x = randn({200, 12}, 3);
  const GateFixture limited("sigmoid-topk", "{k: 4, groups: 4, chosen_groups: 2}", 12);
  const at::Tensor group = limited.select(x, pass.context).expert.view({200, 4}).div(3, "floor");
  for (int64_t t = 0; t < 200; ++t) EXPECT_LE(std::get<0>(at::_unique(group[t])).size(0), 2);
  const GateFixture open("sigmoid-topk", "{k: 4, groups: 4, chosen_groups: 4}", 12), plain("sigmoid-topk", "{k: 4}", 12);
  EXPECT_TRUE(open.select(x, pass.context).expert.equal(plain.select(x, pass.context).expert));
}

TEST(Catalogue, node_limited_refuses_groups_that_do_not_fit) {
  for (const char* wrong : {"{k: 2, groups: 5}", "{k: 4, groups: 4, chosen_groups: 1}", "{k: 2, groups: 2, chosen_groups: 3}",
                            "{k: 2, groups: 4, chosen_groups: 1, group_best: 4}"}) {
    const Error error = expect_error([&] { GateFixture f("sigmoid-topk", wrong, 12); });
    EXPECT_EQ(error.code(), "routing.group_range") << wrong;
    EXPECT_NE(error.message().find("12 experts"), std::string::npos);
  }
}

TEST(Catalogue, linear_scores_by_a_product_and_a_temperature) {
  const auto scorer = Registry::instance().make<Scorer>("linear", parse_yaml("{temperature: 2, bias: true}", "test"));
  Schema schema;
  scorer->declare(schema.in("router"), {.width = 2, .experts = 3});
  initialise(schema, Streams(1), at::kDouble);
  at::NoGradGuard guard;
  schema.find("router.weight").tensor().copy_(values({1, 0, 0, 1, 1, 1}, 3));
  schema.find("router.logit_bias").tensor().copy_(at::tensor({0.0, 0.0, 1.0}, at::kDouble));
  Pass pass(1);
  const Gate gate = scorer->score({values({2, 4}, 1), {}}, pass.context);
  EXPECT_LT(difference(gate.logits, values({1, 2, 3.5}, 1)), 1e-12);  // (2, 4, 6 + 1) / 2
  EXPECT_LT(difference(gate.probabilities, values({0.06289, 0.1709528, 0.7661572}, 1)), 2e-7);  // e^1, e^2, e^3.5 over their sum
}

TEST(TokenChoice, MoreExpertsThanThereAreIsRefusedWithTheNumberThatFits) {
  for (const char* slug : {"sparse-topk", "noisy-topk", "sigmoid-topk"}) {
    const Error error = expect_error([&] { GateFixture f(slug, "{k: 4}", 3); });
    EXPECT_EQ(error.code(), "routing.k_range");
    EXPECT_NE(error.message().find("k is 4"), std::string::npos) << error.message();
    EXPECT_NE(error.message().find("k: 3"), std::string::npos) << error.message();
  }
}

TEST(TokenChoice, ForcedExpertsAreTakenWhateverTheScores) {
  Overrides forced;
  forced.forced = at::tensor({2, 1, 2, 1}, at::kLong).view({4, 1});
  Pass pass(4);
  pass.context.overrides = &forced;
  const GateFixture f("sparse-topk", "{k: 2, softmax: all}", 3);
  EXPECT_TRUE(f.select(fixture_logits(), pass.context).expert.equal(ids({2, 1, 2, 1})));
  forced.forced = at::tensor({2, 1, 3, 1}, at::kLong).view({4, 1});
  EXPECT_EQ(expect_error([&] { f.select(fixture_logits(), pass.context); }).code(), "routing.forced");
}

// Phi-3.5-MoE's published numbers for these scores, threshold 0.01.
const std::vector<double> kNearScores{1, -.5, 2, .25, 1.99, -1, 1.97, 0};

TEST(Catalogue, sparsemixer_weighs_among_scores_near_the_best_one_left) {
  GateFixture f("sparsemixer", "{jitter: 0.01}", 8);
  Pass pass(2);
  const Selection s = f.select(at::cat({values(kNearScores, 1), values({1, -.5, 2, .25, 1.5, -1, .75, 0}, 1)}), pass.context);
  EXPECT_TRUE(s.expert.equal(ids({2, 4, 2, 4})));
  EXPECT_LT(difference(s.weight, values({.337781, .505000, 1, 1}, 1).view({-1})), 1e-6);  // not divided by their sum
}

TEST(Catalogue, sparsemixer_gradient_stays_among_what_was_near) {
  GateFixture f("sparsemixer", "{jitter: 0.01}", 8);
  Pass pass(1);
  at::Tensor x = values(kNearScores, 1).requires_grad_();
  f.select(x, pass.context).weight[0].backward();
  EXPECT_LT(difference(x.grad(), values({0, 0, .223685, 0, -.112961, 0, -.110724, 0}, 1)), 1e-5);
}

TEST(Catalogue, sparsemixer_samples_by_its_probabilities_in_training) {
  const int64_t draws = 20000;
  GateFixture f("sparsemixer", "{jitter: 0.01}", 8);
  Pass pass(draws, 1, Phase::train);
  const Selection s = f.select(values(kNearScores, 1).expand({draws, 8}).contiguous(), pass.context);
  const at::Tensor first = s.expert.view({draws, 2}).select(1, 0), weight = s.weight.view({draws, 2}).select(1, 0);
  const at::Tensor p = at::tensor({2.0, 1.99, 1.97}, at::kDouble).softmax(0);
  const std::vector<int64_t> near{2, 4, 6};
  for (size_t i = 0; i < near.size(); ++i) {
    const double expected = p[static_cast<int64_t>(i)].item<double>();
    const double seen = (first == near[i]).to(at::kDouble).mean().item<double>();
    EXPECT_NEAR(seen, expected, 3 * std::sqrt(expected * (1 - expected) / draws)) << near[i];
  }
  // What is not the best counts a third, three times in four.
  const at::Tensor others = weight.masked_select(first == 4) / p[1];
  EXPECT_NEAR(others.mean().item<double>(), 0.5, 0.02);
  EXPECT_NEAR(others.min().item<double>(), 1.0 / 3, 1e-6);
  EXPECT_LT(difference(weight.masked_select(first == 2) / p[0], at::ones({1}, at::kDouble).expand({(first == 2).sum().item<int64_t>()})), 1e-9);
}

TEST(Catalogue, tanh_scorer_is_two_maps_with_tanh_between) {
  GateFixture f("sparse-topk", "{k: 2, scorer: {type: tanh-scorer, hidden: 2}}", 3);
  at::NoGradGuard guard;
  f.schema.find("router.inner").tensor().copy_(values({1, 0, 0, 0, 1, 0}, 2));
  f.schema.find("router.weight").tensor().copy_(values({1, 0, 0, 1, 1, 1}, 3));
  Pass pass(1);
  const Selection s = f.select(values({2, 1, 9}, 1), pass.context);
  EXPECT_LT(difference(s.gates[0].logits, values({std::tanh(2.0), std::tanh(1.0), std::tanh(2.0) + std::tanh(1.0)}, 1)), 1e-9);
}

TEST(Catalogue, skywork_logitnorm_does_not_see_scale_or_shift) {
  GateFixture f("sparse-topk", "{k: 2, scorer: {type: skywork-logitnorm, spread: 1}}", 8);
  Pass pass(1);
  const at::Tensor x = values({1, -.5, 2, .25, 1.5, -1, .75, 0}, 1);
  const Selection s = f.select(x, pass.context);
  EXPECT_TRUE(s.expert.equal(ids({2, 4})));
  EXPECT_LT(difference(s.weight, values({.621423, .378577}, 1).view({-1})), 1e-6);  // standard deviation 1.008889
  EXPECT_LT(difference(f.select(x * 7 - 3, pass.context).weight, s.weight), 1e-9);
  GateFixture wide("sparse-topk", "{k: 2, scorer: {type: skywork-logitnorm, spread: 3}}", 8);
  EXPECT_GT(wide.select(x, pass.context).weight[0].item<double>(), 0.75);
}

TEST(Catalogue, attention_router_lets_experts_attend_to_each_other) {
  GateFixture f("sparse-topk", "{k: 2, scorer: attention-router}", 4);
  at::NoGradGuard guard;
  const auto set = [&](const char* name, std::vector<double> of_row) {
    at::Tensor map = f.schema.find(std::string("router.") + name).tensor();
    map.zero_().select(1, 0).copy_(at::tensor(of_row, at::kDouble));
  };
  set("query", {.5, -1, .25, 1});
  set("key", {1, .5, -.5, 0});
  set("value", {.2, .4, -.6, .8});
  Pass pass(1);
  const Selection s = f.select(values({1, 0, 0, 0}, 1), pass.context);
  EXPECT_LT(difference(s.gates[0].logits, values({.249615, .035040, .228056, .274415}, 1)), 1e-6);
  EXPECT_TRUE(s.expert.equal(ids({3, 0})));
  EXPECT_LT(difference(s.weight, values({.506200, .493800}, 1).view({-1})), 1e-6);
  set("key", {0, 0, 0, 0});  // all keys alike: every logit is the mean of the values
  EXPECT_LT(f.select(values({1, 0, 0, 0}, 1), pass.context).gates[0].logits.std().item<double>(), 1e-12);
}

}  // namespace
}  // namespace switchyard
