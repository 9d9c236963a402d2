// How probable a model finds token sequences: what perplexity and multiple choice are made of.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "switchyard/infer/language_model.h"

namespace switchyard {

/// ids[first..] are scored, each given all before it; 1 <= first <= length.
struct ScoreRequest {
  std::vector<int64_t> ids;
  int64_t first = 1;
};

struct TokenScores {
  std::vector<double> log_probability;  ///< natural, one for each scored token
  bool greedy = true;                   ///< every scored token is the most probable at its place
  double sum() const;
};

struct LikelihoodOptions {
  int64_t batch = 8;  ///< sequences of a pass, where their number changes nothing; else one
  std::function<void(int64_t done)> on_pass = {};  ///< told after each pass how many requests are done
};

/// Scores of the requests in their order. Requests of like length are computed together, long ones first. Throws
/// evaluate.request (nothing before the first scored token; longer than the model's context), evaluate.interrupted.
std::vector<TokenScores> log_probabilities(const LanguageModel& model, const std::vector<ScoreRequest>& requests,
                                           const LikelihoodOptions& options = {});

}  // namespace switchyard
