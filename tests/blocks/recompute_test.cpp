// Activation recomputation: the same numbers, the same gradients, nothing counted twice.
#include "switchyard/base/differentiable.h"
#include "switchyard/blocks/recompute.h"

#include <ATen/autocast_mode.h>

#include <algorithm>

#include "switchyard/layer/layer_losses.h"
#include "tests/models/decoder_support.h"

namespace switchyard::testing {
namespace {

struct Trained {
  at::Tensor logits;
  std::vector<LossTerm> terms;
  std::vector<at::Tensor> gradients;
  size_t records = 0;
};

/// One training pass with its losses and the gradient of every parameter.
Trained train_once(const Decoder& decoder, bool recompute, bool autocast = false) {
  for (const Parameter& parameter : decoder.schema().all()) parameter.tensor().mutable_grad() = at::Tensor();
  const Facts facts(Segments::equal(2, 8));
  const Streams random(5);
  Records records;
  RoutedStore routed;
  const Context context{.facts = facts, .random = random, .phase = Phase::train, .step = 3, .records = &records,
                        .routed = &routed, .recompute = recompute};
  const at::Tensor ids = some_ids(16, 29);
  Trained result;
  at::autocast::set_autocast_enabled(at::kCPU, autocast);
  result.logits = decoder.logits(decoder.forward(ids, context), context);
  at::autocast::set_autocast_enabled(at::kCPU, false);
  std::vector<std::shared_ptr<RoutingStation>> stations;
  for (const PlacedRouting& placed : decoder.routings()) stations.push_back(placed.station);
  at::Tensor loss = at::cross_entropy_loss(result.logits, some_ids(16, 29, 12));
  result.terms = routing_losses(stations, records, {}, context);
  if (!result.terms.empty()) loss = loss + total(result.terms);
  result.records = records.all().size();
  loss.backward();
  at::autocast::clear_cache();
  for (const Parameter& parameter : decoder.schema().all()) {
    const at::Tensor& grad = parameter.tensor().grad();
    result.gradients.push_back(grad.defined() ? grad.clone() : at::zeros_like(parameter.tensor()));
  }
  return result;
}

void expect_same(const Decoder& decoder, bool autocast = false) {
  const Trained plain = train_once(decoder, false, autocast), again = train_once(decoder, true, autocast);
  EXPECT_TRUE(at::equal(plain.logits, again.logits));
  EXPECT_EQ(plain.records, again.records);
  ASSERT_EQ(plain.terms.size(), again.terms.size());
  for (size_t i = 0; i < plain.terms.size(); ++i)
    EXPECT_TRUE(at::equal(plain.terms[i].value, again.terms[i].value)) << plain.terms[i].name;
  for (size_t i = 0; i < plain.gradients.size(); ++i)
    EXPECT_TRUE(at::equal(plain.gradients[i], again.gradients[i]))
        << decoder.schema().all()[i].name() << " differs by " << difference(plain.gradients[i], again.gradients[i]);
}

const char* const kAttention = "vocabulary: 29, width: 16, layers: 3, attention: {type: gqa, heads: 4, kv_heads: 2, qk_norm: head}";

TEST(Recompute, DenseBlocks) { expect_same(*make_decoder(std::string("{") + kAttention + "}", at::kFloat)); }

TEST(Recompute, NoisyRoutingWithDropsLossesAndSharedExperts) {
  const auto decoder = make_decoder(
      std::string("{") + kAttention +
          ", mixtures: [{experts: 4, expert: {type: swiglu, hidden: 8}, router: {type: switch-top1, jitter: 0.3}, "
          "admission: {type: capacity, factor: 0.75}, losses: [lb-loss, router-z], "
          "shared: [{expert: {type: gelu, hidden: 8}, gate: sigmoid}]}]}",
      at::kFloat);
  expect_same(*decoder);
  const Trained trained = train_once(*decoder, true);
  ASSERT_EQ(trained.records, 3u);
  ASSERT_EQ(trained.terms.size(), 2u);
}

TEST(Recompute, MixtureOfDepths) {
  expect_same(*make_decoder(std::string("{") + kAttention +
                                ", mixtures: [{experts: 4, expert: {type: swiglu, hidden: 8}, losses: [lb-loss]}], "
                                "sites: [{at: block, layers: {every: 2}, around: {type: mod, capacity: 0.5}}]}",
                            at::kFloat));
}

/// The gradients of both ways, and that every router of `routers` has one.
void expect_same_routers(const Decoder& decoder, const std::vector<std::string>& routers) {
  const Trained plain = train_once(decoder, false), again = train_once(decoder, true);
  EXPECT_EQ(plain.records, again.records);
  size_t found = 0;
  for (size_t i = 0; i < plain.gradients.size(); ++i) {
    const std::string& name = decoder.schema().all()[i].name();
    EXPECT_LT(difference(plain.gradients[i], again.gradients[i]), 1e-14) << name;
    if (std::find(routers.begin(), routers.end(), name) == routers.end()) continue;
    ++found;
    EXPECT_GT(again.gradients[i].abs().max().item<double>(), 1e-9) << name;
  }
  EXPECT_EQ(found, routers.size());
}

TEST(Recompute, OneDecisionFollowedByAllBlocks) {
  // The first block decides; the others' gradients must reach its router through the shared decision.
  const auto decoder = make_decoder(
      std::string("{") + kAttention +
          ", mixtures: [{experts: 4, expert: {type: swiglu, hidden: 8}, share_routing: all, losses: [lb-loss], layers: {list: [0]}}, "
          "{experts: 4, expert: {type: swiglu, hidden: 8}, router: none, share_routing: all, layers: {list: [1, 2]}}]}",
      at::kDouble);
  EXPECT_FALSE(decoder->schema().find("layers.1.feed_forward.router.weight"));
  expect_same_routers(*decoder, {"layers.0.feed_forward.router.weight"});
}

TEST(Recompute, EachBlockDecidesAnewUnderOneName) {
  // Queries decide, values follow within the block; the next block decides again, and the last follows the last.
  const std::string lora = "experts: 3, expert: {type: lora, rank: 2}, share_routing: shared";
  const auto decoder = make_decoder(
      std::string("{") + kAttention +
          ", mixtures: [{at: attention.query, join: add, " + lora + ", losses: [lb-loss], layers: {list: [0, 1]}}, "
          "{at: attention.value, join: add, router: none, " + lora + "}]}",
      at::kDouble);
  at::NoGradGuard guard;
  for (const Parameter& p : decoder->schema().all())
    if (p.spec().role == Role::adapter) p.tensor().copy_(randn(p.spec().shape, stable_hash(p.name())) * 0.3);
  at::AutoGradMode with_grad(true);
  expect_same_routers(*decoder, {"layers.0.attention.query.around.router.weight", "layers.1.attention.query.around.router.weight"});
}

TEST(Recompute, UnderAutocast) {
  const auto decoder = make_decoder(
      std::string("{") + kAttention +
          ", mixtures: [{experts: 4, expert: {type: swiglu, hidden: 8}, losses: [lb-loss], layers: {list: [1]}}]}",
      at::kFloat, 5);
  expect_same(*decoder, true);
}

TEST(Recompute, SecondDerivativesAreRefused) {
  const auto decoder = make_decoder(std::string("{") + kAttention + "}");
  const Facts facts(Segments::equal(1, 4));
  const Streams random(5);
  const Context context{.facts = facts, .random = random, .phase = Phase::train, .recompute = true};
  const at::Tensor y = decoder->forward(some_ids(4, 29), context);
  const Error error = expect_error([&] {
    (void)gradients({y.sum()}, {decoder->schema().all()[0].tensor()}, {}, true, /*create_graph=*/true);
  });
  EXPECT_EQ(error.code(), "blocks.recompute_twice");
  EXPECT_THAT(error.message(), ::testing::HasSubstr("recompute: false"));
}

TEST(Recompute, KeepsNothingButTheInput) {
  // Between forward and backward the segment's graph must not exist: a marker made inside dies at once.
  std::weak_ptr<int> marker;
  int runs = 0;
  const Base segment = [&](const at::Tensor& x, const Context&) {
    ++runs;
    auto held = std::make_shared<int>(1);
    marker = held;
    at::Tensor y = x * 2;
    if (y.requires_grad()) y.register_hook([held](const at::Tensor& grad) { return grad; });
    return y * y;
  };
  const Pass pass(3);
  const at::Tensor x = randn({3, 2}, 1).requires_grad_();
  const at::Tensor y = recompute(x, {}, pass.context, segment);
  EXPECT_EQ(runs, 1);
  EXPECT_TRUE(marker.expired());
  y.sum().backward();
  EXPECT_EQ(runs, 2);
  EXPECT_LT(difference(x.grad(), 8 * x), 1e-12);
}

}  // namespace
}  // namespace switchyard::testing
