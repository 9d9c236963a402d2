#include "switchyard/inspect/description.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <fstream>
#include <set>

#include "switchyard/base/error.h"
#include "switchyard/base/files.h"
#include "switchyard/base/node.h"
#include "switchyard/formats/gguf.h"
#include "switchyard/formats/gguf_header.h"
#include "switchyard/formats/quantised.h"
#include "switchyard/formats/template/chat_template.h"
#include "switchyard/formats/tokenizer.h"
#include "switchyard/inspect/tokenizer_description.h"
#include "switchyard/kernels/codecs/block_codec.h"
#include "switchyard/models/checkpoint.h"
#include "switchyard/models/families/family.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using Keys = std::initializer_list<const char*>;

constexpr uint64_t kLargestConfig = uint64_t{1} << 26;

Node read_json(const fs::path& file) {
  check(fs::is_regular_file(file), "show.config", "{} is no regular file", file.string());
  Node config = parse_json(read_file(file, kLargestConfig), file.string());
  check(config.is_map(), "show.config", "{} is no JSON object", file.string());
  return config;
}

/// The whole number at a dotted path; of a list its first; none when there is none.
std::optional<int64_t> integer_at(const Node& config, std::string_view path) {
  const Node* node = &config;
  while (true) {
    const size_t dot = path.find('.');
    node = node->is_map() ? node->find(path.substr(0, dot)) : nullptr;
    if (!node) return {};
    if (dot == std::string_view::npos) break;
    path.remove_prefix(dot + 1);
  }
  while (node->is_list() && !node->items().empty()) node = &node->items().front();
  if (!node->is_scalar()) return {};
  const std::string& text = node->scalar();
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0) return {};
  return value;
}

/// Under the first of several names; models with other parts keep those of the text beneath text_config.
int64_t integer_of(const Node& config, Keys keys) {
  for (const char* prefix : {"", "text_config.", "language_config.", "llm_config."})
    for (const char* key : keys)
      if (const auto value = integer_at(config, std::string(prefix) + key)) return *value;
  return 0;
}

std::string text_of(const Node& config, std::string_view key) {
  const Node* node = config.find(key);
  return node && node->is_scalar() ? node->scalar() : std::string();
}

/// Parts of a tensor's name between dots.
std::vector<std::string_view> segments(std::string_view name) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t dot = name.find('.');
    parts.push_back(name.substr(0, dot));
    if (dot == std::string_view::npos) return parts;
    name.remove_prefix(dot + 1);
  }
}

constexpr int64_t kMostPlaces = 1 << 24;  ///< layers or experts that a name may count to

bool is_number(std::string_view text, int64_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && value >= 0 && value < kMostPlaces;
}

/// What a name says of a tensor's place.
struct Where {
  int64_t layer = -1;
  bool routed = false;       ///< belongs to experts among which a router chooses
  int64_t expert = -1;       ///< of one of them; -1 = of all, stacked
};

Where where(std::string_view name) {
  Where place;
  const std::vector<std::string_view> parts = segments(name);
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string_view part = parts[i];
    int64_t number = -1;
    const bool numbered = i + 1 < parts.size() && is_number(parts[i + 1], number);
    if (place.layer < 0 && numbered && (part == "layers" || part == "blk" || part == "h" || part == "blocks" || part == "layer" || part == "block"))
      place.layer = number;
    const bool named = part == "experts" || part == "local_experts" || part.find("_exps") != std::string_view::npos ||
                       ((part == "input_linear" || part == "output_linear") && i > 0 && parts[i - 1] == "block_sparse_moe");
    if (named && part.find("shared") == std::string_view::npos) {
      place.routed = true;
      if (numbered && part.find("_exps") == std::string_view::npos) place.expert = number;
    }
  }
  return place;
}

int64_t elements(const TensorInfo& tensor) {
  int64_t count = 1;
  for (int64_t extent : tensor.shape) count *= extent;
  return count;
}

bool is_tokenizer_file(const fs::path& file) {
  return file.filename() == "tokenizer.json" || file.extension() == ".model" || file.extension() == ".tiktoken";
}

