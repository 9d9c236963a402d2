#include "switchyard/inspect/routing_statistics.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "switchyard/base/error.h"
#include "switchyard/base/random.h"

namespace switchyard {
namespace {

/// Draws for permutation baselines: SplitMix64 started from the keyed streams, so a report is reproducible.
class Draws {
 public:
  Draws(uint64_t seed, std::string_view purpose) : state_(Streams(seed).word({.purpose = purpose})) {}
  uint64_t below(uint64_t n) {
    state_ += 0x9e3779b97f4a7c15ULL;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return (z ^ (z >> 31)) % n;
  }
  template <typename T>
  void shuffle(std::vector<T>& values) {
    for (size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[below(i)]);
  }

 private:
  uint64_t state_;
};

double sum(const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

/// [segments, E]: pairs by segment (or weights of a dense layer), which every domain statistic adds up.
Table counts_by_segment(const RoutingTrace& trace, const LayerTrace& layer) {
  Table counts(trace.segments(), layer.experts);
  if (layer.dense) {
    counts.values = layer.mass;
    counts.values.resize(static_cast<size_t>(counts.rows * counts.columns));
    return counts;
  }
  for (int64_t r = 0; r < layer.rows(); ++r)
    for (int64_t p = layer.offset[static_cast<size_t>(r)]; p < layer.offset[static_cast<size_t>(r) + 1]; ++p)
      counts.at(trace.segment[static_cast<size_t>(r)], layer.expert[static_cast<size_t>(p)]) += 1;
  return counts;
}

Table by_domain(const Table& by_segment, const std::vector<int32_t>& domain_of_segment, int64_t domains) {
  Table result(domains, by_segment.columns);
  for (int64_t s = 0; s < by_segment.rows; ++s)
    for (int64_t e = 0; e < by_segment.columns; ++e) result.at(domain_of_segment[static_cast<size_t>(s)], e) += by_segment.at(s, e);
  return result;
}

std::vector<double> row_of(const Table& table, int64_t r) {
  const auto begin = table.values.begin() + r * table.columns;
  return {begin, begin + table.columns};
}

/// [a, b] total variation between two rows of counts; the mean over pairs of rows that are not empty.
double mean_variation(const Table& counts, Table* pairs = nullptr) {
  double total = 0, number = 0;
  for (int64_t a = 0; a < counts.rows; ++a)
    for (int64_t b = 0; b < counts.rows; ++b) {
      const std::vector<double> of_a = row_of(counts, a), of_b = row_of(counts, b);
      const double variation = total_variation(of_a, of_b);
      if (pairs) pairs->at(a, b) = variation;
      if (a >= b || sum(of_a) <= 0 || sum(of_b) <= 0) continue;
      total += variation;
      number += 1;
    }
  return number > 0 ? total / number : 0;
}

/// The value that 99 of 100 do not exceed.
double percentile_99(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(std::ceil(0.99 * static_cast<double>(values.size()))) - 1];
}

double correlation(const std::vector<double>& a, const std::vector<double>& b) {
  const double n = static_cast<double>(a.size()), mean_a = sum(a) / n, mean_b = sum(b) / n;
  double ab = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    ab += (a[i] - mean_a) * (b[i] - mean_b);
    aa += (a[i] - mean_a) * (a[i] - mean_a);
    bb += (b[i] - mean_b) * (b[i] - mean_b);
  }
  return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : 0;
}

/// Experts in the order of a greedy chain: next comes the most similar one not yet placed (average linkage would give the
/// same blocks for far more code).
std::vector<int64_t> chain_order(const Table& similarity) {
  const int64_t n = similarity.rows;
  std::vector<int64_t> order;
  std::vector<bool> placed(static_cast<size_t>(n));
  int64_t present = 0;
  double strongest = -1;
  for (int64_t i = 0; i < n; ++i) {
    double total = 0;
    for (int64_t j = 0; j < n; ++j) total += similarity.at(i, j);
    if (total > strongest) { strongest = total; present = i; }
  }
  while (static_cast<int64_t>(order.size()) < n) {
    order.push_back(present);
    placed[static_cast<size_t>(present)] = true;
    int64_t next = -1;
    for (int64_t j = 0; j < n; ++j)
      if (!placed[static_cast<size_t>(j)] && (next < 0 || similarity.at(present, j) > similarity.at(present, next))) next = j;
    if (next < 0) break;
    present = next;
  }
  return order;
}

}  // namespace

