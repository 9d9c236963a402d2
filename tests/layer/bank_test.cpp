// The expert bank against plain loops over tokens and experts.
#include "switchyard/experts/bank.h"

#include "switchyard/base/registry.h"
#include "tests/support.h"

namespace switchyard {
namespace {

using testing::difference;
using testing::expect_gradients;
using testing::Pass;
using testing::randn;

Node settings(const std::string& yaml) { return parse_yaml(yaml, "test"); }

std::shared_ptr<ExpertKind> kind(const std::string& slug, const std::string& yaml) {
  return Registry::instance().make<ExpertKind>(slug, settings(yaml));
}

struct Fixture {
  Fixture(const std::string& slug, const std::string& yaml, int64_t experts, int64_t in, int64_t out)
      : bank({{kind(slug, yaml), experts}}, in, out) {
    bank.declare(schema.in("bank"));
    initialise(schema, Streams(3), at::kDouble);
    at::NoGradGuard guard;
    for (const Parameter& p : schema.all()) p.tensor().copy_(randn(p.spec().shape, stable_hash(p.name())) * 0.5);
  }
  std::vector<at::Tensor> leaves() const {
    std::vector<at::Tensor> list;
    for (const Parameter& p : schema.all()) list.push_back(p.tensor());
    return list;
  }
  Params one(int64_t expert, const Context& c) const {
    Params p;
    for (const auto& [name, stack] : bank.params(0, c).values) p.values.emplace_back(name, stack.select(0, expert));
    return p;
  }
  Schema schema;
  ExpertBank bank;
};

Routed routed_by(Selection s, const CombineOptions& combine = {}) {
  Routed r;
  r.weight = combine_weights(s, combine, Phase::evaluate, true);
  r.plan = make_plan(s);
  r.engagement = std::move(s);
  return r;
}

/// Σ over kept pairs of weight · f_expert(x_unit), one pair at a time.
at::Tensor naive(const Fixture& f, const at::Tensor& x, const Selection& s, const at::Tensor& weight, const Context& c) {
  at::Tensor y = at::zeros({x.size(0), f.bank.out()}, x.options());
  for (int64_t p = 0; p < s.pairs(); ++p) {
    if (s.kept.defined() && !s.kept[p].item<bool>()) continue;
    const int64_t unit = s.unit[p].item<int64_t>(), expert = s.expert[p].item<int64_t>();
    const at::Tensor out = f.bank.stacks()[0].kind->apply(f.one(expert, c), x.slice(0, unit, unit + 1), c);
    y = y.index_add(0, s.unit.slice(0, p, p + 1), out * weight[p]);
  }
  return y;
}

Selection random_selection(int64_t rows, int64_t experts, int64_t k, uint64_t seed) {
  const at::Tensor scores = randn({rows, experts}, seed);
  const at::Tensor ids = scores.argsort(1, true).slice(1, 0, k);
  return select_pairs(ids.contiguous(), scores.softmax(1).gather(1, ids), experts);
}

TEST(ExpertBank, RowsEqualALoopOverPairs) {
  for (const char* slug : {"relu", "gelu", "geglu", "swiglu"})
    for (const auto& [rows, experts, k] : std::vector<std::tuple<int64_t, int64_t, int64_t>>{
             {7, 4, 2}, {1, 4, 1}, {5, 3, 3}, {6, 1, 1}, {2, 8, 2}, {0, 4, 2}}) {
      Fixture f(slug, "{hidden: 6, bias: true}", experts, 5, 5);
      Pass pass(rows);
      const at::Tensor x = randn({rows, 5}, 11);
      const Selection s = random_selection(rows, experts, k, 13);
      const Routed routed = routed_by(s);
      const at::Tensor y = f.bank.run(x, routed, {}, pass.context);
      EXPECT_LT(difference(y, naive(f, x, s, routed.weight, pass.context)), 1e-12) << slug << " " << rows;
    }
}

TEST(ExpertBank, AllTokensToOneExpertLeavesTheOthersGradientZero) {
  Fixture f("swiglu", "{hidden: 6}", 4, 5, 5);
  Pass pass(6);
  const at::Tensor x = randn({6, 5}, 1);
  Selection s = select_pairs(at::full({6, 1}, 2, at::kLong), at::ones({6, 1}, at::kDouble), 4);
  f.bank.run(x, routed_by(s), {}, pass.context).sum().backward();
  const at::Tensor grad = f.leaves()[0].grad();
  ASSERT_TRUE(grad.defined());
  EXPECT_GT(grad[2].abs().max().item<double>(), 0);
  for (int64_t e : {0, 1, 3}) EXPECT_EQ(grad[e].abs().max().item<double>(), 0) << e;
}

TEST(ExpertBank, DroppedPairsFollowTheOverflowRule) {
  Fixture f("relu", "{hidden: 6}", 3, 4, 4);
  Pass pass(3);
  const at::Tensor x = randn({3, 4}, 1);
  Selection s = select_pairs(at::tensor({0, 1, 2}, at::kLong).view({3, 1}),
                             at::tensor({0.5, 0.25, 0.75}, at::kDouble).view({3, 1}), 3);
  s.kept = at::tensor({1, 0, 1}, at::kLong).to(at::kBool);
  const auto run = [&](Overflow overflow) {
    const CombineOptions combine{.overflow = overflow};
    return f.bank.run(x, routed_by(s, combine), combine, pass.context);
  };
  EXPECT_EQ(run(Overflow::zero)[1].abs().max().item<double>(), 0);
  EXPECT_LT(difference(run(Overflow::identity)[1], x[1]), 1e-15);
  EXPECT_LT(difference(run(Overflow::scaled_identity)[1], x[1] * 0.25), 1e-7);  // weights are float32
  for (int64_t row : {0, 2})
    EXPECT_LT(difference(run(Overflow::zero)[row], run(Overflow::identity)[row]), 1e-15);
}

TEST(ExpertBank, WeightsMayMultiplyTheInput) {
  Fixture f("relu", "{hidden: 6}", 3, 4, 4);
  Pass pass(5);
  const at::Tensor x = randn({5, 4}, 1);
  const Selection s = random_selection(5, 3, 1, 4);
  const CombineOptions on_input{.on = WeighOn::input};
  const at::Tensor y = f.bank.run(x, routed_by(s, on_input), on_input, pass.context);
  Selection ones = s;
  ones.weight = at::ones_like(s.weight);
  const at::Tensor scaled = x * s.weight.unsqueeze(1);
  EXPECT_LT(difference(y, naive(f, scaled, ones, ones.weight, pass.context)), 1e-12);
}

TEST(ExpertBank, GatedEqualsRowsWithAllPairs) {
  Fixture f("geglu", "{hidden: 6}", 4, 5, 5);
  Pass pass(6);
  const at::Tensor x = randn({6, 5}, 2), w = randn({6, 4}, 3).softmax(1);
  Selection gated = select_all(w);
  gated.run = Run::gated;
  Routed r;
  r.engagement = gated;
  const at::Tensor y = f.bank.run(x, r, {}, pass.context);
  EXPECT_LT(difference(y, f.bank.run(x, routed_by(with_pairs(select_all(w))), {}, pass.context)), 1e-12);
}

TEST(ExpertBank, MergedRunsOneBlendedExpertAUnit) {
  Fixture f("relu", "{hidden: 1}", 2, 1, 1);
  {
    at::NoGradGuard guard;  // experts max(0, 2x) and max(0, -2x)
    f.schema.find("bank.up").tensor().copy_(at::tensor({2.0, -2.0}, at::kDouble).view({2, 1, 1}));
    f.schema.find("bank.down").tensor().fill_(1);
  }
  Pass pass(4);
  Selection s = select_all(at::tensor({0.5, 0.5, 1.0, 0.0}, at::kDouble).view({2, 2}));
  s.run = Run::merged;
  s.unit_of_row = at::tensor({0, 1, 0, 1}, at::kLong);
  Routed r;
  r.engagement = s;
  const at::Tensor x = at::tensor({3.0, 3.0, -1.0, -1.0}, at::kDouble).view({4, 1});
  const at::Tensor y = f.bank.run(x, r, {}, pass.context);
  // Unit 0 blends to the zero map; unit 1 is expert 0.
  EXPECT_LT(difference(y.view({-1}), at::tensor({0.0, 6.0, 0.0, 0.0}, at::kDouble)), 1e-12);
}

TEST(ExpertBank, TokenBlendFollowsTheHandCase) {
  // x = [4, 8], logits [[ln 3, 0], [0, 0]], experts 2x and x + 1: y = [9.25, 8.5] (Soft MoE's definition).
  Fixture f("ffn-expert", "{activation: identity, hidden: 1, bias: true}", 2, 1, 1);
  {
    at::NoGradGuard guard;
    for (const Parameter& p : f.schema.all()) p.tensor().zero_();
    f.schema.find("bank.up").tensor().fill_(1);
    f.schema.find("bank.down").tensor().copy_(at::tensor({2.0, 1.0}, at::kDouble).view({2, 1, 1}));
    f.schema.find("bank.down_bias").tensor().copy_(at::tensor({0.0, 1.0}, at::kDouble).view({2, 1}));
  }
  Pass pass(2);
  const at::Tensor logits = at::tensor({std::log(3.0), 0.0, 0.0, 0.0}, at::kDouble).view({1, 2, 2});
  TokenBlend blend;
  blend.experts = 2;
  blend.members = at::tensor({0, 1}, at::kLong).view({1, 2});
  blend.dispatch = logits.softmax(1);
  blend.combine = logits.softmax(2);
  blend.slot_expert = at::tensor({0, 1}, at::kLong);
  Routed r;
  r.engagement = blend;
  const at::Tensor y = f.bank.run(at::tensor({4.0, 8.0}, at::kDouble).view({2, 1}), r, {}, pass.context);
  EXPECT_LT(difference(y.view({-1}), at::tensor({9.25, 8.5}, at::kDouble)), 1e-12);
}

TEST(ExpertBank, CombineListsReadExpertsThatRanOnce) {
  Fixture f("relu", "{hidden: 6}", 3, 4, 4);
  Pass pass(2);
  const at::Tensor x = randn({2, 4}, 1), gate = randn({2, 2, 3}, 5).softmax(2);  // [T, tasks, E]
  Selection s = with_pairs(select_all(at::ones({2, 3}, at::kDouble)));
  std::vector<int64_t> out, source;
  std::vector<double> weight;
  for (int64_t t = 0; t < 2; ++t)
    for (int64_t task = 0; task < 2; ++task)
      for (int64_t p = 0; p < 3; ++p) {
        out.push_back(t * 2 + task);
        source.push_back(t * 3 + p);
        weight.push_back(gate[t][task][s.expert[t * 3 + p].item<int64_t>()].item<double>());
      }
  s.outputs = 4;
  s.out = at::tensor(out, at::kLong);
  s.source = at::tensor(source, at::kLong);
  s.out_weight = at::tensor(weight, at::kDouble);
  const at::Tensor y = f.bank.run(x, routed_by(s), {}, pass.context);
  const at::Tensor expected = at::bmm(gate, f.bank.run_all(x, pass.context)).reshape({4, 4});
  EXPECT_LT(difference(y, expected), 1e-12);
}

TEST(ExpertBank, StacksOfSeveralKindsShareOneNumbering) {
  ExpertBank bank({{kind("swiglu", "{hidden: 3}"), 2}, {kind("zero-expert", "{}"), 1}, {kind("copy-expert", "{}"), 1}}, 4, 4);
  Schema schema;
  bank.declare(schema.in("b"));
  initialise(schema, Streams(1), at::kDouble);
  Pass pass(4);
  const at::Tensor x = randn({4, 4}, 1);
  Selection s = select_pairs(at::tensor({0, 1, 2, 3}, at::kLong).view({4, 1}), at::full({4, 1}, 0.5, at::kDouble), 4);
  const at::Tensor y = bank.run(x, routed_by(s), {}, pass.context);
  EXPECT_EQ(y[2].abs().max().item<double>(), 0);
  EXPECT_LT(difference(y[3], x[3] * 0.5), 1e-12);
  EXPECT_GT(y[0].abs().max().item<double>(), 0);
}

TEST(ExpertBank, GradientsOfEveryExecutionEqualFiniteDifferences) {
  for (const char* slug : {"gelu", "swiglu", "lora"}) {
    const std::string yaml = std::string(slug) == "lora" ? "{rank: 2}" : "{hidden: 3}";
    Fixture f(slug, yaml, 3, 4, 4);
    Pass pass(5);
    at::Tensor x = randn({5, 4}, 1).requires_grad_();
    at::Tensor logits = randn({5, 3}, 2).requires_grad_();
    std::vector<at::Tensor> leaves = f.leaves();
    leaves.push_back(x);
    leaves.push_back(logits);
    const at::Tensor ids = logits.detach().argsort(1, true).slice(1, 0, 2).contiguous();
    expect_gradients([&] {
      Selection s = select_pairs(ids, logits.softmax(1).gather(1, ids), 3);
      return f.bank.run(x, routed_by(s), {}, pass.context);
    }, leaves);
    expect_gradients([&] {
      Selection s = select_all(logits.softmax(1));
      s.run = Run::merged;
      Routed r;
      r.engagement = s;
      return f.bank.run(x, r, {}, pass.context);
    }, leaves);
    expect_gradients([&] {
      Selection s = select_all(logits.softmax(1));
      s.run = Run::gated;
      Routed r;
      r.engagement = s;
      return f.bank.run(x, r, {}, pass.context);
    }, leaves);
  }
}

TEST(Catalogue, ffn_expert_grouped_equals_loop_and_counts_its_parameters) {
  Fixture f("ffn-expert", "{activation: relu, hidden: 6, bias: true}", 4, 5, 5);
  EXPECT_EQ(f.schema.count(), 4 * (2 * 5 * 6 + 6 + 5));
  Fixture gated("ffn-expert", "{activation: swiglu, hidden: 6}", 4, 5, 5);
  EXPECT_EQ(gated.schema.count(), 4 * 3 * 5 * 6);
  Pass pass(9);
  const at::Tensor x = randn({9, 5}, 1);
  const Selection s = random_selection(9, 4, 2, 3);
  const Routed r = routed_by(s);
  const at::Tensor y = f.bank.run(x, r, {}, pass.context);
  EXPECT_LT(difference(y, naive(f, x, s, r.weight, pass.context)), 1e-12);
  // The down bias is weighted like the rest of the output.
  Selection doubled = s;
  doubled.weight = s.weight * 2;
  EXPECT_LT(difference(f.bank.run(x, routed_by(doubled), {}, pass.context), y * 2), 1e-12);
}

at::Tensor through(const std::string& slug, double x, double gate, double up) {
  Fixture f(slug, "{hidden: 1}", 1, 1, 1);
  at::NoGradGuard guard;
  if (auto p = f.schema.find("bank.gate")) p.tensor().fill_(gate);
  f.schema.find("bank.up").tensor().fill_(up);
  f.schema.find("bank.down").tensor().fill_(1);
  Pass pass(1);
  return f.bank.run_all(at::full({1, 1}, x, at::kDouble), pass.context).view({-1})[0];
}

TEST(Catalogue, relu_values) {
  EXPECT_EQ(through("relu", -1, 0, 1).item<double>(), 0);
  EXPECT_EQ(through("relu", 2, 0, 1).item<double>(), 2);
}

TEST(Catalogue, gelu_is_the_exact_form) {
  EXPECT_NEAR(through("gelu", 1, 0, 1).item<double>(), 0.841345, 1e-6);
  EXPECT_NEAR(through("gelu", -1, 0, 1).item<double>(), -0.158655, 1e-6);
  EXPECT_NEAR(through("gelu", 2, 0, 1).item<double>(), 1.954500, 1e-6);
}

TEST(Catalogue, swiglu_value) { EXPECT_NEAR(through("swiglu", 1, 2, 3).item<double>(), 5.284782, 1e-6); }
TEST(Catalogue, clamped_swiglu_holds_both_maps_within_limits) {
  // gpt-oss: (gate, up) → gate σ(1.702 gate) (up + 1), gate at most 7, up within ±7.
  EXPECT_NEAR(through("clamped-swiglu", 1, 8, -9).item<double>(), -41.999719, 1e-5);
  EXPECT_NEAR(through("clamped-swiglu", 1, .5, 2).item<double>(), 1.051165, 1e-6);
  EXPECT_NEAR(through("clamped-swiglu", 1, -10, 0).item<double>(), -4.1e-7, 1e-8);
}
TEST(Catalogue, swiglu_gated_multiplies_up_by_a_swiglu_of_the_gates_halves) {
  Fixture f("swiglu-gated", "{hidden: 1}", 1, 1, 1);
  at::NoGradGuard guard;
  f.schema.find("bank.gate").tensor().copy_(at::tensor({3.0, 2.0}, at::kDouble).view({1, 2, 1}));  // a, then b
  f.schema.find("bank.up").tensor().fill_(5);
  f.schema.find("bank.down").tensor().fill_(1);
  Pass pass(1);
  const double expected = 5 * 3 * 2 / (1 + std::exp(-2.0));  // up · a · silu(b)
  EXPECT_NEAR(f.bank.run_all(at::ones({1, 1}, at::kDouble), pass.context).item<double>(), expected, 1e-12);
}
TEST(Catalogue, constant_expert_returns_its_vector_whatever_the_row) {
  Fixture f("constant-expert", "{}", 2, 2, 3);
  at::NoGradGuard guard;
  f.schema.find("bank.value").tensor().copy_(at::arange(6, at::kDouble).view({2, 3}));
  Pass pass(2);
  const at::Tensor all = f.bank.run_all(randn({2, 2}, 1), pass.context);
  EXPECT_TRUE(all[0].equal(at::arange(6, at::kDouble).view({2, 3})));
  EXPECT_TRUE(all[1].equal(all[0]));
}
TEST(Catalogue, geglu_value) { EXPECT_NEAR(through("geglu", 1, 2, 3).item<double>(), 5.863499, 1e-6); }
TEST(Catalogue, glu_variants_gate_and_up_are_not_interchangeable) {
  EXPECT_GT(std::abs((through("swiglu", 1, 2, 3) - through("swiglu", 1, 3, 2)).item<double>()), 0.1);
  EXPECT_GT(std::abs((through("swiglu", 1, 2, 3) - through("geglu", 1, 2, 3)).item<double>()), 0.1);
}

TEST(Catalogue, projection_expert_is_one_linear_map_an_expert) {
  Fixture f("projection-expert", "{}", 2, 2, 3);
  at::NoGradGuard guard;
  f.schema.find("bank.weight").tensor().copy_(at::tensor({1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 2.0, 0.0, 0.0, 2.0, -1.0, 1.0}, at::kDouble).view({2, 3, 2}));
  Pass pass(1);
  const at::Tensor all = f.bank.run_all(at::tensor({3.0, 5.0}, at::kDouble).view({1, 2}), pass.context);  // [1, 2, 3]
  EXPECT_LT(difference(all.view({2, 3}), at::tensor({3.0, 5.0, 8.0, 6.0, 10.0, 2.0}, at::kDouble).view({2, 3})), 1e-12);
}

TEST(Catalogue, zero_expert_returns_nothing) {
  Pass pass(2);
  EXPECT_EQ(kind("zero-expert", "{}")->apply({}, randn({2, 3}, 1), pass.context).abs().max().item<double>(), 0);
}
TEST(Catalogue, copy_expert_returns_the_weighted_row) {
  ExpertBank bank({{kind("copy-expert", "{}"), 2}}, 3, 3);
  Schema schema;
  bank.declare(schema);
  Pass pass(2);
  const at::Tensor x = randn({2, 3}, 1);
  const Selection s = random_selection(2, 2, 2, 4);
  EXPECT_LT(difference(bank.run(x, routed_by(s), {}, pass.context), x), 1e-6);  // weights sum to one
  EXPECT_EQ(testing::expect_error([] { kind("copy-expert", "{}")->tensors(3, 4); }).code(), "experts.width");
}

TEST(Catalogue, lora_hand_case_and_blend_of_products) {
  Fixture f("lora", "{rank: 1, alpha: 2}", 2, 2, 2);
  {
    at::NoGradGuard guard;
    f.schema.find("bank.a").tensor().copy_(at::tensor({1.0, 2.0, 1.0, -1.0}, at::kDouble).view({2, 1, 2}));
    f.schema.find("bank.b").tensor().copy_(at::tensor({3.0, 4.0, 2.0, 5.0}, at::kDouble).view({2, 2, 1}));
  }
  Pass pass(1);
  const at::Tensor x = at::ones({1, 2}, at::kDouble);
  // W = I, A = [1 2], B = [3 4]', scale 2: W x + 2 B A x = (19, 25).
  const at::Tensor y = x + f.bank.stacks()[0].kind->apply(f.one(0, pass.context), x, pass.context);
  EXPECT_LT(difference(y, at::tensor({19.0, 25.0}, at::kDouble).view({1, 2})), 1e-12);
  // Blending must give Σ p BA, which differs from (Σ pB)(Σ pA).
  const at::Tensor p = at::tensor({0.25, 0.75}, at::kDouble);
  const at::Tensor z = randn({3, 2}, 5);
  const Params merged = f.bank.stacks()[0].kind->blend(f.bank.params(0, pass.context), p);
  const at::Tensor all = f.bank.run_all(z, pass.context);
  EXPECT_LT(difference(f.bank.stacks()[0].kind->apply(merged, z, pass.context),
                       all.select(1, 0) * 0.25 + all.select(1, 1) * 0.75), 1e-12);
  // A fresh adapter changes nothing.
  Schema fresh;
  ExpertBank neutral({{kind("lora", "{rank: 2}"), 2}}, 4, 4);
  neutral.declare(fresh);
  initialise(fresh, Streams(1), at::kDouble);
  EXPECT_EQ(neutral.run_all(randn({3, 4}, 1), pass.context).abs().max().item<double>(), 0);
}

}  // namespace
}  // namespace switchyard
