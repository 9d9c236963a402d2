#include "switchyard/convert/export.h"

#include <ATen/ops/empty.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <optional>
#include <set>

#include "switchyard/base/error.h"
#include "switchyard/base/files.h"
#include "switchyard/convert/fold.h"
#include "switchyard/formats/gguf.h"
#include "switchyard/formats/quantised_layouts.h"
#include "switchyard/formats/template/chat_template.h"
#include "switchyard/kernels/packed_weight.h"
#include "switchyard/models/families/composition.h"
#include "switchyard/models/families/family.h"
#include "switchyard/models/families/gguf/hub_view.h"
#include "switchyard/models/families/hub_keys.h"

namespace switchyard {

namespace fs = std::filesystem;

namespace {

constexpr uint64_t kLargestConfig = uint64_t{1} << 26;

/// Files that go along unchanged, as do all that end in .tiktoken.
constexpr std::array kTextFiles{
    "tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "tiktoken.model", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "vocab.txt", "chat_template.jinja", "chat_template.json",
    "generation_config.json", "preprocessor_config.json"};
constexpr const char* kMoreTemplates = "additional_chat_templates";

/// Keys that only training and book-keeping read. They go along where a model is written as what it was read as.
constexpr std::array kTrainingKeys{
    "attention_dropout", "hidden_dropout", "dropout", "embd_pdrop", "resid_pdrop", "attn_pdrop", "hidden_dropout_prob", "attention_probs_dropout_prob",
    "output_router_logits", "router_aux_loss_coef", "router_z_loss_coef", "router_jitter_noise", "aux_loss_alpha", "seq_aux", "initializer_range",
    "use_cache", "sep_token_id", "cls_token_id"};

/// Model types whose code came with their weights: where another one says the same, everybody reads that.
constexpr std::array kOwnCode{"arctic", "deepseek", "grok-1", "llama_moe", "minimax_text_01", "openmoe", "skywork", "yuan"};

bool has_own_code(const std::string& model_type) {
  return std::find(kOwnCode.begin(), kOwnCode.end(), model_type) != kOwnCode.end();
}

/// A family's attempt to say a composition.
struct Attempt {
  std::string family;
  Node config;
  size_t count = 0;      ///< of differences; 0 = exact
  std::string obstacle;  ///< the first ones, in words
};

Attempt attempt(const Family& family, const std::string& model_type, const Decoder& decoder, const Node& wanted) {
  Attempt result{.family = model_type, .config = {}, .obstacle = {}};
  std::optional<std::set<std::string>> written;  // names of the tensors beside that config, once they are asked for
  const HasTensor has = [&](const std::string& name) {
    if (!written) {
      NameMap map(decoder.schema());
      family.names(map, decoder.options(), {});
      written.emplace();
      for (const auto& tensor : map.correspondences()) written->insert(tensor.theirs);
    }
    return written->contains(name);
  };
  try {
    result.config = family.write(wanted, model_type);
    const std::vector<Difference> found = differences(wanted, composition(Decoder(family.read(result.config, has))));
    result.count = found.size();
    if (found.empty()) return result;
    const Difference& first = found.front();
    result.obstacle = fmt::format("{}: {} is {}, there {}", result.family, first.path, first.here, first.there);
    if (found.size() > 1) result.obstacle += fmt::format(" ({} more)", found.size() - 1);
  } catch (const Error& error) {
    result.count = SIZE_MAX;
    result.obstacle = fmt::format("{}: {}", result.family, error.message());
  }
  return result;
}

/// The tokenizer and chat templates that a GGUF file holds, as files of a folder.
void write_vocabulary(const LoadedModel& model, const fs::path& folder) {
  if (!model.tokenizer) return;
  model.tokenizer->save(folder);
  const GgufMetadata metadata = Gguf(model.folder).metadata();
  if (!metadata.has("tokenizer.chat_template")) return;
  const ChatTemplates templates = ChatTemplates::load(model.folder);
  for (const auto& [name, chat_template] : templates.named()) {
    if (name == "default") {
      write_file_atomically(folder / "chat_template.jinja", chat_template.source());
      continue;
    }
    if (fs::path(name).filename() != name || name.starts_with(".")) continue;  // no name of a file
    fs::create_directories(folder / kMoreTemplates);
    write_file_atomically(folder / kMoreTemplates / (name + ".jinja"), chat_template.source());
  }
}

/// The config that the model was read by; empty when it was made here.
Node source_config(const LoadedModel& model) {
  if (fs::is_regular_file(model.folder / "config.json"))
    return parse_json(read_file(model.folder / "config.json", kLargestConfig), "config.json");
  if (fs::is_regular_file(model.folder)) return hub_view(std::make_shared<Gguf>(model.folder)).config;
  return Node::map();
}

/// What the model was read as; empty when that was no family.
std::string own_type(const LoadedModel& model) {
  if (!model.family) return {};
  const Node config = source_config(model);
  const Node* type = config.find("model_type");
  const std::vector<std::string> types = model.family->model_types();
  return type && type->is_scalar() && std::find(types.begin(), types.end(), type->scalar()) != types.end() ? type->scalar() : std::string();
}

/// As the family that was asked for; else as what the model was read as, where that has a name for it; else as any.
Node config_of(const Decoder& decoder, const LoadedModel& model, const std::string& asked) {
  const std::string own = asked.empty() ? own_type(model) : std::string();
  if (own.empty()) return export_config(decoder, asked);
  try {
    return export_config(decoder, own);
  } catch (const Error& error) {
    if (error.code() != "convert.export.option") throw;
    return export_config(decoder);
  }
}

/// What a file holds packed, and the names of the tensors that this stands for.
struct PackedTensors {
  NamedTensors tensors;
  std::set<std::string> names;
};

/// gpt-oss's experts as its files have them: where all rows of a tensor are blocks of MXFP4, they stay so.
PackedTensors packed_experts(const NameMap& map) {
  PackedTensors packed;
  for (const NameMap::Correspondence& each : map.correspondences()) {
    if (each.shape.size() != 3) continue;
    std::vector<std::shared_ptr<const PackedRows>> held;
    for (const NameMap::Held& part : each.held) {
      const auto rows = std::dynamic_pointer_cast<const PackedRows>(kernels::packed_tensor_of(part.ours.packed()));
      if (rows && part.ours_view.empty() && rows->block_form() == block_codec_named("MXFP4")) held.push_back(rows);
    }
    if (held.empty() || held.size() != each.held.size()) continue;
    // A plain tensor has inputs before outputs, its blocks lie the other way round; views choose among outputs alone.
    const int64_t experts = each.shape[0], in = each.shape[1], out = each.shape[2];
    const at::Tensor blocks = at::empty({experts, out, in / 2}, at::kByte), scales = at::empty({experts, out, in / 32}, at::kByte);
    for (size_t i = 0; i < held.size(); ++i) {
      const Mxfp4Parts parts = mxfp4_parts(*held[i]);
      view_of(blocks.transpose(1, 2), each.held[i].theirs_view).copy_(parts.blocks.flatten(-2));
      view_of(scales.transpose(1, 2), each.held[i].theirs_view).copy_(parts.scales);
    }
    packed.tensors.emplace_back(each.theirs + "_blocks", blocks.view({experts, out, in / 32, 16}));
    packed.tensors.emplace_back(each.theirs + "_scales", scales);
    packed.names.insert(each.theirs);
  }
  return packed;
}

Node token_id(std::optional<int64_t> id) { return id ? Node(std::to_string(*id)) : Node(); }

}  // namespace

Node export_config(const Decoder& decoder, const std::string& model_type) {
  const Node wanted = composition(decoder);
  std::vector<Attempt> attempts;
  for (const auto& family : families())
    for (const std::string& type : family->model_types())
      if (model_type.empty() || type == model_type) attempts.push_back(attempt(*family, type, decoder, wanted));
  check(!attempts.empty(), "convert.export.family", "'{}' is no family that can be written; these are: {}", model_type,
        fmt::join(known_model_types(), ", "));
  std::stable_sort(attempts.begin(), attempts.end(), [](const Attempt& a, const Attempt& b) {
    return a.count != b.count ? a.count < b.count : has_own_code(a.family) < has_own_code(b.family);
  });
  if (attempts.front().count == 0) return attempts.front().config;
  std::vector<std::string> obstacles;
  for (const Attempt& each : attempts) obstacles.push_back(each.obstacle);
  fail("convert.export.option", "{} has this composition: {}",
       model_type.empty() ? "no published family" : "no model of the family", fmt::join(obstacles, "; "));
}

Node published_config(const LoadedModel& model, const std::string& model_type) {
  Node config = config_of(*model.decoder, model, model_type);
  // Written even when there is none: classes have defaults of their own, of the published vocabulary.
  std::optional<int64_t> begin, end;
  if (model.tokenizer) begin = model.tokenizer->begin_id();
  if (!model.end_ids.empty()) end = model.end_ids.front();
  else if (model.tokenizer) end = model.tokenizer->end_id();
  // Where no vocabulary says more, as the model was told.
  const Node source = source_config(model);
  const auto kept = [&](const char* key) {
    const Node* id = source.find(key);
    return id != nullptr && id->is_scalar() ? *id : Node();
  };
  config["bos_token_id"] = begin ? token_id(begin) : kept("bos_token_id");
  config["eos_token_id"] = token_id(end);
  if (model.end_ids.size() > 1) {
    config["eos_token_id"] = Node::list();
    for (int64_t id : model.end_ids) config["eos_token_id"].append(token_id(id));
  }
  if (config.find("pad_token_id") == nullptr) config["pad_token_id"] = kept("pad_token_id");  // some families count by it
  if (own_type(model) != text_at(config, "model_type")) return config;
  for (const char* key : kTrainingKeys)
    if (const Node* value = source.find(key); value && value->is_scalar() && !config.find(key)) config[key] = *value;
  keep_labels(source, config);
  return config;
}

void save_published(const fs::path& folder, Node config, const Decoder& decoder, std::optional<at::ScalarType> dtype) {
  const std::string model_type = text_at(config, "model_type");
  NameMap map(decoder.schema());
  family_of(model_type)->names(map, decoder.options(), {});
  const PackedTensors packed = model_type == "gpt_oss" && !dtype ? packed_experts(map) : PackedTensors();
  NamedTensors tensors = map.collect(dtype, packed.names);
  Node stored(dtype_name(tensors.front().second.scalar_type()));
  stored.set_quoted(true);
  config["torch_dtype"] = std::move(stored);
  if (!packed.names.empty()) {
    config["quantization_config"] = parse_json(R"({"modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router",
      "model.embed_tokens", "lm_head"], "quant_method": "mxfp4"})", "quantization_config");
    tensors.insert(tensors.end(), packed.tensors.begin(), packed.tensors.end());
  }
  write_file_atomically(folder / "config.json", to_json(config) + "\n");
  write_safetensors_folder(folder, tensors);
}

