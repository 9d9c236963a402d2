// A model on disk in Hugging Face layout: config.json, model.safetensors, tokenizer files. The config's
// key "switchyard" holds the model options, so that any composition is read back.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "switchyard/formats/tokenizer.h"
#include "switchyard/models/decoder.h"
#include "switchyard/models/families/family.h"

namespace switchyard {

struct LoadedModel {
  std::shared_ptr<Decoder> decoder;               ///< bound
  std::shared_ptr<const Tokenizer> tokenizer;     ///< null when the folder has none
  std::vector<int64_t> end_ids;                   ///< tokens that end a text, by generation_config.json, else by the config
  std::filesystem::path folder;
  std::shared_ptr<const Family> family;           ///< null for a model saved here
};

/// Writes config.json, model.safetensors and, when given, the tokenizer into an existing folder (which the caller makes
/// atomic). dtype: the weights' type on disk; unset = as they are.
void save_model(const std::filesystem::path& folder, const Decoder& decoder, const Tokenizer* tokenizer,
                std::optional<at::ScalarType> dtype = {});

/// A model folder, a checkpoint, or a run folder (then its newest complete checkpoint); ours, or one of a published family
/// (models/families/); or a GGUF file (any of a split set), or a folder that holds one. dtype: the weights' type in memory; unset = as stored, float32 where
/// they are packed. overrides: "mixtures.0.router.k=4", changes to the model's options as a recipe's `model` has them; the weights must
/// still fit. Throws model.folder, model.config, model.family, model.missing_tensor, model.unexpected_tensor,
/// model.tensor_shape, model.tensor_dtype, model.gguf, options.*, formats.*, with file and key or tensor named.
LoadedModel load_model(const std::filesystem::path& path, std::optional<at::ScalarType> dtype = {}, const std::vector<std::string>& overrides = {});

/// The type in which a published folder with tensors of several types is computed: float32 where its config says so; unset: as stored. Throws as
/// load_model does.
std::optional<at::ScalarType> type_of_mixed(const std::filesystem::path& path);

/// A float type as config.json spells it ("bfloat16"), and back; throws model.dtype.
std::string dtype_name(at::ScalarType type);
at::ScalarType dtype_named(const std::string& name);

/// The GGUF file that a path stands for: itself, or the one in a folder that is no model's or run's; else empty. Throws formats.gguf.several.
std::filesystem::path gguf_of(const std::filesystem::path& path);

/// RUN → RUN/checkpoints/step-N (newest complete), anything else → itself; throws model.folder.
std::filesystem::path model_folder(const std::filesystem::path& path);

}  // namespace switchyard
