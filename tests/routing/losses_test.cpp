// Routing losses against hand values, published code and finite differences.
#include <cmath>

#include "tests/routing/decisions.h"

namespace switchyard {
namespace {

using testing::difference;
using testing::expect_error;
using testing::expect_gradients;
using testing::four_by_three;
using testing::loss;
using testing::loss_of;
using testing::loss_value;
using testing::randn;
using testing::record_of;
using testing::top_k_selection;

TEST(Catalogue, lb_loss_has_every_published_scaling) {
  const Record one = record_of(top_k_selection(four_by_three(), 1)), two = record_of(top_k_selection(four_by_three(), 2));
  EXPECT_NEAR(loss_value("lb-loss", "{count: argmax}", {one}), 1.60774, 1e-5);
  EXPECT_NEAR(loss_value("lb-loss", "{count: argmax}", {two}), 1.60774, 1e-5);
  EXPECT_NEAR(loss_value("lb-loss", "{count: all, divide_by_k: false}", {two}), 2.44497, 1e-5);
  EXPECT_NEAR(loss_value("lb-loss", "{count: all}", {two}), 1.22249, 1e-5);
}

TEST(Catalogue, lb_loss_is_1_or_k_when_even_and_E_when_collapsed) {
  const at::Tensor even = at::eye(4, at::kDouble) * 3 + at::eye(4, at::kDouble).roll(1, 1) * 2;
  EXPECT_NEAR(loss_value("lb-loss", "{count: argmax}", {record_of(top_k_selection(even, 2))}), 1, 1e-12);
  EXPECT_NEAR(loss_value("lb-loss", "{}", {record_of(top_k_selection(even, 2))}), 1, 1e-12);
  EXPECT_NEAR(loss_value("lb-loss", "{divide_by_k: false}", {record_of(top_k_selection(even, 2))}), 2, 1e-12);
  const at::Tensor collapsed = at::tensor({900.0, 0.0, 0.0, 0.0}, at::kDouble).expand({5, 4});
  EXPECT_NEAR(loss_value("lb-loss", "{}", {record_of(top_k_selection(collapsed, 1))}), 4, 1e-12);
  // Shares may lie against each other: 1 is no lower bound.
  const at::Tensor against = at::tensor({1.0, 0.9, -9.0, 0.9, -9.0, 1.0, 0.9, 1.0, -9.0}, at::kDouble).view({3, 3});
  Selection s = top_k_selection(against, 1);
  s.expert = at::tensor({2, 1, 2}, at::kLong);
  EXPECT_LT(loss_value("lb-loss", "{}", {record_of(s)}), 1);
}

TEST(Catalogue, lb_loss_gradient_of_a_probability_is_E_times_share_over_T) {
  Selection s = top_k_selection(four_by_three(), 1);
  const at::Tensor p = s.gates[0].probabilities.clone().requires_grad_();
  s.gates[0].probabilities = p;
  loss_of(*loss("lb-loss"), {record_of(s)}).backward();
  const at::Tensor expected = at::tensor({0.75, 0.25, 0.0}, at::kDouble).expand({4, 3}) * 3 / 4;
  EXPECT_LT(difference(p.grad(), expected), 1e-12);
}

/// The formula of tests/routing/published_balance_loss.py.
at::Tensor formula_logits(int64_t layer, int64_t rows, int64_t experts) {
  std::vector<double> cells;
  for (int64_t t = 0; t < rows; ++t)
    for (int64_t e = 0; e < experts; ++e)
      cells.push_back(2 * std::sin(1.7 * static_cast<double>((layer * rows + t) * experts + e) + 0.3) +
                      0.5 * std::cos(static_cast<double>(e)));
  return at::tensor(cells, at::kDouble).view({rows, experts});
}

TEST(Catalogue, lb_loss_over_the_model_is_what_mixtral_and_olmoe_publish) {
  // Values printed by tests/routing/published_balance_loss.py (transformers 5); that code rounds counts in float32.
  struct Case { int64_t layers, rows, experts, k; double value; };
  for (const auto& [layers, rows, experts, k, value] :
       {Case{1, 6, 4, 2, 3.07818151}, Case{3, 10, 8, 2, 2.27618790}, Case{2, 7, 6, 1, 1.15296268}}) {
    std::vector<Record> records;
    for (int64_t l = 0; l < layers; ++l) records.push_back(record_of(top_k_selection(formula_logits(l, rows, experts), k)));
    EXPECT_NEAR(loss_value("lb-loss", "{scope: model, divide_by_k: false}", records), value, 1e-6) << layers;
  }
}

TEST(RoutingLosses, BalanceIgnoresWhatAdmissionDropped) {
  Selection s = top_k_selection(four_by_three(), 2);
  const double before = loss_value("lb-loss", "{}", {record_of(s)});
  s.kept = at::zeros({8}, at::kBool);
  EXPECT_EQ(loss_value("lb-loss", "{}", {record_of(s)}), before);
}

TEST(Catalogue, gshard_aux_averages_over_groups) {
  const Selection s = top_k_selection(four_by_three(), 2);
  EXPECT_NEAR(loss_value("gshard-aux", "{}", {record_of(s)}), 1.60774, 1e-5);
  EXPECT_NEAR(loss_value("gshard-aux", "{}", {record_of(s, 2)}), 1.88994, 1e-5);
  EXPECT_NEAR(loss_value("gshard-aux", "{group: 2}", {record_of(s)}), (1.36496 + 2.41493) / 2, 1e-5);
  // Groups of 3 and 1: the mean of both, whatever their sizes.
  const auto part = [](int64_t from, int64_t to) {
    return loss_value("lb-loss", "{count: argmax}", {record_of(top_k_selection(four_by_three().slice(0, from, to), 2))});
  };
  EXPECT_NEAR(loss_value("gshard-aux", "{group: 3}", {record_of(s)}), (part(0, 3) + part(3, 4)) / 2, 1e-12);
  Selection dropped = s;
  dropped.kept = at::zeros({8}, at::kBool);
  EXPECT_EQ(loss_value("gshard-aux", "{}", {record_of(dropped, 2)}), loss_value("gshard-aux", "{}", {record_of(s, 2)}));
}

TEST(RoutingLosses, BalanceByFullSequencesCountsAllChoicesAndSkipsEmptyOnes) {
  const Selection s = top_k_selection(four_by_three(), 2);
  const auto part = [](int64_t from, int64_t to) {
    return loss_value("lb-loss", "{}", {record_of(top_k_selection(four_by_three().slice(0, from, to), 2))});
  };
  Record record = record_of(s);
  record.segments.begin = {0, 1, 1, 4};
  EXPECT_NEAR(loss_value("lb-loss", "{over: sequence}", {record}), (part(0, 1) + part(1, 4)) / 2, 1e-12);
}

TEST(Catalogue, router_z_value_gradient_and_shift) {
  at::Tensor g = four_by_three().requires_grad_();
  const auto value = [&](const at::Tensor& logits) { return loss_of(*loss("router-z"), {record_of(top_k_selection(logits, 1))}); };
  const at::Tensor z = value(g);
  EXPECT_NEAR(z.item<double>(), 7.32346, 1e-5);
  z.backward();
  const at::Tensor expected = g.detach().softmax(-1) * g.detach().logsumexp(-1).unsqueeze(1) * 2 / 4;
  EXPECT_LT(difference(g.grad(), expected), 1e-12);
  // A constant on a row changes no probability, but the loss.
  const at::Tensor shifted = g.detach() + at::tensor({1.0, 0.0, 0.0, 0.0}, at::kDouble).unsqueeze(1);
  EXPECT_LT(difference(shifted.softmax(-1), g.detach().softmax(-1)), 1e-12);
  EXPECT_GT(value(shifted).item<double>(), z.item<double>() + 0.5);
}

Selection noisy(const at::Tensor& clean, const at::Tensor& noise, const at::Tensor& deviation, int64_t k) {
  Selection s = top_k_selection(clean + noise * deviation, k);
  s.gates[0].logits = clean;
  s.gates[0].noise_std = deviation;
  return s;
}

TEST(Catalogue, importance_load_values_without_realised_noise) {
  const at::Tensor g = four_by_three(), zero = at::zeros_like(g), one = at::ones_like(g);
  const testing::Pass pass(1, 1, Phase::train);
  const auto summary = [&](int64_t k) { return loss("importance-load")->summarise(record_of(noisy(g, zero, one, k)), pass.context); };
  EXPECT_LT(difference(summary(1).narrow(0, 3, 3), at::tensor({2.91044, 1.00756, 0.13506}, at::kDouble)), 1e-5);
  EXPECT_LT(difference(summary(2).narrow(0, 3, 3), at::tensor({3.81104, 2.13591, 2.00000}, at::kDouble)), 1e-5);
  const auto value = [&](const char* yaml, int64_t k) { return loss_value("importance-load", yaml, {record_of(noisy(g, zero, one, k))}); };
  EXPECT_NEAR(value("{importance: 0}", 1), 0.73567, 1e-5);
  EXPECT_NEAR(value("{importance: 0}", 2), 0.09666, 1e-5);
  EXPECT_NEAR(value("{load: 0}", 2), 0.56979, 1e-5);
  EXPECT_NEAR(value("{load: 0, mass: probabilities}", 2), 0.42432, 1e-5);
  EXPECT_NEAR(value("{}", 2), 0.56979 + 0.09666, 2e-5);
  EXPECT_EQ(value("{importance: 0}", 3), 0);  // everybody is chosen
}

TEST(Catalogue, importance_load_estimates_how_often_an_expert_is_chosen) {
  // Redraw the noise of one component alone, count how often it is among the k best, compare with its probability.
  const at::Tensor g = four_by_three(), deviation = randn({4, 3}, 2).abs() * 0.5 + 0.5, noise = randn({4, 3}, 1);
  const testing::Pass pass(1, 1, Phase::train);
  constexpr int64_t draws = 10000;
  for (int64_t k : {1, 2})
    for (int64_t e = 0; e < 3; ++e) {
      const at::Tensor estimate = loss("importance-load")->summarise(record_of(noisy(g, noise, deviation, k)), pass.context)[3 + e];
      at::Tensor score = (g + noise * deviation).unsqueeze(0).repeat({draws, 1, 1});
      score.select(2, e).copy_(g.select(1, e) + randn({draws, 4}, 3 + e) * deviation.select(1, e));
      const at::Tensor above = (score > score.select(2, e).unsqueeze(2)).sum(2) < k;
      const double count = above.to(at::kDouble).sum(1).mean().item<double>();
      EXPECT_NEAR(count, estimate.item<double>(), 3 * std::sqrt(4 * 0.25 / draws)) << k << " " << e;
    }
}

TEST(RoutingLosses, ImportanceAloneDoesNotSeeWhoServesFewTokensWithLargeWeights) {
  // Two experts of equal mass, 1 token against 4.
  Selection s = select_pairs(at::tensor({0, 1, 1, 1, 1}, at::kLong).view({5, 1}),
                             at::tensor({1.0, 0.25, 0.25, 0.25, 0.25}, at::kDouble).view({5, 1}), 2);
  const at::Tensor clean = at::tensor({3.0, 0.0, 0.0, 3.0, 0.0, 3.0, 0.0, 3.0, 0.0, 3.0}, at::kDouble).view({5, 2});
  s.gates.push_back({.logits = clean, .scores = clean, .probabilities = clean.softmax(-1), .noise_std = at::ones_like(clean)});
  EXPECT_LT(loss_value("importance-load", "{load: 0}", {record_of(s)}), 1e-9);
  EXPECT_GT(loss_value("importance-load", "{importance: 0}", {record_of(s)}), 0.2);
}

TEST(RoutingLosses, GradientsEqualFiniteDifferences) {
  at::Tensor clean = four_by_three().clone().requires_grad_(), deviation = (randn({4, 3}, 2).abs() + 0.5).requires_grad_();
  const at::Tensor noise = randn({4, 3}, 1) * 0.3;
  for (int64_t k : {1, 2}) {
    const auto records = [&] { return std::vector<Record>{record_of(noisy(clean, noise, deviation, k), 2)}; };
    for (const char* yaml : {"{}", "{mass: probabilities}"})
      expect_gradients([&] { return loss_of(*loss("importance-load", yaml), records()); }, {clean, deviation});
    for (const char* yaml : {"{}", "{scope: model, divide_by_k: false}", "{over: sequence}", "{over: group, group: 3}"})
      expect_gradients([&] { return loss_of(*loss("lb-loss", yaml), records()); }, {clean});
    expect_gradients([&] { return loss_of(*loss("gshard-aux"), records()); }, {clean});
    expect_gradients([&] { return loss_of(*loss("router-z"), records()); }, {clean});
  }
}

TEST(RoutingLosses, NoTokenGivesNoLossAndNoNan) {
  const at::Tensor none = at::zeros({0, 3}, at::kDouble).requires_grad_();
  for (const char* slug : {"lb-loss", "gshard-aux", "router-z", "importance-load"}) {
    Selection s = noisy(none, none.detach(), at::ones({0, 3}, at::kDouble), 2);
    EXPECT_EQ(loss_of(*loss(slug), {record_of(s)}).item<double>(), 0) << slug;
  }
  Record without;
  const testing::Pass pass(1);
  for (const char* slug : {"lb-loss", "gshard-aux", "router-z", "importance-load"})
    EXPECT_FALSE(loss(slug)->summarise(without, pass.context).defined()) << slug;
}

TEST(RoutingLosses, MaskedExpertsKeepGradientsFinite) {
  at::Tensor clean = four_by_three().clone().requires_grad_(), deviation = at::ones({4, 3}, at::kDouble).requires_grad_();
  const at::Tensor mask = at::tensor({0, 0, 1}, at::kLong).to(at::kBool);
  Selection s = noisy(clean.masked_fill(mask, -INFINITY), at::zeros({4, 3}, at::kDouble), deviation, 2);
  loss_of(*loss("importance-load"), {record_of(s)}).backward();
  EXPECT_TRUE(clean.grad().isfinite().all().item<bool>());
  EXPECT_TRUE(deviation.grad().isfinite().all().item<bool>());
}

TEST(RoutingLosses, WhatCannotBeIsRefused) {
  const testing::Pass train(1, 1, Phase::train), evaluate(1);
  const Record plain = record_of(top_k_selection(four_by_three(), 1));
  const Error noise = expect_error([&] { loss("importance-load")->summarise(plain, train.context); });
  EXPECT_EQ(noise.code(), "losses.load_noise");
  EXPECT_NE(noise.message().find("use noisy-topk, or load: 0"), std::string::npos) << noise.message();
  EXPECT_NO_THROW(loss("importance-load")->summarise(plain, evaluate.context));
  EXPECT_NO_THROW(loss("importance-load", "{load: 0}")->summarise(plain, train.context));
  Selection uneven = noisy(four_by_three(), at::zeros({4, 3}, at::kDouble), at::ones({4, 3}, at::kDouble), 1);
  uneven.per_unit = 0;
  EXPECT_EQ(expect_error([&] { loss("importance-load")->summarise(record_of(uneven), train.context); }).code(), "losses.load_k");
  EXPECT_EQ(expect_error([] { loss("lb-loss", "{over: group}"); }).code(), "losses.group");
  EXPECT_EQ(expect_error([] { loss("lb-loss", "{over: sequence, scope: model}"); }).code(), "losses.scope");
}

}  // namespace
}  // namespace switchyard
