#include "switchyard/evaluate/perplexity.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "switchyard/base/error.h"
#include "switchyard/evaluate/likelihood.h"

namespace switchyard {

double Perplexity::mean() const { return tokens > 0 ? sum / static_cast<double>(tokens) : 0; }

double Perplexity::standard_error() const {
  if (tokens < 2) return 0;
  const double n = static_cast<double>(tokens);
  return std::sqrt(std::max(0.0, (squares - sum * sum / n) / (n - 1)) / n);
}

double Perplexity::perplexity() const { return std::exp(mean()); }

double Perplexity::bits_per_byte() const { return bytes > 0 ? sum / std::numbers::ln2 / static_cast<double>(bytes) : 0; }

Perplexity& Perplexity::operator+=(const Perplexity& other) {
  tokens += other.tokens;
  bytes += other.bytes;
  sum += other.sum;
  squares += other.squares;
  return *this;
}

std::vector<Window> windows_over(int64_t tokens, int64_t context, int64_t stride) {
  std::vector<Window> windows;
  for (int64_t begin = 0, scored = 1; scored < tokens; begin += stride) {
    const int64_t end = std::min(begin + context, tokens), first = std::max(scored, begin + 1);
    if (first < end) windows.push_back({begin, end, first});
    scored = end;
  }
  return windows;
}

Perplexity perplexity(const LanguageModel& model, const std::vector<int64_t>& ids, const PerplexityOptions& options) {
  const int64_t context = options.context > 0 ? options.context : std::min<int64_t>(model.context(), 2048);
  check(context >= 2 && context <= model.context(), "evaluate.context", "windows of {} tokens cannot be: from 2 to the model's context of {}",
        context, model.context());
  const int64_t stride = options.stride > 0 ? options.stride : std::max<int64_t>(1, context / 2);
  check(stride <= context, "evaluate.stride", "windows of {} tokens cannot lie {} apart: tokens between them would not be read; from 1 to {}",
        context, stride, context);
  check(ids.size() >= 2, "evaluate.text", "a text of {} tokens has none that could be scored", ids.size());
  std::vector<Window> windows = windows_over(static_cast<int64_t>(ids.size()), context, stride);
  if (options.windows > 0 && static_cast<int64_t>(windows.size()) > options.windows) windows.resize(static_cast<size_t>(options.windows));
  std::vector<ScoreRequest> requests;
  for (const Window& window : windows)
    requests.push_back({.ids = {ids.begin() + window.begin, ids.begin() + window.end}, .first = window.first - window.begin});
  const auto total = static_cast<int64_t>(requests.size());
  const std::vector<TokenScores> scores = log_probabilities(
      model, requests, {.batch = options.batch, .on_pass = [&](int64_t done) { if (options.on_pass) options.on_pass(done, total); }});
  Perplexity result;
  for (const TokenScores& score : scores)
    for (double log : score.log_probability) {
      ++result.tokens;
      result.sum -= log;
      result.squares += log * log;
    }
  if (model.tokenizer() != nullptr) {
    std::vector<int64_t> scored;
    for (const Window& window : windows) scored.insert(scored.end(), ids.begin() + window.first, ids.begin() + window.end);
    result.bytes = static_cast<int64_t>(model.tokenizer()->bytes(scored).size());
  }
  return result;
}

}  // namespace switchyard
