// The recipe: one YAML file that says what is composed, on which data, trained how.
#pragma once

#include <string>
#include <vector>

#include "switchyard/base/options.h"
#include "switchyard/data/data.h"
#include "switchyard/formats/tokenizer.h"
#include "switchyard/models/model_options.h"
#include "switchyard/train/train_options.h"

namespace switchyard {

struct Recipe {
  std::string output;             ///< run folder; empty = runs/<file name without .yaml>
  int64_t seed = 1;
  std::string from;               ///< model that training begins from: a folder, a GGUF file or a run; empty = `model`, freshly drawn
  std::vector<std::string> set;   ///< KEY=VALUE: options of that model that are others
  TokenizerOptions tokenizer;
  DataOptions data;
  ModelOptions model;
  TrainOptions train;
  static void describe(Fields<Recipe>& f);
};

/// Reads a recipe with its includes and `key=value` overrides; throws yaml.* and options.* with file and line, and
/// train.from for a recipe that both takes its model and describes one, or changes one that it does not take.
Recipe load_recipe(const std::string& path, const std::vector<std::string>& overrides = {});

}  // namespace switchyard
