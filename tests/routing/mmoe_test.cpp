// Several tasks over shared experts: the paper's formula, what it reduces to, and two tasks that do not agree.
#include "switchyard/kernels/optimiser.h"
#include "switchyard/routing/router.h"
#include "tests/layer/layer_support.h"

namespace switchyard {
namespace {

using testing::difference;
using testing::expect_error;
using testing::expect_gradients;
using testing::Layer;
using testing::Pass;
using testing::randn;
using testing::set_facts;

/// Counts how often, and on how many rows, experts run.
struct Counted : ExpertKind {
  std::vector<ExpertTensor> tensors(int64_t in, int64_t out) const override { return {{"w", {out, in}, Init::normal(0.5)}}; }
  at::Tensor apply(const Params& p, const at::Tensor& rows, const Context&) const override {
    ++calls;
    seen += rows.size(0);
    return at::linear(rows, p["w"]);
  }
  mutable int64_t calls = 0, seen = 0;
};

std::string layer_of(const std::string& router) {
  return "{experts: 3, expert: {type: relu, hidden: 4}, router: " + router + "}";
}

/// f_k(x) = Σ_i softmax(W_k x)_i f_i(x), [T, K, out].
at::Tensor formula(const Layer& l, const at::Tensor& x, const Context& c) {
  const at::Tensor all = l.layer.bank().run_all(x, c), weight = l["moe.router.weight"];
  std::vector<at::Tensor> tasks;
  for (int64_t k = 0; k < weight.size(0); ++k)
    tasks.push_back(at::bmm(at::linear(x, weight[k]).softmax(-1).unsqueeze(1), all).squeeze(1));
  return at::stack(tasks, 1);
}

TEST(Catalogue, mmoe_is_the_papers_formula_for_every_task) {
  Layer l(layer_of("{type: mmoe, tasks: 3, outputs: all}"));
  for (int64_t rows : {0, 1, 5}) {
    Pass pass(rows);
    const at::Tensor x = randn({rows, 6}, 1);
    const at::Tensor y = l(x, pass.context);
    EXPECT_EQ(y.sizes(), (at::IntArrayRef{rows * 3, 6}));
    EXPECT_LT(difference(y.view({rows, 3, 6}), formula(l, x, pass.context)), 1e-6);
    EXPECT_EQ(pass.records.all()[0].gates().size(), 3u);
  }
}

TEST(Catalogue, mmoe_gives_each_row_its_own_task) {
  Layer l(layer_of("{type: mmoe, tasks: 3, fact: task}"));
  Pass pass(5);
  const at::Tensor task = at::tensor({2, 0, 1, 1, 2}, at::kLong);
  pass.facts.set_row("task", task);
  const at::Tensor x = randn({5, 6}, 1);
  const at::Tensor expected = formula(l, x, pass.context);
  const at::Tensor y = l(x, pass.context);
  for (int64_t t = 0; t < 5; ++t) EXPECT_LT(difference(y[t], expected[t][task[t].item<int64_t>()]), 1e-6) << t;
  EXPECT_EQ(l.layer.reach({}, Phase::train).unit, Reach::Unit::row);
}

TEST(Catalogue, mmoe_with_one_gate_or_equal_gates_is_the_dense_mixture) {
  const at::Tensor x = randn({5, 6}, 1);
  Pass pass(5);
  set_facts(pass, 1);
  Layer one(layer_of("{type: mmoe, tasks: 1, outputs: all}")), own(layer_of("{type: mmoe, tasks: 1}")), dense(layer_of("dense-moe"));
  {
    at::NoGradGuard guard;
    dense["moe.router.weight"].copy_(one["moe.router.weight"][0]);
  }
  EXPECT_LT(difference(one(x, pass.context), dense(x, pass.context)), 1e-6);
  EXPECT_LT(difference(own(x, pass.context), dense(x, pass.context)), 1e-6);
  Layer equal(layer_of("{type: mmoe, tasks: 4, outputs: all}"));
  {
    at::NoGradGuard guard;
    equal["moe.router.weight"].copy_(one["moe.router.weight"].expand({4, 3, 6}));
  }
  EXPECT_LT(difference(equal(x, pass.context).view({5, 4, 6}), dense(x, pass.context).unsqueeze(1).expand({5, 4, 6})), 1e-6);
  // A single expert is a shared bottom.
  Layer bottom("{experts: 1, expert: {type: relu, hidden: 4}, router: {type: mmoe, tasks: 2, outputs: all}}");
  const at::Tensor shared = bottom.layer.bank().run_all(x, pass.context).select(1, 0);
  EXPECT_LT(difference(bottom(x, pass.context).view({5, 2, 6}), shared.unsqueeze(1).expand({5, 2, 6})), 1e-6);
}

TEST(Catalogue, mmoe_runs_experts_once_however_many_tasks_read_them) {
  auto kind = std::make_shared<Counted>();
  ExpertBank bank({{kind, 3}}, 4, 4);
  Schema schema;
  bank.declare(schema.in("bank"));
  const auto router = Registry::instance().make<Router>("mmoe", parse_yaml("{tasks: 7, outputs: all}", "test"));
  router->declare(schema.in("router"), {.width = 4, .experts = 3});
  initialise(schema, Streams(1), at::kDouble);
  Pass pass(5);
  const at::Tensor x = randn({5, 4}, 1);
  Routed routed;
  routed.engagement = router->route({x, {}}, pass.context);
  routed.plan = make_plan(*routed.selection());
  EXPECT_EQ(bank.run(x, routed, {}, pass.context).size(0), 35);
  EXPECT_EQ(kind->calls, 3);
  EXPECT_EQ(kind->seen, 15);
}

TEST(Catalogue, mmoe_gates_learn_from_their_own_task_alone) {
  Layer l(layer_of("{type: mmoe, tasks: 2, outputs: all}"));
  Pass pass(5, 1, Phase::train);
  l(randn({5, 6}, 1), pass.context).view({5, 2, 6}).select(1, 0).square().sum().backward();
  const at::Tensor grad = l["moe.router.weight"].grad();
  EXPECT_GT(grad[0].abs().max().item<double>(), 0);
  EXPECT_EQ(grad[1].abs().max().item<double>(), 0);
  EXPECT_GT(l["moe.experts.up"].grad().abs().max().item<double>(), 0);
}

TEST(Mmoe, GradientsEqualFiniteDifferences) {
  for (const char* outputs : {"own", "all"}) {
    Layer l(fmt::format("{{experts: 3, expert: {{type: gelu, hidden: 2}}, router: {{type: mmoe, tasks: 2, outputs: {}}}, combine: {{scale: 1.5}}}}", outputs), 3, 3);
    Pass pass(4, 1, Phase::train);
    set_facts(pass);
    at::Tensor x = randn({4, 3}, 1).requires_grad_();
    std::vector<at::Tensor> leaves = l.leaves();
    leaves.push_back(x);
    expect_gradients([&] { return l(x, pass.context); }, leaves, 1e-4);
  }
}

TEST(Mmoe, TasksOutOfRangeAndMissingFactsAreNamed) {
  Layer l(layer_of("{type: mmoe, tasks: 2}"));
  Pass pass(3);
  const at::Tensor x = randn({3, 6}, 1);
  const Error missing = expect_error([&] { l(x, pass.context); });
  EXPECT_EQ(missing.code(), "facts.missing");
  EXPECT_NE(missing.message().find("moe: mmoe needs the fact \"domain\""), std::string::npos) << missing.message();
  pass.facts.set_row("domain", at::tensor({0, 1, 2}, at::kLong));
  const Error range = expect_error([&] { l(x, pass.context); });
  EXPECT_EQ(range.code(), "routing.task");
  EXPECT_NE(range.message().find("goes from 0 to 2, but there are gates for 0 to 1; set tasks: 3"), std::string::npos) << range.message();
  // Renormalising or weighing inputs has no meaning for a list of outputs.
  for (const auto& [combine, code] : std::vector<std::pair<std::string, std::string>>{
           {"renormalise: before_drop", "routing.combine_list"}, {"on: input", "routing.weigh_input"}}) {
    Layer list("{experts: 3, expert: {type: relu, hidden: 4}, router: {type: mmoe, outputs: all}, combine: {" + combine + "}}");
    EXPECT_EQ(expect_error([&] { list(x, pass.context); }).code(), code);
  }
}

/// Two regression tasks of relatedness p (Ma et al., section 4): y_k = w_k·x + Σ sin(a_i w_k·x + b_i) + noise.
struct Tasks {
  Tasks(double p, uint64_t seed) : random(seed) {
    constexpr int64_t width = 20;
    const at::Tensor u = std::get<0>(at::linalg_qr(random.normal({width, 2}, {.purpose = "u"}, at::kDouble)));
    w = at::stack({u.select(1, 0), p * u.select(1, 0) + std::sqrt(1 - p * p) * u.select(1, 1)});
  }
  std::pair<at::Tensor, at::Tensor> draw(int64_t rows, int64_t step) const {
    const at::Tensor x = random.normal({rows, 20}, {.purpose = "x", .step = step}, at::kDouble);
    const at::Tensor z = at::linear(x, w);
    at::Tensor y = z + random.normal({rows, 2}, {.purpose = "noise", .step = step}, at::kDouble) * 0.1;
    for (int i = 1; i <= 5; ++i) y = y + (0.5 * i * z + 0.3 * i).sin();
    return {x, y};
  }
  Streams random;
  at::Tensor w;
};

/// Mean squared error of both tasks after training with a linear tower a task over the layer's outputs.
double trained(const std::string& yaml, bool all_tasks, const Tasks& tasks, uint64_t seed) {
  Layer l(yaml, 20, 8);
  std::vector<at::Tensor> leaves;
  {
    at::NoGradGuard guard;
    for (const Parameter& p : l.schema.all())
      p.tensor().copy_(randn(p.spec().shape, stable_hash(p.name()) + seed) / std::sqrt(1.0 * p.spec().shape.back()));
  }
  leaves = l.leaves();
  leaves.push_back((randn({2, 8}, seed + 7) * 0.3).requires_grad_());
  std::vector<at::Tensor> m, v;
  for (const at::Tensor& leaf : leaves) {
    m.push_back(at::zeros_like(leaf, leaf.options().requires_grad(false)));
    v.push_back(at::zeros_like(m.back()));
  }
  const auto error = [&](int64_t rows, int64_t step) {
    const auto [x, y] = tasks.draw(rows, step);
    Pass pass(rows, 1, Phase::train);
    at::Tensor h = l(x, pass.context);
    h = all_tasks ? h.view({rows, 2, 8}) : h.unsqueeze(1).expand({rows, 2, 8});
    return ((h * leaves.back()).sum(2) - y).square().mean();
  };
  constexpr int64_t steps = 500;
  for (int64_t step = 1; step <= steps; ++step) {
    error(64, step).backward();
    at::NoGradGuard guard;
    for (size_t i = 0; i < leaves.size(); ++i) {
      kernels::adamw_step(leaves[i], leaves[i].grad(), m[i], v[i], {.lr = 5e-3, .weight_decay = 0, .step = step});
      leaves[i].mutable_grad() = at::Tensor();
    }
  }
  at::NoGradGuard guard;
  return error(2000, steps + 1).item<double>();
}

TEST(Catalogue, mmoe_beats_a_shared_bottom_of_its_size_on_unrelated_tasks) {
  // 4 experts of width 6 and their 2·4·20 gate weights against one bottom of at least as many parameters.
  const std::string mixture = "{experts: 4, expert: {type: relu, hidden: 6}, router: {type: mmoe, tasks: 2, outputs: all}}";
  const std::string bottom = "{experts: 1, expert: {type: relu, hidden: 30}, router: dense-moe}";
  EXPECT_LE(Layer(mixture, 20, 8).schema.count(), Layer(bottom, 20, 8).schema.count());
  int better = 0;
  double gap = 0;
  for (uint64_t seed = 0; seed < 3; ++seed) {
    const Tasks tasks(0, seed);
    const double with = trained(mixture, true, tasks, seed), without = trained(bottom, false, tasks, seed);
    better += with < without;
    gap += (without - with) / 3;
  }
  EXPECT_GE(better, 2) << "mean gap " << gap;
}

TEST(Mmoe, TheTaskGeneratorHasTheStatedCorrelations) {
  for (const auto& [p, expected] : std::vector<std::pair<double, double>>{{0, 0}, {0.5, 0.327}, {1, 0.999}}) {
    const auto [x, y] = Tasks(p, 1).draw(20000, 0);
    EXPECT_NEAR(at::corrcoef(y.t())[0][1].item<double>(), expected, 0.03) << p;
  }
}

}  // namespace
}  // namespace switchyard