LoadReport load_report(std::vector<double> engaged, std::vector<double> admitted, double dead_threshold) {
  check(engaged.size() == admitted.size(), "inspect.shape", "loads of {} and {} experts", engaged.size(), admitted.size());
  LoadReport report;
  report.cv = coefficient_of_variation(engaged);
  report.max_violation = maximum_violation(engaged);
  report.gini = gini(engaged);
  report.entropy_ratio = sum(engaged) > 0 ? entropy_ratio(engaged) : 1;
  report.divergence = divergence_from_uniform(engaged);
  report.dead_share = dead_share(engaged, dead_threshold);
  report.admitted_cv = coefficient_of_variation(admitted);
  const double asked = sum(engaged);
  report.drop_rate = asked > 0 ? 1 - sum(admitted) / asked : 0;
  report.engaged = std::move(engaged);
  report.admitted = std::move(admitted);
  return report;
}

LoadReport load_report(const LayerTrace& layer) {
  std::vector<double> engaged(static_cast<size_t>(layer.experts)), admitted(engaged);
  if (layer.dense) {
    for (size_t i = 0; i < layer.mass.size(); ++i) engaged[i % engaged.size()] += layer.mass[i];
    return load_report(engaged, engaged);
  }
  for (size_t p = 0; p < layer.expert.size(); ++p) {
    engaged[static_cast<size_t>(layer.expert[p])] += 1;
    admitted[static_cast<size_t>(layer.expert[p])] += layer.kept[p] ? 1 : 0;
  }
  LoadReport report = load_report(std::move(engaged), std::move(admitted));
  if (const std::vector<double> mass = importance(layer); !mass.empty()) {
    report.importance_cv = coefficient_of_variation(mass);
    report.importance_correlation = correlation(report.engaged, mass);
  }
  return report;
}

std::vector<double> grouped_load(const std::vector<double>& load, const std::vector<int64_t>& place, int64_t groups) {
  check(load.size() == place.size(), "inspect.shape", "{} loads, but {} places", load.size(), place.size());
  std::vector<double> result(static_cast<size_t>(groups));
  for (size_t e = 0; e < load.size(); ++e) {
    check(place[e] >= 0 && place[e] < groups, "inspect.shape", "expert {} is placed in group {}, but there are {}", e, place[e], groups);
    result[static_cast<size_t>(place[e])] += load[e];
  }
  return result;
}

std::vector<double> importance(const LayerTrace& layer) {
  if (layer.mass.empty()) return {};
  std::vector<double> result(static_cast<size_t>(layer.experts));
  for (size_t i = 0; i < layer.mass.size(); ++i) result[i % result.size()] += layer.mass[i];
  return result;
}

DomainReport domain_report(const RoutingTrace& trace, const LayerTrace& layer, int64_t permutations, uint64_t seed) {
  const auto domains = static_cast<int64_t>(trace.domains.size());
  DomainReport report;
  const Table by_segment = counts_by_segment(trace, layer);
  const Table counts = by_domain(by_segment, trace.segment_domain, domains);

  std::vector<double> tokens(static_cast<size_t>(domains));
  report.best_share = Table(domains, layer.experts);
  for (int64_t r = 0; r < layer.rows(); ++r) {
    const int64_t domain = trace.domain_of(r);
    tokens[static_cast<size_t>(domain)] += 1;
    if (const int32_t best = layer.best[static_cast<size_t>(r)]; best >= 0) report.best_share.at(domain, best) += 1;
  }
  report.share = counts;
  for (int64_t d = 0; d < domains; ++d)
    for (int64_t e = 0; e < layer.experts; ++e) {
      if (tokens[static_cast<size_t>(d)] == 0) continue;
      report.share.at(d, e) /= tokens[static_cast<size_t>(d)];
      report.best_share.at(d, e) /= tokens[static_cast<size_t>(d)];
    }
  const double rows = sum(tokens);
  report.experts_per_token = rows > 0 ? sum(counts.values) / rows : 0;
  report.chance = layer.experts > 0 ? report.experts_per_token / static_cast<double>(layer.experts) : 0;
  if (report.chance > 0 && !report.share.values.empty())
    report.max_ratio = *std::max_element(report.share.values.begin(), report.share.values.end()) / report.chance;

  report.variation = Table(domains, domains);
  report.mean_variation = mean_variation(counts, &report.variation);

  report.information = mutual_information(counts);
  report.normalised = normalised_mutual_information(counts);
  if (permutations <= 0) return report;
  Draws draws(seed, "inspect.domains");
  std::vector<int32_t> labels = trace.segment_domain;
  std::vector<double> by_chance, variation_by_chance;
  int64_t as_much = 0;
  for (int64_t i = 0; i < permutations; ++i) {
    draws.shuffle(labels);
    const Table permuted = by_domain(by_segment, labels, domains);
    by_chance.push_back(mutual_information(permuted));
    variation_by_chance.push_back(mean_variation(permuted));
    report.chance_normalised += normalised_mutual_information(permuted) / static_cast<double>(permutations);
    // Equal sums in another order differ in the last bits.
    if (by_chance.back() >= report.information * (1 - 1e-9)) ++as_much;
  }
  report.chance_information = sum(by_chance) / static_cast<double>(permutations);
  report.chance_high = percentile_99(std::move(by_chance));
  report.chance_variation_high = percentile_99(std::move(variation_by_chance));
  report.p_value = static_cast<double>(as_much + 1) / static_cast<double>(permutations + 1);
  return report;
}

