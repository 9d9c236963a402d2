// The dense mixture, Soft MoE and SMEAR against hand cases and the papers' own special cases.
#include "tests/routing/gate_fixture.h"

#include <cmath>

#include "switchyard/layer/moe_layer.h"

namespace switchyard {
namespace {

using namespace testing;

struct SoftLayer {
  explicit SoftLayer(const std::string& yaml, int64_t width) : layer(read_options<MoeOptions>(parse_yaml(yaml, "test")), width, width) {
    layer.declare(schema.in("moe"));
    initialise(schema, Streams(3), at::kDouble);
    at::NoGradGuard guard;
    for (const Parameter& p : schema.all())
      if (!p.spec().buffer) p.tensor().copy_(randn(p.spec().shape, stable_hash(p.name())));
  }
  at::Tensor operator()(const at::Tensor& x, const Context& context) const { return layer.forward(x, context); }
  const at::Tensor& at_name(const std::string& name) const { return schema.find("moe." + name).tensor(); }
  void set(const std::string& name, const at::Tensor& value) const {
    at::NoGradGuard guard;
    at_name(name).copy_(value.expand_as(at_name(name)));
  }
  Schema schema;
  MoeLayer layer;
};

TEST(Catalogue, dense_moe_hand_cases) {
  // Experts 2x and x + 1, gate (ln 3, 0), x = 4: p = (.75, .25), y = 7.25.
  for (const char* run : {"gated", "rows"}) {
    const SoftLayer two(std::string("{router: {type: dense-moe, run: ") + run +
                        "}, experts: 2, expert: {type: ffn-expert, activation: identity, hidden: 1, bias: true}}", 1);
    two.set("experts.up", at::ones({1}, at::kDouble));
    two.set("experts.up_bias", at::zeros({1}, at::kDouble));
    two.set("experts.down", values({2, 1}, 2).unsqueeze(2));
    two.set("experts.down_bias", values({0, 1}, 2));
    two.set("router.weight", values({std::log(3.0) / 4, 0}, 2));
    Pass pass(1);
    EXPECT_NEAR(two(at::full({1, 1}, 4, at::kDouble), pass.context).item<double>(), 7.25, 1e-6) << run;
  }
  // Scalar experts f_i(x) = i: y is the mean expert number.
  const GateFixture f("dense-moe", "{}", 3);
  Pass pass(4);
  const at::Tensor y = at::matmul(f.weights(fixture_logits(), pass.context), at::arange(3, at::kDouble));
  EXPECT_LT(difference(y, at::tensor({.4247896174, .8453021021, .2704004649, .4047955736}, at::kDouble)), 1e-9);
}

TEST(Catalogue, dense_moe_equals_a_loop_over_experts_in_every_execution) {
  for (const char* run : {"gated", "rows"}) {
    const SoftLayer layer(std::string("{router: {type: dense-moe, run: ") + run + "}, experts: 5, expert: {type: swiglu, hidden: 3}}", 4);
    Pass pass(7);
    const at::Tensor x = randn({7, 4}, 1);
    const at::Tensor p = at::matmul(x, layer.at_name("router.weight").t()).softmax(1);
    at::Tensor expected = at::zeros({7, 4}, at::kDouble);
    for (int64_t e = 0; e < 5; ++e) {
      const auto w = [&](const char* name) { return layer.at_name(std::string("experts.") + name)[e].t(); };
      expected = expected + p.narrow(1, e, 1) * at::matmul(at::silu(at::matmul(x, w("gate"))) * at::matmul(x, w("up")), w("down"));
    }
    EXPECT_LT(difference(layer(x, pass.context), expected), 1e-12) << run;
  }
}

TEST(Catalogue, dense_moe_special_cases) {
  const SoftLayer layer("{router: dense-moe, experts: 4, expert: {type: gelu, hidden: 3}}", 4);
  Pass pass(6);
  const at::Tensor x = randn({6, 4}, 1);
  const at::Tensor all = layer.layer.bank().run_all(x, pass.context);
  const at::Tensor before = layer(x, pass.context);
  // Permuting experts together with their gate rows changes nothing.
  const at::Tensor order = ids({2, 0, 3, 1});
  for (const char* name : {"experts.up", "experts.down", "router.weight"}) layer.set(name, layer.at_name(name).detach().index_select(0, order));
  EXPECT_LT(difference(layer(x, pass.context), before), 1e-12);
  // A single token gives every expert a gradient.
  Pass one(1);
  layer(x.narrow(0, 0, 1), one.context).square().sum().backward();
  const at::Tensor grad = layer.at_name("experts.up").grad().abs().flatten(1).amax(1);
  EXPECT_GT(grad.min().item<double>(), 0);
  // One logit far above: that expert alone.
  GateFixture sure("dense-moe", "{}", 3);
  EXPECT_LT(difference(sure.weights(values({0, 1e4, 0}, 1), one.context), values({0, 1, 0}, 1)), 1e-15);
  // Identical experts: whatever the gate, the expert.
  for (const char* name : {"experts.up", "experts.down"}) layer.set(name, layer.at_name(name).detach().narrow(0, 0, 1));
  EXPECT_LT(difference(layer(x, pass.context), layer.layer.bank().run_all(x, pass.context).select(1, 0)), 1e-12);
}

/// Slots and mixtures of a Soft MoE router with plain products, given logits through x and an identity.
TEST(Catalogue, soft_moe_hand_case) {
  // x = (4, 8), logits ((ln 3, 0), (0, 0)), experts 2x and x + 1: y = (9.25, 8.5). The second coordinate of a
  // row carries its logit for expert 0, which the experts ignore.
  const SoftLayer layer("{allow_leak: true, router: {type: soft-moe, normalise: false}, experts: 2, "
                    "expert: {type: ffn-expert, activation: identity, hidden: 1, bias: true}}", 2);
  layer.set("router.weight", at::tensor({0.0, 1.0, 0.0, 0.0}, at::kDouble).view({2, 1, 2}));
  layer.set("experts.up", at::tensor({1.0, 0.0}, at::kDouble).view({1, 1, 2}));
  layer.set("experts.up_bias", at::zeros({1}, at::kDouble));
  layer.set("experts.down", at::tensor({2.0, 0.0, 1.0, 0.0}, at::kDouble).view({2, 2, 1}));
  layer.set("experts.down_bias", at::tensor({0.0, 0.0, 1.0, 0.0}, at::kDouble).view({2, 2}));
  Pass pass(2);
  const at::Tensor y = layer(values({4, std::log(3.0), 8, 0}, 2), pass.context);
  EXPECT_LT(difference(y.select(1, 0), at::tensor({9.25, 8.5}, at::kDouble)), 1e-6);
}

TokenBlend soft(const std::string& yaml, int64_t experts, const at::Tensor& x, const Context& context, double scale = 1) {
  const auto router = Registry::instance().make<Router>("soft-moe", parse_yaml(yaml, "test"));
  Schema schema;
  router->declare(schema.in("router"), {.width = x.size(1), .experts = experts});
  initialise(schema, Streams(3), at::kDouble);
  if (const Parameter p = schema.find("router.scale")) {
    at::NoGradGuard guard;
    p.tensor().fill_(scale);
  }
  return std::get<TokenBlend>(router->route({x, {}}, context));
}

TEST(Catalogue, soft_moe_mixtures_sum_to_one) {
  Pass pass(10, 2);
  const TokenBlend blend = soft("{slots: 3}", 4, randn({10, 5}, 1), pass.context);
  EXPECT_EQ(blend.dispatch.sizes(), (std::vector<int64_t>{2, 5, 12}));
  EXPECT_LT(difference(blend.dispatch.sum(1), at::ones({2, 12}, at::kDouble)), 1e-12);
  EXPECT_LT(difference(blend.combine.sum(2), at::ones({2, 5}, at::kDouble)), 1e-12);
  EXPECT_TRUE(blend.slot_expert.equal(ids({0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3})));
}

TEST(Catalogue, soft_moe_logits_are_cosines_times_a_scale) {
  Pass pass(6);
  const at::Tensor x = randn({6, 5}, 1);
  const TokenBlend small = soft("{}", 3, x, pass.context, 2), large = soft("{}", 3, x * 100, pass.context, 2);
  EXPECT_LT(difference(small.dispatch, large.dispatch), 1e-5);  // the length of a row does not matter
  const at::Tensor log_ratio = small.combine.log();
  const at::Tensor spread = log_ratio.amax(2) - log_ratio.amin(2);
  EXPECT_LE(spread.max().item<double>(), 2 * 2 + 1e-9);  // cosines within [−1, 1], times 2
  // A scale of zero: every slot is the mean row, every output the mean of the slots.
  const TokenBlend flat = soft("{}", 3, x, pass.context, 0);
  EXPECT_LT(difference(flat.dispatch, at::full({1, 6, 3}, 1.0 / 6, at::kDouble)), 1e-12);
  EXPECT_LT(difference(flat.combine, at::full({1, 6, 3}, 1.0 / 3, at::kDouble)), 1e-12);
}

TEST(Catalogue, soft_moe_is_equivariant_mixes_sequences_apart_and_takes_ragged_ones) {
  const SoftLayer layer("{allow_leak: true, router: {type: soft-moe, slots: 2}, experts: 3, expert: {type: gelu, hidden: 3}}", 4);
  const at::Tensor x = randn({9, 4}, 1);
  Pass whole(9);
  const at::Tensor order = Streams(2).permutation(9, {.purpose = "order"});
  EXPECT_LT(difference(layer(x.index_select(0, order), whole.context), layer(x, whole.context).index_select(0, order)), 1e-12);
  // Sequences of 2, 0, 3 and 4 rows in one pass equal each by itself.
  Pass ragged(9);
  ragged.facts.segments.begin = {0, 2, 2, 5, 9};
  const at::Tensor y = layer(x, ragged.context);
  for (const auto& [begin, end] : std::vector<std::pair<int64_t, int64_t>>{{0, 2}, {2, 5}, {5, 9}}) {
    Pass one(end - begin);
    EXPECT_LT(difference(y.slice(0, begin, end), layer(x.slice(0, begin, end), one.context)), 1e-12);
  }
}

TEST(Catalogue, soft_moe_chunks_are_groups_of_their_own) {
  const std::string rest = "experts: 3, expert: {type: gelu, hidden: 3}}";
  const SoftLayer chunked("{allow_leak: true, router: {type: soft-moe, chunk: 4}, " + rest, 4), whole("{allow_leak: true, router: soft-moe, " + rest, 4);
  Pass one(10), split(10);
  split.facts.segments.begin = {0, 4, 8, 10};
  const at::Tensor x = randn({10, 4}, 1);
  EXPECT_LT(difference(chunked(x, one.context), whole(x, split.context)), 1e-12);
}

TEST(Catalogue, soft_moe_reaches_every_slot_and_expert_and_refuses_causal_models) {
  const std::string rest = "router: {type: soft-moe, slots: 2}, experts: 3, expert: {type: gelu, hidden: 3}}";
  const SoftLayer layer("{allow_leak: true, " + rest, 4), strict("{" + rest, 4);
  Pass pass(5, 1, Phase::train);
  const at::Tensor x = randn({5, 4}, 1);
  layer(x, pass.context).square().sum().backward();
  for (const char* name : {"router.weight", "experts.up", "experts.down", "router.scale"})
    EXPECT_GT(layer.at_name(name).grad().abs().min().item<double>(), 0) << name;
  EXPECT_EQ(expect_error([&] { strict(x, pass.context); }).code(), "routing.leak");
  Pass next(1, 1, Phase::generate);
  EXPECT_EQ(expect_error([&] { strict(x.narrow(0, 0, 1), next.context); }).code(), "routing.generation");
}

const std::string kSmear = "{allow_leak: true, experts: 4, router: {type: smear, expert_dropout: 0}, expert: ";

TEST(Catalogue, smear_probabilities_follow_the_paper) {
  const auto router = Registry::instance().make<Router>("smear", Node::map());
  Schema schema;
  router->declare(schema.in("router"), {.width = 5, .experts = 3});
  initialise(schema, Streams(3), at::kDouble);
  Pass pass(8, 2);
  const at::Tensor x = randn({8, 5}, 1);
  const auto s = std::get<Selection>(router->route({x, {}}, pass.context));
  const auto layer_norm = [](const at::Tensor& v) {
    const at::Tensor centred = v - v.mean(-1, true);
    return centred / (centred.square().mean(-1, true) + 1e-5).sqrt();
  };
  const at::Tensor v = layer_norm(x.view({2, 4, 5}).mean(1));
  const at::Tensor keys = layer_norm(schema.find("router.weight").tensor().detach()) * 0.01;  // gain begins at 0.01
  EXPECT_LT(difference(s.dense_weight, at::matmul(v, keys.t()).softmax(1)), 1e-9);
  EXPECT_EQ(s.units, 2);
  EXPECT_EQ(s.run, Run::merged);
  EXPECT_TRUE(s.unit_of_row.equal(ids({0, 0, 0, 0, 1, 1, 1, 1})));
}

TEST(Catalogue, smear_of_linear_experts_is_their_ensemble_and_of_others_is_not) {
  const std::string ensemble = "{allow_leak: true, experts: 4, router: {type: smear, expert_dropout: 0, run: rows}, expert: ";
  Pass pass(8, 2);
  const at::Tensor x = randn({8, 4}, 1);
  const SoftLayer merged(kSmear + "projection-expert}", 4), separate(ensemble + "projection-expert}", 4);
  EXPECT_LT(difference(merged(x, pass.context), separate(x, pass.context)), 1e-12);
  const SoftLayer bent(kSmear + "{type: relu, hidden: 3}}", 4), bent_separate(ensemble + "{type: relu, hidden: 3}}", 4);
  EXPECT_GT(difference(bent(x, pass.context), bent_separate(x, pass.context)), 1e-2);
}

TEST(Catalogue, smear_opposite_experts_cancel) {
  // ReLU experts max(0, 2x)·1 and max(0, −2x)·1 at p = 1/2 merge to nothing; their ensemble gives |x|.
  const SoftLayer layer("{allow_leak: true, experts: 2, router: smear, expert: {type: relu, hidden: 1}}", 1);
  layer.set("experts.up", at::tensor({2.0, -2.0}, at::kDouble).view({2, 1, 1}));
  layer.set("experts.down", at::ones({1}, at::kDouble));
  layer.set("router.weight", at::zeros({1}, at::kDouble));
  layer.set("router.norm_bias", at::zeros({1}, at::kDouble));
  Pass pass(3);
  const at::Tensor x = values({1, -2, 3}, 3);
  EXPECT_LT(difference(layer(x, pass.context), at::zeros({3, 1}, at::kDouble)), 1e-12);
  EXPECT_LT(difference(layer.layer.bank().run_all(x, pass.context).mean(1), x.abs()), 1e-12);
}

TEST(Catalogue, smear_sure_weights_are_that_expert_and_examples_differ) {
  const SoftLayer layer(kSmear + "{type: gelu, hidden: 3, bias: true}}", 4);
  layer.set("router.norm", at::full({1}, 1e3, at::kDouble));
  Pass pass(8, 2);
  const at::Tensor x = randn({8, 4}, 1);
  const at::Tensor y = layer(x, pass.context), all = layer.layer.bank().run_all(x, pass.context);
  const at::Tensor chosen = std::get<1>(pass.records.all().at(0).selection()->dense_weight.max(1));
  for (int64_t r = 0; r < 8; ++r) EXPECT_LT(difference(y[r], all[r][chosen[r / 4].item<int64_t>()]), 1e-6);
  // A batch equals a loop over its examples.
  for (int64_t s = 0; s < 2; ++s) {
    Pass one(4);
    EXPECT_LT(difference(y.slice(0, 4 * s, 4 * s + 4), layer(x.slice(0, 4 * s, 4 * s + 4), one.context)), 1e-12);
  }
  const SoftLayer soft(kSmear + "{type: gelu, hidden: 3}}", 4);
  soft(x, pass.context);
  const at::Tensor p = pass.records.all().back().selection()->dense_weight;
  EXPECT_GT(difference(p[0], p[1]), 1e-3);
}

TEST(Catalogue, smear_every_expert_learns_and_dropout_renormalises) {
  const SoftLayer layer(kSmear + "{type: gelu, hidden: 3, bias: true}}", 4);
  Pass pass(8, 2, Phase::train);
  const at::Tensor x = randn({8, 4}, 1);
  layer(x, pass.context).square().sum().backward();
  for (const char* name : {"experts.up", "experts.up_bias", "experts.down", "experts.down_bias"})
    EXPECT_GT(layer.at_name(name).grad().abs().flatten(1).amax(1).min().item<double>(), 0) << name;
  EXPECT_GT(layer.at_name("router.weight").grad().abs().max().item<double>(), 0);

  const auto router = Registry::instance().make<Router>("smear", parse_yaml("{expert_dropout: 0.5}", "test"));
  Schema schema;
  router->declare(schema.in("router"), {.width = 4, .experts = 4});
  initialise(schema, Streams(3), at::kDouble);
  Pass many(200, 200, Phase::train);
  const at::Tensor p = std::get<Selection>(router->route({randn({200, 4}, 1), {}}, many.context)).dense_weight;
  EXPECT_LT(difference(p.sum(1), at::ones({200}, at::kDouble)), 1e-12);
  EXPECT_NEAR((p < 1e-6).to(at::kDouble).mean().item<double>(), .5 - 1.0 / 16, .053);  // a draw that drops all four keeps all
}

TEST(Catalogue, smear_takes_its_vector_from_a_fact_in_causal_models) {
  const SoftLayer layer("{experts: 4, router: {type: smear, from: fact, fact: summary}, expert: {type: gelu, hidden: 3}}", 4);
  Pass pass(6, 2, Phase::generate);
  const at::Tensor x = randn({6, 4}, 1);
  const Error missing = expect_error([&] { layer(x, pass.context); });
  EXPECT_EQ(missing.code(), "facts.missing");
  EXPECT_NE(missing.message().find("summary"), std::string::npos);
  pass.facts.set_segment("summary", randn({2, 4}, 9));
  const at::Tensor y = layer(x, pass.context);
  Pass one(1, 1, Phase::generate);
  one.facts.set_segment("summary", randn({2, 4}, 9).slice(0, 1, 2));
  EXPECT_LT(difference(y.slice(0, 4, 5), layer(x.slice(0, 4, 5), one.context)), 1e-12);
  pass.facts.set_segment("summary", randn({2, 3}, 9));
  EXPECT_EQ(expect_error([&] { layer(x, pass.context); }).code(), "routing.vector");
}

}  // namespace
}  // namespace switchyard
