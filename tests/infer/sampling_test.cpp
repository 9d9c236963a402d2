#include "switchyard/infer/sampling.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "switchyard/base/files.h"
#include "switchyard/formats/safetensors.h"
#include "tests/files.h"
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

TEST(Sampling, TypicalKeepsWhatIsNearTheExpectedSurprise) {
  // H = 1.2799; |-ln p - H| = 1.0227, 0.3636, 0.0759, 0.3296: the order is 0.3, 0.2, 0.4, 0.1.
  expect_probabilities(distribution(logits_of(kFour), {.typical = 0.2}), {0, 0, 1, 0});
  expect_probabilities(distribution(logits_of(kFour), {.typical = 0.4}), {0, 0, 0.6, 0.4});
  expect_probabilities(distribution(logits_of(kFour), {.typical = 0.6}), {0, 0.4 / 0.9, 0.3 / 0.9, 0.2 / 0.9});
  expect_probabilities(distribution(logits_of(kFour), {.typical = 1}), kFour);
  // Equally near tokens stay together.
  expect_probabilities(distribution(at::zeros(4), {.typical = 0.3}), {0.25, 0.25, 0.25, 0.25});
}

TEST(Sampling, PenaltiesLookAtPromptAndText) {
  const std::vector<int64_t> prompt{0, 3, 77}, written{1, 1, 3};
  const TokensSoFar so_far{.prompt = prompt, .written = written};
  const at::Tensor logits = at::tensor({2.0, -1.0, 0.5, 0.0}, at::kDouble);
  expect_probabilities(penalised(logits, {.repetition_penalty = 2}, so_far), {1.0, -2.0, 0.5, 0.0});
  expect_probabilities(penalised(logits, {.presence_penalty = 0.25}, so_far), {2.0, -1.25, 0.5, -0.25});
  expect_probabilities(penalised(logits, {.frequency_penalty = 0.25}, so_far), {2.0, -1.5, 0.5, -0.25});
  expect_probabilities(penalised(logits, {.logit_bias = {{0, 2}, {2, -1}}, .repetition_penalty = 2}, so_far), {2.0, -2.0, -0.5, 0.0});
  EXPECT_EQ(sample(logits, {.repetition_penalty = 8, .temperature = 0}, 0, 0, so_far), 2);
  const double none = -std::numeric_limits<double>::infinity();
  EXPECT_EQ(sample(logits, {.logit_bias = {{0, none}}, .temperature = 0}, 0, 0), 2);
  EXPECT_EQ(expect_error([&] { penalised(logits, {.logit_bias = {{4, 1}}}); }).code(), "infer.logit_bias");
  EXPECT_EQ(expect_error([&] { penalised(logits, {.logit_bias = {{0, std::nan("")}}}); }).code(), "infer.logit_bias");
  EXPECT_EQ(expect_error([&] { penalised(at::zeros(1), {.logit_bias = {{0, none}}}); }).code(), "infer.logits");
}

SamplingOptions options_of(const nlohmann::json& named) {
  SamplingOptions options;
  for (const auto& [name, value] : named.items()) {
    if (name == "logit_bias") for (const auto& [id, bias] : value.items()) options.logit_bias[std::stoll(id)] = bias;
    else if (name == "repetition_penalty") options.repetition_penalty = value;
    else if (name == "presence_penalty") options.presence_penalty = value;
    else if (name == "frequency_penalty") options.frequency_penalty = value;
    else if (name == "temperature") options.temperature = value;
    else if (name == "top_k") options.top_k = value;
    else if (name == "top_p") options.top_p = value;
    else if (name == "min_p") options.min_p = value;
    else if (name == "typical") options.typical = value;
    else ADD_FAILURE() << "no option " << name;
  }
  return options;
}

/// Cases that tests/golden/sampling/record.py wrote.
void expect_recorded(const std::filesystem::path& folder) {
  const nlohmann::json cases = nlohmann::json::parse(read_file(folder / "cases.json"));
  const Safetensors tensors(folder / "cases.safetensors");
  ASSERT_GE(cases.size(), 70u);
  for (size_t i = 0; i < cases.size(); ++i) {
    SCOPED_TRACE(cases[i]["options"].dump());
    const std::vector<int64_t> prompt = cases[i]["prompt"], written = cases[i]["written"];
    const at::Tensor got = distribution(tensors.get("logits." + std::to_string(i)), options_of(cases[i]["options"]),
                                        {.prompt = prompt, .written = written});
    const at::Tensor expected = tensors.get("probabilities." + std::to_string(i));
    EXPECT_TRUE((got > 0).equal(expected > 0)) << "other tokens are kept";
    EXPECT_LT(difference(got, expected), 1e-9);
  }
}

TEST(Sampling, EveryFilterAloneAndTogetherIsAsRecorded) { expect_recorded(testing::golden("sampling")); }

TEST(Sampling, FreshLogitsAreFilteredAsTransformersDoes) {
  SWITCHYARD_NEED_PYTHON(python, "torch,transformers,safetensors");
  testing::TemporaryFolder folder;
  const testing::Finished recorded = testing::run_command("'" + python + "' '" + testing::golden("sampling/record.py").string() + "' '" +
                                                          folder.path().string() + "' 77");
  ASSERT_EQ(recorded.status, 0) << recorded.output;
  expect_recorded(folder.path());
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
