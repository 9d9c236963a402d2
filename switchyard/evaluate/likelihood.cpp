#include "switchyard/evaluate/likelihood.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <numeric>

#include "switchyard/base/error.h"
#include "switchyard/base/progress.h"

namespace switchyard {
namespace {

/// Requests whose sequences are one pass, and where the logits of each scored token stand in it.
class Pass {
 public:
  void add(size_t request, const ScoreRequest& asked) {
    requests_.push_back(request);
    const int64_t begin = segments_.begin.back(), length = static_cast<int64_t>(asked.ids.size());
    ids_.insert(ids_.end(), asked.ids.begin(), asked.ids.end());
    segments_.begin.push_back(begin + length);
    for (int64_t i = asked.first; i < length; ++i) {
      rows_.push_back(begin + i - 1);
      target_.push_back(asked.ids[static_cast<size_t>(i)]);
      owner_.push_back(request);
    }
  }
  int64_t sequences() const { return static_cast<int64_t>(requests_.size()); }

  void run(const LanguageModel& model, std::vector<TokenScores>& scores) const {
    if (rows_.empty()) return;
    const LogitsPieces pieces{.rows = at::tensor(rows_, at::kLong), .read = [&](int64_t first, const at::Tensor& logits) {
      const int64_t count = logits.size(0);
      const at::Tensor target = at::tensor(at::IntArrayRef(target_).slice(static_cast<size_t>(first), static_cast<size_t>(count)), at::kLong);
      const at::Tensor chosen = logits.gather(1, target.unsqueeze(1)).squeeze(1);
      const at::Tensor log = (chosen.to(at::kDouble) - logits.logsumexp(1).to(at::kDouble)).contiguous();
      const at::Tensor best = logits.argmax(1).eq(target).contiguous();
      for (int64_t i = 0; i < count; ++i) {
        TokenScores& score = scores[owner_[static_cast<size_t>(first + i)]];
        score.log_probability.push_back(log.const_data_ptr<double>()[i]);
        score.greedy = score.greedy && best.const_data_ptr<bool>()[i];
      }
    }};
    model.logits(at::tensor(ids_, at::kLong), Facts(segments_), Phase::evaluate, nullptr, LanguageModel::Rows::all, {.pieces = &pieces});
  }

 private:
  Segments segments_;
  std::vector<int64_t> ids_, rows_, target_;
  std::vector<size_t> requests_, owner_;
};

}  // namespace

double TokenScores::sum() const { return std::accumulate(log_probability.begin(), log_probability.end(), 0.0); }

std::vector<TokenScores> log_probabilities(const LanguageModel& model, const std::vector<ScoreRequest>& requests,
                                           const LikelihoodOptions& options) {
  for (const ScoreRequest& request : requests) {
    const auto length = static_cast<int64_t>(request.ids.size());
    check(request.first >= 1 && request.first <= length, "evaluate.request",
          "of {} tokens those from {} on are to be scored; something must stand before the first", length, request.first);
    check(length <= model.context(), "evaluate.request", "{} tokens are longer than the model's context of {}", length, model.context());
  }
  std::vector<size_t> order(requests.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return requests[a].ids.size() > requests[b].ids.size(); });
  const int64_t batch = model.rows_stand_alone(Phase::evaluate) ? std::max<int64_t>(1, options.batch) : 1;
  std::vector<TokenScores> scores(requests.size());
  for (size_t done = 0; done < order.size();) {
    check(!interrupted(), "evaluate.interrupted", "interrupted after {} of {} sequences", done, order.size());
    Pass pass;
    for (; done < order.size() && pass.sequences() < batch; ++done) pass.add(order[done], requests[order[done]]);
    pass.run(model, scores);
    if (options.on_pass) options.on_pass(static_cast<int64_t>(done));
  }
  return scores;
}

}  // namespace switchyard
