// Decisions as data: pairs, units, dense weights, counts, records.
#include "switchyard/contract/record.h"
#include "switchyard/contract/selection.h"
#include "tests/support.h"

namespace switchyard {
namespace {

using testing::difference;
using testing::expect_error;
using testing::randn;

at::Tensor ids(std::vector<int64_t> values, int64_t k) { return at::tensor(values, at::kLong).view({-1, k}); }

TEST(Selection, PairsAreUnitMajorBestFirst) {
  const Selection s = select_pairs(ids({2, 0, 1, 2}, 2), at::tensor({0.7, 0.3, 0.6, 0.4}, at::kDouble).view({2, 2}), 3);
  EXPECT_TRUE(s.unit.equal(at::tensor({0, 0, 1, 1}, at::kLong)));
  EXPECT_TRUE(s.rank.equal(at::tensor({0, 1, 0, 1}, at::kLong)));
  EXPECT_TRUE(s.expert.equal(at::tensor({2, 0, 1, 2}, at::kLong)));
  EXPECT_EQ(s.per_unit, 2);
  EXPECT_EQ(select_pairs(ids({}, 2), at::zeros({0, 2}), 3).pairs(), 0);
  EXPECT_EQ(expect_error([] { select_pairs(at::zeros({2, 2}, at::kLong), at::zeros({2, 3}), 3); }).code(), "routing.pairs");
}

TEST(Selection, ADenseDecisionMakesPairsWhenAsked) {
  const at::Tensor w = at::tensor({0.2, 0.5, 0.3, 0.4, 0.4, 0.2}, at::kDouble).view({2, 3});
  const Selection s = with_pairs(select_all(w));
  EXPECT_TRUE(s.expert.equal(at::tensor({1, 2, 0, 0, 1, 2}, at::kLong)));  // ties to the lower expert
  EXPECT_LT(difference(dense_weights(s), w), 1e-15);
  EXPECT_TRUE(dense_weights(select_all(w)).is_same(w));
  EXPECT_TRUE(pair_counts(select_all(w), true).equal(at::full({3}, 2, at::kLong)));
}

TEST(Selection, DenseWeightsAddDuplicatesAndLeaveOutDropped) {
  Selection s = select_pairs(ids({1, 1, 0, 2}, 2), at::tensor({0.5, 0.25, 0.6, 0.4}, at::kDouble).view({2, 2}), 3);
  EXPECT_LT(difference(dense_weights(s), at::tensor({0.0, 0.75, 0.0, 0.6, 0.0, 0.4}, at::kDouble).view({2, 3})), 1e-15);
  s.kept = at::tensor({1, 0, 1, 1}, at::kLong).to(at::kBool);
  EXPECT_LT(difference(dense_weights(s), at::tensor({0.0, 0.5, 0.0, 0.6, 0.0, 0.4}, at::kDouble).view({2, 3})), 1e-15);
  EXPECT_TRUE(pair_counts(s, false).equal(at::tensor({1, 2, 1}, at::kLong)));
  EXPECT_TRUE(pair_counts(s, true).equal(at::tensor({1, 1, 1}, at::kLong)));
}

TEST(Selection, RowsTakeTheDecisionOfTheirUnit) {
  Selection s = select_pairs(ids({2, 0, 1, 2}, 2), at::tensor({0.7, 0.3, 0.6, 0.4}, at::kDouble).view({2, 2}), 3);
  s.unit_of_row = at::tensor({0, 1, 1}, at::kLong);
  s.kept = at::tensor({1, 0, 1, 1}, at::kLong).to(at::kBool);
  s.always = at::tensor({0.1, 0.9}, at::kDouble).view({2, 1});
  const Selection rows = over_rows(s);
  EXPECT_EQ(rows.units, 3);
  EXPECT_TRUE(rows.expert.equal(at::tensor({2, 0, 1, 2, 1, 2}, at::kLong)));
  EXPECT_TRUE(rows.kept.equal(at::tensor({1, 0, 1, 1, 1, 1}, at::kLong).to(at::kBool)));  // what was given up stays so
  EXPECT_LT(difference(rows.always, at::tensor({0.1, 0.9, 0.9}, at::kDouble).view({3, 1})), 1e-15);
  EXPECT_FALSE(rows.unit_of_row.defined());
  Selection dense = select_all(at::tensor({1.0, 0.0, 0.5, 0.5}, at::kDouble).view({2, 2}));
  dense.unit_of_row = at::tensor({1, 0}, at::kLong);
  EXPECT_LT(difference(over_rows(dense).dense_weight, at::tensor({0.5, 0.5, 1.0, 0.0}, at::kDouble).view({2, 2})), 1e-15);
  Selection uneven = s;
  uneven.per_unit = 0;
  EXPECT_EQ(expect_error([&] { over_rows(uneven); }).code(), "routing.units");
  Selection listed = s;
  listed.outputs = 4;
  EXPECT_EQ(expect_error([&] { over_rows(listed); }).code(), "routing.units");
}

TEST(Record, VisitsEveryTensorThatMayCarryAGradientOnce) {
  Record record;
  Selection s = select_pairs(ids({0, 1}, 1), randn({2, 1}, 1), 2);
  s.gates.push_back({.logits = randn({2, 2}, 2), .scores = {}, .probabilities = randn({2, 2}, 3), .noise_std = {}});
  record.routed.engagement = s;
  record.routed.weight = randn({2}, 4);
  record.extras["map"] = randn({3}, 5);
  record.extras["ids"] = at::zeros({3}, at::kLong);
  record.losses["own"] = randn({}, 6);
  std::vector<at::Tensor> seen;
  record.each_differentiable([&](at::Tensor& t) { seen.push_back(t); });
  EXPECT_EQ(seen.size(), 6u);  // raw weight, logits, probabilities, weight, map, own
  record.each_differentiable([](at::Tensor& t) { t = t * 2; });
  EXPECT_LT(difference(record.routed.weight, randn({2}, 4) * 2), 1e-15);
  EXPECT_EQ(record.gates().size(), 1u);
  TokenBlend blend;
  blend.dispatch = blend.combine = randn({1, 2, 2}, 1);
  record.routed.engagement = blend;
  int count = 0;
  record.each_differentiable([&](at::Tensor&) { ++count; });
  EXPECT_EQ(count, 5);
}

}  // namespace
}  // namespace switchyard
