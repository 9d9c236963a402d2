// Who owns a training step. The default is end to end: forward, routing losses, backward, clip, AdamW, controllers;
// schemes that alternate, freeze, grow or distil write another step from the same pieces (train/trainer.h).
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "switchyard/train/step_load.h"

namespace switchyard {

class Trainer;

/// What a step leaves for metrics.
struct StepResult {
  double loss = 0;                                     ///< the objective a predicted token
  std::vector<std::pair<std::string, double>> terms;   ///< routing losses by slug, without their coefficient
  int64_t tokens = 0;                                  ///< predicted
  double gradient_norm = 0;                            ///< before clipping
  std::vector<LayerLoad> loads;
};

class Scheme {
 public:
  static constexpr const char* kInterface = "scheme";
  virtual ~Scheme() = default;
  /// One optimiser step; throws train.not_finite before anything is changed.
  virtual StepResult step(Trainer& trainer) = 0;
};

}  // namespace switchyard
