// What generation, evaluation and serving need of a language model, whatever stands behind it: one
// network, an ensemble, a contrast of two passes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "switchyard/contract/context.h"
#include "switchyard/contract/record.h"
#include "switchyard/contract/state.h"
#include "switchyard/formats/tokenizer.h"

namespace switchyard {

/// What a caller wants besides logits; filled when not null.
struct Wanted {
  std::vector<at::Tensor>* hidden = nullptr;  ///< embedding, then every block's output [rows, D]; the last one after the final norm
  Records* records = nullptr;                 ///< routing decisions
};

class LanguageModel {
 public:
  virtual ~LanguageModel() = default;
  virtual int64_t vocabulary() const = 0;
  virtual int64_t context() const = 0;  ///< longest sequence, tokens
  virtual const Tokenizer* tokenizer() const = 0;
  virtual std::vector<int64_t> end_ids() const = 0;  ///< tokens that end a text; may be empty
  /// ids: [rows] int64 packed by facts.segments. Whole sequences: state = null. With a state the rows follow what it
  /// holds. Returns [rows, V] float32, or only the last row of each segment ([segments, V]).
  enum class Rows { all, last };
  virtual at::Tensor logits(const at::Tensor& ids, const Facts& facts, Phase phase, StateStore* state, Rows rows,
                            const Wanted& wanted = {}) const = 0;
  /// Refuses (routing.generation) when a layer has no rule for decoding token by token.
  virtual void check_generation() const = 0;
};

}  // namespace switchyard
