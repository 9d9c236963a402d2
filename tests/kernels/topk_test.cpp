// top_k and top_k_grouped against a stable sort, and what they promise about ties, -inf and NaN.
#include "switchyard/kernels/topk.h"

#include <ATen/ATen.h>

#include <cmath>

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
