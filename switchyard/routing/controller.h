// State that a router keeps outside autograd: after an optimiser step a controller looks at what
// the step routed and writes the router's buffers.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "switchyard/contract/parameters.h"

namespace switchyard {

/// What one layer did during one optimiser step, summed over micro-batches.
struct StepLoad {
  at::Tensor engaged;   ///< [E] int64: pairs that chose each expert, dropped ones included
  at::Tensor admitted;  ///< [E] int64: pairs that were kept
  int64_t rows = 0;
  int64_t step = 0;     ///< optimiser steps taken before this one
};

class Controller {
 public:
  static constexpr const char* kInterface = "controller";
  virtual ~Controller() = default;
  /// `router` is the schema of the layer's router: controllers look buffers up by name
  /// (schema.prefix() + ".bias"); throws routing.controller when the router has none such.
  virtual void bind(const Schema& router) = 0;
  virtual void after_step(const StepLoad& load) = 0;
};

}  // namespace switchyard
