// What the verbs that write text share: their options, and opening the model.
#pragma once

#include <CLI/CLI.hpp>

#include <memory>
#include <string>
#include <vector>

#include "program/adapters.h"
#include "switchyard/infer/generate.h"

namespace switchyard::program {

struct GenerationArguments {
  double temperature = 0.8, top_p = 0.95, min_p = 0;
  int64_t top_k = 0, seed = 0, max_tokens = 256;
  std::vector<std::string> stop, facts;
  std::string dtype;
  AdapterArguments adapters;
};

void add_generation_options(CLI::App& app, GenerationArguments& arguments);
/// Throws program.usage for a fact that is not name=number.
GenerateOptions generate_options(const GenerationArguments& arguments);
/// The model with its adapters. dtype: empty = as stored.
std::shared_ptr<const AdaptedModel> open_model(const std::string& folder, const std::string& dtype,
                                               const AdapterArguments& adapters = {});

}  // namespace switchyard::program