bool is_buffer(const TensorInfo& tensor) {
  const bool whole = tensor.dtype.starts_with("I") || tensor.dtype.starts_with("U") || tensor.dtype == "BOOL";
  return whole && !tensor.dtype.starts_with("IQ");
}

void count(FileSummary& description) {
  std::map<int64_t, std::set<int64_t>> experts_of_layer;
  std::set<int64_t> moe_layers;
  int64_t layers = 0;
  for (const TensorInfo& tensor : description.tensors) {
    const Where place = where(tensor.name);
    layers = std::max(layers, place.layer + 1);
    if (!place.routed) continue;
    moe_layers.insert(place.layer);
    if (place.expert >= 0) experts_of_layer[place.layer].insert(place.expert);
  }
  if (description.layers == 0) description.layers = layers;
  description.moe_layers = static_cast<int64_t>(moe_layers.size());
  if (description.experts == 0)
    for (const auto& [layer, experts] : experts_of_layer)
      description.experts = std::max<int64_t>(description.experts, static_cast<int64_t>(experts.size()));
  int64_t routed = 0, active = 0;
  for (const TensorInfo& tensor : description.tensors) {
    DtypeShare& share = description.dtypes[tensor.dtype];
    const int64_t numbers = elements(tensor);
    ++share.tensors;
    share.bytes += tensor.bytes;
    if (is_buffer(tensor)) continue;  // token ids, counters: no parameters
    share.parameters += numbers;
    description.parameters += numbers;
    const Where place = where(tensor.name);
    if (!place.routed) {
      active += numbers;
      continue;
    }
    routed += numbers;
    const auto own = experts_of_layer.find(place.layer);
    const int64_t among = own == experts_of_layer.end() ? description.experts : static_cast<int64_t>(own->second.size());
    if (among > 0) active += static_cast<int64_t>(static_cast<double>(numbers) * static_cast<double>(std::min(description.experts_per_token, among)) / static_cast<double>(among) + 0.5);
  }
  if (routed == 0) description.active = description.parameters;
  else if (description.experts_per_token > 0 && description.experts > 0) description.active = active;
}

/// Bytes as a file's own numbers give them, however large those are.
uint64_t bytes_from(double bytes) { return bytes >= 1e19 ? UINT64_MAX : static_cast<uint64_t>(bytes); }

/// bytes_per_token: of keys and values in 16 bits; 0 = unknown.
void add_memory(FileSummary& description, uint64_t bytes_per_token) {
  uint64_t stored = 0, small = 0, matrices = 0;
  for (const TensorInfo& tensor : description.tensors) {
    stored += tensor.bytes;
    if (is_buffer(tensor)) continue;
    (tensor.shape.size() > 1 ? matrices : small) += static_cast<uint64_t>(elements(tensor));
  }
  const double state = static_cast<double>(bytes_per_token) * static_cast<double>(description.context);
  const auto add = [&](std::string format, double bits, uint64_t bytes) {
    description.memory.push_back({std::move(format), bits, bytes, state > 0 ? bytes_from(static_cast<double>(bytes) + state) : 0});
  };
  add("as stored", 0, stored);
  for (const char* name : {"F32", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q4_K", "MXFP4", "Q3_K", "Q2_K"}) {
    const BlockCodec* codec = block_codec_named(name);
    if (!codec) continue;
    const double bits = 8.0 * static_cast<double>(codec->bytes) / static_cast<double>(codec->length);
    add(name, bits, static_cast<uint64_t>(static_cast<double>(matrices) * bits / 8) + small * 4);
  }
}

uint64_t file_bytes(const fs::path& file) {
  std::error_code error;
  const uint64_t bytes = fs::file_size(file, error);
  return error ? 0 : bytes;
}

/// The folder's safetensors files; of a model only those that carry its weights, whatever else lies there.
void add_files(FileSummary& description, const fs::path& folder) {
  std::vector<fs::path> all, model;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() != ".safetensors") continue;
    all.push_back(entry.path());
    if (entry.path().filename().string().starts_with("model")) model.push_back(entry.path());
  }
  for (const fs::path& file : model.empty() ? all : model) {
    description.bytes += file_bytes(file);
    ++description.files;
  }
}

