// A model on disk in Hugging Face layout: config.json, model.safetensors, tokenizer files. The config's
// key "switchyard" holds the model options, so that any composition is read back.
#pragma once

#include <filesystem>
#include <memory>

#include "switchyard/formats/tokenizer.h"
#include "switchyard/models/decoder.h"

namespace switchyard {

struct LoadedModel {
  std::shared_ptr<Decoder> decoder;               ///< bound
  std::shared_ptr<const Tokenizer> tokenizer;     ///< null when the folder has none
  std::filesystem::path folder;
};

/// Writes config.json, model.safetensors and, when given, the tokenizer into an existing folder (which the caller makes
/// atomic). dtype: the weights' type on disk; undefined = as they are.
void save_model(const std::filesystem::path& folder, const Decoder& decoder, const Tokenizer* tokenizer,
                std::optional<at::ScalarType> dtype = {});

/// A model folder, a checkpoint, or a run folder (then its newest complete checkpoint). Throws model.folder, model.config,
/// model.missing_tensor, model.unexpected_tensor, parameters.shape, with file and tensor named.
LoadedModel load_model(const std::filesystem::path& path, std::optional<at::ScalarType> dtype = {});

/// RUN → RUN/checkpoints/step-N (newest complete), anything else → itself; throws model.folder.
std::filesystem::path model_folder(const std::filesystem::path& path);

}  // namespace switchyard
