// Each tool of the report against the numbers its definition gives by hand.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "switchyard/base/files.h"
#include "switchyard/base/node.h"
#include "switchyard/base/registry.h"
#include "switchyard/inspect/history.h"
#include "switchyard/inspect/routing_statistics.h"
#include "switchyard/routing/admission.h"
#include "tests/files.h"
#include "tests/inspect/synthetic.h"
#include "tests/support.h"

namespace switchyard {
namespace {

using switchyard::testing::Decision;
using switchyard::testing::Pass;
using switchyard::testing::expect_error;
using switchyard::testing::record_of;
using switchyard::testing::trace_of;

using Sets = std::vector<std::vector<int64_t>>;

/// Independent uniform sets of k of E experts.
Sets random_sets(int64_t rows, int64_t experts, int64_t k, uint64_t seed) {
  const at::Tensor draws = Streams(seed).uniform({rows, experts}, {.purpose = "sets"}, at::kDouble).argsort(int64_t{1}, false).slice(1, 0, k).contiguous();
  Sets sets;
  for (int64_t r = 0; r < rows; ++r) sets.emplace_back(draws.const_data_ptr<int64_t>() + r * k, draws.const_data_ptr<int64_t>() + (r + 1) * k);
  return sets;
}

RoutingTrace one_segment(const Sets& sets, int64_t experts, std::vector<int64_t> tokens = {}, std::vector<int64_t> next = {}) {
  return trace_of({{.sets = sets, .experts = experts}}, Segments::single(static_cast<int64_t>(sets.size())), {0}, {"all"}, std::move(tokens), std::move(next));
}

// --- tool-load -------------------------------------------------------------------------------------

TEST(Catalogue, tool_load_by_hand) {
  const Sets sets{{0}, {0}, {0}, {0}, {1}, {1}, {2}, {3}};  // counts 4, 2, 1, 1
  const LoadReport load = load_report(trace_of({{.sets = sets, .dropped = {3, 5}}}, Segments::single(8), {0}, {"all"}).layers[0]);
  EXPECT_EQ(load.engaged, (std::vector<double>{4, 2, 1, 1}));
  EXPECT_EQ(load.admitted, (std::vector<double>{3, 1, 1, 1}));
  EXPECT_NEAR(load.cv, 0.612372, 1e-6);
  EXPECT_DOUBLE_EQ(load.max_violation, 1);
  EXPECT_DOUBLE_EQ(load.gini, 0.3125);
  EXPECT_DOUBLE_EQ(load.entropy_ratio, 0.875);
  EXPECT_DOUBLE_EQ(load.drop_rate, 0.25);
  EXPECT_LT(load.admitted_cv, load.cv) << "kept load hides overload";
  EXPECT_EQ(grouped_load(load.engaged, {0, 1, 0, 1}, 2), (std::vector<double>{5, 3}));
  EXPECT_EQ(expect_error([&] { grouped_load(load.engaged, {0, 1, 0, 2}, 2); }).code(), "inspect.shape");
}

TEST(Catalogue, tool_load_of_collapsed_and_balanced_routers) {
  const LoadReport collapsed = load_report(one_segment(Sets(50, {2}), 8).layers[0]);
  EXPECT_DOUBLE_EQ(collapsed.max_violation, 7);
  EXPECT_DOUBLE_EQ(collapsed.dead_share, 7.0 / 8);
  EXPECT_DOUBLE_EQ(collapsed.entropy_ratio, 0);
  Sets turn;
  for (int64_t r = 0; r < 64; ++r) turn.push_back({r % 8, (r + 1) % 8});
  const LoadReport balanced = load_report(one_segment(turn, 8).layers[0]);
  EXPECT_DOUBLE_EQ(balanced.cv, 0);
  EXPECT_DOUBLE_EQ(balanced.max_violation, 0);
}

TEST(Catalogue, tool_load_windows_merge_by_adding) {
  const switchyard::testing::TemporaryFolder folder;
  std::string lines;
  std::vector<double> sum(4);
  for (int64_t step = 1; step <= 7; ++step) {
    std::string counts;
    for (int64_t e = 0; e < 4; ++e) {
      const int64_t count = (step * 7 + e * e * 5) % 11;
      sum[static_cast<size_t>(e)] += static_cast<double>(count);
      counts += (e ? "," : "") + std::to_string(count);
    }
    lines += R"({"step":)" + std::to_string(step) + R"(,"layers":[{"site":"layers.0.feed_forward","layer":0,"experts":4,"engaged":[)" + counts +
             R"(],"admitted":[)" + counts + R"(],"rows":9}]})" + "\n";
  }
  write_file_atomically(folder.path() / "routing.jsonl", lines + R"({"step":8,"layers":[{"si)");  // cut off by a killed process
  for (const int64_t windows : {1, 2, 3, 7}) {
    const auto history = read_load_history(folder.path() / "routing.jsonl", windows);
    ASSERT_EQ(history.size(), 1u);
    ASSERT_EQ(history[0].step.size(), static_cast<size_t>(windows));
    EXPECT_EQ(history[0].step.back(), 7);
    std::vector<double> merged(4);
    for (const auto& window : history[0].engaged)
      for (size_t e = 0; e < 4; ++e) merged[e] += window[e];
    EXPECT_EQ(merged, sum);
    EXPECT_DOUBLE_EQ(load_report(merged, merged).cv, load_report(sum, sum).cv);
  }
}

TEST(Catalogue, tool_load_follows_importance) {
  const at::Tensor p = at::tensor({0.7, 0.2, 0.1, 0.6, 0.3, 0.1, 0.2, 0.5, 0.3}, at::kDouble).view({3, 3});
  const RoutingTrace trace = trace_of({{.sets = {{0}, {0}, {1}}, .experts = 3, .probabilities = p}}, Segments::single(3), {0}, {"all"});
  const std::vector<double> mass = importance(trace.layers[0]);
  EXPECT_NEAR(mass[0], 1.5, 1e-12);
  EXPECT_NEAR(mass[1], 1.0, 1e-12);
  EXPECT_NEAR(mass[2], 0.5, 1e-12);
  const LoadReport load = load_report(trace.layers[0]);
  EXPECT_NEAR(load.importance_cv, std::sqrt(1.0 / 6), 1e-12);
  EXPECT_NEAR(load.importance_correlation, 1, 1e-12);  // loads 2, 1, 0 lie on a line with 1.5, 1, 0.5
}

// --- tool-mi ---------------------------------------------------------------------------------------

TEST(Catalogue, tool_mi_of_domains_by_hand) {
  // Ten tokens a domain, one segment a token: counts [[9, 1], [1, 9]].
  Sets sets;
  std::vector<int64_t> domain;
  for (int64_t i = 0; i < 20; ++i) {
    domain.push_back(i / 10);
    sets.push_back({i == 3 ? 1 : i == 17 ? 0 : i / 10});
  }
  const RoutingTrace trace = trace_of({{.sets = sets, .experts = 2}}, Segments::equal(20, 1), domain, {"a", "b"});
  const DomainReport report = domain_report(trace, trace.layers[0], 200);
  EXPECT_NEAR(report.information, 0.368064, 1e-6);
  EXPECT_NEAR(report.normalised, 0.368064 / std::log(2.0), 1e-6);
  EXPECT_LT(report.p_value, 0.02);
  EXPECT_GT(report.information, report.chance_high);
  EXPECT_GT(report.chance_information, 0);
}

TEST(Catalogue, tool_mi_permutation_finds_nothing_in_random_routing) {
  const RoutingTrace trace = trace_of({{.sets = random_sets(4000, 8, 2, 5), .experts = 8}}, Segments::equal(80, 50),
                                      [] { std::vector<int64_t> d; for (int64_t s = 0; s < 80; ++s) d.push_back(s % 4); return d; }(), {"a", "b", "c", "d"});
  const DomainReport report = domain_report(trace, trace.layers[0], 200);
  EXPECT_GT(report.p_value, 0.01);
  EXPECT_LT(report.information, report.chance_high * 1.001);
  EXPECT_LE(report.mean_variation, report.chance_variation_high);
}

TEST(Catalogue, tool_mi_soft_equals_the_mod_squad_term) {
  const at::Tensor p = at::softmax(switchyard::testing::randn({12, 5}, 3), 1);
  Table mass(3, 5);
  for (int64_t r = 0; r < 12; ++r)
    for (int64_t e = 0; e < 5; ++e) mass.at(r % 3, e) += p[r][e].item<double>();
  // Σ P(m,e) ln P(m,e) − Σ P(m) ln P(m) − Σ P(e) ln P(e), with torch.
  at::Tensor joint = at::zeros({3, 5}, at::kDouble);
  for (int64_t r = 0; r < 12; ++r) joint[r % 3] += p[r] / 12;
  const auto term = [](const at::Tensor& q) { return (q * q.log()).sum().item<double>(); };
  EXPECT_NEAR(soft_information(mass), term(joint) - term(joint.sum(0)) - term(joint.sum(1)), 1e-12);
}

// --- tool-domain-spec ------------------------------------------------------------------------------

TEST(Catalogue, tool_domain_spec_by_hand) {
  const RoutingTrace trace = one_segment({{0, 1}, {0, 2}, {0, 1}, {1, 3}}, 4);
  const DomainReport report = domain_report(trace, trace.layers[0], 0);
  EXPECT_EQ(report.share.values, (std::vector<double>{.75, .75, .25, .25}));
  EXPECT_EQ(report.best_share.values, (std::vector<double>{.75, .25, 0, 0}));
  EXPECT_DOUBLE_EQ(report.experts_per_token, 2);
  EXPECT_DOUBLE_EQ(report.chance, 0.5);
  EXPECT_DOUBLE_EQ(report.max_ratio, 1.5);
}

TEST(Catalogue, tool_domain_spec_of_routing_by_domain) {
  Sets sets;
  for (int64_t r = 0; r < 30; ++r) sets.push_back({r / 10});
  const RoutingTrace trace = trace_of({{.sets = sets, .experts = 3}}, Segments::equal(3, 10), {0, 1, 2}, {"a", "b", "c"});
  const DomainReport report = domain_report(trace, trace.layers[0], 0);
  EXPECT_EQ(report.share.values, (std::vector<double>{1, 0, 0, 0, 1, 0, 0, 0, 1}));
  EXPECT_DOUBLE_EQ(report.variation.at(0, 2), 1);
  EXPECT_DOUBLE_EQ(report.variation.at(1, 1), 0);
  EXPECT_DOUBLE_EQ(report.normalised, 1);
}

TEST(Catalogue, tool_domain_spec_of_two_halves_is_the_weighted_mean) {
  const Sets sets = random_sets(60, 5, 2, 9);
  const RoutingTrace halves = trace_of({{.sets = sets, .experts = 5}}, Segments::equal(6, 10), {0, 1, 1, 1, 1, 1}, {"first", "second"});
  const RoutingTrace whole = trace_of({{.sets = sets, .experts = 5}}, Segments::equal(6, 10), {0, 0, 0, 0, 0, 0}, {"whole"});
  const DomainReport a = domain_report(halves, halves.layers[0], 0), b = domain_report(whole, whole.layers[0], 0);
  for (int64_t e = 0; e < 5; ++e) EXPECT_NEAR(b.share.at(0, e), (10 * a.share.at(0, e) + 50 * a.share.at(1, e)) / 60, 1e-12);
  double total = 0;
  for (int64_t e = 0; e < 5; ++e) total += b.share.at(0, e);
  EXPECT_NEAR(total, 2, 1e-12);
}

TEST(Catalogue, tool_domain_spec_survives_a_domain_without_tokens) {
  const RoutingTrace trace = trace_of({{.sets = {{0}, {1}}, .experts = 2}}, Segments::single(2), {0}, {"some", "none"});
  const DomainReport report = domain_report(trace, trace.layers[0], 10);
  EXPECT_EQ(report.share.at(1, 0), 0);
  EXPECT_EQ(report.information, 0);
  EXPECT_EQ(report.p_value, 1);
}

// --- tool-vocab-spec -------------------------------------------------------------------------------

TEST(Catalogue, tool_vocab_spec_by_hand) {
  const RoutingTrace trace = one_segment({{0}, {0}, {1}, {0}, {2}}, 3, {5, 5, 5, 5, 7});
  EXPECT_DOUBLE_EQ(token_report(trace, trace.layers[0], TokenKind::input, 1).score, .875);
  const TokenReport frequent = token_report(trace, trace.layers[0], TokenKind::input, 2);
  EXPECT_DOUBLE_EQ(frequent.score, .75);
  EXPECT_EQ(frequent.types, 1);
  ASSERT_EQ(frequent.favourites[0].size(), 1u);
  EXPECT_EQ(frequent.favourites[0][0].token, 5);
  EXPECT_DOUBLE_EQ(frequent.favourites[0][0].lift, .75 / .6);
  EXPECT_TRUE(frequent.favourites[1].empty());
}

TEST(Catalogue, tool_vocab_spec_of_a_hash_of_the_id_is_one) {
  Sets sets;
  std::vector<int64_t> tokens, next;
  const at::Tensor ids = Streams(4).integers(40, {2000}, {.purpose = "ids"});
  for (int64_t r = 0; r < 2000; ++r) {
    tokens.push_back(ids[r].item<int64_t>());
    sets.push_back({(tokens.back() * 7 + 3) % 8});
  }
  for (int64_t r = 0; r < 2000; ++r) next.push_back(r + 1 < 2000 ? tokens[static_cast<size_t>(r + 1)] : -1);
  const RoutingTrace trace = one_segment(sets, 8, tokens, next);
  const TokenReport input = token_report(trace, trace.layers[0], TokenKind::input), following = token_report(trace, trace.layers[0], TokenKind::next);
  EXPECT_DOUBLE_EQ(input.score, 1);
  EXPECT_GT(input.explained, 0.9);
  // Independent ids: the next one says nothing, and the score is what shuffling gives.
  EXPECT_NEAR(following.score, following.baseline, 0.02);
  EXPECT_NEAR(following.explained, 0, 0.02);
  EXPECT_GT(following.baseline, 1.0 / 8) << "rare ids alone push the score above an even share";
  EXPECT_EQ(expect_error([&] { token_report(trace, trace.layers[0], TokenKind::predicted); }).code(), "inspect.predicted");
}

TEST(Catalogue, tool_vocab_spec_of_predictions_and_losses) {
  at::Tensor logits = at::zeros({3, 4}, at::kFloat);
  logits[0][2] = logits[1][2] = logits[2][1] = std::log(9.0);
  const RoutingTrace trace = trace_of({{.sets = {{0}, {0}, {1}}, .experts = 2}}, Segments::single(3), {0}, {"all"}, {1, 2, 3}, {2, 0, -1}, logits);
  EXPECT_EQ(trace.predicted, (std::vector<int32_t>{2, 2, 1}));
  EXPECT_NEAR(trace.loss[0], -std::log(9.0 / 12), 1e-5);
  EXPECT_NEAR(trace.loss[1], std::log(12.0), 1e-5);
  EXPECT_TRUE(std::isnan(trace.loss[2]));
  EXPECT_DOUBLE_EQ(token_report(trace, trace.layers[0], TokenKind::predicted, 2).score, 1);
}

// --- tool-saturation -------------------------------------------------------------------------------

TEST(Catalogue, tool_saturation_by_hand) {
  const auto compare = [](const Sets& a, const Sets& b, int64_t experts) {
    const RoutingTrace first = one_segment(a, experts), second = one_segment(b, experts);
    return saturation_report(first, first.layers[0], second, second.layers[0]);
  };
  EXPECT_DOUBLE_EQ(compare({{0, 1}}, {{0, 2}}, 4).overlap, 0.5);
  EXPECT_DOUBLE_EQ(compare({{0, 1}}, {{0, 2}}, 4).chance, 0.5);
  EXPECT_DOUBLE_EQ(compare({{0, 1}, {3, 2}}, {{0, 1}, {3, 2}}, 4).overlap, 1);
  EXPECT_DOUBLE_EQ(compare({{1, 0}}, {{0, 1}}, 4).overlap, 1) << "ranks do not matter";
  EXPECT_DOUBLE_EQ(compare({{1, 0}}, {{0, 1}}, 4).best_agreement, 0);
  const int64_t tokens = 4000, experts = 16, k = 4;
  const SaturationReport random = compare(random_sets(tokens, experts, k, 1), random_sets(tokens, experts, k, 2), experts);
  EXPECT_DOUBLE_EQ(random.chance, 0.25);
  // Hypergeometric overlap: variance k (k/E)(1 − k/E)(E − k)/(E − 1) / k².
  const double deviation = std::sqrt(0.25 * 0.75 * (12.0 / 15) / 4 / static_cast<double>(tokens));
  EXPECT_NEAR(random.overlap, 0.25, 3 * deviation);
  const RoutingTrace a = one_segment({{0}}, 2, {1}), b = one_segment({{0}}, 2, {2});
  EXPECT_EQ(expect_error([&] { saturation_report(a, a.layers[0], b, b.layers[0]); }).code(), "inspect.probe");
}

// --- tool-coactivation -----------------------------------------------------------------------------

TEST(Catalogue, tool_coactivation_by_hand) {
  const CoactivationReport report = coactivation_report(one_segment({{0, 1}, {0, 2}, {0, 1}}, 3).layers[0]);
  EXPECT_NEAR(report.conditional.at(0, 1), 2.0 / 3, 1e-12);
  EXPECT_DOUBLE_EQ(report.conditional.at(1, 0), 1);
  EXPECT_NEAR(report.conditional.at(0, 2), 1.0 / 3, 1e-12);
  EXPECT_DOUBLE_EQ(report.conditional.at(2, 0), 1);
  EXPECT_DOUBLE_EQ(report.chance, 0.5);
  for (int64_t i = 0; i < 3; ++i)
    for (int64_t j = 0; j < 3; ++j) EXPECT_EQ(report.joint.at(i, j), report.joint.at(j, i));
  std::vector<int64_t> order = report.order;
  std::sort(order.begin(), order.end());
  EXPECT_EQ(order, (std::vector<int64_t>{0, 1, 2}));
}

TEST(Catalogue, tool_coactivation_rows_sum_to_k_minus_one_and_one_expert_has_no_company) {
  const CoactivationReport three = coactivation_report(one_segment(random_sets(500, 8, 3, 3), 8).layers[0]);
  for (int64_t i = 0; i < 8; ++i) {
    double row = 0;
    for (int64_t j = 0; j < 8; ++j) row += three.conditional.at(i, j);
    EXPECT_NEAR(row, 2, 1e-9);
  }
  const CoactivationReport one = coactivation_report(one_segment({{0}, {1}}, 2).layers[0]);
  EXPECT_EQ(one.conditional.values, (std::vector<double>{0, 0, 0, 0}));
  EXPECT_EQ(one.chance, 0);
}

TEST(Catalogue, tool_coactivation_of_neighbouring_ranks_alone_misses_pairs) {
  const LayerTrace layer = one_segment({{0, 1, 2}}, 3).layers[0];
  EXPECT_EQ(coactivation_report(layer).joint.at(0, 2), 1);
  EXPECT_EQ(coactivation_report(layer, /*adjacent_ranks=*/true).joint.at(0, 2), 0);
  EXPECT_EQ(coactivation_report(layer, /*adjacent_ranks=*/true).joint.at(1, 2), 1);
}

TEST(Catalogue, tool_coactivation_across_layers) {
  const RoutingTrace trace = trace_of({{.sets = {{0}, {0}, {1}}, .experts = 2},
                                       {.sets = {{2}, {0}, {1}}, .experts = 3, .site = "layers.1.feed_forward", .layer = 1}},
                                      Segments::single(3), {0}, {"all"});
  const Table path = layer_transition(trace.layers[0], trace.layers[1]);
  EXPECT_EQ(path.values, (std::vector<double>{.5, 0, .5, 0, 1, 0}));
}

// --- tool-drop-end ---------------------------------------------------------------------------------

/// One expert and k = 1 over sequences of equal length, admitted by the named method with `factor` of an even share.
RoutingTrace admitted_trace(const std::string& admission, const std::string& options, const Sets& sets, int64_t experts, int64_t sequences,
                            int64_t step = 0) {
  const auto rows = static_cast<int64_t>(sets.size());
  Pass pass(rows, sequences, Phase::train);
  pass.context.step = step;
  Record record = record_of({.sets = sets, .experts = experts}, pass.facts.segments);
  auto& selection = std::get<Selection>(record.routed.engagement);
  selection.per_unit = static_cast<int64_t>(sets[0].size());
  const auto method = Registry::instance().make<Admission>(admission, parse_yaml(options, "test"));
  admit(selection, *method, pass.context);
  Records records;
  records.add(std::move(record));
  const at::Tensor ids = at::zeros({rows}, at::kLong);
  TraceCollector collector({"all"});
  collector.add({.ids = ids, .targets = {}, .segments = pass.facts.segments, .domain = std::vector<int64_t>(static_cast<size_t>(sequences)), .logits = {}}, records);
  return collector.take();
}

TEST(Catalogue, tool_drop_end_profile_by_hand) {
  const RoutingTrace trace = admitted_trace("capacity", "{factor: 0.5, minimum: 1}", Sets(8, {0}), 1, 1);
  const DropReport drops = drop_report(trace, trace.layers[0], 8);
  EXPECT_EQ(drops.dropped, (std::vector<double>{0, 0, 0, 0, 1, 1, 1, 1}));
  EXPECT_EQ(drops.engaged, std::vector<double>(8, 1));
  EXPECT_DOUBLE_EQ(drops.rate, 0.5);
  EXPECT_DOUBLE_EQ(drops.end_minus_start, 1);
  EXPECT_GT(drops.trend.slope, 1);
  const RoutingTrace room = admitted_trace("capacity", "{factor: 1, minimum: 1}", Sets(8, {0}), 1, 1);
  EXPECT_EQ(drop_report(room, room.layers[0], 8).rate, 0);
  EXPECT_EQ(drop_report(room, room.layers[0], 8).end_minus_start, 0);
}

TEST(Catalogue, tool_drop_end_is_flat_for_random_priority) {
  DropReport total;
  total.engaged.assign(8, 0);
  total.dropped.assign(8, 0);
  for (int64_t draw = 0; draw < 1000; ++draw) {
    const RoutingTrace trace = admitted_trace("random-priority", "{factor: 0.5, minimum: 1}", Sets(8, {0}), 1, 1, draw);
    const DropReport one = drop_report(trace, trace.layers[0], 8);
    for (size_t b = 0; b < 8; ++b) {
      total.engaged[b] += one.engaged[b];
      total.dropped[b] += one.dropped[b];
    }
  }
  std::vector<double> expected;
  for (const double n : total.engaged) expected.push_back(n / 2);
  // Drawing four of eight without replacement: the statistic is at most a χ² of 7 degrees of freedom, 1 % point 18.475.
  EXPECT_LT(chi_square(total.dropped, expected) / 0.5, 18.475);
}

TEST(Catalogue, tool_drop_end_tells_later_sequences_from_later_positions) {
  const Sets sets(64, {0});  // four sequences of 16, half of the pairs fit
  const RoutingTrace batch = admitted_trace("capacity", "{factor: 0.5, minimum: 1, scope: batch}", sets, 1, 4);
  const DropReport by_sequence = drop_report(batch, batch.layers[0], 16);
  EXPECT_DOUBLE_EQ(by_sequence.end_minus_start, 0) << "served sequence by sequence, every position loses alike";
  EXPECT_DOUBLE_EQ(by_sequence.by_sequence.front(), 0);
  EXPECT_DOUBLE_EQ(by_sequence.by_sequence[12], 1);
  const RoutingTrace each = admitted_trace("capacity", "{factor: 0.5, minimum: 1, scope: sequence}", sets, 1, 4);
  const DropReport by_position = drop_report(each, each.layers[0], 16);
  EXPECT_DOUBLE_EQ(by_position.end_minus_start, 1);
  EXPECT_DOUBLE_EQ(by_position.by_sequence[0], by_position.by_sequence[12]);
}

TEST(Catalogue, tool_drop_end_of_a_zipf_router) {
  // T = 1024, E = 8, capacity factor 1; expert e is chosen with probability ∝ 1/(e + 1).
  double norm = 0;
  for (int64_t e = 0; e < 8; ++e) norm += 1.0 / static_cast<double>(e + 1);
  const at::Tensor u = Streams(11).uniform({1024}, {.purpose = "zipf"}, at::kDouble);
  Sets sets;
  for (int64_t r = 0; r < 1024; ++r) {
    double left = u[r].item<double>() * norm;
    int64_t e = 0;
    while (e < 7 && left > 1.0 / static_cast<double>(e + 1)) left -= 1.0 / static_cast<double>(++e);
    sets.push_back({e});
  }
  const std::string options = "{factor: 1, minimum: 1}";
  const auto dte = [&](const std::string& admission, const std::string& with) {
    const RoutingTrace trace = admitted_trace(admission, with, sets, 8, 1);
    return drop_report(trace, trace.layers[0]).end_minus_start;
  };
  EXPECT_GT(dte("capacity", options), 0.4);
  EXPECT_LT(std::abs(dte("random-priority", options)), 0.12);
  EXPECT_EQ(dte("dropless", "{}"), 0);
}

}  // namespace
}  // namespace switchyard
