// Adapters on the command line: --adapter DIR or DIR=WEIGHT, several times.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "program/command_line.h"
#include "switchyard/formats/peft/adapter_file.h"
#include "switchyard/infer/adapted_model.h"

namespace switchyard::program {

struct AdapterArguments {
  std::vector<std::string> adapters, experts;
};

/// --adapter and --expert.
void add_adapter_options(CommandLine& line, AdapterArguments& arguments);
/// "folder" or "folder=0.5"; a folder that is there under the whole word is taken as it stands. Throws program.usage.
std::pair<std::string, double> adapter_and_weight(const std::string& word);
/// Reads what --adapter and --expert name; throws program.usage for an expert that is not NAME=DIR.
std::vector<std::pair<peft::AdapterFile, double>> read_adapters(const AdapterArguments& arguments);
/// Loads them all into `model` and returns them as a pass uses them together. Names are those of the folders.
std::vector<ActiveAdapter> load_adapters(AdapterSet& set, const std::vector<std::pair<peft::AdapterFile, double>>& adapters);
/// The model uses all of them together, or the one X-LoRA among them. Throws adapters.kind for an X-LoRA with a weight.
void use_adapters(AdaptedModel& model, const AdapterArguments& arguments);

}  // namespace switchyard::program
