// Who gets a place: hand cases, published statistics, and what the rules promise.
#include <algorithm>
#include <cmath>
#include <random>

#include "switchyard/routing/admission.h"
#include "tests/routing/decisions.h"

namespace switchyard {
namespace {

using testing::difference;
using testing::four_by_three;
using testing::Pass;
using testing::randn;
using testing::top_k_selection;

std::shared_ptr<Admission> admission(const std::string& slug, const std::string& yaml) {
  return Registry::instance().make<Admission>(slug, parse_yaml(yaml, "test"));
}

/// What is kept, [P] bool; undefined = everything.
at::Tensor kept(const std::string& slug, const std::string& yaml, Selection s, const Context& context) {
  admit(s, *admission(slug, yaml), context);
  return s.kept;
}

/// The kept experts of every token, ascending.
std::vector<std::vector<int64_t>> kept_experts(const Selection& s, const at::Tensor& kept) {
  std::vector<std::vector<int64_t>> list(s.units);
  for (int64_t p = 0; p < s.pairs(); ++p)
    if (kept[p].item<bool>()) list[s.unit[p].item<int64_t>()].push_back(s.expert[p].item<int64_t>());
  for (auto& experts : list) std::sort(experts.begin(), experts.end());
  return list;
}
using Lists = std::vector<std::vector<int64_t>>;

TEST(Catalogue, capacity_keeps_who_comes_first) {
  Pass pass(4, 1, Phase::train);
  const Selection s = top_k_selection(four_by_three(), 1);
  // C = ceil(0.5 · 1 · 4 / 3) = 1.
  EXPECT_EQ(kept_experts(s, kept("capacity", "{factor: 0.5, minimum: 0}", s, pass.context)), (Lists{{0}, {1}, {}, {}}));
  EXPECT_EQ(kept_experts(s, kept("capacity", "{factor: 0, minimum: 2}", s, pass.context)), (Lists{{0}, {1}, {0}, {}}));
  EXPECT_TRUE(kept("capacity", "{factor: 3}", s, pass.context).all().item<bool>());
  EXPECT_FALSE(kept("dropless", "{}", s, pass.context).defined());
}

TEST(Catalogue, capacity_may_serve_first_choices_before_second_ones) {
  // t0 wants e0, then e1; t1 wants e1, then e0; one place each.
  Pass pass(2, 1, Phase::train);
  const Selection s = top_k_selection(at::tensor({2.0, 1.0, 1.0, 2.0}, at::kDouble).view({2, 2}), 2);
  const std::string one = "{factor: 0.5, minimum: 0, order: ";
  EXPECT_EQ(kept_experts(s, kept("capacity", one + "token}", s, pass.context)), (Lists{{0, 1}, {}}));
  EXPECT_EQ(kept_experts(s, kept("capacity", one + "choice}", s, pass.context)), (Lists{{0}, {1}}));
}

TEST(Catalogue, capacity_places_follow_the_formula) {
  // 24 tokens, k = 2, E = 4, factor 1.25: C = ceil(1.25 · 2 · 24 / 4) = 15; a whole share stays whole.
  Pass pass(24, 3, Phase::train);
  const Selection s = top_k_selection(randn({24, 4}, 3), 2);
  const auto capacity = [&](const std::string& yaml, const Context& c) { return admission("capacity", yaml)->claims(s, c).capacity; };
  EXPECT_TRUE(capacity("{}", pass.context).equal(at::full({4}, 15, at::kLong)));
  EXPECT_TRUE(capacity("{factor: 0.7}", pass.context).equal(at::full({4}, 9, at::kLong)));  // 8.4
  EXPECT_TRUE(capacity("{factor: 1.1, minimum: 14}", pass.context).equal(at::full({4}, 14, at::kLong)));
  EXPECT_TRUE(capacity("{scope: sequence}", pass.context).equal(at::full({12}, 5, at::kLong)));
  Pass evaluate(24, 3);
  EXPECT_TRUE(capacity("{}", evaluate.context).equal(at::full({4}, 24, at::kLong)));
  const Overrides wish{.k = {}, .capacity = 0.5, .allowed = {}, .forced = {}};
  pass.context.overrides = &wish;
  EXPECT_TRUE(capacity("{}", pass.context).equal(at::full({4}, 6, at::kLong)));
}

TEST(Catalogue, capacity_counts_places_as_published_models_do) {
  const auto capacity = [](int64_t tokens, int64_t experts, const std::string& yaml, Phase phase, int64_t padded = 0) {
    Pass pass(tokens, 1, phase);
    if (padded > 0) pass.facts.set_segment("padded_length", at::full({1}, padded, at::kLong));
    const Selection s = top_k_selection(randn({tokens, experts}, 3), 2);
    return admission("capacity", yaml)->claims(s, pass.context).capacity[0].item<int64_t>();
  };
  // A fixed number (Switch), of its own in evaluation where that is given (NLLB).
  EXPECT_EQ(capacity(40, 16, "{places: 7, evaluation_places: 7}", Phase::train), 7);
  EXPECT_EQ(capacity(40, 16, "{places: 7, evaluation_of: rows, evaluation_factor: 0.3, minimum: 0}", Phase::evaluate), 12);
  // A share of the tokens of the padded batch.
  EXPECT_EQ(capacity(29, 16, "{evaluation_of: rows, evaluation_factor: 0.2, minimum: 0}", Phase::evaluate), 6);
  EXPECT_EQ(capacity(29, 16, "{evaluation_of: rows, evaluation_factor: 0.2, minimum: 0}", Phase::evaluate, 34), 7);
  // k · ceil(T / E), and OpenMoE's: down, then even, at least 4.
  EXPECT_EQ(capacity(40, 16, "{factor: 1, rounding: by_choice, minimum: 0}", Phase::train), 6);
  const std::map<int64_t, int64_t> even{{40, 10}, {44, 12}, {4, 4}, {41, 10}};
  for (const auto& [tokens, expected] : even) EXPECT_EQ(capacity(tokens, 16, "{evaluation_factor: 2, rounding: even}", Phase::evaluate), expected) << tokens;
  // One by one everybody is admitted; where the whole sequence is to compete, the model is told to compute it again.
  EXPECT_EQ(admission("capacity", "{}")->reach({}, Phase::generate).unit, Reach::Unit::row);
  const Reach whole = admission("capacity", "{generation: whole, order: choice}")->reach({}, Phase::generate);
  EXPECT_EQ(whole.unit, Reach::Unit::sequence);
  EXPECT_FALSE(whole.future);
}

TEST(Catalogue, dropless_keeps_every_pair_however_skewed) {
  Pass pass(50, 1, Phase::train);
  const Selection s = top_k_selection(at::tensor({5.0, 1.0, 0.0}, at::kDouble).expand({50, 3}).contiguous(), 2);
  EXPECT_FALSE(kept("dropless", "{}", s, pass.context).defined());
  EXPECT_TRUE(pair_counts(s, /*kept_only=*/true).equal(at::tensor({50, 50, 0}, at::kLong)));
  EXPECT_EQ(admission("dropless", "{}")->reach({}, Phase::train).unit, Reach::Unit::row);
}

TEST(Admission, NeverKeepsMoreThanThereArePlaces) {
  for (const char* slug : {"capacity", "bpr", "random-priority"})
    for (const char* order : {"token", "choice"})
      for (const char* scope : {"batch", "sequence"}) {
        Pass pass(60, 3, Phase::train);
        Selection s = top_k_selection(randn({60, 5}, 8) + at::arange(5, at::kDouble), 2);
        const auto rules = admission(slug, fmt::format("{{factor: 0.8, minimum: 1, order: {}, scope: {}}}", order, scope));
        const Claims claims = rules->claims(s, pass.context);
        admit(s, *rules, pass.context);
        const at::Tensor taken = at::bincount(claims.bin.masked_select(s.kept), {}, claims.capacity.size(0));
        const at::Tensor asked = at::bincount(claims.bin, {}, claims.capacity.size(0));
        EXPECT_TRUE(taken.equal(at::minimum(asked, claims.capacity))) << slug << order << scope;
      }
}

TEST(Admission, ASequenceAloneIsTheSameInABatchWhenPlacesAreBySequence) {
  const at::Tensor logits = randn({30, 4}, 8) + at::arange(4, at::kDouble);
  Pass batch(30, 3, Phase::train), alone(10, 1, Phase::train);
  for (const char* slug : {"capacity", "bpr"}) {
    const std::string yaml = "{factor: 0.7, minimum: 0, scope: sequence}";
    const at::Tensor together = kept(slug, yaml, top_k_selection(logits, 2), batch.context);
    for (int64_t s = 0; s < 3; ++s)
      EXPECT_TRUE(kept(slug, yaml, top_k_selection(logits.slice(0, s * 10, s * 10 + 10), 2), alone.context)
                      .equal(together.slice(0, s * 20, s * 20 + 20))) << slug;
  }
}

TEST(Admission, GenerationAdmitsEverybody) {
  Pass pass(4, 1, Phase::generate);
  for (const char* slug : {"dropless", "capacity", "bpr", "random-priority"}) {
    EXPECT_FALSE(kept(slug, slug == std::string("dropless") ? "{}" : "{factor: 0, evaluation_factor: 0, minimum: 0}",
                      top_k_selection(four_by_three(), 2), pass.context).defined()) << slug;
    EXPECT_FALSE(admission(slug, "{}")->reach({}, Phase::generate).future) << slug;
  }
}

TEST(Admission, NoTokenNeedsNoPlace) {
  Pass pass(0, 1, Phase::train);
  for (const char* slug : {"capacity", "bpr", "random-priority"}) {
    const at::Tensor k = kept(slug, "{}", top_k_selection(at::zeros({0, 3}, at::kDouble), 2), pass.context);
    EXPECT_TRUE(!k.defined() || k.size(0) == 0) << slug;
  }
}

TEST(Admission, PairsThatTheRouterGaveUpTakeNoPlace) {
  Pass pass(3, 1, Phase::train);
  Selection s = select_pairs(at::zeros({3, 1}, at::kLong), at::ones({3, 1}, at::kDouble), 1);
  s.kept = at::tensor({0, 1, 1}, at::kLong).to(at::kBool);
  EXPECT_TRUE(kept("capacity", "{factor: 0, minimum: 1}", s, pass.context).equal(at::tensor({0, 1, 0}, at::kLong).to(at::kBool)));
}

TEST(Admission, ReachTellsWhatTheRulesSee) {
  const auto reach = [](const char* slug, const char* yaml, Phase phase = Phase::train) { return admission(slug, yaml)->reach({}, phase); };
  EXPECT_FALSE(reach("capacity", "{}").future);
  EXPECT_EQ(reach("capacity", "{}").unit, Reach::Unit::batch);
  EXPECT_EQ(reach("capacity", "{scope: sequence}").unit, Reach::Unit::sequence);
  EXPECT_TRUE(reach("capacity", "{order: choice}").future);
  EXPECT_TRUE(reach("bpr", "{}").future);
  EXPECT_NE(reach("bpr", "{}").because.find("bpr"), std::string::npos);
  EXPECT_TRUE(reach("random-priority", "{}").future);
  EXPECT_FALSE(reach("random-priority", "{}", Phase::evaluate).future);
  EXPECT_EQ(reach("dropless", "{}").unit, Reach::Unit::row);
}

TEST(Admission, WhatReachCallsBlindDoesNotChangeWithTheFuture) {
  // Other tokens after row 12 must not change what rows 0 to 11 keep; where reach says future, some case must.
  for (const auto& [slug, yaml] : std::vector<std::pair<std::string, std::string>>{
           {"capacity", "{factor: 0.8, minimum: 0}"}, {"capacity", "{factor: 0.8, minimum: 0, order: choice}"},
           {"capacity", "{factor: 0.8, minimum: 0, scope: sequence}"}, {"bpr", "{factor: 0.8, minimum: 0}"}}) {
    bool changed = false;
    for (uint64_t seed = 0; seed < 8; ++seed) {
      Pass pass(24, 1, Phase::train);
      const at::Tensor logits = randn({24, 4}, seed);
      at::Tensor other = logits.clone();
      other.slice(0, 12, 24).copy_(randn({12, 4}, seed + 100));
      const at::Tensor a = kept(slug, yaml, top_k_selection(logits, 2), pass.context);
      const at::Tensor b = kept(slug, yaml, top_k_selection(other, 2), pass.context);
      changed |= !a.slice(0, 0, 24).equal(b.slice(0, 0, 24));
    }
    EXPECT_EQ(changed, admission(slug, yaml)->reach({}, Phase::train).future) << slug << yaml;
  }
}

Selection by_probabilities(std::vector<double> p, int64_t experts, int64_t k) {
  return top_k_selection(at::tensor(p, at::kDouble).view({-1, experts}).log(), k);
}

TEST(Catalogue, bpr_serves_the_confident_first) {
  Pass pass(4, 1, Phase::train);
  const Selection a = top_k_selection(four_by_three(), 1);
  EXPECT_EQ(kept_experts(a, kept("bpr", "{factor: 0.5, minimum: 0}", a, pass.context)), (Lists{{}, {1}, {0}, {}}));
  const Selection b = by_probabilities({.5, .3, .2, .7, .2, .1, .4, .5, .1, .6, .1, .3}, 3, 2);
  // C = ceil(0.75 · 2 · 4 / 3) = 2.
  EXPECT_EQ(kept_experts(b, kept("capacity", "{factor: 0.75, minimum: 0, order: choice}", b, pass.context)),
            (Lists{{0, 1}, {0}, {1}, {2}}));
  EXPECT_EQ(kept_experts(b, kept("bpr", "{factor: 0.75, minimum: 0}", b, pass.context)), (Lists{{}, {0, 1}, {1}, {0, 2}}));
  EXPECT_TRUE(kept("bpr", "{factor: 9}", b, pass.context).all().item<bool>());
  EXPECT_EQ(admission("bpr", "{}")->reach({}, Phase::train).unit, Reach::Unit::batch);
}

TEST(Catalogue, bpr_may_rank_by_the_sum_of_chosen_probabilities) {
  // t0's best is larger, t1's two together are; one place at e0.
  Pass pass(2, 1, Phase::train);
  const Selection s = by_probabilities({.55, .05, .40, .50, .48, .02}, 3, 2);
  EXPECT_EQ(kept_experts(s, kept("bpr", "{factor: 0, minimum: 1}", s, pass.context))[0], (std::vector<int64_t>{0, 2}));
  EXPECT_EQ(kept_experts(s, kept("bpr", "{factor: 0, minimum: 1, confidence: sum}", s, pass.context))[1],
            (std::vector<int64_t>{0, 1}));
}

TEST(Catalogue, bpr_follows_the_tokens_when_the_batch_is_permuted) {
  const at::Tensor logits = randn({40, 4}, 5) + at::arange(4, at::kDouble);
  const at::Tensor order = Streams(1).permutation(40, {.purpose = "test"});
  Pass pass(40, 1, Phase::train);
  const auto by_token = [&](const char* slug, const at::Tensor& l) {
    return kept(slug, "{factor: 0.7, minimum: 0}", top_k_selection(l, 2), pass.context).view({40, 2});
  };
  EXPECT_TRUE(by_token("bpr", logits.index_select(0, order)).equal(by_token("bpr", logits).index_select(0, order)));
  EXPECT_FALSE(by_token("capacity", logits.index_select(0, order)).equal(by_token("capacity", logits).index_select(0, order)));
}

/// 1024 tokens, one of 8 experts each by Zipf's law, with a confidence that has nothing to do with it.
Selection zipf(uint64_t seed) {
  std::vector<double> weight;
  for (int e = 0; e < 8; ++e) weight.push_back(1.0 / (e + 1));
  std::mt19937_64 engine(seed);
  std::discrete_distribution<int64_t> expert(weight.begin(), weight.end());
  std::vector<int64_t> chosen(1024);
  for (int64_t& e : chosen) e = expert(engine);
  const at::Tensor ids = at::tensor(chosen, at::kLong).view({1024, 1});
  const at::Tensor best = Streams(seed).uniform({1024, 1}, {.purpose = "test"}, at::kDouble) * 0.8 + 0.15;
  Selection s = select_pairs(ids, best, 8);
  const at::Tensor p = ((1 - best) / 7).expand({1024, 8}).scatter(1, ids, best);
  s.gates.push_back({.logits = p.log(), .scores = p.log(), .probabilities = p, .noise_std = {}});
  return s;
}

TEST(Catalogue, bpr_keeps_tokens_of_higher_priority_than_it_drops) {
  Pass pass(1024, 1, Phase::train);
  const Selection s = zipf(3);
  const auto gap = [&](const char* slug) {
    const at::Tensor k = kept(slug, "{factor: 1, minimum: 0}", s, pass.context);
    return (s.weight.masked_select(k).mean() - s.weight.masked_select(k.logical_not()).mean()).item<double>();
  };
  EXPECT_GT(gap("bpr"), 0.15);
  EXPECT_LT(std::abs(gap("capacity")), 0.08);
  // Within an expert, whoever is kept is at least as confident as whoever is dropped.
  const at::Tensor k = kept("bpr", "{factor: 1, minimum: 0}", s, pass.context);
  for (int64_t e = 0; e < 8; ++e) {
    const at::Tensor here = s.expert == e, lost = here.logical_and(k.logical_not());
    if (!lost.any().item<bool>()) continue;
    EXPECT_GE(s.weight.masked_select(here.logical_and(k)).min().item<double>(), s.weight.masked_select(lost).max().item<double>());
  }
}

TEST(Catalogue, random_priority_favours_no_position) {
  const auto quarters = [](const std::string& slug, uint64_t seed) {
    Pass pass(1024, 1, Phase::train, seed);
    return kept(slug, "{factor: 1, minimum: 0}", zipf(seed), pass.context).logical_not().to(at::kDouble).view({4, 256}).mean(1);
  };
  at::Tensor first_come = at::zeros({4}, at::kDouble), by_lot = at::zeros({4}, at::kDouble);
  for (uint64_t seed = 0; seed < 5; ++seed) {
    const at::Tensor a = quarters("capacity", seed), b = quarters("random-priority", seed);
    EXPECT_NEAR(a.sum().item<double>(), b.sum().item<double>(), 1e-12);  // as many are dropped
    first_come += a / 5;
    by_lot += b / 5;
  }
  EXPECT_LT(difference(first_come, at::tensor({0.0, 0.23, 0.43, 0.58}, at::kDouble)), 0.06);
  EXPECT_LT((by_lot - by_lot.mean()).abs().max().item<double>(), 0.06);
  EXPECT_NEAR(by_lot.mean().item<double>(), 0.30, 0.04);
}

TEST(Catalogue, random_priority_draws_the_same_lots_again_in_recomputation_only) {
  Pass pass(1024, 1, Phase::train);
  const Selection s = zipf(1);
  const at::Tensor first = kept("random-priority", "{factor: 1}", s, pass.context);
  EXPECT_TRUE(first.equal(kept("random-priority", "{factor: 1}", s, pass.context)));
  pass.context.step = 1;
  EXPECT_FALSE(first.equal(kept("random-priority", "{factor: 1}", s, pass.context)));
  EXPECT_TRUE(kept("random-priority", "{factor: 8}", s, pass.context).all().item<bool>());
  Pass evaluate(1024);
  EXPECT_TRUE(kept("random-priority", "{evaluation_factor: 1}", s, evaluate.context)
                  .equal(kept("capacity", "{evaluation_factor: 1}", s, evaluate.context)));
}

TEST(Admission, PlacesBySequenceNeedADecisionOfEachRow) {
  Pass pass(6, 1, Phase::train);
  const Error error = testing::expect_error([&] { kept("capacity", "{scope: sequence}", top_k_selection(four_by_three(), 1), pass.context); });
  EXPECT_EQ(error.code(), "routing.capacity_scope");
  EXPECT_NE(error.message().find("4 units stand for 6 rows"), std::string::npos) << error.message();
}

}  // namespace
}  // namespace switchyard
