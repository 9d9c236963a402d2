// What a model's routers decided on a probe text, kept compactly on the host: every tool of this room
// reads a trace, none of them runs a model. A collector fills it batch by batch from the records of a pass.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "switchyard/contract/record.h"

namespace switchyard {

/// The decisions of one place that routes.
struct LayerTrace {
  std::string site;      ///< "layers.3.feed_forward"
  int64_t layer = 0;
  int64_t experts = 0;

  /// Sparse: the pairs of row r are [offset[r], offset[r+1]), best first.
  std::vector<int64_t> offset{0};
  std::vector<int32_t> expert;
  std::vector<float> weight;      ///< what multiplies, after the combine policy
  std::vector<uint8_t> kept;      ///< 0 = dropped by admission

  /// Dense (no pairs: every expert takes part): Σ of the weights, by segment and expert.
  bool dense = false;
  std::vector<int32_t> best;      ///< [rows] the expert with the largest weight; -1 = none
  std::vector<float> best_weight; ///< [rows] its weight

  /// [segments * E]: Σ over a segment's rows of probabilities (sparse) or weights (dense); empty = there are none.
  std::vector<double> mass;
  /// [rows] largest probability and entropy / ln E; empty when the router gives no probabilities.
  std::vector<float> top_probability, entropy;

  int64_t rows() const { return static_cast<int64_t>(best.size()); }
  int64_t pairs(int64_t row) const { return offset[static_cast<size_t>(row) + 1] - offset[static_cast<size_t>(row)]; }
  bool has_pairs() const { return !dense; }
};

/// Several layers over the same rows.
struct RoutingTrace {
  std::vector<std::string> domains;
  // By row.
  std::vector<int32_t> token;        ///< input id
  std::vector<int32_t> next;         ///< true next id, -1 = none
  std::vector<int32_t> predicted;    ///< the model's most likely next id; empty when not asked for
  std::vector<float> loss;           ///< −ln p(next), NaN where there is no next; empty when not asked for
  std::vector<int32_t> position;     ///< offset in the segment (plus its past)
  std::vector<int32_t> segment;
  // By segment.
  std::vector<int32_t> segment_domain;
  std::vector<LayerTrace> layers;
  /// Places whose decisions could not be attributed to rows, with the reason.
  std::vector<std::string> left_out;

  int64_t rows() const { return static_cast<int64_t>(token.size()); }
  int64_t segments() const { return static_cast<int64_t>(segment_domain.size()); }
  int64_t domain_of(int64_t row) const { return segment_domain[static_cast<size_t>(segment[static_cast<size_t>(row)])]; }
};

/// Appends the passes it is given; nothing it keeps holds on to a graph or a device.
class TraceCollector {
 public:
  explicit TraceCollector(std::vector<std::string> domains) { trace_.domains = std::move(domains); }

  struct Pass {
    const at::Tensor& ids;       ///< [rows] int64
    const at::Tensor& targets;   ///< [rows] int64, -1 = none; undefined = none anywhere
    const Segments& segments;
    std::vector<int64_t> domain; ///< [segments], an index into the domains
    at::Tensor logits;           ///< [rows, V] float, or undefined
  };
  /// Throws inspect.domain (an index out of range), inspect.layers (another set of places than the first pass).
  void add(const Pass& pass, const Records& records);
  const RoutingTrace& trace() const { return trace_; }
  RoutingTrace take() { return std::move(trace_); }

 private:
  LayerTrace& layer(const Record& record, int64_t experts, bool first, size_t index);
  RoutingTrace trace_;
  bool started_ = false;
};

}  // namespace switchyard
