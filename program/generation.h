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

/// How a model is opened. dtype: empty = as stored; activations: empty = exact.
struct ModelArguments {
  std::string dtype = {}, activations = {};
  std::vector<std::string> set = {};
  AdapterArguments adapters = {};
};

/// What is not given is as the model's generation_config.json says, else the program's own choice.
struct GenerationArguments : ModelArguments {
  std::optional<double> temperature, top_p, min_p, typical, repetition_penalty;
  std::optional<int64_t> top_k, max_tokens, prefill_rows;
  double presence_penalty = 0, frequency_penalty = 0;
  int64_t seed = 0;
  bool ignore_end = false;
  std::vector<std::string> stop, facts, logit_bias;
};

void add_generation_options(CommandLine& line, GenerationArguments& arguments);
/// Throws program.usage for a fact that is not name=number and a bias that is not token=number.
GenerateOptions generate_options(const GenerationArguments& arguments, const AdaptedModel& model);
void add_activations_option(CommandLine& line, std::string& activations);
void add_set_option(CommandLine& line, std::vector<std::string>& set);
/// The model with its adapters. Throws program.usage for words that say nothing.
std::shared_ptr<const AdaptedModel> open_model(const std::string& folder, const ModelArguments& arguments);
/// Since the process began, what the system did to start it included.
double seconds_since_start();

}  // namespace switchyard::program
