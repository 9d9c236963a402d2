#include "switchyard/train/trainer.h"

#include <ATen/Parallel.h>

#include <limits>

#include "tests/train/train_support.h"

namespace switchyard {
namespace {

using testing::difference;
using testing::expect_error;
using testing::gradients;
using testing::kVocabulary;
using testing::make_trainer;
using testing::small_moe;
using testing::Source;

constexpr const char* kTrain = "{steps: 60, batch: 4, optimiser: {lr: 0.01}, schedule: {warmup: 5}}";

TEST(Trainer, LossFallsAndEveryParameterMoves) {
  const auto trainer = make_trainer(small_moe(), kTrain, at::kFloat, 1);
  std::vector<at::Tensor> before;
  for (const Parameter& p : trainer->optimiser().parameters()) before.push_back(p.tensor().detach().clone());
  const double first = trainer->train_step().loss;
  double last = first;
  for (int i = 1; i < 60; ++i) last = trainer->train_step().loss;
  EXPECT_NEAR(first, std::log(static_cast<double>(kVocabulary)), 0.3);
  EXPECT_LT(last, 0.5 * first);
  for (size_t i = 0; i < before.size(); ++i)
    EXPECT_GT(difference(before[i], trainer->optimiser().parameters()[i].tensor().detach()), 0)
        << trainer->optimiser().parameters()[i].name();
}

TEST(Trainer, TwoRunsAreEqualBitForBit) {
  std::vector<std::vector<at::Tensor>> ends;
  for (int run = 0; run < 2; ++run) {
    const auto trainer = make_trainer(small_moe(), kTrain);
    for (int i = 0; i < 4; ++i) trainer->train_step();
    ends.emplace_back();
    for (const Parameter& p : trainer->optimiser().parameters()) ends.back().push_back(p.tensor().detach());
  }
  for (size_t i = 0; i < ends[0].size(); ++i) EXPECT_TRUE(at::equal(ends[0][i], ends[1][i])) << i;
}

// libtorch's own products may split a sum differently over threads, so bits are promised for one thread count only
// (docs: "the same machine and thread count"); values stay within rounding.
TEST(Trainer, ThreadCountsAgreeWithinRounding) {
  const int threads = at::get_num_threads();
  std::vector<std::vector<at::Tensor>> found;
  for (int n : {1, 2}) {
    at::set_num_threads(n);
    const auto trainer = make_trainer(small_moe(), kTrain);
    trainer->train_step();
    found.push_back(gradients(*trainer));
  }
  at::set_num_threads(threads);
  for (size_t i = 0; i < found[0].size(); ++i) EXPECT_LT(difference(found[0][i], found[1][i]), 1e-5) << i;
}

/// Gradients after one step with so many micro-batches.
std::vector<at::Tensor> accumulated(const std::string& model, int64_t count, StepResult* result = nullptr) {
  const auto trainer = make_trainer(model, fmt::format("{{steps: 10, batch: 4, accumulate: {}}}", count), at::kDouble);
  const StepResult step = trainer->train_step();
  if (result) *result = step;
  return gradients(*trainer);
}

TEST(Trainer, MicroBatchesGiveTheGradientOfOneBatchRoutingLossesIncluded) {
  for (const char* losses : {"[]", "[{type: lb-loss, coefficient: 3}, {type: router-z, coefficient: 0.5}]",
                             "[{type: lb-loss, coefficient: 3, scope: model}]", "[{type: gshard-aux, coefficient: 2}]"}) {
    StepResult whole, parts;
    const auto expected = accumulated(small_moe(losses), 1, &whole);
    const auto plain = accumulated(small_moe("[]"), 1);
    double effect = 0;
    for (int64_t count : {2, 4}) {
      const auto found = accumulated(small_moe(losses), count, &parts);
      for (size_t i = 0; i < expected.size(); ++i) {
        EXPECT_LT(difference(found[i], expected[i]), 1e-10) << losses << " x" << count << ", parameter " << i;
        effect = std::max(effect, difference(plain[i], expected[i]));
      }
      EXPECT_NEAR(parts.loss, whole.loss, 1e-12);
      EXPECT_NEAR(parts.gradient_norm, whole.gradient_norm, 1e-10);
      ASSERT_EQ(parts.terms.size(), whole.terms.size());
      for (size_t t = 0; t < whole.terms.size(); ++t) EXPECT_NEAR(parts.terms[t].second, whole.terms[t].second, 1e-10);
      ASSERT_EQ(parts.loads.size(), 2u);
      EXPECT_TRUE(at::equal(parts.loads[1].load.engaged, whole.loads[1].load.engaged));
      EXPECT_EQ(whole.loads[1].load.engaged.sum().item<int64_t>(), 4 * 8 * 2);
      EXPECT_EQ(parts.loads[1].load.rows, 4 * 8);
    }
    if (std::string_view(losses) != "[]") { EXPECT_GT(effect, 1e-4) << losses; }  // or the comparison says nothing
  }
}

TEST(Trainer, RecomputationChangesNothing) {
  for (const char* precision : {"float32", "bfloat16"}) {
    std::vector<std::vector<at::Tensor>> found;
    std::vector<StepResult> steps;
    for (const char* recompute : {"false", "true"}) {
      const auto trainer = make_trainer(small_moe("[{type: lb-loss, coefficient: 1}]"),
                                        fmt::format("{{steps: 10, batch: 4, recompute: {}, precision: {}}}", recompute, precision));
      steps.push_back(trainer->train_step());
      found.push_back(gradients(*trainer));
    }
    EXPECT_EQ(steps[0].loss, steps[1].loss);
    EXPECT_EQ(steps[0].terms, steps[1].terms);  // counted once
    EXPECT_TRUE(at::equal(steps[0].loads[1].load.engaged, steps[1].loads[1].load.engaged));
    for (size_t i = 0; i < found[0].size(); ++i) EXPECT_LT(difference(found[0][i], found[1][i]), 1e-6) << precision << i;
  }
}

TEST(Trainer, BfloatIsCloseToFloatAndKeepsFloatWeights) {
  double losses[2];
  for (int i = 0; i < 2; ++i) {
    const auto trainer = make_trainer(small_moe(), fmt::format("{{steps: 40, batch: 8, precision: {}, optimiser: {{lr: 0.01}}, "
                                                               "schedule: {{warmup: 5}}}}", i ? "bfloat16" : "float32"), at::kFloat, 1);
    for (int s = 0; s < 40; ++s) losses[i] = trainer->train_step().loss;
    for (const Parameter& p : trainer->optimiser().parameters()) EXPECT_EQ(p.tensor().scalar_type(), at::kFloat);
  }
  EXPECT_NE(losses[0], losses[1]);              // it did run in another precision
  EXPECT_NEAR(losses[0], losses[1], 0.15 * losses[0] + 0.02);  // 40 steps of rounding to 8 bits
}

TEST(Trainer, ClippingBoundsTheStep) {
  // SGD-like check is impossible under Adam's scaling; the scale reaches the moments instead.
  for (double clip : {0.0, 0.001}) {
    const auto trainer = make_trainer(small_moe("[]"), fmt::format("{{steps: 10, batch: 4, optimiser: {{clip: {}}}}}", clip), at::kDouble);
    const StepResult step = trainer->train_step();
    double square = 0;
    for (const auto& [name, tensor] : trainer->optimiser().state())
      if (name.starts_with("m.")) square += tensor.square().sum().item<double>();
    const double expected = (clip > 0 ? clip : step.gradient_norm) * (1 - trainer->options().optimiser.beta1);
    EXPECT_NEAR(std::sqrt(square), expected, 1e-9);
    EXPECT_GT(step.gradient_norm, 0.001);
  }
}

TEST(Trainer, NotFiniteNamesTheParameter) {
  const auto trainer = make_trainer(small_moe(), kTrain);
  trainer->train_step();
  const Parameter& victim = trainer->optimiser().parameters()[5];
  {
    const at::NoGradGuard guard;
    victim.tensor().view({-1})[0] = std::numeric_limits<float>::quiet_NaN();
  }
  const at::Tensor other = trainer->optimiser().parameters()[1].tensor().detach().clone();
  const Error error = expect_error([&] { trainer->train_step(); });
  EXPECT_EQ(error.code(), "train.not_finite");
  EXPECT_NE(error.message().find("step 2: the loss term 'cross-entropy' is nan"), std::string::npos) << error.message();
  EXPECT_NE(error.message().find(victim.name()), std::string::npos) << error.message();
  EXPECT_TRUE(at::equal(other, trainer->optimiser().parameters()[1].tensor()));  // nothing moved
  EXPECT_EQ(trainer->step(), 1);
}

TEST(Trainer, NotFiniteNamesTheLayer) {
  const auto trainer = make_trainer(small_moe(), kTrain);
  {
    const at::NoGradGuard guard;
    for (const Parameter& p : trainer->optimiser().parameters())
      if (p.name().find("layers.1.attention") != std::string::npos && p.tensor().dim() == 2) p.tensor().mul_(1e30);
  }
  const Error error = expect_error([&] { trainer->train_step(); });
  EXPECT_EQ(error.code(), "train.not_finite");
  EXPECT_NE(error.message().find("inside layers.1, whose input is finite"), std::string::npos) << error.message();
  EXPECT_NE(error.message().find("lower train.optimiser.lr"), std::string::npos) << error.message();
}

TEST(Trainer, NotFiniteNamesTheGradientAndTheRoutingTerm) {
  const auto trainer = make_trainer(small_moe(), kTrain);
  const Parameter& victim = trainer->optimiser().parameters()[3];
  for (const Parameter& p : trainer->optimiser().parameters()) p.tensor().mutable_grad() = at::zeros_like(p.tensor());
  victim.tensor().mutable_grad().fill_(std::numeric_limits<float>::infinity());
  const Error error = expect_error([&] { trainer->check_gradient(trainer->optimiser().gradient_norm()); });
  EXPECT_EQ(error.code(), "train.not_finite");
  EXPECT_NE(error.message().find("the gradient of " + victim.name()), std::string::npos) << error.message();
  const Batch batch = Source()(4);
  // Without a router to stumble over it, the block's output is what is named.
  const auto dense = make_trainer("{vocabulary: 23, width: 12, layers: 3, context: 8, attention: {type: gqa, heads: 2}}", kTrain);
  {
    const at::NoGradGuard guard;
    for (const Parameter& p : dense->optimiser().parameters())
      if (p.name().find("layers.1.feed_forward") != std::string::npos && p.tensor().dim() == 2) p.tensor().mul_(1e30);
  }
  const Error block = expect_error([&] { dense->train_step(); });
  EXPECT_NE(block.message().find("the output of layers.1 is the first that is not finite"), std::string::npos) << block.message();
  const Error term = expect_error([&] { trainer->check_finite("router-z", std::nan(""), batch, 0); });
  EXPECT_NE(term.message().find("the loss term 'router-z' is nan"), std::string::npos) << term.message();
  EXPECT_NE(term.message().find("arises in the loss itself"), std::string::npos) << term.message();
}

TEST(Trainer, SplitCutsBetweenDocumentsOnly) {
  const Batch batch = Source()(4);
  const auto parts = split(batch, 2);
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_TRUE(at::equal(at::cat({parts[0].ids, parts[1].ids}), batch.ids));
  EXPECT_EQ(parts[0].predicted + parts[1].predicted, batch.predicted);
  EXPECT_TRUE(at::equal(parts[1].facts.row("position", "test"), batch.facts.row("position", "test").narrow(0, 16, 16)));
  EXPECT_TRUE(at::equal(parts[1].facts.row("domain", "test"), batch.facts.row("domain", "test").narrow(0, 16, 16)));
  EXPECT_EQ(expect_error([&] { split(batch, 16); }).code(), "train.accumulate");
  EXPECT_EQ(expect_error([&] { split(batch, 5); }).code(), "train.accumulate");
}

TEST(Trainer, EvaluationByDomain) {
  const auto trainer = make_trainer(small_moe(), kTrain, at::kDouble);
  Source source;
  const std::vector<Batch> held_out{source(2), source(3)};
  const Evaluation all = evaluate(*trainer, held_out, {"short", "long", "absent"});
  EXPECT_EQ(all.tokens, 5 * (2 + 4));
  ASSERT_EQ(all.domains.size(), 2u);
  EXPECT_EQ(all.domains[0].first, "short");
  EXPECT_NEAR(all.loss, (all.domains[0].second * 2 + all.domains[1].second * 4) / 6, 1e-12);
  EXPECT_NE(all.domains[0].second, all.domains[1].second);
  // The same tokens one document at a time.
  double sum = 0;
  int64_t tokens = 0;
  for (const Batch& batch : held_out) {
    const Segments& segments = batch.facts.segments;
    for (int64_t s = 0; s < segments.count(); ++s) {
      const int64_t begin = segments.begin[s], n = segments.length(s);
      const at::Tensor logits = testing::run_logits(trainer->model(), batch.ids.narrow(0, begin, n), {n});
      sum += at::cross_entropy_loss(logits, batch.targets.narrow(0, begin, n), {}, at::Reduction::Sum, -1).item<double>();
      tokens += n - 1;
    }
  }
  EXPECT_NEAR(all.loss, sum / static_cast<double>(tokens), 1e-10);
}

TEST(Trainer, AResumedOptimiserContinuesExactly) {
  const auto reference = make_trainer(small_moe(), kTrain);
  for (int i = 0; i < 2; ++i) reference->train_step();
  // Another trainer takes over the weights and the moments, and is fed from the third batch on.
  const auto options = read_options<TrainOptions>(parse_yaml(kTrain, "test"));
  auto decoder = testing::make_decoder(small_moe(), at::kFloat);
  {
    const at::NoGradGuard guard;
    for (const Parameter& p : decoder->schema().all())
      p.tensor().copy_(reference->model().schema().find(p.name()).tensor());
  }
  Source source;
  source(4);
  source(4);
  Trainer resumed(options, decoder, source, 5);
  const std::filesystem::path file = std::filesystem::temp_directory_path() / fmt::format("switchyard-moments-{}", ::getpid());
  write_safetensors(file, reference->optimiser().state());
  resumed.optimiser().load(Safetensors(file), 2);
  const Error error = expect_error([&] {
    make_trainer("{vocabulary: 23, width: 8, layers: 2, attention: {type: gqa, heads: 2}}", kTrain)->optimiser().load(Safetensors(file), 2);
  });
  std::filesystem::remove(file);
  EXPECT_EQ(error.code(), "train.state");
  EXPECT_EQ(resumed.step(), 2);
  EXPECT_EQ(reference->train_step().loss, resumed.train_step().loss);
  for (const Parameter& p : reference->optimiser().parameters())
    EXPECT_TRUE(at::equal(p.tensor(), decoder->schema().find(p.name()).tensor())) << p.name();
}

TEST(Catalogue, original_scheme) {
  // What is trained is served: without noise and drops the forward of training is that of evaluation, bit for bit.
  const auto trainer = make_trainer(small_moe(), kTrain);
  const Batch batch = Source()(3);
  Context context = trainer->context(batch, 0);
  RoutedStore routed;
  context.routed = &routed;
  const at::NoGradGuard guard;
  const at::Tensor training = trainer->model().forward(batch.ids, context);
  context.phase = Phase::evaluate;
  EXPECT_TRUE(at::equal(training, trainer->model().forward(batch.ids, context)));
  // Experts begin independent: cosine of fresh experts, D · F = 64 · 32.
  Decoder fresh(testing::model_options("{vocabulary: 23, width: 64, layers: 1, attention: {type: gqa, heads: 2}, mixtures: [{experts: 4, "
                                       "expert: {type: swiglu, hidden: 32}, layers: {every: 1}}]}"));
  initialise(fresh.schema(), Streams(1));
  int64_t compared = 0;
  double sum = 0;
  for (const Parameter& p : fresh.schema().all()) {
    if (p.spec().role != Role::expert || p.spec().expert_dim != 0 || p.tensor()[0].numel() < 2048) continue;
    const at::Tensor rows = p.tensor().flatten(1);
    for (int64_t a = 0; a < 4; ++a)
      for (int64_t b = 0; b < a; ++b, ++compared)
        sum += at::cosine_similarity(rows[a], rows[b], 0).abs().item<double>();
  }
  ASSERT_GT(compared, 0);
  EXPECT_LT(sum / static_cast<double>(compared), 0.05);
}

}  // namespace
}  // namespace switchyard
