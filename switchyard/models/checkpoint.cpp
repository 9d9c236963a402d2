#include "switchyard/models/checkpoint.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <future>

#include "switchyard/base/error.h"
#include "switchyard/base/files.h"
#include "switchyard/formats/gguf_header.h"
#include "switchyard/formats/quantised.h"
#include "switchyard/formats/tokenizers/gguf_vocabulary.h"
#include "switchyard/formats/tokenizers/pipeline.h"
#include "switchyard/models/families/composition.h"
#include "switchyard/models/families/family.h"
#include "switchyard/models/families/gguf/hub_view.h"

namespace switchyard {

namespace fs = std::filesystem;

namespace {

constexpr const char* kOurKey = "switchyard";
constexpr uint64_t kLargestConfig = uint64_t{1} << 26;

Node number(int64_t value) { return Node(std::to_string(value)); }

Node text(std::string value) {
  Node node(std::move(value));
  node.set_quoted(true);
  return node;
}

Node read_config(const fs::path& folder) {
  const fs::path path = folder / "config.json";
  check(fs::exists(path), "model.folder", "{} holds no config.json, so it is no model folder", folder.string());
  Node config = parse_json(read_file(path, kLargestConfig), path.string());
  check(config.is_map(), "model.config", "{} is no JSON object", path.string());
  return config;
}

/// Ids that end a text: eos_token_id, one or several.
std::vector<int64_t> end_ids(const Node& config) {
  const Node* entry = config.find("eos_token_id");
  if (entry == nullptr || entry->is_null()) return {};
  std::vector<int64_t> ids;
  const auto take = [&](const Node& node) {
    int64_t id = -1;
    const std::string& digits = node.scalar();
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), id);
    check(node.is_scalar() && error == std::errc() && end == digits.data() + digits.size() && id >= 0, "model.config",
          "{}: eos_token_id is no token id", node.where());
    ids.push_back(id);
  };
  if (entry->is_list()) for (const Node& item : entry->items()) take(item);
  else take(*entry);
  return ids;
}

/// What generation_config.json says ends a text; it is the later and wider word (the end of a turn beside the end of a document).
std::vector<int64_t> generation_end_ids(const fs::path& folder) {
  const fs::path path = folder / "generation_config.json";
  if (!fs::exists(path)) return {};
  const Node config = parse_json(read_file(path, kLargestConfig), path.string());
  check(config.is_map(), "model.config", "{} is no JSON object", path.string());
  return end_ids(config);
}

constexpr std::pair<const char*, at::ScalarType> kDtypes[]{
    {"float32", at::kFloat}, {"bfloat16", at::kBFloat16}, {"float16", at::kHalf}, {"float64", at::kDouble}};

}  // namespace

std::string dtype_name(at::ScalarType type) {
  for (const auto& [name, known] : kDtypes)
    if (known == type) return name;
  fail("model.dtype", "weights cannot be {}; they are float32, bfloat16, float16 or float64", c10::toString(type));
}

at::ScalarType dtype_named(const std::string& name) {
  for (const auto& [known, type] : kDtypes)
    if (known == name) return type;
  fail("model.dtype", "'{}' is no type of weights; they are float32, bfloat16, float16 or float64", name);
}

fs::path gguf_of(const fs::path& path) {
  if (fs::is_regular_file(path)) return is_gguf(path) ? path : fs::path();
  return !fs::is_directory(path) || fs::exists(path / "config.json") || fs::is_directory(path / "checkpoints") ? fs::path() : gguf::file_in(path);
}

