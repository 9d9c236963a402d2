// A model folder written again as it is, with the weights that the model holds now: the same config, names, layout and other files.
#pragma once

#include <filesystem>

#include "switchyard/models/checkpoint.h"

namespace switchyard {

/// `model` was loaded from its folder and may have been changed since (adapters merged, values edited). Throws
/// convert.rewrite.exists when `out` is there already, convert.rewrite.quantised when the folder's weights are packed, file.write.
void rewrite_model(const LoadedModel& model, const std::filesystem::path& out);

}  // namespace switchyard
