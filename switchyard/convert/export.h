// A model as a directory of a published family, which the ecosystem's libraries load. Exact or not at all: what the family
// cannot say is refused by name.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "switchyard/models/checkpoint.h"

namespace switchyard {

struct ExportOptions {
  std::string model_type;                 ///< "mixtral"; empty = whichever family has this composition
  std::optional<at::ScalarType> dtype;    ///< of the weights; unset = as they are
};

/// The config.json that says this composition exactly. Throws convert.export.option naming what stands in the way,
/// convert.export.family for an unknown family.
Node export_config(const Decoder& decoder, const std::string& model_type = {});

/// The same of a loaded model with the ids that begin and end its texts; without a model type, as what the model was read as, where
/// that has a name for it.
Node published_config(const LoadedModel& model, const std::string& model_type = {});

/// Writes config.json and the weights under the names of that config's family into an existing folder.
void save_published(const std::filesystem::path& folder, Node config, const Decoder& decoder, std::optional<at::ScalarType> dtype = {});

/// Puts what came with a model and says how text is read and written (tokenizer, chat templates, generation settings) into an
/// existing folder.
void save_text_files(const LoadedModel& model, const std::filesystem::path& folder);

/// Writes config.json, the weights under the family's names and the tokenizer files of `model.folder` into the new folder `out`;
/// returns the model type. Throws as export_config, and convert.export.exists when `out` is there and not empty.
std::string export_model(const LoadedModel& model, const std::filesystem::path& out, const ExportOptions& options = {});

}  // namespace switchyard
