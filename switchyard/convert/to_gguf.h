// A model folder as one GGUF file: weights, config, tokenizer and chat template, as llama.cpp and its kin read them. Back again goes
// convert/export.h, which loads a GGUF file like any model.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "switchyard/convert/quantise.h"

namespace switchyard {

struct ToGgufOptions {
  QuantiseOptions pack{.type = "", .keep = {}};  ///< an empty type keeps every weight as it is
  std::string name;                              ///< general.name; empty = the folder's
};

struct ToGgufReport {
  QuantiseReport written;
  std::vector<std::string> notices;  ///< what other readers of the file will do otherwise
};

/// `in`: a folder of a published family, or a run or model of ours, which is exported first (so throws convert.export.* too). Throws
/// convert.gguf.* (models/families/gguf/file_view.h), convert.gguf.input for a GGUF file, convert.quantise.*, tokenizer.*, template.*,
/// formats.*. Nothing is quantised unless asked for: read back, every tensor and the config are equal bit for bit.
ToGgufReport convert_to_gguf(const std::filesystem::path& in, const std::filesystem::path& out, const ToGgufOptions& options = {});

}  // namespace switchyard