std::string scheme_of(const Node& quantisation) {
  std::string scheme = text_of(quantisation, "quant_method");
  if (scheme.empty()) scheme = "packed";
  if (const auto bits = integer_at(quantisation, "bits")) scheme += fmt::format(", {} bits", *bits);
  if (const auto group = integer_at(quantisation, "group_size")) scheme += fmt::format(", groups of {}", *group);
  const Node* block = quantisation.find("weight_block_size");
  if (block && block->is_list() && block->items().size() == 2)
    scheme += fmt::format(", blocks of {}×{}", block->items()[0].scalar(), block->items()[1].scalar());
  return scheme;
}

/// What our own config says of the first of its mixtures.
void read_own_options(FileSummary& description, const Node& options) {
  const auto set = [&](int64_t& into, std::string_view key) {
    if (const auto value = integer_at(options, key)) into = *value;
  };
  set(description.layers, "layers");
  set(description.width, "width");
  set(description.context, "context");
  set(description.vocabulary, "vocabulary");
  const Node* mixtures = options.find("mixtures");
  if (!mixtures || !mixtures->is_list() || mixtures->items().empty()) return;
  const Node& first = mixtures->items().front();
  if (!first.is_map()) return;
  if (const auto experts = integer_at(first, "experts")) description.experts = *experts;
  if (const auto k = integer_at(first, "router.k")) description.experts_per_token = *k;
  else if (first.find("router")) description.experts_per_token = 1;
}

