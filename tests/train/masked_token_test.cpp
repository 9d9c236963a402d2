#include <ATen/ATen.h>

#include "switchyard/train/objective.h"
#include "tests/train/train_support.h"

namespace switchyard {
namespace {

using testing::expect_error;
using testing::make_decoder;
using testing::make_trainer;
using testing::Source;

const char* kEncoder =
    "{vocabulary: 23, width: 12, layers: 2, context: 8, causal: false, attention: {type: gqa, heads: 2}, mixtures: "
    "[{experts: 4, router: {type: sparse-topk, k: 2}, expert: {type: swiglu, hidden: 10}}]}";

std::shared_ptr<Objective> masked(const std::string& options) {
  return read_options<TrainOptions>(parse_yaml("objective: {type: masked-lm, " + options + "}", "test")).objective.make();
}

Context at_step(const Batch& batch, const Streams& random, int64_t step) {
  return Context{.facts = batch.facts, .random = random, .step = step, .place = {}};
}

TEST(Catalogue, masked_lm) {
  const auto decoder = make_decoder(kEncoder);
  const Batch batch = Source()(400);  // 3200 tokens
  const Streams random(3);
  const auto prepare = [&](const std::string& options, int64_t step) {
    return masked(options)->prepare(batch, *decoder, at_step(batch, random, step));
  };
  const Batch found = prepare("ratio: 0.15, mask_token: 22", 1);
  const at::Tensor chosen = found.targets.ge(0);
  EXPECT_EQ(found.predicted, chosen.sum().item<int64_t>());
  EXPECT_NEAR(found.predicted / 3200.0, 0.15, 0.02);
  EXPECT_TRUE(found.targets.masked_select(chosen).equal(batch.ids.masked_select(chosen))) << "the target is the token itself";
  EXPECT_TRUE(found.ids.masked_select(~chosen).equal(batch.ids.masked_select(~chosen))) << "the others stay";
  const at::Tensor shown = found.ids.masked_select(chosen), was = batch.ids.masked_select(chosen);
  const double hidden = shown.eq(22).to(at::kDouble).mean().item<double>();
  EXPECT_NEAR(hidden, 0.8 + 0.1 / 23, 0.06);
  EXPECT_NEAR(shown.eq(was).to(at::kDouble).mean().item<double>(), 0.1 + (hidden + 0.1) / 23, 0.06);

  EXPECT_TRUE(prepare("ratio: 0.15, mask_token: 22", 1).ids.equal(found.ids)) << "a step's draws are its own";
  EXPECT_FALSE(prepare("ratio: 0.15, mask_token: 22", 2).targets.equal(found.targets));
  const Batch all = prepare("ratio: 1, hidden: 1, replaced: 0", 1);
  EXPECT_TRUE(all.ids.eq(0).all().item<bool>());
  EXPECT_TRUE(all.targets.equal(batch.ids));
  EXPECT_EQ(expect_error([&] { prepare("mask_token: 23", 1); }).code(), "train.objective");
  EXPECT_EQ(expect_error([&] { masked("hidden: 0.8, replaced: 0.3"); }).code(), "train.objective");
}

// A document here follows from any of its tokens, so an encoder that sees both sides can name what is hidden.
TEST(MaskedToken, AnEncoderLearnsAndAccumulationIsExact) {
  const std::string train = "{batch: 32, steps: 400, objective: {type: masked-lm, ratio: 0.3}, optimiser: {lr: 0.01}";
  auto trainer = make_trainer(kEncoder, train + "}", at::kFloat, 3);
  std::vector<Batch> held_out{Source()(64)};
  const double before = evaluate(*trainer, held_out, {}).loss;
  EXPECT_EQ(evaluate(*trainer, held_out, {}).loss, before) << "every evaluation hides the same tokens";
  for (int i = 0; i < 400; ++i) trainer->train_step();
  EXPECT_LT(evaluate(*trainer, held_out, {}).loss, before - 0.5);

  auto one = make_trainer(kEncoder, train + ", accumulate: 1}", at::kDouble), four = make_trainer(kEncoder, train + ", accumulate: 4}", at::kDouble);
  EXPECT_NEAR(one->train_step().loss, four->train_step().loss, 1e-9);
}

TEST(MaskedToken, NextTokenIsRefusedWhereItIsSeen) {
  const Error error = expect_error([&] { make_trainer(kEncoder, "{batch: 2}"); });
  EXPECT_EQ(error.code(), "train.objective");
  EXPECT_NE(error.message().find("masked-lm"), std::string::npos);
}

}  // namespace
}  // namespace switchyard
