// One decoder as a language model.
#pragma once

#include <memory>

#include "switchyard/infer/language_model.h"
#include "switchyard/models/checkpoint.h"

namespace switchyard {

/// [segments] int64: the first or last row of each; throws infer.rows for a segment without rows.
at::Tensor end_rows(const Segments& segments, LanguageModel::Rows rows);

class NetworkModel : public LanguageModel {
 public:
  /// The model must be bound; it may be shared with a trainer.
  explicit NetworkModel(LoadedModel model);

  int64_t vocabulary() const override;
  int64_t context() const override;
  const Tokenizer* tokenizer() const override { return model_.tokenizer.get(); }
  std::vector<int64_t> end_ids() const override;
  bool names_classes() const override { return model_.decoder->options().classes > 0; }
  int64_t image_rows() const override { return model_.decoder->context_rows(); }
  std::optional<int64_t> start_id() const override;
  Memory encode(const at::Tensor& ids, const Facts& facts, const Wanted& wanted = {}) const override { return encode(ids, facts, nullptr, wanted); }
  Memory encode(const at::Tensor& ids, const Facts& facts, const Adaptation* adaptation, const Wanted& wanted) const;
  /// Throws infer.rows when `last` is asked of a segment without rows; records no gradient.
  at::Tensor logits(const at::Tensor& ids, const Facts& facts, Phase phase, StateStore* state, Rows rows,
                    const Wanted& wanted = {}) const override;
  bool rows_stand_alone(Phase phase) const override;
  bool reads_in_pieces() const override;
  void check_generation() const override;
  /// The two halves of `logits`, with adapters acting on the pass: [rows, D] after the final norm, then [rows, V] float32 of rows.
  /// Where tokens compete with earlier ones in generation (PlacesInGeneration::whole), a state holds the tokens, and each sequence is
  /// computed again from its first.
  at::Tensor hidden(const at::Tensor& ids, const Facts& facts, Phase phase, StateStore* state, const Adaptation* adaptation,
                    const Wanted& wanted = {}) const;
  at::Tensor head(const at::Tensor& hidden, const Facts& facts, Phase phase, const Adaptation* adaptation) const;
  /// What `logits` returns of a pass's hidden rows: those asked for, or an undefined tensor after they were read in pieces.
  at::Tensor finish(const at::Tensor& hidden, const Facts& facts, Phase phase, Rows rows, const Adaptation* adaptation,
                    const Wanted& wanted) const;
  const LoadedModel& loaded() const { return model_; }
  const Decoder& decoder() const { return *model_.decoder; }

 private:
  at::Tensor hidden_again(const at::Tensor& ids, const Facts& facts, StateStore& state, const Adaptation* adaptation) const;
  LoadedModel model_;
  bool again_;  ///< generation computes sequences again
};

}  // namespace switchyard
