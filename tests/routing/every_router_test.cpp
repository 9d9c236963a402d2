// What must hold for every registered router: edges, ties, not-a-number, gradients, repeatability.
#include <ATen/Parallel.h>

#include <set>

#include "tests/routing/samples.h"

namespace switchyard {
namespace {

using namespace testing;

/// The decision of the layer's router alone.
Engagement decide(const SampleLayer& layer, const at::Tensor& x, const Context& context) {
  return layer.layer.station()->router().route({x, {}}, context.at("moe"));
}

MoeOptions with_option(MoeOptions options, const char* key, const char* value) {
  if (Registry::instance().find("router", options.router.slug).options->find(key)) options.router.options[key] = Node(value);
  return options;
}

TEST(EveryRouter, GradientsEqualFiniteDifferences) {
  for (const Sample& sample : router_samples())
    for (const Phase phase : {Phase::train, Phase::evaluate}) {
      SCOPED_TRACE(sample.name + (phase == Phase::train ? ", training" : ", evaluation"));
      // Its gradient in training is an estimate over draws, not the derivative of one; its own tests look at it.
      if (sample.options.router.slug == "sparsemixer" && phase == Phase::train) continue;
      const SampleLayer layer(sample.options);
      FactPass pass(5, 1, phase);
      at::Tensor x = randn({5, kWidth}, 31).requires_grad_();
      std::vector<at::Tensor> leaves = layer.leaves();
      leaves.push_back(x);
      expect_gradients([&] { return layer(x, pass.context); }, leaves, 2e-6);
    }
}

TEST(EveryRouter, TakesNoRowsAndOneRow) {
  for (const Sample& sample : router_samples())
    for (const Phase phase : {Phase::train, Phase::evaluate})
      for (const int64_t rows : {0, 1}) {
        SCOPED_TRACE(sample.name + " rows " + std::to_string(rows));
        const SampleLayer layer(sample.options);
        FactPass pass(rows, 1, phase);
        const at::Tensor x = randn({rows, kWidth}, 1).requires_grad_();
        const at::Tensor y = layer(x, pass.context);
        EXPECT_EQ(y.sizes(), x.sizes());
        EXPECT_TRUE(at::isfinite(y).all().item<bool>());
        if (y.requires_grad()) y.sum().backward();
      }
}

TEST(EveryRouter, ASequenceWithoutRowsChangesNothing) {
  for (const Sample& sample : router_samples()) {
    SCOPED_TRACE(sample.name);
    const SampleLayer layer(sample.options);
    FactPass plain(4, 2, Phase::evaluate), gap(4, 2, Phase::evaluate);
    gap.facts.segments.begin = {0, 2, 2, 4};
    gap.facts = Facts(gap.facts.segments);
    gap.give_facts();
    const auto spread = [&](const char* name) {
      const at::Tensor given = plain.facts.segment(name, "test");
      gap.facts.set_segment(name, at::cat({given.slice(0, 0, 1), given}));
    };
    for (const char* name : {"domain", "task", "language", "modality", "user", "routing_vector"}) spread(name);
    if (layer.layer.reach({}, Phase::evaluate).unit == Reach::Unit::batch) continue;  // sequences may be numbered
    const at::Tensor x = randn({4, kWidth}, 2);
    EXPECT_LT(difference(layer(x, plain.context), layer(x, gap.context)), 1e-12);
  }
}

TEST(EveryRouter, WorksWithOneExpertOrSaysWhatFits) {
  const std::set<std::string> refusals{"routing.k_range", "routing.group_range", "routing.hashes"};
  for (const Sample& sample : router_samples()) {
    SCOPED_TRACE(sample.name);
    MoeOptions options = with_option(sample.options, "k", "1");
    options.experts = 1;
    FactPass pass(3, 1, Phase::evaluate);
    const at::Tensor x = randn({3, kWidth}, 1);
    try {
      const SampleLayer layer(options);
      const at::Tensor y = layer(x, pass.context);
      EXPECT_TRUE(at::isfinite(y).all().item<bool>());
      EXPECT_GT(y.abs().max().item<double>(), 0);
    } catch (const Error& error) {
      EXPECT_TRUE(refusals.count(error.code())) << error.what();
      EXPECT_NE(error.message().find(sample.options.router.slug), std::string::npos) << error.message();
    }
  }
}

TEST(EveryRouter, GivesEveryExpertToEveryRowWhenAskedForAll) {
  Overrides all;
  for (const Sample& sample : router_samples()) {
    SCOPED_TRACE(sample.name);
    const SampleLayer layer(sample.options);
    FactPass pass(6, 2, Phase::evaluate);
    const int64_t experts = layer.layer.bank().experts();
    all.k = experts;
    pass.context.overrides = &all;
    const at::Tensor x = randn({6, kWidth}, 1);
    try {
      const Engagement engagement = decide(layer, x, pass.context);
      EXPECT_TRUE(at::isfinite(layer(x, pass.context)).all().item<bool>());
      const auto* selection = std::get_if<Selection>(&engagement);
      if (selection == nullptr || selection->gates.empty()) continue;  // nothing is scored, so nothing has a best k
      const Selection pairs = with_pairs(*selection);
      ASSERT_EQ(pairs.pairs(), pairs.units * experts);
      const at::Tensor sorted = std::get<0>(pairs.expert.view({-1, experts}).sort(1));
      EXPECT_TRUE(sorted.equal(at::arange(experts, at::kLong).expand_as(sorted)));
    } catch (const Error& error) {
      // Groups are narrower than all experts, or the method is one of two experts.
      EXPECT_EQ(error.code(), sample.options.router.slug == "sparsemixer" ? "routing.k_range" : "routing.group_range") << error.what();
    }
  }
}

TEST(EveryRouter, ReportsScoresThatAreNotANumber) {
  for (const Sample& sample : router_samples()) {
    SCOPED_TRACE(sample.name);
    const SampleLayer layer(sample.options);
    FactPass pass(6, 2, Phase::evaluate);
    at::Tensor x = randn({6, kWidth}, 1);
    const Engagement engagement = decide(layer, x, pass.context);
    const auto* selection = std::get_if<Selection>(&engagement);
    if (selection && selection->gates.empty()) continue;  // nothing is scored
    x[4][1] = std::nan("");
    pass.facts.set_segment("routing_vector", at::full({2, kWidth}, std::nan(""), at::kDouble));
    const Error error = expect_error([&] { layer(x, pass.context); });
    EXPECT_EQ(error.code(), "routing.nan");
    EXPECT_NE(error.message().find("row"), std::string::npos) << error.message();
  }
}

TEST(EveryRouter, TiesGoToTheLowerExpert) {
  for (const Sample& sample : router_samples()) {
    SCOPED_TRACE(sample.name);
    const SampleLayer layer(sample.options);
    at::NoGradGuard guard;
    for (const at::Tensor& leaf : layer.leaves()) leaf.zero_();
    FactPass pass(6, 2, Phase::evaluate);
    const Engagement engagement = decide(layer, randn({6, kWidth}, 1), pass.context);
    const auto* selection = std::get_if<Selection>(&engagement);
    if (selection == nullptr || selection->gates.empty() || selection->gates[0].scores.size(0) == 0) continue;
    const Selection pairs = with_pairs(*selection);
    // Whoever chooses, of equal candidates the lower one comes first: rank and expert rise together.
    for (int64_t p = 0; p < pairs.pairs(); ++p)
      EXPECT_EQ(pairs.expert[p].item<int64_t>(), pairs.rank[p].item<int64_t>()) << "pair " << p;
  }
}

TEST(EveryRouter, RepeatsItselfWhateverTheThreads) {
  const int threads = at::get_num_threads();
  for (const Sample& sample : router_samples()) {
    SCOPED_TRACE(sample.name);
    const SampleLayer layer(sample.options);
    const at::Tensor x = randn({64, kWidth}, 1);
    std::vector<at::Tensor> results;
    for (const int count : {1, 2, 2}) {
      at::set_num_threads(count);
      FactPass pass(64, 4, Phase::train);
      results.push_back(layer(x, pass.context).detach());
    }
    EXPECT_TRUE(results[0].equal(results[1]));
    EXPECT_TRUE(results[1].equal(results[2]));
  }
  at::set_num_threads(threads);
}

TEST(EveryRouter, LeavesOutExpertsThatAreNotAllowed) {
  Overrides some;
  some.k = 1;
  for (const Sample& sample : router_samples()) {
    SCOPED_TRACE(sample.name);
    const SampleLayer layer(sample.options);
    const int64_t experts = layer.layer.bank().experts();
    some.allowed = at::ones({experts}, at::kBool);
    some.allowed[1] = false;
    FactPass pass(12, 2, Phase::evaluate);
    pass.context.overrides = &some;
    const at::Tensor x = randn({12, kWidth}, 1);
    const Engagement engagement = decide(layer, x, pass.context);
    if (const auto* selection = std::get_if<Selection>(&engagement); selection && selection->gates.empty()) continue;
    // The output does not depend on the weights of an expert that may not be used.
    at::NoGradGuard guard;
    const at::Tensor before = layer(x, pass.context);
    for (const Parameter& p : layer.schema.all())
      if (p.name().find("moe.experts.") == 0) p.tensor().select(0, 1).fill_(1e3);
    EXPECT_LT(difference(before, layer(x, pass.context)), 1e-9);
  }
}

TEST(EveryRouter, HasARecipeThatUsesIt) {
  for (const char* interface : {"router", "scorer", "admission", "expert"})
    for (const Method* method : Registry::instance().of(interface))
      EXPECT_TRUE(std::filesystem::exists(std::filesystem::path(SWITCHYARD_SOURCE_DIR) / method->card.recipe))
          << method->card.slug << ": " << method->card.recipe;
}

}  // namespace
}  // namespace switchyard
