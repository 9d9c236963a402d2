// What generation, evaluation and serving need of a language model, whatever stands behind it: one
// network, an ensemble, a contrast of two passes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "switchyard/base/error.h"
#include "switchyard/blocks/memory.h"
#include "switchyard/contract/context.h"
#include "switchyard/contract/record.h"
#include "switchyard/contract/state.h"
#include "switchyard/formats/tokenizer.h"

namespace switchyard {

/// Logits row by row without ever holding them all: vocabularies are large, and a likelihood needs one number of each row.
struct LogitsPieces {
  at::Tensor rows;  ///< [n] int64 ascending: of the pass
  /// first: place within `rows` of the first row of logits [m, V] float32.
  std::function<void(int64_t first, const at::Tensor& logits)> read;
};

/// What a caller wants besides logits; filled when not null.
struct Wanted {
  std::vector<at::Tensor>* hidden = nullptr;  ///< embedding, then every block's output [rows, D]; the last one after the final norm
  Records* records = nullptr;                 ///< routing decisions
  const LogitsPieces* pieces = nullptr;       ///< logits go there piece by piece, and none are returned
};

class LanguageModel {
 public:
  virtual ~LanguageModel() = default;
  virtual int64_t vocabulary() const = 0;
  virtual int64_t context() const = 0;  ///< longest sequence, tokens
  virtual const Tokenizer* tokenizer() const = 0;
  virtual std::vector<int64_t> end_ids() const = 0;  ///< tokens that end a text; may be empty
  virtual bool names_classes() const { return false; }  ///< logits are classes of sequences, by their first rows
  virtual int64_t image_rows() const { return 0; }      ///< rows of an image; 0 = the model reads tokens
  /// The token that a decoder behind an encoder begins with; unset = there is no encoder, and prompts are continued.
  virtual std::optional<int64_t> start_id() const { return {}; }
  /// ids: [rows] int64 packed by facts.segments → the encoder's rows of those sequences, which `logits` needs among its facts
  /// (set_memory) for sequences that a state does not hold yet. Throws model.encoder when there is no encoder.
  virtual Memory encode(const at::Tensor& ids, const Facts& facts, const Wanted& wanted = {}) const;
  /// ids: [rows] int64 packed by facts.segments, or images (Decoder::forward). Whole sequences: state = null. With a state the rows
  /// follow what it holds. Returns [rows, V] float32, or only the first or last row of each segment ([segments, V]).
  enum class Rows { all, first, last };
  virtual at::Tensor logits(const at::Tensor& ids, const Facts& facts, Phase phase, StateStore* state, Rows rows,
                            const Wanted& wanted = {}) const = 0;
  /// Whether a sequence gives the same beside others as alone; not where the sequences of a batch compete for places.
  virtual bool rows_stand_alone(Phase) const { return true; }
  /// Whether a prompt gives the same, but for rounding, where a state holds its beginning and the rest comes in further passes; not where a
  /// row's result depends on how long its pass is.
  virtual bool reads_in_pieces() const { return false; }
  /// Refuses (routing.generation) when a layer has no rule for decoding token by token.
  virtual void check_generation() const = 0;
};

inline Memory LanguageModel::encode(const at::Tensor&, const Facts&, const Wanted&) const {
  fail("model.encoder", "this model has no encoder");
}

}  // namespace switchyard