/// Bytes of keys and values of a token, 16 bits each.
uint64_t read_config(FileSummary& description, const Node& config) {
  description.family = text_of(config, "model_type");
  description.family_known = !description.family.empty() && family_of(description.family) != nullptr;
  description.layers = integer_of(config, {"num_hidden_layers", "n_layer", "n_layers", "num_layers"});
  description.width = integer_of(config, {"hidden_size", "n_embd", "d_model"});
  description.heads = integer_of(config, {"num_attention_heads", "n_head", "n_heads"});
  description.key_value_heads = integer_of(config, {"num_key_value_heads", "attn_config.kv_n_heads", "num_kv_heads"});
  if (description.key_value_heads == 0) description.key_value_heads = description.heads;
  description.vocabulary = integer_of(config, {"vocab_size", "padded_vocab_size"});
  description.context = integer_of(config, {"max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length"});
  description.experts = integer_of(config, {"num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "ffn_config.moe_num_experts", "n_experts"});
  description.experts_per_token = integer_of(
      config, {"num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk", "moe_top_k", "ffn_config.moe_top_k", "top_k_experts", "num_selected_experts"});
  description.shared_experts = integer_of(config, {"n_shared_experts", "num_shared_experts", "num_shared_expert", "moe_num_shared_experts"});
  if (const Node* own = config.find("switchyard"); own && own->is_map()) {
    const Node* model = own->find("model");
    read_own_options(description, model && model->is_map() ? *model : *own);
    description.family_known = true;
  }
  if (const Node* quantisation = config.find("quantization_config"); quantisation && quantisation->is_map())
    description.quantisation = scheme_of(*quantisation);
  const auto layers = static_cast<double>(description.layers);
  if (const int64_t latent = integer_of(config, {"kv_lora_rank"}))
    return bytes_from(layers * 2 * (static_cast<double>(latent) + static_cast<double>(integer_of(config, {"qk_rope_head_dim"}))));
  int64_t head = integer_of(config, {"head_dim"});
  if (head == 0 && description.heads > 0) head = description.width / description.heads;
  return bytes_from(layers * 2 * 2 * static_cast<double>(description.key_value_heads) * static_cast<double>(head));
}

/// Throws what a loader would throw for a config that is damaged; one that is only not supported is told.
void check_config(FileSummary& description, const Node& config) {
  const auto read = [&] {
    if (const Node* own = config.find("switchyard")) {
      (void)read_options<ModelOptions>(*own);
    } else if (const std::shared_ptr<Family> family = description.family_known ? family_of(config) : nullptr) {
      (void)family->read(config, [&](const std::string& name) {
        return std::any_of(description.tensors.begin(), description.tensors.end(), [&](const TensorInfo& tensor) { return tensor.name == name; });
      });
    }
  };
  try {
    read();
  } catch (const Error& error) {
    const bool damaged = error.code() == "options.missing" || error.code() == "options.type" || error.code() == "options.range";
    if (damaged) throw;
    description.more.emplace_back("not loaded here", error.message());
  }
  check(description.experts == 0 || description.experts_per_token <= description.experts, "show.config",
        "{}: a token takes {} experts, but there are {}", config.where(), description.experts_per_token, description.experts);
}

FileSummary of_folder(const fs::path& folder) {
  FileSummary description{.kind = "model folder", .path = folder};
  uint64_t per_token = 0;
  Node config;
  if (fs::exists(folder / "config.json")) per_token = read_config(description, config = read_json(folder / "config.json"));
  add_files(description, folder);
  // An index whose files are not there is no model, and open_weights says so.
  if (description.files > 0 || fs::exists(folder / "model.safetensors.index.json")) description.tensors = open_weights(folder)->tensors();
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) description.has_tokenizer |= is_tokenizer_file(entry.path());
  description.has_chat_template = ChatTemplates::present(folder);
  if (config.is_map()) check_config(description, config);
  count(description);
  if (!description.tensors.empty()) add_memory(description, per_token);
  return description;
}

/// The tensors that packed parts stand for; the parts themselves where a shard does not hold all of a weight, or the config is absent
/// that says how they are packed.
std::vector<TensorInfo> unpacked(const fs::path& file, const std::vector<TensorInfo>& parts) {
  Node quantisation;
  if (const fs::path path = file.parent_path() / "config.json"; fs::exists(path)) {
    const Node config = read_json(path);
    if (const Node* found = config.find("quantization_config")) quantisation = *found;
  }
  try {
    const QuantisedWeights weights(Safetensors(file), quantisation);
    return weights.any() ? weights.tensors() : parts;
  } catch (const Error&) {
    return parts;
  }
}

FileSummary of_safetensors(const fs::path& file) {
  FileSummary description{.kind = "safetensors file", .path = file};
  const Safetensors tensors(file);
  description.tensors = unpacked(file, tensors.tensors());
  description.bytes = file_bytes(file);
  description.files = 1;
  for (const auto& [key, value] : tensors.metadata()) description.more.emplace_back("metadata " + key, value);
  // One shard says little of the whole; the config beside it says what the model is.
  if (fs::exists(file.parent_path() / "config.json")) {
    read_config(description, read_json(file.parent_path() / "config.json"));
    if (fs::exists(file.parent_path() / "model.safetensors.index.json"))
      description.more.emplace_back("part of", "a model in several files; show the folder to see all of it");
  }
  count(description);
  if (description.more.empty() || description.more.back().first != "part of") add_memory(description, 0);
  return description;
}

FileSummary of_gguf(const fs::path& file) {
  FileSummary description{.kind = "GGUF file", .path = file};
  const Gguf gguf(file);
  const GgufMetadata& metadata = gguf.metadata();
  description.tensors = gguf.tensors();
  const std::string architecture = metadata.text("general.architecture", "");
  description.family = architecture;
  const auto integer = [&](const std::string& key) -> int64_t {
    const GgufValue* value = metadata.find(architecture + "." + key);
    if (!value) return 0;
    if (value->type == GgufType::array) {
      const std::vector<int64_t> each = metadata.integers(architecture + "." + key);
      return each.empty() ? 0 : *std::max_element(each.begin(), each.end());
    }
    return metadata.integer(architecture + "." + key);
  };
  description.layers = integer("block_count");
  description.width = integer("embedding_length");
  description.heads = integer("attention.head_count");
  description.key_value_heads = integer("attention.head_count_kv");
  if (description.key_value_heads == 0) description.key_value_heads = description.heads;
  description.context = integer("context_length");
  description.experts = integer("expert_count");
  description.experts_per_token = integer("expert_used_count");
  description.shared_experts = integer("expert_shared_count");
  description.vocabulary = integer("vocab_size");
  if (metadata.has("tokenizer.ggml.tokens")) {
    description.has_tokenizer = true;
    if (description.vocabulary == 0) description.vocabulary = static_cast<int64_t>(metadata.texts("tokenizer.ggml.tokens").size());
    description.more.emplace_back("tokenizer model", metadata.text("tokenizer.ggml.model", "unknown"));
  }
  description.has_chat_template = metadata.has("tokenizer.chat_template");
  if (const std::string name = metadata.text("general.name", ""); !name.empty()) description.more.emplace_back("name", name);
  description.files = std::max<int64_t>(1, metadata.integer("split.count", 1));
  for (const TensorInfo& tensor : description.tensors) description.bytes += tensor.bytes;
  if (description.files == 1) description.bytes = file_bytes(file);
  count(description);
  std::string main;
  for (const auto& [dtype, share] : description.dtypes)
    if (main.empty() || share.parameters > description.dtypes[main].parameters) main = dtype;
  const BlockCodec* codec = main.empty() ? nullptr : block_codec_named(main);
  if (codec && !codec->plain())
    description.quantisation = fmt::format("{}, {:.4g} bits a weight", main, 8.0 * static_cast<double>(codec->bytes) / static_cast<double>(codec->length));
  double numbers = 0;  // of keys and values, a layer and token
  if (const int64_t latent = integer("attention.kv_lora_rank")) {
    numbers = static_cast<double>(latent) + static_cast<double>(integer("rope.dimension_count"));
  } else {
    const int64_t guessed = description.heads > 0 ? description.width / description.heads : 0;
    const int64_t keys = integer("attention.key_length"), values = integer("attention.value_length");
    numbers = static_cast<double>(description.key_value_heads) * (static_cast<double>(keys ? keys : guessed) + static_cast<double>(values ? values : guessed));
  }
  add_memory(description, bytes_from(static_cast<double>(description.layers) * 2 * numbers));
  return description;
}

std::string list_text(const Node& node) {
  if (node.is_scalar()) return node.scalar();
  std::string text;
  if (node.is_map())
    for (const auto& [name, value] : node.entries()) text += (text.empty() ? "" : ", ") + name;
  if (node.is_list())
    for (const Node& item : node.items())
      if (item.is_scalar()) text += (text.empty() ? "" : ", ") + item.scalar();
  return text;
}

FileSummary of_adapter(const fs::path& folder) {
  FileSummary description{.kind = "adapter", .path = folder};
  const Node config = read_json(folder / "adapter_config.json");
  description.family = text_of(config, "peft_type");
  for (const char* key : {"base_model_name_or_path", "task_type", "r", "lora_alpha", "use_rslora", "use_dora", "bias", "target_modules",
                          "target_parameters", "modules_to_save", "feedforward_modules", "adapters", "xlora_depth", "xlora_size", "top_k_lora"}) {
    const Node* value = config.find(key);
    const std::string text = value ? list_text(*value) : "";
    if (!text.empty() && text != "false" && text != "none") description.more.emplace_back(key, text);
  }
  add_files(description, folder);
  if (const fs::path file = folder / "adapter_model.safetensors"; fs::exists(file)) description.tensors = Safetensors(file).tensors();
  count(description);
  description.active.reset();
  description.layers = description.moe_layers = description.experts = 0;
  return description;
}

FileSummary of_tokenizer(const fs::path& file) {
  TokenizerDescription tokenizer = describe_tokenizer(file);
  try {
    (void)load_tokenizer(file);
  } catch (const Error& error) {
    if (error.code() != "tokenizer.unsupported") throw;
    tokenizer.more.emplace_back("not loaded here", error.message());
  }
  FileSummary description{.kind = "tokenizer", .path = file, .family = tokenizer.kind};
  description.bytes = file_bytes(file);
  description.files = 1;
  description.vocabulary = tokenizer.vocabulary;
  description.has_tokenizer = true;
  description.more = tokenizer.more;
  return description;
}

FileSummary of_template(const fs::path& file) {
  check(file_bytes(file) <= kLargestConfig, "show.unknown", "{} is too large for a chat template", file.string());
  const std::string text = read_file(file, kLargestConfig);
  (void)ChatTemplate::parse(text, file.string());
  FileSummary description{.kind = "chat template", .path = file, .bytes = text.size(), .files = 1, .has_chat_template = true};
  description.more.emplace_back("lines", std::to_string(std::count(text.begin(), text.end(), '\n') + 1));
  return description;
}

/// What a file begins with, whatever its name: "gguf", "safetensors", "json", "pickle" or nothing known.
std::string_view content_of(const fs::path& file) {
  std::array<char, 16> head{};
  std::ifstream input(file, std::ios::binary);
  input.read(head.data(), head.size());
  const std::string_view text(head.data(), static_cast<size_t>(input.gcount()));
  if (text.starts_with("GGUF")) return "gguf";
  if (text.starts_with(std::string_view("PK\x03\x04", 4)) || text.starts_with("\x80\x02")) return "pickle";
  uint64_t header = 0;
  if (text.size() > 8) std::memcpy(&header, text.data(), 8);
  if (text.size() > 8 && text[8] == '{' && header > 0 && header < file_bytes(file)) return "safetensors";
  const size_t first = text.find_first_not_of(" \t\r\n");
  return first != std::string_view::npos && text[first] == '{' ? "json" : "";
}

/// Files beside a model's weights that say nothing alone.
bool is_part_of_folder(const fs::path& file) {
  constexpr std::array<std::string_view, 15> kNames{
      "config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
      "chat_template.json", "chat_template.jinja", "vocab.json", "merges.txt", "vocab.txt", "quantize_config.json", "quant_config.json",
      "preprocessor_config.json", "processor_config.json", "README.md"};
  const std::string name = file.filename().string();
  return std::find(kNames.begin(), kNames.end(), name) != kNames.end() || name.ends_with(".index.json");
}

FileSummary of_file(const fs::path& path) {
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  const std::string extension = path.extension().string();
  const bool adapter = fs::exists(folder / "adapter_config.json");
  if (path.filename() == "adapter_config.json" || (adapter && path.filename() == "adapter_model.safetensors")) return of_adapter(folder);
  if (extension == ".safetensors") return of_safetensors(path);
  if (extension == ".gguf") return of_gguf(path);
  if (is_tokenizer_file(path)) return of_tokenizer(path);
  const bool alone = extension == ".jinja" && !fs::exists(folder / "config.json") && !fs::exists(folder / "tokenizer.json");
  if (alone) return of_template(path);
  if (is_part_of_folder(path)) return describe(folder);
  if (extension == ".jinja") return of_template(path);
  const std::string_view content = content_of(path);
  if (content == "gguf") return of_gguf(path);
  if (content == "safetensors") return of_safetensors(path);
  check(content != "pickle", "show.unknown", "{} holds pickled tensors, which are programs and are not read; convert them to safetensors", path.string());
  if (content == "json" && extension == ".json" && read_json(path).find("model") != nullptr) return of_tokenizer(path);
  fail("show.unknown", "{} is no file that a model is made of: .safetensors, .gguf, tokenizer.json, tokenizer.model, .tiktoken, config.json, .jinja",
       path.string());
}

}  // namespace

