// What the collector keeps of each kind of decision.
#include "switchyard/base/json.h"
#include "switchyard/inspect/routing_trace.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>


#include "switchyard/inspect/report.h"
#include "switchyard/inspect/routing_statistics.h"
#include "tests/inspect/synthetic.h"
#include "tests/support.h"

namespace switchyard {
namespace {

using switchyard::testing::Decision;
using switchyard::testing::expect_error;
using switchyard::testing::record_of;
using switchyard::testing::trace_of;

Record record_of(Engagement engagement, const Segments& segments) {
  Record record;
  record.place = {.layer = 0, .site = "layers.0.feed_forward"};
  record.segments = segments;
  record.routed.engagement = std::move(engagement);
  return record;
}

RoutingTrace collect(Record record, const Segments& segments) {
  Records records;
  records.add(std::move(record));
  TraceCollector collector({"all"});
  const at::Tensor ids = at::zeros({segments.rows()}, at::kLong);
  collector.add({.ids = ids, .targets = {}, .segments = segments, .domain = std::vector<int64_t>(static_cast<size_t>(segments.count())), .logits = {}}, records);
  return collector.take();
}

/// The report of a trace that has a layer of an unusual kind must still come out whole.
nlohmann::json report_of(RoutingTrace trace) {
  ReportInput input;
  input.title = "test";
  input.trace = std::move(trace);
  input.permutations = 5;
  return json_from(report_json(input));
}

TEST(RoutingTrace, DenseSelectionsKeepTheirWeights) {
  const Segments segments = Segments::equal(2, 2);
  const at::Tensor weight = at::tensor({.7, .2, .1, .1, .1, .8, .4, .5, .1, .0, .9, .1}, at::kDouble).view({4, 3});
  const RoutingTrace trace = collect(record_of(select_all(weight), segments), segments);
  const LayerTrace& layer = trace.layers[0];
  EXPECT_TRUE(layer.dense);
  EXPECT_EQ(layer.best, (std::vector<int32_t>{0, 2, 1, 1}));
  EXPECT_EQ(layer.expert.size(), 0u);
  ASSERT_EQ(layer.mass.size(), 6u);
  EXPECT_NEAR(layer.mass[0], .8, 1e-12);
  EXPECT_NEAR(layer.mass[4], 1.4, 1e-12);
  EXPECT_NEAR(load_report(layer).engaged[2], 1.1, 1e-12);
  const auto report = report_of(trace);
  EXPECT_EQ(report["layers"][0]["kind"], "dense");
  EXPECT_EQ(report["layers"][0]["drops"], nullptr);
  EXPECT_EQ(report["layers"][0]["coactivation"], nullptr);
}

TEST(RoutingTrace, ARunOfAllExpertsAsRowsIsDenseToo) {
  const Segments segments = Segments::single(2);
  Selection selection = with_pairs(select_all(at::tensor({.6, .4, .3, .7}, at::kDouble).view({2, 2})));
  EXPECT_TRUE(collect(record_of(selection, segments), segments).layers[0].dense);
  // But a router that chooses E of E keeps its pairs.
  const Selection all = select_pairs(at::tensor({0, 1, 1, 0}, at::kLong).view({2, 2}), at::full({2, 2}, .5), 2);
  EXPECT_FALSE(collect(record_of(all, segments), segments).layers[0].dense);
}

TEST(RoutingTrace, MergedSelectionsOfGroupsReachEveryRow) {
  const Segments segments = Segments::equal(2, 2);
  Selection selection = select_all(at::tensor({.9, .1, .2, .8}, at::kDouble).view({2, 2}));
  selection.run = Run::merged;
  selection.unit_of_row = at::tensor({0, 0, 1, 1}, at::kLong);
  EXPECT_EQ(collect(record_of(selection, segments), segments).layers[0].best, (std::vector<int32_t>{0, 0, 1, 1}));
  Selection chosen = select_pairs(at::tensor({2, 0}, at::kLong).view({2, 1}), at::ones({2, 1}), 3);
  chosen.run = Run::merged;
  chosen.unit_of_row = at::tensor({0, 0, 1, 1}, at::kLong);
  const RoutingTrace trace = collect(record_of(chosen, segments), segments);
  EXPECT_EQ(trace.layers[0].expert, (std::vector<int32_t>{2, 2, 0, 0}));
}

TEST(RoutingTrace, MixedTokensCountWhatTheyTakeFromEachExpertsSlots) {
  const Segments segments = Segments::single(3);
  TokenBlend blend;
  blend.experts = 2;
  blend.members = at::tensor({2, 0, -1}, at::kLong).view({1, 3});
  blend.slot_expert = at::tensor({0, 0, 1}, at::kLong);
  blend.combine = at::tensor({.5, .3, .2, .1, .1, .8, .0, .0, .0}, at::kDouble).view({1, 3, 3});
  blend.dispatch = at::zeros({1, 3, 3});
  const LayerTrace layer = collect(record_of(Engagement(blend), segments), segments).layers[0];
  EXPECT_TRUE(layer.dense);
  EXPECT_EQ(layer.best[2], 0);
  EXPECT_NEAR(layer.best_weight[2], .8, 1e-6);
  EXPECT_EQ(layer.best[0], 1);
  EXPECT_NEAR(layer.mass[0], 1.0, 1e-12);  // .8 of row 2 and .2 of row 0
}

TEST(RoutingTrace, ExpertChoiceLeavesSomeTokensWithoutExperts) {
  const Decision decision{.sets = {{0, 1, 2}, {}, {1}}, .experts = 3};
  const RoutingTrace trace = trace_of({decision}, Segments::single(3), {0}, {"all"});
  const LayerTrace& layer = trace.layers[0];
  EXPECT_EQ(layer.best, (std::vector<int32_t>{0, -1, 1}));
  EXPECT_EQ(layer.pairs(0), 3);
  EXPECT_EQ(layer.pairs(1), 0);
  EXPECT_NEAR(domain_report(trace, layer, 5).experts_per_token, 4.0 / 3, 1e-12);
  const auto report = report_of(trace);
  EXPECT_EQ(report["layers"][0]["confidence"], nullptr) << "no probabilities were given";
  EXPECT_TRUE(report["samples"][0]["layers"][0]["experts"][1].empty());
}

TEST(RoutingTrace, ProbabilitiesGiveConfidence) {
  const at::Tensor p = at::tensor({.5, .5, 1.0, .0, .25, .25}, at::kDouble).view({3, 2});  // the last row does not add up to one
  const RoutingTrace trace = trace_of({{.sets = {{0}, {0}, {1}}, .experts = 2, .probabilities = p}}, Segments::single(3), {0}, {"all"});
  EXPECT_EQ(trace.layers[0].top_probability, (std::vector<float>{.5F, 1, .5F}));
  EXPECT_NEAR(trace.layers[0].entropy[0], 1, 1e-6);
  EXPECT_EQ(trace.layers[0].entropy[1], 0);
  const ConfidenceReport report = confidence_report(trace.layers[0], 4);
  EXPECT_EQ(report.top, (std::vector<double>{0, 0, 2, 1}));
  EXPECT_NEAR(report.mean_top, 2.0 / 3, 1e-6);
}

TEST(RoutingTrace, NothingAndOneToken) {
  const RoutingTrace none = trace_of({{.sets = {}, .experts = 2}}, Segments::single(0), {0}, {"all"});
  EXPECT_EQ(none.rows(), 0);
  EXPECT_EQ(report_of(none)["tokens"], 0);
  const RoutingTrace one = trace_of({{.sets = {{1}}, .experts = 2}}, Segments::single(1), {0}, {"all"}, {3});
  EXPECT_EQ(report_of(one)["layers"][0]["load"]["engaged"], (nlohmann::json{0, 1}));
}

TEST(RoutingTrace, BatchesAppend) {
  TraceCollector collector({"a", "b"});
  const Segments segments = Segments::single(2);
  for (int64_t i = 0; i < 2; ++i) {
    Records records;
    records.add(record_of(Decision{.sets = {{i}, {1 - i}}, .experts = 2}, segments));
    const at::Tensor ids = at::full({2}, i, at::kLong);
    collector.add({.ids = ids, .targets = {}, .segments = segments, .domain = {i}, .logits = {}}, records);
  }
  EXPECT_EQ(collector.trace().segment, (std::vector<int32_t>{0, 0, 1, 1}));
  EXPECT_EQ(collector.trace().layers[0].best, (std::vector<int32_t>{0, 1, 1, 0}));
  EXPECT_EQ(collector.trace().domain_of(3), 1);
}

TEST(RoutingTrace, SaysWhatItCannotTake) {
  TraceCollector collector({"all"});
  const Segments segments = Segments::single(2);
  const at::Tensor ids = at::zeros({2}, at::kLong);
  const auto add = [&](Records records, int64_t domain) {
    collector.add({.ids = ids, .targets = {}, .segments = segments, .domain = {domain}, .logits = {}}, records);
  };
  EXPECT_EQ(expect_error([&] { add({}, 1); }).code(), "inspect.domain");
  Records first, second, some;
  first.add(record_of(Decision{.sets = {{0}, {1}}, .experts = 2}, segments));
  second.add(record_of(Decision{.sets = {{0}, {1}}, .experts = 2, .site = "elsewhere"}, segments));
  some.add(record_of(Decision{.sets = {{0}, {1}}, .experts = 2}, segments));
  some.add(record_of(Decision{.sets = {{0}}, .experts = 2, .site = "layers.1.feed_forward"}, Segments::single(1)));
  add(first, 0);
  EXPECT_EQ(expect_error([&] { add(second, 0); }).code(), "inspect.layers");
  add(some, 0);
  ASSERT_EQ(collector.trace().left_out.size(), 1u);
  EXPECT_EQ(collector.trace().left_out[0], "layers.1.feed_forward: sees only some of the tokens");
}

}  // namespace
}  // namespace switchyard
