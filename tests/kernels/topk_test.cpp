// top_k, top_k_grouped and admit against stable sorts, and what they promise about ties, -inf and NaN.
#include "switchyard/kernels/topk.h"

#include <ATen/ATen.h>

#include <cmath>

#include "switchyard/base/random.h"
#include "switchyard/kernels/admission.h"
#include "switchyard/kernels/reference/reference.h"
#include "tests/support.h"

namespace switchyard::kernels {
namespace {

using switchyard::testing::expect_error;
using switchyard::testing::randn;

TEST(TopK, EqualsAStableSortForEveryK) {
  for (at::ScalarType type : {at::kFloat, at::kDouble})
    for (const auto& [rows, columns] : std::vector<std::pair<int64_t, int64_t>>{{0, 4}, {1, 1}, {5, 7}, {300, 40}})
      for (int64_t k = 1; k <= columns; ++k) {
        // Rounded, so that ties abound.
        const at::Tensor scores = (randn({rows, columns}, 3, type) * 2).round();
        const TopK got = top_k(scores, k), expected = reference::top_k(scores, k);
        ASSERT_TRUE(at::equal(got.indices, expected.indices)) << rows << " " << columns << " " << k;
        ASSERT_TRUE(at::equal(got.values, expected.values));
      }
}

TEST(TopK, TiesGoToTheLowerIndexAndMinusInfinityIsAScore) {
  EXPECT_TRUE(at::equal(top_k(at::ones({1, 4}), 3).indices, at::tensor({0, 1, 2}, at::kLong).view({1, 3})));
  const at::Tensor masked = at::tensor({-INFINITY, 1.0f, -INFINITY}, at::kFloat).view({1, 3});
  EXPECT_TRUE(at::equal(top_k(masked, 3).indices, at::tensor({1, 0, 2}, at::kLong).view({1, 3})));
}

TEST(TopK, NamesTheFirstRowThatIsNotANumber) {
  at::Tensor scores = at::zeros({3, 4});
  scores[2][1] = NAN;
  scores[1][3] = NAN;
  const Error error = expect_error([&] { top_k(scores, 2); });
  EXPECT_EQ(error.code(), "routing.nan");
  EXPECT_NE(error.message().find("row 1 of the routing scores is not a number at expert 3"), std::string::npos) << error.message();
  EXPECT_EQ(expect_error([&] { top_k_grouped(scores, 2, {.groups = 2, .chosen = 1, .best = 1}); }).code(), "routing.nan");
  EXPECT_EQ(expect_error([&] { top_k(at::zeros({3, 4}), 5); }).code(), "routing.k_range");
  EXPECT_EQ(expect_error([&] { top_k(at::zeros({3, 4}), 0); }).code(), "routing.k_range");
  EXPECT_EQ(expect_error([&] { top_k_grouped(at::zeros({3, 4}), 2, {.groups = 3}); }).code(), "routing.group_range");
}

TEST(TopK, GradientGoesToTheChosenScores) {
  const at::Tensor scores = randn({2, 5}, 1).requires_grad_();
  const TopK best = top_k(scores, 2);
  best.values.sum().backward();
  EXPECT_TRUE(at::equal(scores.grad(), at::zeros({2, 5}, at::kDouble).scatter(1, best.indices, 1.0)));
}

TEST(TopK, GroupedEqualsTheReference) {
  for (at::ScalarType type : {at::kFloat, at::kDouble})
    for (const int64_t rows : {0, 1, 70})
      for (const GroupLimit limit : {GroupLimit{1, 1, 1}, GroupLimit{4, 2, 2}, GroupLimit{8, 3, 1}, GroupLimit{8, 8, 4}, GroupLimit{2, 1, 18}, GroupLimit{20, 18, 2}})
        for (const int64_t columns : {40, 120})
          for (const int64_t k : {1, 3, 8, 17, 19}) {
            const int64_t width = columns / limit.groups;
            if (columns % limit.groups || limit.best > width || k > limit.chosen * width) continue;
            at::Tensor scores = (randn({rows, columns}, 3, type) * 2).round();  // ties abound
            scores.masked_fill_(randn({rows, columns}, 4, type).gt(1), -INFINITY);
            const TopK got = top_k_grouped(scores, k, limit), expected = reference::top_k_grouped(scores, k, limit);
            ASSERT_TRUE(at::equal(got.indices, expected.indices)) << columns << " in " << limit.groups << ", " << limit.chosen << " by " << limit.best << ", k " << k;
            ASSERT_TRUE(at::equal(got.values, expected.values));
          }
}

TEST(Admission, EqualsTheReference) {
  for (const auto& [pairs, bins] : std::vector<std::pair<int64_t, int64_t>>{{0, 2}, {1, 1}, {40, 3}, {900, 1}, {1300, 4}, {20, 60}})
    for (const bool priorities : {false, true})
      for (const bool exempts : {false, true}) {
        const at::Tensor bin = Streams(7).integers(bins + 1, {pairs}, {.purpose = "bin"}) - 1;  // -1 asks for nothing
        at::Tensor priority, exempt;
        if (priorities) {
          priority = (randn({pairs}, 8, at::kFloat) * 2).round();
          if (pairs > 20) priority[7] = INFINITY, priority[9] = -INFINITY;
        }
        if (exempts) exempt = randn({pairs}, 10).gt(1);
        for (const at::Tensor& capacity : {Streams(11).integers(pairs / bins + 2, {bins}, {.purpose = "capacity"}), at::zeros({bins}, at::kLong)})
          ASSERT_TRUE(at::equal(admit(bin, priority, exempt, capacity, bins), reference::admit(bin, priority, exempt, capacity, bins)))
              << pairs << " pairs, " << bins << " bins" << (priorities ? ", priorities" : "") << (exempts ? ", exempt ones" : "");
      }
}

TEST(Admission, RefusesBinsThatAreNotThereAndPrioritiesThatAreNoNumbers) {
  const at::Tensor bin = at::tensor({0, 1, -1, 1}, at::kLong);
  const Error range = expect_error([&] { admit(bin, {}, {}, 1, 1); });
  EXPECT_EQ(range.code(), "kernels.bin_range");
  EXPECT_NE(range.message().find("pair 1 asks for bin 1"), std::string::npos) << range.message();
  at::Tensor priority = at::tensor({1.0f, NAN, NAN, 2.0f}, at::kFloat);
  EXPECT_EQ(expect_error([&] { admit(bin, priority, {}, 1, 2); }).code(), "kernels.priority_nan");
  EXPECT_TRUE(admit(bin, priority, at::tensor({0, 1, 0, 0}, at::kLong).to(at::kBool), 1, 2).equal(at::tensor({1, 1, 0, 1}, at::kLong).to(at::kBool)))
      << "who does not ask needs no priority";
  EXPECT_EQ(expect_error([&] { admit(bin, {}, {}, at::ones({3}, at::kLong), 2); }).code(), "kernels.claims");
  EXPECT_EQ(expect_error([&] { admit(bin, at::ones({3}), {}, 1, 2); }).code(), "kernels.claims");
  EXPECT_EQ(expect_error([&] { admit(bin, {}, at::ones({4}), 1, 2); }).code(), "kernels.claims");
}

TEST(TopK, GroupsLimitWhereExpertsMayBeChosen) {
  // Groups {0,1}, {2,3}, {4,5}: sums of two best 5, 7, 6; the best two groups are 1 and 2.
  const at::Tensor scores = at::tensor({5.0, 0.0, 4.0, 3.0, 6.0, 0.0}, at::kDouble).view({1, 6});
  const TopK two = top_k_grouped(scores, 3, {.groups = 3, .chosen = 2, .best = 2});
  EXPECT_TRUE(at::equal(two.indices, at::tensor({4, 2, 3}, at::kLong).view({1, 3})));
  // By the single best column the groups are 2 and 0.
  const TopK one = top_k_grouped(scores, 3, {.groups = 3, .chosen = 2, .best = 1});
  EXPECT_TRUE(at::equal(one.indices, at::tensor({4, 0, 1}, at::kLong).view({1, 3})));
}

}  // namespace
}  // namespace switchyard::kernels
