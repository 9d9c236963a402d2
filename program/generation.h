// What the verbs that write text share: their options, and opening the model.
#pragma once

#include <CLI/CLI.hpp>

#include <string>
#include <vector>

#include "switchyard/infer/generate.h"
#include "switchyard/infer/network_model.h"

namespace switchyard::program {

struct GenerationArguments {
  double temperature = 0.8, top_p = 0.95, min_p = 0;
  int64_t top_k = 0, seed = 0, max_tokens = 256;
  std::vector<std::string> stop, facts;
  std::string dtype;
};

void add_generation_options(CLI::App& app, GenerationArguments& arguments);
/// Throws program.usage for a fact that is not name=number.
GenerateOptions generate_options(const GenerationArguments& arguments);
/// dtype: empty = as stored.
NetworkModel open_model(const std::string& folder, const std::string& dtype);

}  // namespace switchyard::program
