// Perplexity of a text under a model, by windows that slide over it: every token but the first is scored once, given at most
// `context - 1` and (behind the first window) at least `context - stride` tokens before it. Windows that only touch (stride =
// context) leave the first token of each unscored.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "switchyard/infer/language_model.h"

namespace switchyard {

struct PerplexityOptions {
  int64_t context = 0;  ///< tokens of a window; 0 = the model's context, at most 2048
  int64_t stride = 0;   ///< from one window to the next; 0 = half a window
  int64_t windows = 0;  ///< at most so many, from the beginning; 0 = all
  int64_t batch = 8;
  std::function<void(int64_t done, int64_t windows)> on_pass = {};
};

struct Perplexity {
  int64_t tokens = 0;  ///< scored
  int64_t bytes = 0;   ///< of text that they spell; 0 = not known
  double sum = 0, squares = 0;  ///< of -ln p over the tokens

  double mean() const;            ///< nats a token
  double standard_error() const;  ///< of the mean, as if tokens were independent
  double perplexity() const;      ///< e^mean
  double bits_per_byte() const;
  Perplexity& operator+=(const Perplexity& other);
};

/// The windows of n tokens: window i reads [begin, end) and scores [first, end), begin < first < end.
struct Window {
  int64_t begin = 0, end = 0, first = 0;
  bool operator==(const Window&) const = default;
};
std::vector<Window> windows_over(int64_t tokens, int64_t context, int64_t stride);

/// ids: the text's tokens, a begin token first where the model has one. Throws evaluate.context (below 2, or beyond the model's),
/// evaluate.stride (beyond the context), evaluate.text (no token to score).
Perplexity perplexity(const LanguageModel& model, const std::vector<int64_t>& ids, const PerplexityOptions& options = {});

}  // namespace switchyard