fs::path model_folder(const fs::path& path) {
  check(fs::exists(path), "model.folder", "{} does not exist", path.string());
  check(fs::is_directory(path), "model.folder", "{} is a file, and no GGUF file; give the folder of a model or of a run", path.string());
  if (fs::exists(path / "config.json")) return path;
  const fs::path checkpoints = path / "checkpoints";
  check(fs::is_directory(checkpoints), "model.folder",
        "{} is neither a model folder (it has no config.json) nor a run folder (it has no checkpoints/)", path.string());
  // Checkpoints come to their final name whole, so one that has it is complete.
  fs::path newest;
  int64_t last = -1;
  for (const auto& entry : fs::directory_iterator(checkpoints)) {
    const std::string name = entry.path().filename().string();
    int64_t step = -1;
    if (!name.starts_with("step-")) continue;
    const auto [end, error] = std::from_chars(name.data() + 5, name.data() + name.size(), step);
    if (error != std::errc() || end != name.data() + name.size() || step <= last) continue;
    if (!fs::exists(entry.path() / "config.json")) continue;
    last = step;
    newest = entry.path();
  }
  check(!newest.empty(), "model.folder", "{} has no complete checkpoint yet; let the run train until it saves one", path.string());
  return newest;
}

void save_model(const fs::path& folder, const Decoder& decoder, const Tokenizer* tokenizer,
                std::optional<at::ScalarType> dtype) {
  const ModelOptions& options = decoder.options();
  NameMap map(decoder.schema());
  map.rename_all();
  const NamedTensors tensors = map.collect(dtype);
  const at::ScalarType stored = dtype.value_or(tensors.empty() ? at::kFloat : tensors.front().second.scalar_type());

  Node config = Node::map();
  config["architectures"].append(text("SwitchyardForCausalLM"));
  config["model_type"] = text(kOurKey);
  config["torch_dtype"] = text(dtype_name(stored));
  config["vocab_size"] = number(options.vocabulary);
  config["hidden_size"] = number(options.width);
  config["num_hidden_layers"] = number(options.layers);
  config["max_position_embeddings"] = number(options.context);
  config["tie_word_embeddings"] = Node(options.tied_embeddings ? "true" : "false");
  if (options.encoder) config["decoder_start_token_id"] = number(options.encoder->start_token);
  if (tokenizer != nullptr) {
    if (const auto id = tokenizer->begin_id()) config["bos_token_id"] = number(*id);
    if (const auto id = tokenizer->end_id()) config["eos_token_id"] = number(*id);
  }
  config[kOurKey] = written_out(options);

  write_file_atomically(folder / "config.json", to_json(config) + "\n");
  write_safetensors_folder(folder, tensors);
  if (tokenizer != nullptr) tokenizer->save(folder);
}

namespace {

/// A config that does not say how many heads have keys: libraries fall back on the number of one published model, whatever the weights
/// are; the weights say it, by the rows of a layer's keys beside the columns behind its heads.
void say_key_heads(Node& config, const WeightSource& weights) {
  Node* keys = config.find("text_config") && config.find("text_config")->is_map() ? &config["text_config"] : &config;
  const Node* heads = keys->find("num_attention_heads");
  int64_t count = 0;
  if (keys->find("num_key_value_heads") || !heads || !heads->is_scalar()) return;
  const std::string& digits = heads->scalar();
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), count);
  if (error != std::errc() || end != digits.data() + digits.size() || count < 1 || count > 1 << 20) return;
  constexpr std::string_view kKeys = ".k_proj.weight";
  const std::vector<TensorInfo>& all = weights.tensors();
  const auto key = std::find_if(all.begin(), all.end(), [&](const TensorInfo& t) { return t.name.ends_with(kKeys) && t.shape.size() == 2; });
  if (key == all.end()) return;
  const std::string output = key->name.substr(0, key->name.size() - kKeys.size()) + ".o_proj.weight";
  const auto behind = std::find_if(all.begin(), all.end(), [&](const TensorInfo& t) { return t.name == output && t.shape.size() == 2; });
  if (behind == all.end() || behind->shape[1] < count || behind->shape[1] % count != 0) return;
  const int64_t width = behind->shape[1] / count;
  if (key->shape[0] > 0 && key->shape[0] % width == 0) (*keys)["num_key_value_heads"] = number(key->shape[0] / width);
}

/// Where a model is, and what its user wants of it.
struct Wish {
  fs::path path;
  std::optional<at::ScalarType> dtype;
  std::vector<std::string> overrides;

  ModelOptions changed(ModelOptions options) const {
    if (overrides.empty()) return options;
    Node node = written_out(options);
    for (const std::string& each : overrides) apply_override(node, each);
    return read_options<ModelOptions>(node);
  }
};