double soft_information(const Table& mass) { return mutual_information(mass); }

TokenReport token_report(const RoutingTrace& trace, const LayerTrace& layer, TokenKind kind, int64_t min_count, int64_t keep,
                         uint64_t seed) {
  check(kind != TokenKind::predicted || !trace.predicted.empty(), "inspect.predicted",
        "the trace holds no predicted tokens; collect it with logits");
  const std::vector<int32_t>& ids = kind == TokenKind::input ? trace.token : kind == TokenKind::next ? trace.next : trace.predicted;
  TokenReport report;
  const auto experts = static_cast<size_t>(layer.experts);
  report.favourites.resize(experts);

  std::vector<int32_t> token, best;
  for (size_t r = 0; r < layer.best.size(); ++r)
    if (layer.best[r] >= 0 && ids[r] >= 0) {
      token.push_back(ids[r]);
      best.push_back(layer.best[r]);
    }
  std::map<int32_t, int64_t> row_of_id;
  for (const int32_t id : token) row_of_id.emplace(id, 0);
  int64_t next = 0;
  for (auto& [id, row] : row_of_id) row = next++;

  const auto tabulate = [&](const std::vector<int32_t>& chosen) {
    Table counts(next, layer.experts);
    for (size_t i = 0; i < token.size(); ++i) counts.at(row_of_id[token[i]], chosen[i]) += 1;
    return counts;
  };
  const auto score = [&](const Table& counts) {
    double total = 0;
    int64_t types = 0;
    for (int64_t v = 0; v < counts.rows; ++v) {
      const std::vector<double> row = row_of(counts, v);
      const double occurrences = sum(row);
      if (occurrences < static_cast<double>(min_count)) continue;
      ++types;
      total += *std::max_element(row.begin(), row.end()) / occurrences;
    }
    report.types = types;
    return types > 0 ? total / static_cast<double>(types) : 0;
  };
  // explained_share wants the expert as the row variable.
  const auto explained = [&](const Table& counts) {
    Table turned(counts.columns, counts.rows);
    for (int64_t v = 0; v < counts.rows; ++v)
      for (int64_t e = 0; e < counts.columns; ++e) turned.at(e, v) = counts.at(v, e);
    return explained_share(turned);
  };

  const Table counts = tabulate(best);
  std::vector<int32_t> shuffled = best;
  Draws(seed, "inspect.tokens").shuffle(shuffled);
  const Table permuted = tabulate(shuffled);
  report.baseline = score(permuted);
  report.score = score(counts);
  report.explained = explained(counts) - explained(permuted);

  std::vector<double> load(experts);
  for (const int32_t e : best) load[static_cast<size_t>(e)] += 1;
  for (const auto& [id, v] : row_of_id) {
    const std::vector<double> row = row_of(counts, v);
    const double occurrences = sum(row);
    if (occurrences < static_cast<double>(min_count)) continue;
    const auto favourite = static_cast<size_t>(std::max_element(row.begin(), row.end()) - row.begin());
    const double share = row[favourite] / occurrences;
    report.favourites[favourite].push_back({.token = id, .count = static_cast<int64_t>(occurrences), .share = share,
                                            .lift = share * static_cast<double>(best.size()) / load[favourite]});
  }
  for (auto& list : report.favourites) {
    std::stable_sort(list.begin(), list.end(), [](const auto& a, const auto& b) {
      return a.share != b.share ? a.share > b.share : a.count > b.count;
    });
    if (static_cast<int64_t>(list.size()) > keep) list.resize(static_cast<size_t>(keep));
  }
  return report;
}

