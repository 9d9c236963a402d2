#include "switchyard/convert/to_gguf.h"

#include <unistd.h>

#include "switchyard/base/error.h"
#include "switchyard/base/files.h"
#include "switchyard/convert/export.h"
#include "switchyard/formats/gguf.h"
#include "switchyard/formats/quantised.h"
#include "switchyard/formats/template/chat_template.h"
#include "switchyard/formats/tokenizers/gguf_vocabulary.h"
#include "switchyard/models/checkpoint.h"
#include "switchyard/models/families/gguf/file_view.h"

namespace switchyard {

namespace fs = std::filesystem;

namespace {

constexpr uint64_t kLargestConfig = uint64_t{1} << 26;

/// A folder that goes when this does.
struct Temporary {
  fs::path path;
  ~Temporary() {
    std::error_code ignored;
    if (!path.empty()) fs::remove_all(path, ignored);
  }
};

void put_templates(GgufMetadata& metadata, const fs::path& folder) {
  if (!ChatTemplates::present(folder)) return;
  std::vector<std::string> others;
  const ChatTemplates templates = ChatTemplates::load(folder);
  for (const auto& [name, chat_template] : templates.named()) {
    const bool main = name.empty() || name == "default";
    metadata.set(main ? std::string("tokenizer.chat_template") : "tokenizer.chat_template." + name, GgufValue::text(chat_template.source()));
    if (!main) others.push_back(name);
  }
  if (!others.empty()) metadata.set("tokenizer.chat_templates", GgufValue::texts(std::move(others)));
}

}  // namespace

ToGgufReport convert_to_gguf(const fs::path& in, const fs::path& out, const ToGgufOptions& options) {
  check(!fs::is_regular_file(in), "convert.gguf.input", "{} is a file; a model folder is needed{}", in.string(),
        in.extension() == ".gguf" ? " (convert quantize packs a GGUF file)" : "");
  check(!fs::exists(out), "convert.quantise.exists", "{} is there already; choose a new name", out.string());
  fs::path folder = model_folder(in);
  Node config = parse_json(read_file(folder / "config.json", kLargestConfig), (folder / "config.json").string());
  Temporary exported;
  if (config.is_map() && config.find("switchyard") != nullptr) {
    exported.path = out.string() + fmt::format(".export-{}", ::getpid());
    export_model(load_model(folder), exported.path);
    folder = exported.path;
    config = parse_json(read_file(folder / "config.json", kLargestConfig), (folder / "config.json").string());
  }

  GgufView view = gguf_view(config, open_weights(folder));
  view.metadata.set("general.name", GgufValue::text(options.name.empty() ? fs::absolute(in).lexically_normal().filename().string() : options.name));
  put_vocabulary(view.metadata, folder, config, view.notices);
  put_templates(view.metadata, folder);
  ToGgufReport report{.written = write_quantised(std::move(view.metadata), view.weights, out, options.pack), .notices = std::move(view.notices)};
  return report;
}

}  // namespace switchyard
