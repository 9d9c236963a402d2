#include <ATen/ATen.h>

#include "switchyard/train/objective.h"
#include "tests/train/train_support.h"

namespace switchyard {
namespace {

using testing::expect_error;
using testing::make_decoder;
using testing::make_trainer;
using testing::Source;

const char* kModel =
    "{vocabulary: 33, width: 12, layers: 2, context: 16, positions: relative, attention: {type: gqa, heads: 2}, cross_attention: "
    "{type: cross-attention, heads: 2}, encoder: {layers: 1, positions: relative, start_token: 7, attention: {type: gqa, heads: 2}, mixtures: "
    "[{experts: 4, router: {type: sparse-topk, k: 2}, expert: {type: swiglu, hidden: 10}, losses: [lb-loss]}]}, mixtures: "
    "[{experts: 4, router: {type: sparse-topk, k: 2}, expert: {type: swiglu, hidden: 10}, losses: [lb-loss]}]}";
const std::string kObjective = "objective: {type: span-corruption, ratio: 0.4, span: 1.5, sentinels: 6}";

std::vector<int64_t> numbers(const at::Tensor& t) {
  const at::Tensor plain = t.contiguous();
  return {plain.const_data_ptr<int64_t>(), plain.const_data_ptr<int64_t>() + plain.numel()};
}

TEST(Catalogue, span_corruption_takes_out_what_the_decoder_writes) {
  const auto decoder = make_decoder(kModel);
  const Streams random(3);
  const auto objective = read_options<TrainOptions>(parse_yaml("{" + kObjective + "}", "test")).objective.make();
  const Batch batch = Source()(50);  // texts of 3 and 5 tokens below 23
  const auto prepared = [&](int64_t step) {
    return objective->prepare(batch, *decoder, Context{.facts = batch.facts, .random = random, .step = step, .place = {}});
  };
  const Batch made = prepared(1);
  const std::vector<int64_t> source = numbers(made.source), target = numbers(made.targets), ids = numbers(made.ids), text = numbers(batch.ids);
  ASSERT_EQ(made.facts.segments.count(), batch.facts.segments.count());
  int64_t taken = 0;
  for (int64_t s = 0; s < batch.facts.segments.count(); ++s) {
    const auto part = [s](const std::vector<int64_t>& all, const Segments& of) {
      return std::vector<int64_t>(all.begin() + of.begin[static_cast<size_t>(s)], all.begin() + of.begin[static_cast<size_t>(s) + 1]);
    };
    const auto read = part(source, made.source_segments), written = part(target, made.facts.segments), fed = part(ids, made.facts.segments);
    // What stands behind a sentinel, put in its place, gives the text back.
    std::vector<int64_t> whole;
    for (const int64_t token : read) {
      if (token < 27) {
        whole.push_back(token);
        continue;
      }
      auto at = std::find(written.begin(), written.end(), token);
      ASSERT_NE(at, written.end());
      for (++at; at != written.end() && *at < 27; ++at, ++taken) whole.push_back(*at);
    }
    EXPECT_EQ(whole, part(text, batch.facts.segments));
    EXPECT_EQ(fed.front(), 7);
    EXPECT_TRUE(std::equal(fed.begin() + 1, fed.end(), written.begin())) << "the decoder is fed what it wrote";
    EXPECT_GE(written.back(), 27);
  }
  EXPECT_NEAR(static_cast<double>(taken) / static_cast<double>(text.size()), 0.375, 0.01);  // 1 of 3 and 2 of 5
  EXPECT_EQ(numbers(prepared(1).source), source) << "a step's draws are its own";
}

TEST(SpanCorruption, AnEncoderDecoderLearnsAndAccumulationAndRecomputationAreExact) {
  const std::string train = "{batch: 16, steps: 150, optimiser: {lr: 0.01}, " + kObjective;
  auto trainer = make_trainer(kModel, train + "}", at::kFloat, 3);
  const std::vector<Batch> held_out{Source()(64)};
  const double before = evaluate(*trainer, held_out, {}).loss;
  for (int i = 0; i < 150; ++i) trainer->train_step();
  EXPECT_LT(evaluate(*trainer, held_out, {}).loss, before - 0.5);

  auto one = make_trainer(kModel, train + "}", at::kDouble), four = make_trainer(kModel, train + ", accumulate: 4}", at::kDouble);
  auto again = make_trainer(kModel, train + ", recompute: true}", at::kDouble);
  const double loss = one->train_step().loss;
  EXPECT_NEAR(four->train_step().loss, loss, 1e-9);
  EXPECT_NEAR(again->train_step().loss, loss, 1e-12);
  // What the step did shows in the next one's loss.
  const double next = one->train_step().loss;
  EXPECT_NEAR(four->train_step().loss, next, 1e-6);
  EXPECT_NEAR(again->train_step().loss, next, 1e-6);
}

TEST(SpanCorruption, TheFirstSentinelMayBeAnyToken) {
  const auto decoder = make_decoder(kModel);
  const Streams random(3);
  const Batch batch = Source()(10);
  const auto prepared = [&](const std::string& more) {
    const std::string objective = kObjective.substr(0, kObjective.size() - 1) + more + "}";
    return read_options<TrainOptions>(parse_yaml("{" + objective + "}", "test")).objective.make()
        ->prepare(batch, *decoder, Context{.facts = batch.facts, .random = random, .place = {}});
  };
  const Batch last = prepared(""), other = prepared(", first_sentinel: 29");  // the vocabulary's last is 32; the texts end at 22
  const auto moved = [](const at::Tensor& ids) { return ids - 3 * ids.ge(27).to(at::kLong); };
  EXPECT_TRUE(other.source.equal(moved(last.source)));
  EXPECT_TRUE(other.targets.equal(moved(last.targets)));
  EXPECT_EQ(expect_error([&] { prepared(", first_sentinel: 33"); }).code(), "train.objective");
  EXPECT_EQ(expect_error([&] { prepared(", first_sentinel: 5"); }).code(), "train.objective");
}

TEST(SpanCorruption, AModelAndItsObjectiveAgreeAboutAnEncoder) {
  EXPECT_EQ(expect_error([&] { make_trainer(kModel, "{batch: 2}"); }).code(), "train.objective");
  EXPECT_EQ(expect_error([&] { make_trainer(testing::small_moe(), "{batch: 2, " + kObjective + "}"); }).code(), "train.objective");
}

}  // namespace
}  // namespace switchyard
