// Experts beside the router: shared, gated, residual; experts that cost nothing; low-rank and fine-grained ones.
#include "tests/layer/layer_support.h"

namespace switchyard {
namespace {

using testing::difference;
using testing::expect_error;
using testing::expect_gradients;
using testing::Layer;
using testing::Pass;
using testing::randn;

const std::string kRouted = "experts: 4, expert: {type: swiglu, hidden: 3}, router: {type: sparse-topk, softmax: all}";

at::Tensor swiglu(const at::Tensor& x, const Layer& l, const std::string& at) {
  return at::linear(at::linear(x, l[at + ".gate"]).sigmoid() * at::linear(x, l[at + ".gate"]) * at::linear(x, l[at + ".up"]), l[at + ".down"]);
}

/// What the routed experts alone give.
at::Tensor routed(const Layer& l, const at::Tensor& x) {
  Pass pass(x.size(0));
  const Overrides off{.k = {}, .capacity = {}, .allowed = {}, .forced = {}, .always_off = true};
  pass.context.overrides = &off;
  return l(x, pass.context);
}

TEST(Catalogue, shared_expert_is_one_wide_network_beside_the_mixture) {
  Layer l("{" + kRouted + ", shared: {expert: {type: swiglu, hidden: 3}, count: 2}}");
  const at::Tensor x = randn({7, 6}, 1);
  Pass pass(7, 1, Phase::train);
  const at::Tensor y = l(x, pass.context);
  EXPECT_LT(difference(y - routed(l, x), swiglu(x, l, "moe.shared.0") + swiglu(x, l, "moe.shared.1")), 1e-6);
  // Two of width 3 equal one of width 6.
  Layer wide("{" + kRouted + ", shared: {expert: {type: swiglu, hidden: 6}}}");
  {
    at::NoGradGuard guard;
    for (const char* name : {"gate", "up", "down"})
      wide[std::string("moe.shared.") + name].copy_(at::cat({l[std::string("moe.shared.0.") + name], l[std::string("moe.shared.1.") + name]},
                                                           name == std::string("down") ? 1 : 0));
  }
  EXPECT_LT(difference(y, wide(x, pass.context)), 1e-6);
  // Weights are not renormalised, and shared experts take no part in routing or its losses.
  EXPECT_LT(pass.records.all()[0].routed.weight.view({7, 2}).sum(1).max().item<double>(), 1);
  EXPECT_EQ(pass.records.all()[0].selection()->experts, 4);
  EXPECT_EQ(l.schema.find("moe.shared.0.up").spec().role, Role::projection);
}

TEST(Catalogue, qwen_shared_gate_weighs_by_a_sigmoid_of_each_token) {
  Layer l("{" + kRouted + ", shared: {expert: {type: swiglu, hidden: 5}, gate: sigmoid}}");
  const at::Tensor x = randn({7, 6}, 1), shared = swiglu(x, l, "moe.shared");
  Pass pass(7);
  const at::Tensor mix = l["moe.shared.mix"];
  EXPECT_EQ(mix.sizes(), (at::IntArrayRef{1, 6}));
  EXPECT_LT(difference(l(x, pass.context), routed(l, x) + at::linear(x, mix).sigmoid() * shared), 1e-6);
  // ∂y/∂w_g = Shared(x) σ'(x·w_g) x.
  l(x, pass.context).sum().backward();
  const at::Tensor s = at::linear(x, mix).sigmoid();
  EXPECT_LT(difference(mix.grad(), (shared.sum(1, true) * s * (1 - s) * x).sum(0, true)), 1e-6);
  at::NoGradGuard guard;
  mix.zero_();
  EXPECT_LT(difference(l(x, pass.context), routed(l, x) + shared / 2), 1e-6);
  mix.copy_(x[0].unsqueeze(0) * -1e4);
  EXPECT_LT(difference(l(x.slice(0, 0, 1), Pass(1).context), routed(l, x.slice(0, 0, 1))), 1e-6);
}

TEST(Catalogue, residual_moe_weighs_mixture_against_mlp_by_a_softmax_of_two) {
  const std::string top1 = "experts: 4, expert: {type: relu, hidden: 3}, router: {type: switch-top1, jitter: 0}, ";
  Layer l("{" + top1 + "shared: {expert: {type: relu, hidden: 3}, gate: softmax}}");
  const at::Tensor x = randn({7, 6}, 1);
  const at::Tensor mlp = at::linear(at::linear(x, l["moe.shared.up"]).relu(), l["moe.shared.down"]);
  Pass pass(7);
  const at::Tensor c = at::linear(x, l["moe.shared.mix"], l["moe.shared.mix_bias"]).softmax(-1);
  EXPECT_LT(difference(l(x, pass.context), c.slice(1, 0, 1) * routed(l, x) + c.slice(1, 1, 2) * mlp), 1e-6);
  // One MLP and 2D + 2 more than the mixture.
  Layer mixture("{" + top1 + "shared: []}"), sum("{" + top1 + "shared: {expert: {type: relu, hidden: 3}}}");
  EXPECT_EQ(l.schema.count(), mixture.schema.count() + 2 * 6 * 3 + 2 * 6 + 2);
  EXPECT_LT(difference(sum(x, pass.context), routed(sum, x) + mlp), 1e-6);
  // As many rows go to experts as without it.
  EXPECT_EQ(pass.records.all()[0].routed.plan.order.size(0), 7);
  {
    at::NoGradGuard guard;
    l["moe.shared.mix"].zero_();
    l["moe.shared.mix_bias"].zero_();
    EXPECT_LT(difference(l(x, pass.context), (routed(l, x) + mlp) / 2), 1e-6);
  }
  // A dropped token still gets its MLP.
  const std::string none = "admission: {type: capacity, evaluation_factor: 0, minimum: 0}, ";
  Layer dropped("{" + top1 + none + "shared: {expert: {type: relu, hidden: 3}, gate: softmax}}");
  const at::Tensor cd = at::linear(x, dropped["moe.shared.mix"], dropped["moe.shared.mix_bias"]).softmax(-1);
  EXPECT_LT(difference(dropped(x, pass.context), cd.slice(1, 1, 2) * mlp), 1e-6);
}

TEST(SharedExperts, SeveralWithGatesOfTheirOwnHaveRightGradients) {
  Layer l("{experts: 2, expert: {type: relu, hidden: 2}, router: {type: sparse-topk, k: 1, softmax: all}, shared: ["
          "{expert: {type: gelu, hidden: 2}, gate: sigmoid}, {expert: {type: lora, rank: 1}}, {expert: {type: relu, hidden: 2}, gate: softmax}]}", 3, 3);
  Pass pass(4, 1, Phase::train);
  at::Tensor x = randn({4, 3}, 1).requires_grad_();
  std::vector<at::Tensor> leaves = l.leaves();
  leaves.push_back(x);
  expect_gradients([&] { return l(x, pass.context); }, leaves, 1e-4);
  EXPECT_EQ(l.schema.find("moe.shared.1.a").spec().role, Role::adapter);
}

TEST(Catalogue, zero_expert_lets_a_token_skip_the_layer) {
  Layer l("{experts: 2, expert: {type: relu, hidden: 3}, extra: {expert: zero-expert, count: 2}, router: {type: sparse-topk, softmax: all}}");
  EXPECT_EQ(l.layer.bank().experts(), 4);
  EXPECT_EQ(l["moe.router.weight"].size(0), 4);
  const at::Tensor forced = at::tensor({0, 2, 2, 3, 1, 0}, at::kLong).view({3, 2});
  const Overrides wish{.k = {}, .capacity = {}, .allowed = {}, .forced = forced};
  Pass pass(3);
  pass.context.overrides = &wish;
  const at::Tensor x = randn({3, 6}, 1);
  auto [y, record] = l.layer.run(x, pass.context);
  EXPECT_EQ(y[1].abs().max().item<double>(), 0);
  const at::Tensor expert0 = at::linear(at::linear(x, l["moe.experts.0.up"][0]).relu(), l["moe.experts.0.down"][0]);
  EXPECT_LT(difference(y[0], expert0[0] * record.routed.weight[0]), 1e-6);
  EXPECT_EQ(l.layer.bank().macs_per_row(3), 0);
}

TEST(Catalogue, copy_expert_returns_the_token_beside_others) {
  Layer l("{experts: 1, expert: {type: relu, hidden: 3}, extra: {expert: copy-expert}, router: {type: sparse-topk, k: 2}}");
  const at::Tensor x = randn({4, 6}, 1);
  Pass pass(4);
  const at::Tensor p = at::linear(x, l["moe.router.weight"]).softmax(-1);
  const at::Tensor expert0 = at::linear(at::linear(x, l["moe.experts.0.up"][0]).relu(), l["moe.experts.0.down"][0]);
  EXPECT_LT(difference(l(x, pass.context), p.slice(1, 0, 1) * expert0 + p.slice(1, 1, 2) * x), 1e-6);
  EXPECT_EQ(expect_error([] { Layer narrow("{experts: 2, expert: copy-expert, router: sparse-topk}", 6, 4); }).code(), "experts.width");
}

TEST(Catalogue, lora_mixture_equals_adding_weighted_products) {
  Layer l("{experts: 3, expert: {type: lora, rank: 2, alpha: 6}, router: {type: sparse-topk, k: 2}}", 6, 4);
  const at::Tensor x = randn({5, 6}, 1);
  Pass pass(5);
  auto [y, record] = l.layer.run(x, pass.context);
  const at::Tensor dense = dense_weights(*record.selection());
  at::Tensor expected = at::zeros({5, 4}, at::kDouble);
  for (int64_t t = 0; t < 5; ++t) {
    at::Tensor delta = at::zeros({4, 6}, at::kDouble);
    for (int64_t e = 0; e < 3; ++e) delta = delta + 3 * dense[t][e] * at::mm(l["moe.experts.b"][e], l["moe.experts.a"][e]);
    expected[t] = at::mv(delta, x[t]);
  }
  EXPECT_LT(difference(y, expected), 1e-6);
  EXPECT_EQ(l.schema.find("moe.experts.a").spec().role, Role::adapter);
  // At b = 0 the gradient of a is exactly 0, that of b is not.
  {
    at::NoGradGuard guard;
    l["moe.experts.b"].zero_();
  }
  l(x, pass.context).sum().backward();
  EXPECT_EQ(l["moe.experts.a"].grad().abs().max().item<double>(), 0);
  EXPECT_GT(l["moe.experts.b"].grad().abs().max().item<double>(), 0);
}

TEST(Catalogue, expert_size_slices_of_a_network_sum_to_it) {
  // (E, k, F) → (mE, mk, F/m): one network of width 8 as four experts of width 2, all engaged with weight 1.
  Layer l("{experts: 4, expert: {type: swiglu, hidden: 2}, router: {type: sparse-topk, k: 4}, combine: {scale: 4}}");
  {
    at::NoGradGuard guard;
    l["moe.router.weight"].zero_();  // equal logits: each slice gets 1/4, which the scale restores
  }
  const at::Tensor x = randn({5, 6}, 1);
  Pass pass(5);
  const at::Tensor gate = l["moe.experts.gate"].reshape({8, 6}), up = l["moe.experts.up"].reshape({8, 6});
  const at::Tensor down = l["moe.experts.down"].permute({1, 0, 2}).reshape({6, 8});
  const at::Tensor g = at::linear(x, gate);
  const at::Tensor whole = at::linear(g * g.sigmoid() * at::linear(x, up), down);
  EXPECT_LT(difference(l(x, pass.context), whole), 1e-6);
  // Totals and active parameters stay, but for the router.
  Layer coarse("{experts: 2, expert: {type: swiglu, hidden: 8}, router: {type: sparse-topk, k: 1, softmax: all}}");
  Layer fine("{experts: 8, expert: {type: swiglu, hidden: 2}, router: {type: sparse-topk, k: 4}}");
  EXPECT_EQ(coarse.schema.count() - 2 * 6, fine.schema.count() - 8 * 6);
  EXPECT_EQ(coarse.layer.bank().macs_per_row(0) * 1, fine.layer.bank().macs_per_row(0) * 4);
}

TEST(SharedExperts, WhatCannotJoinIsRefused) {
  Layer l("{experts: 2, expert: {type: relu, hidden: 2}, router: {type: mmoe, outputs: all}, shared: {expert: {type: relu, hidden: 2}}}");
  Pass pass(3);
  const Error error = expect_error([&] { l(randn({3, 6}, 1), pass.context); });
  EXPECT_EQ(error.code(), "layer.shared");
  EXPECT_NE(error.message().find("6 outputs were asked of 3 rows"), std::string::npos) << error.message();
}

}  // namespace
}  // namespace switchyard
