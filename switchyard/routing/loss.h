// Routing losses run after the forward, over records: `summarise` turns one record into a small
// tensor, `finish` the summaries of its scope into a scalar. Sums over micro-batches and ranks go
// between the two.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "switchyard/base/options.h"
#include "switchyard/contract/record.h"

namespace switchyard {

/// What `finish` is given at once.
enum class LossScope {
  layer,  ///< each layer by itself; the results are added (Switch, GShard, DeepSeek)
  model,  ///< all layers of a pass together (Mixtral's and OLMoE's published loss)
};

/// What the forward led to, for losses that reward routing by its result.
struct Outcome {
  at::Tensor loss_per_row;  ///< [rows], detached; undefined when there is none
};

class RoutingLoss {
 public:
  static constexpr const char* kInterface = "loss";
  virtual ~RoutingLoss() = default;
  virtual LossScope scope() const { return LossScope::layer; }
  /// Multiplies the result.
  virtual double coefficient() const = 0;
  /// Undefined when this record has nothing for this loss.
  virtual at::Tensor summarise(const Record& record, const Context& context) const = 0;
  virtual at::Tensor finish(const std::vector<at::Tensor>& summaries, const Outcome& outcome) const = 0;
};

}  // namespace switchyard
