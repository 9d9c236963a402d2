// Leaks: for every registered router and admission, change the future and look at the past; change
// other sequences and look at this one; and compare with what the method says of its reach.
#include "tests/routing/samples.h"

namespace switchyard {
namespace {

using namespace testing;

constexpr int64_t kSegments = 3, kLength = 6, kRows = kSegments * kLength;
// Moving other rows between experts regroups products, which may move the last bits.
constexpr double kSame = 1e-9;

/// What changing rows `from` to the end of segment 1 does to the rest.
struct Leak {
  bool past = false;    ///< earlier rows of the same sequence changed
  bool others = false;  ///< rows of other sequences changed
};

Leak look(const SampleLayer& layer, Phase phase) {
  at::NoGradGuard guard;
  Leak leak;
  for (uint64_t trial = 0; trial < 40; ++trial) {
    const int64_t begin = kLength, cut = begin + 1 + static_cast<int64_t>(trial) % (kLength - 1), end = 2 * kLength;
    FactPass before(kRows, kSegments, phase), after(kRows, kSegments, phase);
    const at::Tensor x = randn({kRows, kWidth}, 20 + trial);
    const at::Tensor changed = x.clone();
    changed.slice(0, cut, end).copy_(randn({end - cut, kWidth}, 70 + trial) * 3);
    at::Tensor ids = after.facts.row("token_id", "test").clone();
    ids.slice(0, cut, end).add_(1).remainder_(40);
    after.facts.set_row("token_id", ids);
    const at::Tensor moved = (layer(x, before.context) - layer(changed, after.context)).abs().amax(1);
    leak.past |= moved.slice(0, begin, cut).max().item<double>() > kSame;
    leak.others |= at::cat({moved.slice(0, 0, begin), moved.slice(0, end, kRows)}).max().item<double>() > kSame;
  }
  return leak;
}

/// Whether a sequence comes out otherwise alone than as number `place` of a batch.
bool differs_alone(const SampleLayer& layer, Phase phase, int64_t place) {
  at::NoGradGuard guard;
  bool differs = false;
  for (uint64_t trial = 0; trial < 4; ++trial) {
    FactPass together(kRows, kSegments, phase), alone(kLength, 1, phase);
    const at::Tensor x = randn({kRows, kWidth}, 40 + trial);
    const int64_t begin = place * kLength;
    alone.facts.set_row("token_id", together.facts.row("token_id", "test").slice(0, begin, begin + kLength));
    for (const char* name : {"domain", "task", "language", "modality", "user", "routing_vector"})
      alone.facts.set_segment(name, together.facts.segment(name, "test").slice(0, place, place + 1));
    const at::Tensor part = layer(x, together.context).slice(0, begin, begin + kLength);
    differs |= difference(part, layer(x.slice(0, begin, begin + kLength), alone.context)) > kSame;
  }
  return differs;
}

void compare_with_reach(const Sample& sample) {
  const SampleLayer layer(sample.options);
  for (const Phase phase : {Phase::evaluate, Phase::train}) {
    SCOPED_TRACE(sample.name + (phase == Phase::train ? ", training" : ", evaluation"));
    const Reach reach = layer.layer.reach({}, phase);
    const Leak leak = look(layer, phase);
    EXPECT_EQ(leak.past, reach.future) << "(left: what happened, right: what reach says)";
    // In training, draws go by the row's place in the batch: the first sequence keeps its own.
    const bool by_batch = leak.others || differs_alone(layer, phase, 0) ||
                          (phase == Phase::evaluate && differs_alone(layer, phase, 1));
    EXPECT_EQ(by_batch, reach.unit == Reach::Unit::batch);
    EXPECT_EQ(reach.because.empty() && (reach.future || reach.unit == Reach::Unit::batch), false);
  }
}

TEST(RoutingReach, EveryRouterSeesWhatItSays) {
  for (const Sample& sample : router_samples()) compare_with_reach(sample);
}

TEST(RoutingReach, EveryAdmissionSeesWhatItSays) {
  for (Sample sample : admission_samples()) {
    // Few places and a router that sees its own row only: what leaks, the admission leaks.
    sample.options.router = Choice<Router>("sparse-topk");
    sample.options.controllers.clear();  // they move a bias that this router does not have
    if (sample.options.admission.slug != "dropless") {
      sample.options.admission.options["factor"] = Node("0.6");
      sample.options.admission.options["evaluation_factor"] = Node("0.6");
      sample.options.admission.options["minimum"] = Node("1");
    }
    compare_with_reach(sample);
  }
}

TEST(RoutingReach, EveryOrderAndScopeOfPlacesSeesWhatItSays) {
  for (const char* slug : {"capacity", "bpr", "random-priority"})
    for (const char* scope : {"batch", "sequence"})
      for (const char* order : {"token", "choice"}) {
        MoeOptions options;
        options.experts = 4;
        options.expert = Choice<ExpertKind>("gelu");
        options.expert.options["hidden"] = Node("2");
        options.allow_leak = true;
        options.admission = Choice<Admission>(slug);
        for (const auto& [key, value] : std::vector<std::pair<const char*, const char*>>{
                 {"scope", scope}, {"order", order}, {"factor", "0.6"}, {"evaluation_factor", "0.6"}, {"minimum", "1"}})
          options.admission.options[key] = Node(value);
        compare_with_reach({std::string(slug) + " " + scope + " " + order, options});
      }
}

// A decision that needs the future refuses to generate; every other one gives a sequence that arrives row
// by row what it gave the whole.
TEST(RoutingReach, GenerationEqualsTheWholeSequenceOrRefuses) {
  at::NoGradGuard guard;
  for (const Sample& sample : router_samples()) {
    SCOPED_TRACE(sample.name);
    const SampleLayer layer(sample.options);
    const Reach reach = layer.layer.reach({}, Phase::generate);
    FactPass whole(kLength, 1, Phase::evaluate);
    const at::Tensor x = randn({kLength, kWidth}, 3);
    if (reach.future) {
      whole.context.phase = Phase::generate;
      EXPECT_EQ(expect_error([&] { layer(x, whole.context); }).code(), "routing.generation");
      continue;
    }
    if (reach.unit == Reach::Unit::batch) continue;
    const at::Tensor expected = layer(x, whole.context);
    const at::Tensor ids = whole.facts.row("token_id", "test");
    for (int64_t t = 0; t < kLength; ++t) {
      FactPass one(1, 1, Phase::generate);
      one.facts.segments.past = {t};
      one.facts.set_row("token_id", ids.slice(0, t, t + 1));
      one.facts.set_row("previous_token_id", t > 0 ? ids.slice(0, t - 1, t) : at::full({1}, -1, at::kLong));
      for (const char* name : {"domain", "task", "language", "modality", "user", "routing_vector"})
        one.facts.set_segment(name, whole.facts.segment(name, "test"));
      EXPECT_LT(difference(layer(x.slice(0, t, t + 1), one.context), expected.slice(0, t, t + 1)), kSame) << "row " << t;
    }
  }
}

TEST(RoutingReach, ACausalModelRefusesToTrainThroughALeak) {
  for (Sample sample : router_samples()) {
    sample.options.allow_leak = false;
    const SampleLayer layer(sample.options);
    FactPass pass(kRows, kSegments, Phase::train);
    const at::Tensor x = randn({kRows, kWidth}, 3);
    if (!layer.layer.reach({}, Phase::train).future) {
      layer(x, pass.context);
      continue;
    }
    const Error error = expect_error([&] { layer(x, pass.context); });
    EXPECT_EQ(error.code(), "routing.leak");
    EXPECT_NE(error.message().find(sample.options.router.slug), std::string::npos) << error.message();
    pass.facts.segments.causal = false;
    layer(x, pass.context);
  }
}

}  // namespace
}  // namespace switchyard
