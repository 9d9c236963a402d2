#include "switchyard/infer/sampling.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <unordered_map>
#include <vector>

#include "switchyard/base/error.h"

namespace switchyard {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// Logits as doubles, checked.
std::vector<double> checked_logits(const at::Tensor& logits) {
  check(logits.dim() == 1 && logits.size(0) > 0, "infer.logits", "a token is drawn from one row of logits, not from a tensor of "
        "{} dimensions and {} elements", logits.dim(), logits.numel());
  const at::Tensor wide = logits.to(at::kCPU, at::kDouble).contiguous();
  const double* begin = wide.const_data_ptr<double>();
  std::vector<double> values(begin, begin + wide.numel());
  for (size_t i = 0; i < values.size(); ++i)
    check(!std::isnan(values[i]) && values[i] != kInfinity, "infer.logits",
          "the logit of token {} is {}; the model's weights or activations are broken", i, values[i]);
  return values;
}

/// Bias and penalties in place. Ids outside the vocabulary (a prompt's placeholder) have no logit to change.
void penalise(std::vector<double>& values, const SamplingOptions& options, const TokensSoFar& so_far) {
  const auto size = static_cast<int64_t>(values.size());
  const auto known = [&](int64_t id) { return id >= 0 && id < size; };
  for (const auto& [id, bias] : options.logit_bias) {
    check(known(id), "infer.logit_bias", "the bias of token {} has no place: the vocabulary has {} tokens", id, size);
    check(!std::isnan(bias) && bias != kInfinity, "infer.logit_bias", "the bias of token {} is {}; it is a number or -inf", id, bias);
    values[static_cast<size_t>(id)] += bias;
  }
  std::unordered_map<int64_t, int64_t> count;  // how often each was written; 0 = in the prompt alone
  if (options.presence_penalty != 0 || options.frequency_penalty != 0 || options.repetition_penalty != 1)
    for (int64_t id : so_far.written) ++count[id];
  if (options.repetition_penalty != 1) {
    for (int64_t id : so_far.prompt) count.try_emplace(id, 0);
    for (const auto& [id, times] : count) {
      if (!known(id)) continue;
      double& value = values[static_cast<size_t>(id)];
      value = value < 0 ? value * options.repetition_penalty : value / options.repetition_penalty;
    }
  }
  for (const auto& [id, times] : count)
    if (times > 0 && known(id))
      values[static_cast<size_t>(id)] -= options.presence_penalty + options.frequency_penalty * static_cast<double>(times);
  check(std::any_of(values.begin(), values.end(), [](double value) { return std::isfinite(value); }), "infer.logits",
        "no token has a finite logit");
}

std::vector<double> ready_logits(const at::Tensor& logits, const SamplingOptions& options, const TokensSoFar& so_far) {
  std::vector<double> values = checked_logits(logits);
  penalise(values, options, so_far);
  return values;
}

size_t best(const std::vector<double>& values) {
  return static_cast<size_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

/// Ids of the largest `key`s first, the lower id first at a tie. Only as many are put in order as are asked for: vocabularies are
/// large, and the mass lies in few tokens.
class Ranking {
 public:
  explicit Ranking(const std::vector<double>& key) : key_(key), ids_(key.size()) { std::iota(ids_.begin(), ids_.end(), size_t{0}); }

  size_t operator[](size_t place) {
    while (place >= ordered_) {
      const size_t until = std::min(ids_.size(), std::max<size_t>(64, ordered_ * 8));
      std::partial_sort(at(ordered_), at(until), ids_.end(), [&](size_t a, size_t b) {
        return key_[a] > key_[b] || (key_[a] == key_[b] && a < b);
      });
      ordered_ = until;
    }
    return ids_[place];
  }

 private:
  std::vector<size_t>::iterator at(size_t place) { return ids_.begin() + static_cast<std::ptrdiff_t>(place); }
  const std::vector<double>& key_;
  std::vector<size_t> ids_;
  size_t ordered_ = 0;
};

/// Unnormalised probabilities, the highest 1, of which filters keep some.
struct Candidates {
  std::vector<double> values;
  double sum = 0;

  /// The first `count` of a ranking.
  void keep_first(Ranking& ranking, size_t count) {
    std::vector<double> kept(values.size(), 0.0);
    sum = 0;
    for (size_t i = 0; i < count; ++i) sum += kept[ranking[i]] = values[ranking[i]];
    values = std::move(kept);
  }
  template <typename Keep>
  void keep_where(const Keep& keep) {
    sum = 0;
    for (double& value : values) sum += value = value > 0 && keep(value) ? value : 0;
  }
};

void top_k(Candidates& candidates, int64_t k) {
  if (k <= 0 || k >= static_cast<int64_t>(candidates.values.size())) return;
  Ranking ranking(candidates.values);
  candidates.keep_first(ranking, static_cast<size_t>(k));
}

void top_p(Candidates& candidates, double p) {
  if (p >= 1) return;
  Ranking ranking(candidates.values);
  double mass = 0;
  size_t taken = 0;
  while (taken < candidates.values.size() && (taken == 0 || mass < p * candidates.sum)) mass += candidates.values[ranking[taken++]];
  candidates.keep_first(ranking, taken);
}

void min_p(Candidates& candidates, double p) {
  if (p > 0) candidates.keep_where([p](double value) { return value >= p; });  // the highest is 1
}

/// |-ln p - H| from the least: tokens are kept until their mass reaches the share, and those at the same distance as the last.
void typical(Candidates& candidates, double share) {
  if (share >= 1) return;
  double entropy = 0;
  for (double value : candidates.values)
    if (value > 0) entropy -= value / candidates.sum * std::log(value / candidates.sum);
  std::vector<double> nearness(candidates.values.size(), -kInfinity);
  for (size_t i = 0; i < nearness.size(); ++i)
    if (candidates.values[i] > 0) nearness[i] = -std::abs(-std::log(candidates.values[i] / candidates.sum) - entropy);
  Ranking ranking(nearness);
  double mass = 0;
  size_t taken = 0;
  while (taken < nearness.size() && (taken == 0 || mass < share * candidates.sum)) mass += candidates.values[ranking[taken++]];
  while (taken < nearness.size() && nearness[ranking[taken]] == nearness[ranking[taken - 1]]) ++taken;
  candidates.keep_first(ranking, taken);
}

/// Probabilities of logits that carry bias and penalties: filtered and summing to 1.
std::vector<double> probabilities(std::vector<double> logits, const SamplingOptions& options) {
  const size_t top = best(logits);
  if (options.temperature == 0) {
    std::fill(logits.begin(), logits.end(), 0.0);
    logits[top] = 1;
    return logits;
  }
  const double highest = logits[top];
  Candidates candidates{.values = std::move(logits)};
  for (double& value : candidates.values) candidates.sum += value = std::exp((value - highest) / options.temperature);
  top_k(candidates, options.top_k);
  top_p(candidates, options.top_p);
  min_p(candidates, options.min_p);
  typical(candidates, options.typical);
  for (double& value : candidates.values) value /= candidates.sum;
  return std::move(candidates.values);
}

at::Tensor as_tensor(const std::vector<double>& values) {
  at::Tensor tensor = at::empty({static_cast<int64_t>(values.size())}, at::kDouble);
  std::copy(values.begin(), values.end(), tensor.mutable_data_ptr<double>());
  return tensor;
}

}  // namespace

at::Tensor penalised(const at::Tensor& logits, const SamplingOptions& options, const TokensSoFar& so_far) {
  return as_tensor(ready_logits(logits, options, so_far));
}

at::Tensor distribution(const at::Tensor& logits, const SamplingOptions& options, const TokensSoFar& so_far) {
  return as_tensor(probabilities(ready_logits(logits, options, so_far), options));
}

int64_t sample(const at::Tensor& logits, const SamplingOptions& options, int64_t sequence, int64_t position,
               const TokensSoFar& so_far) {
  std::vector<double> values = ready_logits(logits, options, so_far);
  if (options.temperature == 0) return static_cast<int64_t>(best(values));
  values = probabilities(std::move(values), options);
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
