// What training minimises. An objective owns its forwards: one, two with a consistency term, a teacher's; the scheme
// owns the step around it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "switchyard/contract/context.h"
#include "switchyard/contract/record.h"
#include "switchyard/data/batch.h"
#include "switchyard/models/decoder.h"

namespace switchyard {

/// One micro-batch's way through the model; gathers the records of all its passes.
class Runner {
 public:
  Runner(const Decoder& model, const Batch& batch, const Context& context) : model_(model), batch_(batch), base_(context) {}

  const Decoder& model() const { return model_; }
  const Batch& batch() const { return batch_; }
  /// The context of forward pass `pass` within the micro-batch.
  Context context(int64_t pass = 0);
  /// [rows, D] after the final norm.
  at::Tensor hidden(int64_t pass = 0);
  Records& records() { return records_; }

 private:
  const Decoder& model_;
  const Batch& batch_;
  const Context& base_;
  Records records_;
  RoutedStore routed_;
};

/// A micro-batch's loss before it is divided: the scheme divides by the whole step's count.
struct LossSum {
  at::Tensor sum;      ///< scalar, differentiable: over `batch.predicted` rows
  at::Tensor per_row;  ///< [rows] float32, detached; 0 where nothing is predicted
};

class Objective {
 public:
  static constexpr const char* kInterface = "objective";
  virtual ~Objective() = default;
  virtual const char* name() const = 0;  ///< of its term in metrics and messages: "cross-entropy"
  /// Whether a model that sees the following tokens (causal: false) may be trained with it.
  virtual bool sees_ahead() const { return false; }
  /// Whether `prepare` says what an encoder reads.
  virtual bool gives_source() const { return false; }
  /// The batch with what is hidden and what is predicted as the objective wants it; draws by the context's step and micro.
  virtual Batch prepare(Batch batch, const Decoder& model, const Context& context) const { return batch; }
  virtual LossSum loss(Runner& runner) const = 0;
};

}  // namespace switchyard