FileSummary describe(const fs::path& path) {
  check(fs::exists(path), "show.missing", "{} does not exist", path.string());
  if (!fs::is_directory(path)) {
    check(fs::is_regular_file(path), "show.unknown", "{} is no regular file", path.string());
    return of_file(path);
  }
  if (fs::exists(path / "adapter_config.json")) return of_adapter(path);
  if (fs::is_directory(path / "checkpoints") && !fs::exists(path / "config.json")) {
    FileSummary description = of_folder(model_folder(path));
    description.kind = "run";
    description.more.emplace_back("newest checkpoint", description.path.filename().string());
    return description;
  }
  std::vector<fs::path> tokenizers;
  bool safetensors = false;
  for (const fs::directory_entry& entry : fs::directory_iterator(path)) {
    if (is_tokenizer_file(entry.path())) tokenizers.push_back(entry.path());
    safetensors |= entry.path().extension() == ".safetensors" || entry.path().string().ends_with(".safetensors.index.json");
  }
  std::sort(tokenizers.begin(), tokenizers.end());
  if (safetensors || fs::exists(path / "config.json")) return of_folder(path);
  if (const fs::path file = gguf::file_in(path); !file.empty()) return of_gguf(file);
  if (!tokenizers.empty()) return of_tokenizer(tokenizers.front());
  fail("show.unknown", "{} holds neither a model (config.json, .safetensors, .gguf), nor an adapter, a tokenizer or a run", path.string());
}

}  // namespace switchyard
