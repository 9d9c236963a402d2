#include "switchyard/convert/rewrite.h"

#include <algorithm>
#include <array>

#include "switchyard/base/error.h"
#include "switchyard/base/files.h"
#include "switchyard/formats/quantised.h"

namespace switchyard {

namespace fs = std::filesystem;

namespace {

/// Everything beside the weights: config, tokenizer, templates, licence.
bool goes_along(const fs::path& file) {
  constexpr std::array kKinds{".json", ".jinja", ".model", ".txt", ".tiktoken", ".md", ""};
  const std::string name = file.filename().string();
  return !name.ends_with(".safetensors.index.json") && !name.ends_with(".bin.index.json") && !name.starts_with(".") &&
         std::find(kKinds.begin(), kKinds.end(), file.extension().string()) != kKinds.end();
}

}  // namespace

void rewrite_model(const LoadedModel& model, const fs::path& out) {
  check(!fs::exists(out) || (fs::is_directory(out) && fs::is_empty(out)), "convert.rewrite.exists", "{} is there already; choose a new folder",
        out.string());
  check(fs::is_directory(model.folder), "convert.rewrite.quantised", "{} is no folder of safetensors; only such models are written again",
        model.folder.string());
  const fs::path config_path = model.folder / "config.json";
  const Node config = parse_json(read_file(config_path, uint64_t{1} << 26), config_path.string());
  const Node* packed = config.find("quantization_config");
  check(packed == nullptr || packed->is_null(), "convert.rewrite.quantised",
        "{}: its weights are packed (quantization_config), and what is merged would not fit into the same codes", config_path.string());
  const std::unique_ptr<const WeightSource> file = open_weights(model.folder);
  NameMap map(model.decoder->schema());
  if (model.family) model.family->names(map, model.decoder->options(), [&](const std::string& name) { return file->has(name); });
  else map.rename_all();
  const NamedTensors tensors = map.collect();
  write_folder_atomically(out, [&](const fs::path& folder) {
    for (const auto& entry : fs::directory_iterator(model.folder))
      if (entry.is_regular_file() && goes_along(entry.path())) fs::copy_file(entry.path(), folder / entry.path().filename());
    write_safetensors_folder(folder, tensors);
  });
}

}  // namespace switchyard