CoactivationReport coactivation_report(const LayerTrace& layer, bool adjacent_ranks) {
  CoactivationReport report;
  report.joint = Table(layer.experts, layer.experts);
  report.conditional = Table(layer.experts, layer.experts);
  if (layer.dense) return report;
  double pairs = 0, rows = 0;
  for (size_t r = 0; r + 1 < layer.offset.size(); ++r) {
    const int64_t begin = layer.offset[r], end = layer.offset[r + 1];
    if (begin == end) continue;
    rows += 1;
    pairs += static_cast<double>(end - begin);
    for (int64_t p = begin; p < end; ++p)
      for (int64_t q = p; q < end; ++q) {
        if (adjacent_ranks && q > p + 1) break;
        const int32_t a = layer.expert[static_cast<size_t>(p)], b = layer.expert[static_cast<size_t>(q)];
        report.joint.at(a, b) += 1;
        if (p != q) report.joint.at(b, a) += 1;
      }
  }
  for (int64_t i = 0; i < layer.experts; ++i)
    for (int64_t j = 0; j < layer.experts; ++j)
      if (i != j && report.joint.at(i, i) > 0) report.conditional.at(i, j) = report.joint.at(i, j) / report.joint.at(i, i);
  if (rows > 0 && layer.experts > 1) report.chance = (pairs / rows - 1) / static_cast<double>(layer.experts - 1);
  Table similarity = report.joint;
  for (int64_t i = 0; i < layer.experts; ++i)
    for (int64_t j = 0; j < layer.experts; ++j) {
      const double norm = std::sqrt(report.joint.at(i, i) * report.joint.at(j, j));
      similarity.at(i, j) = i == j || norm == 0 ? 0 : report.joint.at(i, j) / norm;
    }
  report.order = chain_order(similarity);
  return report;
}

Table layer_transition(const LayerTrace& from, const LayerTrace& to) {
  if (from.dense || to.dense || from.rows() != to.rows()) return {};
  Table table(from.experts, to.experts);
  std::vector<double> tokens(static_cast<size_t>(from.experts));
  for (size_t r = 0; r + 1 < from.offset.size(); ++r)
    for (int64_t p = from.offset[r]; p < from.offset[r + 1]; ++p) {
      tokens[static_cast<size_t>(from.expert[static_cast<size_t>(p)])] += 1;
      for (int64_t q = to.offset[r]; q < to.offset[r + 1]; ++q)
        table.at(from.expert[static_cast<size_t>(p)], to.expert[static_cast<size_t>(q)]) += 1;
    }
  for (int64_t i = 0; i < table.rows; ++i)
    for (int64_t j = 0; j < table.columns; ++j)
      if (tokens[static_cast<size_t>(i)] > 0) table.at(i, j) /= tokens[static_cast<size_t>(i)];
  return table;
}

ConfidenceReport confidence_report(const LayerTrace& layer, int64_t bins) {
  check(bins > 0, "inspect.shape", "a histogram needs at least one bin, got {}", bins);
  ConfidenceReport report;
  report.top.resize(static_cast<size_t>(bins));
  report.entropy.resize(static_cast<size_t>(bins));
  report.available = !layer.top_probability.empty();
  const auto bin = [&](float value) {
    return static_cast<size_t>(std::clamp(static_cast<int64_t>(value * static_cast<float>(bins)), int64_t{0}, bins - 1));
  };
  for (size_t r = 0; r < layer.top_probability.size(); ++r) {
    report.top[bin(layer.top_probability[r])] += 1;
    report.entropy[bin(layer.entropy[r])] += 1;
    report.mean_top += layer.top_probability[r];
    report.mean_entropy += layer.entropy[r];
  }
  if (report.available) {
    report.mean_top /= static_cast<double>(layer.top_probability.size());
    report.mean_entropy /= static_cast<double>(layer.entropy.size());
  }
  return report;
}

