// The next token from logits. First what the text so far says about tokens: logit bias, repetition penalty (Keskar et al. 2019),
// presence and frequency penalties. Then what is drawn from: temperature, top-k, top-p (nucleus; Holtzman et al. 2020), min-p
// (Nguyen et al. 2024), typical (Meister et al. 2023). The order is that of transformers' processors.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <span>

#include "switchyard/base/options.h"
#include "switchyard/base/random.h"

namespace switchyard {

struct SamplingOptions {
  std::map<int64_t, double> logit_bias;  ///< by token id, added to its logit; -inf = it is never written
  double repetition_penalty = 1;  ///< tokens of prompt and text: positive logits are divided, negative ones multiplied by it
  double presence_penalty = 0;    ///< taken from the logits of tokens that were written
  double frequency_penalty = 0;   ///< taken once for each time a token was written
  double temperature = 1;         ///< divides the logits; 0 = always the most probable token
  int64_t top_k = 0;              ///< only the k most probable; 0 = all
  double top_p = 1;               ///< only the fewest most probable whose probabilities sum to p
  double min_p = 0;               ///< only those with at least this share of the highest probability
  double typical = 1;             ///< only those nearest to the expected surprise whose probabilities sum to it; 1 = all
  int64_t seed = 0;

  template <typename T>
  static void describe_fields(Fields<T>& f) {
    f("repetition_penalty", &T::repetition_penalty,
      "divides the positive and multiplies the negative logits of all tokens of the prompt and the text; 1 = none").range(1e-3, 1e3);
    f("presence_penalty", &T::presence_penalty, "taken from the logits of tokens that were written").range(-100, 100);
    f("frequency_penalty", &T::frequency_penalty, "taken from a token's logit for each time it was written").range(-100, 100);
    f("temperature", &T::temperature, "divides the logits; 0 = always the most probable token").range(0, 100);
    f("top_k", &T::top_k, "only the k most probable tokens; 0 = all").range(0);
    f("top_p", &T::top_p, "only the fewest most probable tokens whose probabilities sum to p").range(0, 1);
    f("min_p", &T::min_p, "only tokens with at least this share of the highest probability").range(0, 1);
    f("typical", &T::typical, "only tokens whose surprise is nearest to the expected one, until they sum to this; 1 = all").range(0, 1);
    f("seed", &T::seed, "of the draws: the same seed writes the same text").range(0);
  }
};

/// The tokens before the one that is chosen.
struct TokensSoFar {
  std::span<const int64_t> prompt, written;
};

/// logits: [V] → [V] float64 after bias and penalties; -inf stays. Throws infer.logits for NaN, +inf, or nothing finite;
/// infer.logit_bias for a biased id outside the vocabulary.
at::Tensor penalised(const at::Tensor& logits, const SamplingOptions& options, const TokensSoFar& so_far = {});

/// logits: [V] → [V] float64 probabilities that sum to 1, zero for tokens that are not kept. The options act in the order in
/// which they stand, each on what the one before left. At equal probability the lower id is kept; one token always is.
/// Throws what `penalised` does.
at::Tensor distribution(const at::Tensor& logits, const SamplingOptions& options, const TokensSoFar& so_far = {});

/// One token. The draw depends on the seed, `sequence` and `position` alone, not on what else is in the batch.
int64_t sample(const at::Tensor& logits, const SamplingOptions& options, int64_t sequence, int64_t position,
               const TokensSoFar& so_far = {});

}  // namespace switchyard
