// The routing report: everything the tools of this room say about a run, as one JSON document and as one
// self-contained page that shows the same numbers.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "switchyard/inspect/history.h"
#include "switchyard/inspect/routing_trace.h"

namespace switchyard {

/// What a report is made of.
struct ReportInput {
  std::string title;
  std::vector<std::pair<std::string, std::string>> facts;  ///< shown at the top, in order: ("router", "sparse-topk")
  std::vector<MetricSeries> metrics;
  std::vector<LoadHistory> history;
  RoutingTrace trace;
  /// Earlier checkpoints on the same tokens (or the first of them), oldest first, the newest last.
  std::vector<std::pair<int64_t, RoutingTrace>> checkpoints;
  std::function<std::string(int32_t)> token_name;               ///< one id, for lists of characteristic tokens
  /// Ids to pieces of text, one an id, that add up to the text; a piece may be empty inside a character.
  std::function<std::vector<std::string>(const std::vector<int32_t>&)> pieces;
  int64_t sample_tokens = 220;                                  ///< text shown of each domain
  int64_t permutations = 200;
};

/// UTF-8 JSON; bytes that are no UTF-8 become U+FFFD.
std::string report_json(const ReportInput& input);
/// The page around a report_json document; nothing in it can leave its script element.
std::string report_page(const std::string& json);
/// A few plain sentences, the same that open the page.
std::vector<std::string> report_findings(const std::string& json);

}  // namespace switchyard
