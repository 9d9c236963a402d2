#include "switchyard/infer/network_model.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

#include "switchyard/base/error.h"

namespace switchyard {

/// Logits held at once when they are read in pieces: 64 MiB.
static constexpr int64_t kPieceElements = int64_t{1} << 24;

NetworkModel::NetworkModel(LoadedModel model) : model_(std::move(model)) {
  check(model_.decoder != nullptr, "infer.model", "a language model needs a decoder");
}

int64_t NetworkModel::vocabulary() const { return model_.decoder->options().vocabulary; }
int64_t NetworkModel::context() const { return model_.decoder->options().context; }

std::vector<int64_t> NetworkModel::end_ids() const {
  if (!model_.end_ids.empty() || model_.tokenizer == nullptr) return model_.end_ids;
  const std::optional<int64_t> id = model_.tokenizer->end_id();
  return id ? std::vector<int64_t>{*id} : std::vector<int64_t>{};
}

at::Tensor NetworkModel::hidden(const at::Tensor& ids, const Facts& facts, Phase phase, StateStore* state,
                                const Adaptation* adaptation, const Wanted& wanted) const {
  at::NoGradGuard guard;
  const Streams random(0);  // nothing is drawn outside training but what a method fixes by its own seed
  RoutedStore routed;
  const Context context{.facts = facts, .random = random, .phase = phase, .records = wanted.records, .routed = &routed,
                        .state = state, .adaptation = adaptation};
  at::Tensor hidden = model_.decoder->forward(ids, context, wanted.hidden);
  if (wanted.hidden) wanted.hidden->back() = hidden;
  return hidden;
}

at::Tensor NetworkModel::head(const at::Tensor& hidden, const Facts& facts, Phase phase, const Adaptation* adaptation) const {
  at::NoGradGuard guard;
  const Streams random(0);
  const Context context{.facts = facts, .random = random, .phase = phase, .adaptation = adaptation};
  return model_.decoder->logits(hidden, context).to(at::kFloat);
}

at::Tensor last_rows(const Segments& segments) {
  std::vector<int64_t> last;
  for (int64_t s = 0; s < segments.count(); ++s) {
    check(segments.length(s) > 0, "infer.rows", "segment {} has no row whose logits could be given", s);
    last.push_back(segments.begin[static_cast<size_t>(s) + 1] - 1);
  }
  return at::tensor(last, at::kLong);
}

at::Tensor NetworkModel::logits(const at::Tensor& ids, const Facts& facts, Phase phase, StateStore* state, Rows rows,
                                const Wanted& wanted) const {
  return finish(hidden(ids, facts, phase, state, nullptr, wanted), facts, phase, rows, nullptr, wanted);
}

at::Tensor NetworkModel::finish(const at::Tensor& hidden, const Facts& facts, Phase phase, Rows rows, const Adaptation* adaptation,
                                const Wanted& wanted) const {
  const auto of_rows = [&](const at::Tensor& index) {
    return head(hidden.index_select(0, index), facts.take(index), phase, adaptation);
  };
  if (wanted.pieces == nullptr) return rows == Rows::all ? head(hidden, facts, phase, adaptation) : of_rows(last_rows(facts.segments));
  const at::Tensor& asked = wanted.pieces->rows;
  const int64_t most = std::max<int64_t>(1, kPieceElements / vocabulary());
  for (int64_t first = 0; first < asked.size(0); first += most)
    wanted.pieces->read(first, of_rows(asked.narrow(0, first, std::min(most, asked.size(0) - first))));
  return {};
}

bool NetworkModel::rows_stand_alone(Phase phase) const {
  return model_.decoder->reach(Context::none(), phase).unit != Reach::Unit::batch;
}

void NetworkModel::check_generation() const {
  const Reach reach = model_.decoder->reach(Context::none(), Phase::generate);
  check(!reach.future, "routing.generation",
        "this model cannot write token by token: {} looks at tokens that are not written yet", reach.because);
}

}  // namespace switchyard
