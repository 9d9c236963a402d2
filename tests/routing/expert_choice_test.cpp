// Expert choice against hand cases and the properties of the paper.
#include "tests/routing/gate_fixture.h"

#include "switchyard/layer/moe_layer.h"
#include "switchyard/routing/expert_choice/capped.h"

namespace switchyard {
namespace {

using namespace testing;

TEST(Catalogue, expert_choice_hand_case) {
  Pass pass(4);
  // C = T·c/E = 4·c/3: c = 0.75 takes one token each, c = 1.5 two.
  const at::Tensor one = GateFixture("expert-choice", "{factor: 0.75}", 3).weights(fixture_logits(), pass.context);
  EXPECT_LT(difference(one, values({0, 0, 0, 0, .6652409558, 0, .8437947345, 0, 0, 0, 0, .1709527802}, 4)), 1e-9);
  const GateFixture f("expert-choice", "{factor: 1.5}", 3);
  const at::Tensor two = f.weights(fixture_logits(), pass.context);
  EXPECT_TRUE((two > 0).equal(values({0, 1, 0, 0, 1, 0, 1, 0, 1, 1, 0, 1}, 4) > 0));
  // Canonical order: by token, best first.
  const Selection s = f.select(fixture_logits(), pass.context);
  EXPECT_TRUE(s.unit.equal(ids({0, 1, 2, 2, 3, 3})));
  EXPECT_TRUE(s.expert.equal(ids({1, 1, 0, 2, 0, 2})));
  EXPECT_TRUE(s.rank.equal(ids({0, 0, 0, 1, 0, 1})));
}

TEST(Catalogue, expert_choice_loads_are_always_equal) {
  for (const char* group : {"sequence", "batch"}) {
    const GateFixture f("expert-choice", std::string("{factor: 2, group: ") + group + "}", 8);
    Pass pass(512, 4);
    const at::Tensor skewed = randn({512, 8}, 1) + at::arange(8, at::kDouble);
    EXPECT_TRUE(pair_counts(f.select(skewed, pass.context), false).equal(at::full({8}, 128, at::kLong))) << group;
  }
}

TEST(Catalogue, expert_choice_groups_are_sequences_unless_the_batch_is_asked) {
  Pass pass(8, 2);
  const at::Tensor x = at::cat({fixture_logits(), fixture_logits() + values({5, 0, 0}, 1)});
  const GateFixture by_sequence("expert-choice", "{factor: 0.75}", 3), by_batch("expert-choice", "{factor: 0.375, group: batch}", 3);
  EXPECT_EQ(by_sequence.select(x, pass.context).pairs(), 6);
  const Selection s = by_batch.select(x, pass.context);  // one token an expert of all eight
  EXPECT_EQ(s.pairs(), 3);
  EXPECT_GE(s.unit.masked_select(s.expert == 0).item<int64_t>(), 4);
}

TEST(Catalogue, expert_choice_with_every_expert_is_the_dense_mixture) {
  const auto run = [](const char* router) {
    MoeLayer layer(read_options<MoeOptions>(parse_yaml(
                       std::string("{allow_leak: true, experts: 4, expert: {type: gelu, hidden: 3}, router: ") + router + "}", "test")), 4, 4);
    Schema schema;
    layer.declare(schema.in("moe"));
    initialise(schema, Streams(3), at::kDouble);
    Pass pass(10, 2);
    return layer.forward(randn({10, 4}, 1), pass.context);
  };
  EXPECT_LT(difference(run("{type: expert-choice, factor: 4}"), run("dense-moe")), 1e-12);
}

TEST(Catalogue, expert_choice_leaves_about_a_sixth_of_tokens_unserved_at_one_expert_a_token) {
  Pass pass(512);
  const at::Tensor logits = randn({512, 8}, 9);
  const auto unserved = [&](const char* yaml) {
    const Selection s = GateFixture("expert-choice", yaml, 8).select(logits, pass.context);
    return 1 - static_cast<double>(std::get<0>(at::_unique(s.unit)).size(0)) / 512;
  };
  EXPECT_NEAR(unserved("{factor: 1}"), .17, .05);
  EXPECT_LT(unserved("{factor: 2}"), .03);
}

TEST(Catalogue, expert_choice_an_unserved_token_adds_nothing_or_itself) {
  for (const char* overflow : {"zero", "identity"}) {
    MoeLayer layer(read_options<MoeOptions>(parse_yaml(
                       std::string("{allow_leak: true, experts: 3, expert: {type: gelu, hidden: 3}, router: {type: expert-choice, "
                                   "factor: 0.75}, combine: {overflow: ") + overflow + "}}", "test")), 3, 3);
    Schema schema;
    layer.declare(schema.in("moe"));
    initialise(schema, Streams(3), at::kDouble);
    {
      at::NoGradGuard guard;
      schema.find("moe.router.weight").tensor().copy_(at::eye(3, at::kDouble));
    }
    Pass pass(4);
    const at::Tensor y = layer.forward(fixture_logits(), pass.context);  // token 0 gets no expert
    const at::Tensor expected = std::string(overflow) == "zero" ? at::zeros({3}, at::kDouble) : fixture_logits()[0];
    EXPECT_LT(difference(y[0], expected), 1e-15) << overflow;
    EXPECT_GT(difference(y[1], fixture_logits()[1]), 1e-3);
  }
}

TEST(Catalogue, expert_choice_capped_keeps_the_limit_and_the_loads) {
  Pass pass(64);
  // Tokens without a favourite are wanted by many experts, tokens with one by that alone.
  const at::Tensor logits = randn({64, 8}, 2) * at::arange(64, at::kDouble).unsqueeze(1) / 16;
  const GateFixture free("expert-choice", "{factor: 2}", 8), capped("expert-choice", "{factor: 2, cap: {most: 3}}", 8),
      loose("expert-choice", "{factor: 2, cap: {most: 8}}", 8);
  const auto most = [&](const Selection& s) { return at::bincount(s.unit, {}, 64).max().item<int64_t>(); };
  const Selection a = free.select(logits, pass.context), b = capped.select(logits, pass.context), c = loose.select(logits, pass.context);
  EXPECT_GT(most(a), 3);
  EXPECT_EQ(most(b), 3);
  EXPECT_TRUE(pair_counts(b, false).equal(at::full({8}, 16, at::kLong)));
  EXPECT_TRUE(a.unit.equal(c.unit) && a.expert.equal(c.expert));  // a limit of E is none
  // The limit costs little: the kept affinity stays near the unlimited one, and above a random plan's.
  EXPECT_LT(b.weight.sum().item<double>(), a.weight.sum().item<double>());
  EXPECT_GT(b.weight.sum().item<double>(), 0.9 * a.weight.sum().item<double>());
}

TEST(Catalogue, expert_choice_capped_plan_meets_its_constraints) {
  const at::Tensor scores = randn({4, 16}, 1).softmax(0);
  const at::Tensor plan = capped_plan(scores, 6, {.most = 2, .entropy = 0.05, .iterations = 2000});
  EXPECT_LT(difference(plan.sum(1), at::full({4}, 6, at::kDouble)), 1e-3);
  EXPECT_LT(plan.sum(0).max().item<double>(), 2 + 1e-3);
  EXPECT_LT(plan.max().item<double>(), 1 + 1e-9);
  // Better than moving any mass between two of its entries: swap gains are never positive at the optimum.
  const auto objective = [&](const at::Tensor& a) { return ((a * scores) - 0.05 * a * (a.clamp_min(1e-300).log() - 1)).sum().item<double>(); };
  const double best = objective(plan);
  for (int64_t trial = 0; trial < 50; ++trial) {
    const at::Tensor pick = Streams(static_cast<uint64_t>(trial)).integers(16, {2}, {.purpose = "swap"});
    const int64_t t = pick[0].item<int64_t>(), u = pick[1].item<int64_t>(), e = trial % 4, f = (trial + 1) % 4;
    if (t == u) continue;
    at::Tensor other = plan.clone();
    const double move = 1e-3;
    other[e][t] += move; other[e][u] -= move; other[f][t] -= move; other[f][u] += move;
    if (other.min().item<double>() < 0 || other.max().item<double>() > 1) continue;
    EXPECT_LT(objective(other), best + 1e-6);
  }
}

TEST(Catalogue, expert_choice_refuses_a_limit_that_cannot_hold) {
  const GateFixture f("expert-choice", "{factor: 2, cap: {most: 1}}", 4);
  Pass pass(8);
  const Error error = expect_error([&] { f.select(randn({8, 4}, 1), pass.context); });
  EXPECT_EQ(error.code(), "routing.cap");
  EXPECT_NE(error.message().find("8 tokens may have only 1 experts"), std::string::npos) << error.message();
}

TEST(Catalogue, expert_choice_refuses_to_generate) {
  const GateFixture f("expert-choice", "{}", 4);
  Pass pass(1, 1, Phase::generate);
  const Error error = expect_error([&] { f.select(randn({1, 4}, 1), pass.context); });
  EXPECT_EQ(error.code(), "routing.generation");
  EXPECT_NE(error.message().find("expert-choice"), std::string::npos);
}

TEST(Catalogue, expert_choice_ties_go_to_the_earlier_token) {
  const GateFixture f("expert-choice", "{factor: 1}", 4);
  Pass pass(8);
  const Selection s = f.select(at::zeros({8, 4}, at::kDouble), pass.context);
  EXPECT_TRUE(s.unit.equal(ids({0, 0, 0, 0, 1, 1, 1, 1})));
}

}  // namespace
}  // namespace switchyard
