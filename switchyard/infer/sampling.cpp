#include "switchyard/infer/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include <ATen/ops/zeros.h>

#include "switchyard/base/error.h"

namespace switchyard {
namespace {

/// Logits as doubles, checked.
std::vector<double> finite_logits(const at::Tensor& logits) {
  check(logits.dim() == 1 && logits.size(0) > 0, "infer.logits", "a token is drawn from one row of logits, not from a tensor of "
        "{} dimensions and {} elements", logits.dim(), logits.numel());
  const at::Tensor wide = logits.to(at::kCPU, at::kDouble).contiguous();
  const double* begin = wide.const_data_ptr<double>();
  std::vector<double> values(begin, begin + wide.numel());
  bool any = false;
  for (size_t i = 0; i < values.size(); ++i) {
    check(!std::isnan(values[i]) && values[i] != std::numeric_limits<double>::infinity(), "infer.logits",
          "the logit of token {} is {}; the model's weights or activations are broken", i, values[i]);
    any |= std::isfinite(values[i]);
  }
  check(any, "infer.logits", "no token has a finite logit");
  return values;
}

size_t best(const std::vector<double>& values) {
  return static_cast<size_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

/// Ids by falling value, the lower id first at a tie; only the first `count` are in order.
std::vector<size_t> ranked(const std::vector<double>& values, size_t count) {
  std::vector<size_t> ids(values.size());
  std::iota(ids.begin(), ids.end(), size_t{0});
  std::partial_sort(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(count), ids.end(), [&](size_t a, size_t b) {
    return values[a] > values[b] || (values[a] == values[b] && a < b);
  });
  ids.resize(count);
  return ids;
}

/// Probabilities in place: filtered and summing to 1.
void to_probabilities(std::vector<double>& values, const SamplingOptions& options) {
  const size_t top = best(values);
  if (options.temperature == 0) {
    std::fill(values.begin(), values.end(), 0.0);
    values[top] = 1;
    return;
  }
  const double highest = values[top];
  double sum = 0;
  for (double& value : values) sum += value = std::exp((value - highest) / options.temperature);
  const auto keep = [&](const std::vector<size_t>& ids) {
    std::vector<double> kept(values.size(), 0.0);
    sum = 0;
    for (size_t id : ids) sum += kept[id] = values[id];
    values = std::move(kept);
  };
  const auto size = static_cast<int64_t>(values.size());
  size_t count = values.size();
  if (options.top_k > 0 && options.top_k < size) keep(ranked(values, count = static_cast<size_t>(options.top_k)));
  if (options.top_p < 1) {
    std::vector<size_t> ids = ranked(values, count);
    double mass = 0;
    size_t taken = 0;
    while (taken < ids.size() && (taken == 0 || mass < options.top_p * sum)) mass += values[ids[taken++]];
    ids.resize(taken);
    keep(ids);
  }
  if (options.min_p > 0) {
    sum = 0;
    for (double& value : values) sum += value = value >= options.min_p ? value : 0;  // the highest is exp(0) = 1
  }
  for (double& value : values) value /= sum;
}

}  // namespace

at::Tensor distribution(const at::Tensor& logits, const SamplingOptions& options) {
  std::vector<double> values = finite_logits(logits);
  to_probabilities(values, options);
  at::Tensor probabilities = at::zeros({static_cast<int64_t>(values.size())}, at::kDouble);
  std::copy(values.begin(), values.end(), probabilities.mutable_data_ptr<double>());
  return probabilities;
}

int64_t sample(const at::Tensor& logits, const SamplingOptions& options, int64_t sequence, int64_t position) {
  std::vector<double> values = finite_logits(logits);
  if (options.temperature == 0) return static_cast<int64_t>(best(values));
  to_probabilities(values, options);
  const Streams streams(static_cast<uint64_t>(options.seed));
  const double u = streams.uniform({1}, {.purpose = "sample", .step = position, .micro = sequence}, at::kDouble).item<double>();
  double sum = 0;
  size_t last = 0;
  for (size_t id = 0; id < values.size(); ++id) {
    if (values[id] == 0) continue;
    last = id;
    if ((sum += values[id]) > u) return static_cast<int64_t>(id);
  }
  return static_cast<int64_t>(last);  // rounding left the sum a little below 1
}

}  // namespace switchyard