void save_text_files(const LoadedModel& model, const fs::path& folder) {
  if (!fs::is_directory(model.folder)) return write_vocabulary(model, folder);
  for (const auto& entry : fs::directory_iterator(model.folder)) {
    const fs::path name = entry.path().filename();
    if (entry.is_regular_file() &&
        (name.extension() == ".tiktoken" || std::find(kTextFiles.begin(), kTextFiles.end(), name.string()) != kTextFiles.end()))
      fs::copy_file(entry.path(), folder / name);
  }
  if (fs::is_directory(model.folder / kMoreTemplates)) {
    fs::create_directories(folder / kMoreTemplates);
    for (const auto& entry : fs::directory_iterator(model.folder / kMoreTemplates))
      if (entry.is_regular_file() && entry.path().extension() == ".jinja")
        fs::copy_file(entry.path(), folder / kMoreTemplates / entry.path().filename());
  }
}

std::string export_model(const LoadedModel& model, const fs::path& out, const ExportOptions& options) {
  check(!fs::exists(out) || (fs::is_directory(out) && fs::is_empty(out)), "convert.export.exists",
        "{} is there already; choose a new folder", out.string());
  LoadedModel said = model;
  const Node config = [&] {
    try {
      return published_config(said, options.model_type);
    } catch (const Error& error) {
      if (error.code() != "convert.export.option") throw;
      // What no option says, weights may.
      said.decoder = fold_combine_scales(*model.decoder);
      if (!said.decoder) throw;
      return published_config(said, options.model_type);
    }
  }();
  write_folder_atomically(out, [&](const fs::path& folder) {
    save_published(folder, config, *said.decoder, options.dtype);
    save_text_files(said, folder);
  });
  return text_at(config, "model_type");
}

}  // namespace switchyard
