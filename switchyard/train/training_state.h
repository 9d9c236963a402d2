// What resume needs beside the model: RUN/checkpoints/step-N/training/optimiser.safetensors and state.json.
#pragma once

#include <cstdint>
#include <filesystem>

#include "switchyard/data/data.h"
#include "switchyard/train/metrics.h"
#include "switchyard/train/optimiser.h"
#include "switchyard/train/train_options.h"

namespace switchyard {

struct TrainingState {
  int64_t step = 0;
  int64_t seed = 0;
  int64_t tokens = 0;      ///< predicted so far
  DataPosition position;
  Interval interval;       ///< since the last line of metrics
  ScheduleOptions schedule;
  int64_t steps = 0;       ///< that the schedule ran towards
};

/// Writes into the existing folder `training`.
void save_training_state(const std::filesystem::path& training, const TrainingState& state, const Optimiser& optimiser);
/// Fills the optimiser too. Throws train.state, file.missing, formats.safetensors.*.
TrainingState load_training_state(const std::filesystem::path& training, Optimiser& optimiser);

}  // namespace switchyard
