#include "switchyard/infer/sampling.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

#include "tests/support.h"

namespace switchyard {
namespace {

using testing::difference;
using testing::expect_error;

/// Logits whose softmax is these probabilities.
at::Tensor logits_of(std::vector<double> probabilities) { return at::tensor(probabilities, at::kDouble).log(); }

void expect_probabilities(const at::Tensor& got, std::vector<double> expected) {
  EXPECT_LT(difference(got, at::tensor(expected, at::kDouble)), 1e-12) << got;
}

const std::vector<double> kFour{0.1, 0.4, 0.3, 0.2};

TEST(Sampling, WithoutFiltersItIsTheSoftmax) { expect_probabilities(distribution(logits_of(kFour), {}), kFour); }

TEST(Sampling, TemperatureRaisesProbabilitiesToItsInverse) {
  // p^(1/0.5) = p²: 0.01, 0.16, 0.09, 0.04 over 0.30
  expect_probabilities(distribution(logits_of(kFour), {.temperature = 0.5}), {0.01 / 0.3, 0.16 / 0.3, 0.09 / 0.3, 0.04 / 0.3});
  expect_probabilities(distribution(logits_of(kFour), {.temperature = 0}), {0, 1, 0, 0});
}

TEST(Sampling, TopKKeepsTheKMostProbable) {
  expect_probabilities(distribution(logits_of(kFour), {.top_k = 2}), {0, 0.4 / 0.7, 0.3 / 0.7, 0});
  expect_probabilities(distribution(logits_of(kFour), {.top_k = 4}), kFour);
  expect_probabilities(distribution(logits_of(kFour), {.top_k = 9}), kFour);
  // Ties go to the lower id.
  expect_probabilities(distribution(at::zeros(4), {.top_k = 2}), {0.5, 0.5, 0, 0});
}

TEST(Sampling, TopPKeepsTheFewestThatReachTheMass) {
  expect_probabilities(distribution(logits_of(kFour), {.top_p = 0.65}), {0, 0.4 / 0.7, 0.3 / 0.7, 0});
  expect_probabilities(distribution(logits_of(kFour), {.top_p = 0.75}), {0, 0.4 / 0.9, 0.3 / 0.9, 0.2 / 0.9});
  expect_probabilities(distribution(logits_of(kFour), {.top_p = 0}), {0, 1, 0, 0});
  // After top-k: 0.4/0.7 alone reaches 0.55 of what is left.
  expect_probabilities(distribution(logits_of(kFour), {.top_k = 2, .top_p = 0.55}), {0, 1, 0, 0});
}

TEST(Sampling, MinPComparesWithTheHighest) {
  expect_probabilities(distribution(logits_of(kFour), {.min_p = 0.6}), {0, 0.4 / 0.7, 0.3 / 0.7, 0});
  expect_probabilities(distribution(logits_of(kFour), {.min_p = 1}), {0, 1, 0, 0});
}

TEST(Sampling, DrawsFollowTheDistribution) {
  const at::Tensor logits = logits_of(kFour);
  std::vector<int> counts(4);
  const int draws = 20000;
  for (int i = 0; i < draws; ++i) ++counts[static_cast<size_t>(sample(logits, {.seed = 3}, 0, i))];
  for (size_t v = 0; v < 4; ++v) {
    const double deviation = std::sqrt(draws * kFour[v] * (1 - kFour[v]));
    EXPECT_NEAR(counts[v], draws * kFour[v], 4 * deviation) << v;
  }
}

TEST(Sampling, ADrawDependsOnSeedSequenceAndPositionAlone) {
  const at::Tensor logits = at::zeros(1000);
  const int64_t first = sample(logits, {.seed = 1}, 0, 5);
  EXPECT_EQ(sample(logits, {.seed = 1}, 0, 5), first);
  EXPECT_NE(sample(logits, {.seed = 2}, 0, 5), first);
  EXPECT_NE(sample(logits, {.seed = 1}, 1, 5), first);
  EXPECT_NE(sample(logits, {.seed = 1}, 0, 6), first);
}

TEST(Sampling, GreedyTakesTheLowerIdOfATie) {
  EXPECT_EQ(sample(at::tensor({1.0f, 3.0f, 3.0f}), {.temperature = 0}, 0, 0), 1);
}

TEST(Sampling, MaskedTokensAreNeverDrawn) {
  const double none = -std::numeric_limits<double>::infinity();
  const at::Tensor logits = at::tensor({none, 0.0, none});
  for (int64_t i = 0; i < 50; ++i) EXPECT_EQ(sample(logits, {}, 0, i), 1);
}

TEST(Sampling, BrokenLogitsAreRefused) {
  const double nan = std::nan(""), infinite = std::numeric_limits<double>::infinity();
  EXPECT_EQ(expect_error([&] { distribution(at::tensor({0.0, nan}), {}); }).code(), "infer.logits");
  EXPECT_EQ(expect_error([&] { sample(at::tensor({0.0, infinite}), {.temperature = 0}, 0, 0); }).code(), "infer.logits");
  EXPECT_EQ(expect_error([&] { distribution(at::tensor({-infinite, -infinite}), {}); }).code(), "infer.logits");
  EXPECT_EQ(expect_error([&] { distribution(at::zeros({2, 2}), {}); }).code(), "infer.logits");
}

}  // namespace
}  // namespace switchyard
