// Traces with known routing for the tests of inspect: built through the collector, as a model's records would be.
#pragma once

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "switchyard/contract/record.h"
#include "switchyard/inspect/routing_trace.h"

namespace switchyard::testing {

/// One layer's decision over rows: sets[r] are the experts of row r, best first.
struct Decision {
  std::vector<std::vector<int64_t>> sets;
  int64_t experts = 4;
  std::vector<int64_t> dropped;       ///< pair indices
  at::Tensor probabilities = {};      ///< [rows, E]
  std::string site = "layers.0.feed_forward";
  int64_t layer = 0;
};

inline Record record_of(const Decision& decision, const Segments& segments) {
  Selection selection;
  selection.units = static_cast<int64_t>(decision.sets.size());
  selection.experts = decision.experts;
  std::vector<int64_t> unit, expert, rank;
  for (size_t r = 0; r < decision.sets.size(); ++r)
    for (size_t j = 0; j < decision.sets[r].size(); ++j) {
      unit.push_back(static_cast<int64_t>(r));
      expert.push_back(decision.sets[r][j]);
      rank.push_back(static_cast<int64_t>(j));
    }
  selection.unit = at::tensor(unit, at::kLong);
  selection.expert = at::tensor(expert, at::kLong);
  selection.rank = at::tensor(rank, at::kLong);
  selection.weight = at::full({static_cast<int64_t>(unit.size())}, 0.5, at::kFloat);
  if (!decision.dropped.empty()) {
    selection.kept = at::ones({static_cast<int64_t>(unit.size())}, at::kBool);
    for (const int64_t p : decision.dropped) selection.kept[p] = false;
  }
  if (decision.probabilities.defined()) selection.gates.push_back({.probabilities = decision.probabilities});
  Record record;
  record.place = {.layer = decision.layer, .site = decision.site};
  record.segments = segments;
  record.routed.engagement = std::move(selection);
  return record;
}

/// A trace of one pass: tokens (and next tokens) by row, one domain a segment.
inline RoutingTrace trace_of(const std::vector<Decision>& decisions, const Segments& segments, std::vector<int64_t> domain,
                             std::vector<std::string> domains, std::vector<int64_t> tokens = {}, std::vector<int64_t> next = {},
                             at::Tensor logits = {}) {
  Records records;
  for (const Decision& decision : decisions) records.add(record_of(decision, segments));
  if (tokens.empty()) tokens.assign(static_cast<size_t>(segments.rows()), 0);
  const at::Tensor ids = at::tensor(tokens, at::kLong);
  const at::Tensor targets = next.empty() ? at::Tensor() : at::tensor(next, at::kLong);
  TraceCollector collector(std::move(domains));
  collector.add({.ids = ids, .targets = targets, .segments = segments, .domain = std::move(domain), .logits = logits}, records);
  return collector.take();
}

}  // namespace switchyard::testing