/// Makes the decoder that a config describes and binds it to the weights.
void bind_model(LoadedModel& model, Node config, const WeightSource& weights, const Wish& wish) {
  const std::string where = model.folder.string();
  if (const Node* ours = config.find(kOurKey)) {
    model.decoder = std::make_shared<Decoder>(wish.changed(read_options<ModelOptions>(*ours)));
    NameMap map(model.decoder->schema());
    map.rename_all();
    map.bind(weights, where, wish.dtype);
    return;
  }
  const Node* type = config.find("model_type");
  const std::shared_ptr<Family> family = family_of(config);
  check(family != nullptr, "model.family", "{}: model_type {} is no family that can be read; these are: {}, and models saved here",
        config.where(), type && type->is_scalar() ? "'" + type->scalar() + "'" : "(none)", fmt::join(known_model_types(), ", "));
  say_key_heads(config, weights);
  const HasTensor has = [&](const std::string& name) { return weights.has(name); };
  const ModelOptions options = wish.changed(family->read(config, has));
  model.decoder = std::make_shared<Decoder>(options);
  model.family = family;
  NameMap map(model.decoder->schema());
  family->names(map, options, has);
  map.bind(weights, where, wish.dtype);
}

/// A model computes without its vocabulary: null for an error of these codes. A large vocabulary takes longer to read than weights that
/// stay in their file, so it is read beside them.
std::future<std::shared_ptr<const Tokenizer>> tokenizer_if_any(std::function<std::shared_ptr<const Tokenizer>()> load,
                                                               std::vector<std::string_view> codes) {
  return std::async(std::launch::async, [load = std::move(load), codes = std::move(codes)]() -> std::shared_ptr<const Tokenizer> {
    try {
      return load();
    } catch (const Error& error) {
      if (std::find(codes.begin(), codes.end(), error.code()) == codes.end()) throw;
      return nullptr;
    }
  });
}

LoadedModel load_gguf(const Wish& wish) {
  LoadedModel model;
  model.folder = wish.path;
  const auto file = std::make_shared<Gguf>(wish.path);
  auto tokenizer = tokenizer_if_any([file] { return make_tokenizer(parts_from_gguf(file->metadata())); },
                                    {"tokenizer.missing", "tokenizer.unsupported"});
  const HubView view = hub_view(file);
  bind_model(model, view.config, *view.weights, wish);
  model.end_ids = end_ids(view.config);
  model.tokenizer = tokenizer.get();
  file->forget_metadata();
  return model;
}

}  // namespace

LoadedModel load_model(const fs::path& path, std::optional<at::ScalarType> dtype, const std::vector<std::string>& overrides) {
  if (const fs::path file = gguf_of(path); !file.empty()) return load_gguf({file, dtype, overrides});
  LoadedModel model;
  model.folder = model_folder(path);
  const Node config = read_config(model.folder);
  auto tokenizer = tokenizer_if_any([folder = model.folder] { return load_tokenizer(folder); }, {"tokenizer.missing"});
  bind_model(model, config, *open_weights(model.folder), {model.folder, dtype, overrides});
  model.end_ids = generation_end_ids(model.folder);
  if (model.end_ids.empty()) model.end_ids = end_ids(config);
  model.tokenizer = tokenizer.get();
  return model;
}

std::optional<at::ScalarType> type_of_mixed(const fs::path& path) {
  if (!gguf_of(path).empty()) return std::nullopt;
  const fs::path folder = model_folder(path);
  const Node config = read_config(folder);
  const Node* said = config.find("dtype") ? config.find("dtype") : config.find("torch_dtype");
  if (config.find(kOurKey) || !said || !said->is_scalar() || said->scalar() != "float32") return std::nullopt;
  bool wide = false, narrow = false;
  for (const TensorInfo& info : open_weights(folder)->tensors()) {
    wide = wide || info.dtype == "F32";
    narrow = narrow || info.dtype == "BF16" || info.dtype == "F16";
  }
  return wide && narrow ? std::optional(at::kFloat) : std::nullopt;
}

}  // namespace switchyard
