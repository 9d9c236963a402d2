// Decisions made by hand for tests of losses, admissions and controllers, and the catalogue's fixture.
#pragma once

#include "switchyard/base/registry.h"
#include "switchyard/contract/record.h"
#include "switchyard/kernels/topk.h"
#include "switchyard/routing/loss.h"
#include "switchyard/routing/select.h"
#include "tests/support.h"

namespace switchyard::testing {

/// Four tokens, three experts: first choices (0, 1, 0, 0), second choices (1, 0, 2, 2).
inline at::Tensor four_by_three() {
  return at::tensor({2.0, 1.0, 0.0, 1.0, 2.0, 0.0, 3.0, 0.0, 1.0, 2.5, 0.0, 1.0}, at::kDouble).view({4, 3});
}

/// The k best of logits [T, E], weighted by the softmax over them; probabilities by the full softmax.
inline Selection top_k_selection(const at::Tensor& logits, int64_t k) {
  Gate gate{.logits = logits, .scores = logits, .probabilities = logits.softmax(-1), .noise_std = {}};
  const at::Tensor ids = kernels::top_k(logits, k).indices;
  return selection_of(ids, kept_softmax(logits, ids), std::move(gate), Run::rows);
}

/// The record of such a decision over `segments` sequences of equal length.
inline Record record_of(Selection selection, int64_t segments = 1) {
  Record record;
  record.segments = Segments::equal(segments, selection.units / std::max<int64_t>(segments, 1));
  record.place.site = "test";
  record.routed.engagement = std::move(selection);
  return record;
}

inline std::shared_ptr<RoutingLoss> loss(const std::string& slug, const std::string& yaml = "{}") {
  return Registry::instance().make<RoutingLoss>(slug, parse_yaml(yaml, "test"));
}

/// The unweighted loss over records.
inline at::Tensor loss_of(const RoutingLoss& loss, const std::vector<Record>& records, Phase phase = Phase::train) {
  const Pass pass(1, 1, phase);
  std::vector<at::Tensor> summaries;
  for (const Record& record : records) summaries.push_back(loss.summarise(record, pass.context));
  return loss.finish(summaries, {});
}
inline double loss_value(const std::string& slug, const std::string& yaml, const std::vector<Record>& records) {
  return loss_of(*loss(slug, yaml), records).item<double>();
}

}  // namespace switchyard::testing
