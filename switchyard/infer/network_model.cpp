#include "switchyard/infer/network_model.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <map>
#include <optional>

#include "switchyard/base/error.h"

namespace switchyard {

/// Logits held at once when they are read in pieces: 64 MiB.
static constexpr int64_t kPieceElements = int64_t{1} << 24;

namespace {

/// Weights of several types compute in one: in that of nearly all numbers (a few norms or routers may be wider), else in the widest,
/// which loses none. Few beside packed weights take the type of these, whose rows they meet.
void settle_type(const Schema& schema) {
  std::map<at::ScalarType, int64_t> numbers;
  int64_t all = 0, packed = 0;
  std::optional<at::ScalarType> packed_type;
  const auto weighs = [](const Parameter& p) { return !p.packed() && p.bound() && !p.spec().buffer && !p.spec().dtype; };
  for (const Parameter& parameter : schema.all()) {
    if (parameter.packed()) {
      packed_type = parameter.packed()->type();
      packed += parameter.count();
    } else if (weighs(parameter)) {
      numbers[parameter.tensor().scalar_type()] += parameter.count();
      all += parameter.count();
    }
  }
  const bool few = all < packed / 9;
  if (numbers.empty() || (numbers.size() < 2 && !few)) return;
  at::ScalarType type = numbers.begin()->first;
  for (const auto& [each, count] : numbers) type = c10::promoteTypes(type, each);
  for (const auto& [each, count] : numbers)
    if (count > all / 10 * 9) type = each;
  if (few) type = *packed_type;
  const at::NoGradGuard guard;
  for (const Parameter& parameter : schema.all())
    if (weighs(parameter) && parameter.tensor().scalar_type() != type) parameter.bind(parameter.tensor().detach().to(type));
}

}  // namespace

NetworkModel::NetworkModel(LoadedModel model) : model_(std::move(model)) {
  check(model_.decoder != nullptr, "infer.model", "a language model needs a decoder");
  settle_type(model_.decoder->schema());
  const Reach reach = model_.decoder->reach(Context::none(), Phase::generate);
  again_ = reach.unit == Reach::Unit::sequence && !reach.future;
}

int64_t NetworkModel::vocabulary() const { return model_.decoder->options().outputs(); }
int64_t NetworkModel::context() const { return model_.decoder->options().context; }

std::vector<int64_t> NetworkModel::end_ids() const {
  if (!model_.end_ids.empty() || model_.tokenizer == nullptr) return model_.end_ids;
  const std::optional<int64_t> id = model_.tokenizer->end_id();
  return id ? std::vector<int64_t>{*id} : std::vector<int64_t>{};
}

std::optional<int64_t> NetworkModel::start_id() const {
  const auto& encoder = model_.decoder->options().encoder;
  return encoder ? std::optional(encoder->start_token) : std::nullopt;
}

Memory NetworkModel::encode(const at::Tensor& ids, const Facts& facts, const Adaptation* adaptation, const Wanted& wanted) const {
  at::NoGradGuard guard;
  const Streams random(0);
  RoutedStore routed;
  const Context context{.facts = facts, .random = random, .phase = Phase::evaluate, .records = wanted.records, .routed = &routed,
                        .adaptation = adaptation};
  Memory memory = model_.decoder->encode(ids, context, wanted.hidden);
  if (wanted.hidden) wanted.hidden->back() = memory.rows;
  return memory;
}

namespace {

constexpr const char* kAllTokens = "computed again: token_id";

}  // namespace

at::Tensor NetworkModel::hidden_again(const at::Tensor& ids, const Facts& facts, StateStore& state, const Adaptation* adaptation) const {
  const Segments& segments = facts.segments;
  std::vector<at::Tensor> rows;
  for (int64_t s = 0; s < segments.count(); ++s) {  // one by one: what is written beside a sequence takes none of its places
    const int64_t length = segments.length(s), sequence = segments.sequence_of(s);
    if (length == 0) continue;
    const at::Tensor all = state.append(kAllTokens, sequence, ids.narrow(0, segments.begin[static_cast<size_t>(s)], length));
    Facts whole(Segments::single(all.size(0)));
    if (model_.decoder->encodes()) {
      if (facts.has(kMemory)) {
        const at::Tensor known = facts.segment(kMemoryLength, "generation");
        state.put(kMemory, sequence, facts.segment(kMemory, "generation")[s].narrow(0, 0, known[s].item<int64_t>()));
      }
      const at::Tensor encoded = state.get(kMemory, sequence);
      check(encoded.defined(), "facts.missing", "sequence {} begins without the rows that the encoder gave for it", sequence);
      set_memory(whole, {encoded, Segments::single(encoded.size(0), false)});
    }
    rows.push_back(hidden(all, whole, Phase::evaluate, nullptr, adaptation).narrow(0, all.size(0) - length, length));
  }
  return rows.size() == 1 ? rows[0] : at::cat(rows, 0);
}

at::Tensor NetworkModel::hidden(const at::Tensor& ids, const Facts& facts, Phase phase, StateStore* state,
                                const Adaptation* adaptation, const Wanted& wanted) const {
  at::NoGradGuard guard;
  if (state != nullptr && again_) return hidden_again(ids, facts, *state, adaptation);
  const Streams random(0);  // nothing is drawn outside training but what a method fixes by its own seed
  RoutedStore routed;
  const Context context{.facts = facts, .random = random, .phase = phase, .records = wanted.records, .routed = &routed,
                        .state = state, .adaptation = adaptation};
  at::Tensor hidden = model_.decoder->forward(ids, context, wanted.hidden);
  if (wanted.hidden && model_.decoder->context_rows() == 0) wanted.hidden->back() = hidden;
  return hidden;
}

at::Tensor NetworkModel::head(const at::Tensor& hidden, const Facts& facts, Phase phase, const Adaptation* adaptation) const {
  at::NoGradGuard guard;
  const Streams random(0);
  const Context context{.facts = facts, .random = random, .phase = phase, .adaptation = adaptation};
  return model_.decoder->logits(hidden, context).to(at::kFloat);
}

at::Tensor end_rows(const Segments& segments, LanguageModel::Rows rows) {
  std::vector<int64_t> ends;
  for (int64_t s = 0; s < segments.count(); ++s) {
    check(segments.length(s) > 0, "infer.rows", "segment {} has no row whose logits could be given", s);
    ends.push_back(rows == LanguageModel::Rows::first ? segments.begin[static_cast<size_t>(s)] : segments.begin[static_cast<size_t>(s) + 1] - 1);
  }
  return at::tensor(ends, at::kLong);
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
  if (wanted.pieces == nullptr) return rows == Rows::all ? head(hidden, facts, phase, adaptation) : of_rows(end_rows(facts.segments, rows));
  const at::Tensor& asked = wanted.pieces->rows;
  const int64_t most = std::max<int64_t>(1, kPieceElements / vocabulary());
  for (int64_t first = 0; first < asked.size(0); first += most)
    wanted.pieces->read(first, of_rows(asked.narrow(0, first, std::min(most, asked.size(0) - first))));
  return {};
}

bool NetworkModel::rows_stand_alone(Phase phase) const {
  return model_.decoder->reach(Context::none(), phase).unit != Reach::Unit::batch;
}

bool NetworkModel::reads_in_pieces() const {
  // These scalings go by the length that a sequence has reached at the end of a pass.
  const RotaryScaling& scaling = model_.decoder->options().rope_scaling;
  const bool by_length = scaling.kind == RotaryScaling::Kind::longrope || (scaling.kind == RotaryScaling::Kind::dynamic && scaling.alpha == 0);
  return !by_length && model_.decoder->reach(Context::none(), Phase::generate).unit == Reach::Unit::row;
}

void NetworkModel::check_generation() const {
  const Reach reach = model_.decoder->reach(Context::none(), Phase::generate);
  check(!reach.future, "routing.generation",
        "this model cannot write token by token: {} looks at tokens that are not written yet", reach.because);
  check(model_.decoder->options().classes == 0, "routing.generation", "this model names classes of sequences; it cannot write");
}

}  // namespace switchyard
