// The next token from logits: temperature, top-k, top-p (nucleus; Holtzman et al. 2020), min-p (Nguyen et al. 2024).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "switchyard/base/options.h"
#include "switchyard/base/random.h"

namespace switchyard {

struct SamplingOptions {
  double temperature = 1;  ///< divides the logits; 0 = always the most probable token
  int64_t top_k = 0;       ///< only the k most probable; 0 = all
  double top_p = 1;        ///< only the fewest most probable whose probabilities sum to p
  double min_p = 0;        ///< only those with at least this share of the highest probability
  int64_t seed = 0;

  template <typename T>
  static void describe_fields(Fields<T>& f) {
    f("temperature", &T::temperature, "divides the logits; 0 = always the most probable token").range(0, 100);
    f("top_k", &T::top_k, "only the k most probable tokens; 0 = all").range(0);
    f("top_p", &T::top_p, "only the fewest most probable tokens whose probabilities sum to p").range(0, 1);
    f("min_p", &T::min_p, "only tokens with at least this share of the highest probability").range(0, 1);
    f("seed", &T::seed, "of the draws: the same seed writes the same text").range(0);
  }
};

/// logits: [V] → [V] float64 probabilities that sum to 1, zero for tokens that are not kept. The options act in the order in
/// which they stand: temperature, then top-k, top-p over what that left, then min-p. At equal probability the lower id is kept; one token always is.
/// Throws infer.logits for NaN, +inf, or nothing finite.
at::Tensor distribution(const at::Tensor& logits, const SamplingOptions& options);

/// One token. The draw depends on the seed, `sequence` and `position` alone, not on what else is in the batch.
int64_t sample(const at::Tensor& logits, const SamplingOptions& options, int64_t sequence, int64_t position);

}  // namespace switchyard
