#include "switchyard/inspect/routing_trace.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "switchyard/base/error.h"

namespace switchyard {
namespace {

template <typename T>
std::span<const T> view(const at::Tensor& tensor) {
  return {tensor.const_data_ptr<T>(), static_cast<size_t>(tensor.numel())};
}

at::Tensor host(const at::Tensor& tensor, at::ScalarType type) {
  return tensor.detach().to(at::kCPU, type).contiguous();
}

/// [rows, E] weights of a decision that engages every expert: a dense or merged selection, or slots of mixed tokens
/// (a token's share of an expert = what its output takes from that expert's slots). Undefined for sparse pairs.
at::Tensor dense_part(const Record& record) {
  if (const Selection* selection = record.selection()) {
    const bool sparse = selection->has_pairs() && selection->per_unit != selection->experts;
    if (sparse || (selection->has_pairs() && selection->run == Run::rows && !selection->dense_weight.defined())) return {};
    Selection copy = *selection;
    if (copy.unit_of_row.defined()) copy = over_rows(std::move(copy));
    return dense_weights(copy);
  }
  const auto& blend = std::get<TokenBlend>(record.routed.engagement);
  const int64_t rows = record.segments.rows();
  const at::Tensor members = host(blend.members, at::kLong), slots = host(blend.slot_expert, at::kLong);
  const at::Tensor combine = host(blend.combine, at::kDouble);
  at::Tensor result = at::zeros({rows, blend.experts}, at::kDouble);
  auto* out = result.mutable_data_ptr<double>();
  const auto member = view<int64_t>(members), slot = view<int64_t>(slots);
  const auto weight = view<double>(combine);
  for (size_t m = 0; m < member.size(); ++m) {
    if (member[m] < 0) continue;
    for (size_t s = 0; s < slot.size(); ++s) out[member[m] * blend.experts + slot[s]] += weight[m * slot.size() + s];
  }
  return result;
}

int64_t experts_of(const Record& record) {
  return std::visit([](const auto& engagement) { return engagement.experts; }, record.routed.engagement);
}

void add_confidence(LayerTrace& layer, const at::Tensor& probabilities, int64_t rows) {
  const double log_experts = std::log(static_cast<double>(std::max<int64_t>(2, layer.experts)));
  const auto p = view<double>(probabilities);
  const auto experts = static_cast<size_t>(layer.experts);
  for (size_t r = 0; r < static_cast<size_t>(rows); ++r) {
    double top = 0, sum = 0, entropy = 0;
    for (size_t e = 0; e < experts; ++e) sum += std::max(0.0, p[r * experts + e]);
    for (size_t e = 0; e < experts; ++e) {
      // Sigmoid scores do not add up to one; as a distribution they do.
      const double q = sum > 0 ? std::max(0.0, p[r * experts + e]) / sum : 0;
      top = std::max(top, q);
      if (q > 0) entropy -= q * std::log(q);
    }
    layer.top_probability.push_back(static_cast<float>(top));
    layer.entropy.push_back(static_cast<float>(entropy / log_experts));
  }
}

void add_mass(LayerTrace& layer, const at::Tensor& values, const Segments& segments, int64_t first_segment) {
  layer.mass.resize(static_cast<size_t>((first_segment + segments.count()) * layer.experts));
  const auto v = view<double>(values);
  for (int64_t s = 0; s < segments.count(); ++s)
    for (int64_t r = segments.begin[static_cast<size_t>(s)]; r < segments.begin[static_cast<size_t>(s) + 1]; ++r)
      for (int64_t e = 0; e < layer.experts; ++e)
        layer.mass[static_cast<size_t>((first_segment + s) * layer.experts + e)] += v[static_cast<size_t>(r * layer.experts + e)];
}

void add_dense(LayerTrace& layer, const at::Tensor& weights, int64_t rows) {
  layer.dense = true;
  const auto w = view<double>(weights);
  const auto experts = static_cast<size_t>(layer.experts);
  for (size_t r = 0; r < static_cast<size_t>(rows); ++r) {
    const auto row = w.subspan(r * experts, experts);
    const auto best = std::max_element(row.begin(), row.end());
    layer.best.push_back(static_cast<int32_t>(best - row.begin()));
    layer.best_weight.push_back(static_cast<float>(*best));
    layer.offset.push_back(0);
  }
}

void add_pairs(LayerTrace& layer, const Record& record, int64_t rows) {
  Selection selection = *record.selection();
  if (selection.unit_of_row.defined()) selection = over_rows(std::move(selection));
  const at::Tensor unit = host(selection.unit, at::kLong), expert = host(selection.expert, at::kLong);
  const at::Tensor& used = record.routed.weight.defined() && record.routed.weight.numel() == selection.pairs() ? record.routed.weight : selection.weight;
  const at::Tensor weight = host(used, at::kFloat);
  const at::Tensor kept = selection.kept.defined() ? host(selection.kept, at::kBool) : at::Tensor();
  const auto units = view<int64_t>(unit), experts = view<int64_t>(expert);
  const auto weights = view<float>(weight);
  size_t p = 0;
  for (int64_t r = 0; r < rows; ++r) {
    layer.best.push_back(p < units.size() && units[p] == r ? static_cast<int32_t>(experts[p]) : -1);
    layer.best_weight.push_back(layer.best.back() < 0 ? 0 : weights[p]);
    for (; p < units.size() && units[p] == r; ++p) {
      layer.expert.push_back(static_cast<int32_t>(experts[p]));
      layer.weight.push_back(weights[p]);
      layer.kept.push_back(!kept.defined() || kept.const_data_ptr<bool>()[p] ? 1 : 0);
    }
    layer.offset.push_back(static_cast<int64_t>(layer.expert.size()));
  }
}

}  // namespace

LayerTrace& TraceCollector::layer(const Record& record, int64_t experts, bool first, size_t index) {
  if (first) {
    trace_.layers.push_back({.site = record.place.site, .layer = record.place.layer, .experts = experts});
    return trace_.layers.back();
  }
  check(index < trace_.layers.size() && trace_.layers[index].site == record.place.site &&
            trace_.layers[index].experts == experts,
        "inspect.layers", "{} routes in this pass, but the first pass had other places there", record.place.site);
  return trace_.layers[index];
}

void TraceCollector::add(const Pass& pass, const Records& records) {
  at::NoGradGuard guard;
  const int64_t rows = pass.segments.rows(), first_segment = trace_.segments();
  check(pass.ids.defined() && pass.ids.numel() == rows && static_cast<int64_t>(pass.domain.size()) == pass.segments.count(),
        "inspect.shape", "{} ids and {} domains for {} rows in {} segments", pass.ids.defined() ? pass.ids.numel() : 0,
        pass.domain.size(), rows, pass.segments.count());
  for (const int64_t domain : pass.domain)
    check(domain >= 0 && domain < static_cast<int64_t>(trace_.domains.size()), "inspect.domain",
          "a segment says domain {}, but there are {}", domain, trace_.domains.size());

  size_t index = 0;
  for (const Record& record : records.all()) {
    const int64_t experts = experts_of(record);
    if (experts == 0) continue;  // a place that only adds a loss (depth routing)
    if (record.segments.rows() != rows) {
      const std::string reason = record.place.site + ": sees only some of the tokens";
      if (std::find(trace_.left_out.begin(), trace_.left_out.end(), reason) == trace_.left_out.end())
        trace_.left_out.push_back(reason);
      continue;
    }
    LayerTrace& one = layer(record, experts, !started_, index++);
    if (const at::Tensor dense = dense_part(record); dense.defined()) {
      const at::Tensor weights = host(dense, at::kDouble);
      add_dense(one, weights, rows);
      add_confidence(one, weights, rows);
      add_mass(one, weights, pass.segments, first_segment);
      continue;
    }
    add_pairs(one, record, rows);
    const auto& gates = record.gates();
    if (gates.size() == 1 && gates[0].probabilities.defined() && gates[0].probabilities.dim() == 2 &&
        gates[0].probabilities.size(0) == rows && gates[0].probabilities.size(1) == experts) {
      const at::Tensor probabilities = host(gates[0].probabilities, at::kDouble);
      add_confidence(one, probabilities, rows);
      add_mass(one, probabilities, pass.segments, first_segment);
    }
  }
  check(!started_ || index == trace_.layers.size(), "inspect.layers", "this pass routed in {} places, the first in {}",
        index, trace_.layers.size());
  started_ = true;

  const at::Tensor ids = host(pass.ids, at::kInt);
  const at::Tensor targets = pass.targets.defined() ? host(pass.targets, at::kInt) : at::Tensor();
  const at::Tensor segment = host(pass.segments.segment_of_row(), at::kInt);
  const at::Tensor position = host(pass.segments.position_of_row(), at::kInt);
  const auto append = [](auto& to, const auto& from) { to.insert(to.end(), from.begin(), from.end()); };
  append(trace_.token, view<int32_t>(ids));
  append(trace_.position, view<int32_t>(position));
  for (const int32_t s : view<int32_t>(segment)) trace_.segment.push_back(static_cast<int32_t>(first_segment) + s);
  for (const int64_t domain : pass.domain) trace_.segment_domain.push_back(static_cast<int32_t>(domain));
  if (targets.defined()) append(trace_.next, view<int32_t>(targets));
  else trace_.next.insert(trace_.next.end(), static_cast<size_t>(rows), -1);
  if (pass.logits.defined()) {
    const at::Tensor logits = pass.logits.detach();
    append(trace_.predicted, view<int32_t>(host(logits.argmax(1), at::kInt)));
    const at::Tensor log_p = host(at::log_softmax(logits, 1, at::kFloat), at::kFloat);
    const auto all = view<float>(log_p);
    for (int64_t r = 0; r < rows; ++r) {
      const int32_t next = trace_.next[trace_.next.size() - static_cast<size_t>(rows - r)];
      trace_.loss.push_back(next < 0 ? std::numeric_limits<float>::quiet_NaN()
                                     : -all[static_cast<size_t>(r * log_p.size(1) + next)]);
    }
  }
}

}  // namespace switchyard
