// Loss-free balancing by bias: the update by hand, its refusals, and that it balances a skewed router.
#include "switchyard/routing/controller.h"

#include "tests/layer/balance_harness.h"

namespace switchyard {
namespace {

using testing::difference;
using testing::expect_error;
using testing::run_balance;

struct Biased {
  explicit Biased(const std::string& yaml = "{}") : controller(Registry::instance().make<Controller>("aux-free-bias", parse_yaml(yaml, "test"))) {
    bias = schema.in("router").buffer("bias", {3});
    bias.bind(at::zeros({3}));
    controller->bind(schema.in("router"));
  }
  at::Tensor after(std::vector<int64_t> counts, int64_t step = 0) {
    controller->after_step({.engaged = at::tensor(counts, at::kLong), .admitted = at::tensor(counts, at::kLong), .rows = 4, .step = step});
    return bias.tensor();
  }
  Schema schema;
  Parameter bias;
  std::shared_ptr<Controller> controller;
};

TEST(Catalogue, aux_free_bias_moves_by_the_sign_of_the_missing_load) {
  Biased b;
  EXPECT_LT(difference(b.after({3, 1, 0}), at::tensor({-0.001, 0.001, 0.001}, at::kDouble)), 1e-9);
  EXPECT_LT(difference(b.after({2, 2, 2}), at::tensor({-0.001, 0.001, 0.001}, at::kDouble)), 1e-9);  // even: nothing
  EXPECT_LT(difference(b.after({0, 3, 0}), at::tensor({0.0, 0.0, 0.002}, at::kDouble)), 1e-9);
  EXPECT_FALSE(b.bias.tensor().requires_grad());
}

TEST(Catalogue, aux_free_bias_may_move_in_proportion_and_stop) {
  Biased proportional("{rule: proportional, speed: 0.1}");
  EXPECT_LT(difference(proportional.after({3, 1, 2}), at::tensor({-0.05, 0.05, 0.0}, at::kDouble)), 1e-8);
  EXPECT_LT(difference(proportional.after({0, 0, 0}), at::tensor({-0.05, 0.05, 0.0}, at::kDouble)), 1e-8);
  Biased until("{until: 10}");
  EXPECT_GT(until.after({3, 1, 0}, 9).abs().max().item<double>(), 0);
  const at::Tensor before = until.bias.tensor().clone();
  EXPECT_TRUE(until.after({3, 1, 0}, 10).equal(before));
}

TEST(Controllers, ABiasNeedsARouterThatHasOne) {
  const auto controller = Registry::instance().make<Controller>("aux-free-bias", Node());
  Schema without;
  const Error none = expect_error([&] { controller->bind(without.in("router")); });
  EXPECT_EQ(none.code(), "routing.controller");
  EXPECT_NE(none.message().find("use router: sigmoid-topk"), std::string::npos) << none.message();
  Schema trained;
  trained.in("router").add("bias", {3}, Role::router, Init::zeros());
  EXPECT_NE(expect_error([&] { controller->bind(trained.in("router")); }).message().find("trained by gradient"), std::string::npos);
  Biased b;
  EXPECT_EQ(expect_error([&] { b.after({1, 2}); }).code(), "routing.controller");
}

const char* const kLinearExperts = "experts: 8, expert: projection-expert, ";

TEST(Catalogue, aux_free_bias_balances_a_skewed_router_without_a_loss) {
  const std::string layer = std::string("{") + kLinearExperts + "router: {type: sigmoid-topk, k: 1}, combine: {renormalise: never}, ";
  const auto with = [&](const std::string& speed, int64_t steps) {
    return run_balance(layer + "controllers: {type: aux-free-bias, speed: " + speed + "}}", "moe.router.bias", 1, steps);
  };
  EXPECT_LE(with("0.01", 400).variation, 0.2);
  EXPECT_GE(with("0.001", 200).variation, 1);  // its reach is speed times steps
}

TEST(Catalogue, lb_loss_revives_a_collapsed_router) {
  const std::string layer = std::string("{") + kLinearExperts + "router: {type: sparse-topk, k: 1, softmax: all, scorer: {type: linear, bias: true}}, ";
  const char* const bias = "moe.router.logit_bias";
  const auto without = run_balance(layer + "losses: []}", bias, 1, 200);
  EXPECT_NEAR(without.variation, std::sqrt(7.0), 1e-3);
  EXPECT_EQ(without.used, 1);
  const auto with = run_balance(layer + "losses: {type: lb-loss, coefficient: 0.1}}", bias, 1);
  EXPECT_LE(with.variation, 1.5);
  EXPECT_EQ(with.used, 8);
  // The z-loss shrinks logits and balances nothing.
  const auto z = run_balance(layer + "losses: {type: router-z, coefficient: 0.001}}", bias, 1);
  EXPECT_NEAR(z.variation, std::sqrt(7.0), 1e-3);
  EXPECT_LT(z.mean_square_lse, without.mean_square_lse);
}

}  // namespace
}  // namespace switchyard