DropReport drop_report(const RoutingTrace& trace, const LayerTrace& layer, int64_t bins) {
  check(bins > 0, "inspect.shape", "a profile needs at least one bin, got {}", bins);
  DropReport report;
  report.engaged.resize(static_cast<size_t>(bins));
  report.dropped.resize(static_cast<size_t>(bins));
  constexpr int64_t kSequenceBins = 16;
  std::vector<double> sequence_engaged(kSequenceBins), sequence_dropped(kSequenceBins);
  report.by_sequence.resize(kSequenceBins);
  if (layer.dense || layer.rows() == 0) return report;
  report.longest = 1 + *std::max_element(trace.position.begin(), trace.position.end());
  double all = 0, lost = 0, first = 0, first_lost = 0, last = 0, last_lost = 0;
  for (size_t r = 0; r + 1 < layer.offset.size(); ++r) {
    const int64_t position = trace.position[r];
    const auto bin = static_cast<size_t>(position * bins / report.longest);
    const auto sequence = static_cast<size_t>(static_cast<int64_t>(trace.segment[r]) * kSequenceBins / trace.segments());
    for (int64_t p = layer.offset[r]; p < layer.offset[r + 1]; ++p) {
      const double drop = layer.kept[static_cast<size_t>(p)] ? 0 : 1;
      report.engaged[bin] += 1;
      report.dropped[bin] += drop;
      sequence_engaged[sequence] += 1;
      sequence_dropped[sequence] += drop;
      all += 1;
      lost += drop;
      if (position * 4 < report.longest) { first += 1; first_lost += drop; }
      if (position * 4 >= report.longest * 3) { last += 1; last_lost += drop; }
    }
  }
  report.rate = all > 0 ? lost / all : 0;
  const double start = first > 0 ? first_lost / first : 0, end = last > 0 ? last_lost / last : 0;
  report.end_minus_start = end - start;
  report.ratio = start > 0 ? end / start : 0;
  std::vector<double> x, y, expected;
  for (size_t b = 0; b < static_cast<size_t>(bins); ++b) {
    expected.push_back(report.engaged[b] * report.rate);
    if (report.engaged[b] == 0) continue;
    x.push_back((static_cast<double>(b) + 0.5) / static_cast<double>(bins));
    y.push_back(report.dropped[b] / report.engaged[b]);
  }
  report.trend = fit_line(x, y);
  report.chi_square = report.rate < 1 ? chi_square(report.dropped, expected) / (1 - report.rate) : 0;
  for (size_t b = 0; b < kSequenceBins; ++b)
    report.by_sequence[b] = sequence_engaged[b] > 0 ? sequence_dropped[b] / sequence_engaged[b] : 0;
  return report;
}

SaturationReport saturation_report(const RoutingTrace& a, const LayerTrace& layer_a, const RoutingTrace& b, const LayerTrace& layer_b) {
  check(a.token == b.token && layer_a.rows() == layer_b.rows() && layer_a.experts == layer_b.experts, "inspect.probe",
        "{} was probed on other tokens or has another number of experts in the two checkpoints", layer_a.site);
  SaturationReport report;
  double tokens = 0, chosen = 0, agree = 0, decided = 0;
  for (size_t r = 0; r < layer_a.best.size(); ++r) {
    if (layer_b.best[r] >= 0) {
      decided += 1;
      agree += layer_a.best[r] == layer_b.best[r] ? 1 : 0;
    }
    if (layer_a.dense || layer_b.dense) continue;
    const auto begin_a = layer_a.expert.begin() + layer_a.offset[r], end_a = layer_a.expert.begin() + layer_a.offset[r + 1];
    const int64_t k = layer_b.pairs(static_cast<int64_t>(r));
    if (k == 0) continue;
    int64_t common = 0;
    for (int64_t p = layer_b.offset[r]; p < layer_b.offset[r + 1]; ++p)
      common += std::find(begin_a, end_a, layer_b.expert[static_cast<size_t>(p)]) != end_a ? 1 : 0;
    report.overlap += static_cast<double>(common) / static_cast<double>(k);
    chosen += static_cast<double>(k);
    tokens += 1;
  }
  if (tokens > 0) {
    report.overlap /= tokens;
    report.chance = chosen / tokens / static_cast<double>(layer_b.experts);
  }
  report.best_agreement = decided > 0 ? agree / decided : 0;
  return report;
}

}  // namespace switchyard
