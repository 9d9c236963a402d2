// How a published model wants to be sampled: its folder's generation_config.json. Where it says something, that counts until the
// user says otherwise. (What ends a text is read with the model: LoadedModel::end_ids.)
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "switchyard/infer/generate.h"

namespace switchyard {

struct GenerationConfig {
  std::optional<double> temperature, top_p, min_p, typical, repetition_penalty;
  std::optional<int64_t> top_k, max_tokens;
  std::vector<std::string> stop;
  std::vector<std::string> ignored;  ///< keys that would change the text and are not supported

  /// Whether the file says how to draw; what it then leaves out is neutral.
  bool says_how_to_draw() const { return temperature || top_p || min_p || typical || top_k; }
  void apply(GenerateOptions& options) const;
};

/// Of a model folder; all empty where there is no such file. do_sample: false is temperature 0. Throws model.config.
GenerationConfig read_generation_config(const std::filesystem::path& folder);

}  // namespace switchyard
