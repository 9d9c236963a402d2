// A training run from a recipe to its folder (train/run_folder.h): prepares tokenizer and data, runs steps, keeps
// metrics and checkpoints, and can go on from any of them bit for bit.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "switchyard/train/recipe.h"

namespace switchyard {

struct RunResult {
  std::filesystem::path folder;
  int64_t step = 0, steps = 0;
  bool interrupted = false;   ///< Ctrl-C: a checkpoint was written at `step`
  double loss = 0;            ///< of the last line of metrics
  double held_out = 0;        ///< of the last evaluation; 0 when there was none
  int64_t parameters = 0, active_parameters = 0;
};

/// A model that the recipe takes `from` elsewhere is saved as checkpoint 0 before the first step, in its family's layout like those that
/// follow; nothing else is ever read of its folder. Throws train.run_exists when the output folder holds a run, train.output when it holds
/// something else, file.locked; of a model from elsewhere train.tokenizer, train.vocabulary, train.sequence, and as load_model.
RunResult train(Recipe recipe);

/// Goes on from the newest checkpoint (from the beginning when there is none). Overrides may touch `train.` only, and not its losses and
/// controllers: model, data and seed stay. Throws train.no_run, train.override, train.checkpoint, file.locked.
RunResult resume(const std::filesystem::path& folder, const std::vector<std::string>& overrides = {});

}  // namespace switchyard
