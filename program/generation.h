// What the verbs that write text share: their options, and opening the model.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "program/adapters.h"
#include "program/command_line.h"
#include "switchyard/infer/generate.h"

namespace switchyard::program {

/// What is not given is as the model's generation_config.json says, else the program's own choice.
struct GenerationArguments {
  std::optional<double> temperature, top_p, min_p, typical, repetition_penalty;
  std::optional<int64_t> top_k, max_tokens;
  double presence_penalty = 0, frequency_penalty = 0;
  int64_t seed = 0;
  bool ignore_end = false;
  std::vector<std::string> stop, facts, logit_bias;
  std::string dtype, activations;
  AdapterArguments adapters;
};

void add_generation_options(CommandLine& line, GenerationArguments& arguments);
/// Throws program.usage for a fact that is not name=number and a bias that is not token=number.
GenerateOptions generate_options(const GenerationArguments& arguments, const AdaptedModel& model);
void add_activations_option(CommandLine& line, std::string& activations);
/// The model with its adapters. dtype: empty = as stored; activations: empty = exact. Throws program.usage for other words.
std::shared_ptr<const AdaptedModel> open_model(const std::string& folder, const std::string& dtype, const AdapterArguments& adapters = {},
                                               const std::string& activations = {});
/// Since the process began, what the system did to start it included.
double seconds_since_start();

}  // namespace switchyard::program
