#include "switchyard/models/families/hub_keys.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "switchyard/base/error.h"
#include "switchyard/base/options.h"
#include "switchyard/base/progress.h"

namespace switchyard {
namespace {

/// Keys without effect on what a model computes: training, generation defaults, book-keeping.
constexpr std::array kInert{
    "architectures", "model_type", "torch_dtype", "dtype", "transformers_version", "use_cache", "bos_token_id", "eos_token_id",
    "pad_token_id", "attention_dropout", "hidden_dropout", "output_router_logits", "router_aux_loss_coef", "auto_map",
    "chunk_size_feed_forward", "id2label", "label2id", "is_encoder_decoder", "output_attentions", "output_hidden_states",
    "problem_type", "return_dict", "_name_or_path", "pretraining_tp", "max_window_layers", "rope_scaling", "rope_parameters",
    "add_cross_attention", "is_decoder", "cross_attention_hidden_size", "task_specific_params", "use_bfloat16", "_attn_implementation",
    "rope_theta", "aux_loss_alpha", "seq_aux", "ep_size", "num_nextn_predict_layers", "unsloth_fixed", "router_jitter_noise",
    "num_logits_to_keep", "embd_pdrop", "resid_pdrop", "attn_pdrop", "emb_pdrop", "dropout", "tokenizer_class", "quantization_config",
    "attn_implementation", "sep_token_id", "cls_token_id", "decoder_start_token_id", "tf_legacy_loss", "torchscript", "pruned_heads"};

/// Keys by which families compute something else; the values that change nothing.
const std::vector<std::pair<std::string, std::vector<std::string>>> kActing{
    {"clip_qkv", {"0", "0.0"}}, {"attn_logit_softcapping", {"0", "0.0"}}, {"final_logit_softcapping", {"0", "0.0"}},
    {"embedding_multiplier", {"1", "1.0"}}, {"residual_multiplier", {"1", "1.0"}}, {"logits_scaling", {"1", "1.0"}},
    {"attention_multiplier", {}}, {"partial_rotary_factor", {"1", "1.0"}}, {"attention_chunk_size", {}}, {"swiglu_limit", {}},
    {"lm_head_bias", {"false"}}, {"use_alibi", {"false"}}, {"alibi", {"false"}}, {"index_topk", {}}, {"num_zero_experts", {"0"}},
    {"scoring_func", {"softmax"}}, {"topk_method", {"greedy"}}, {"n_group", {"1"}}, {"topk_group", {"1"}}, {"routed_scaling_factor", {"1", "1.0"}},
    {"use_sliding_window", {"false"}}, {"sliding_window_pattern", {"1"}}, {"layer_types", {"full_attention"}}, {"use_parallel_residual", {"false"}},
    {"parallel_attn", {"false"}}, {"logit_scale", {"1", "1.0"}}, {"query_pre_attn_scalar", {}}, {"scale_emb", {"1", "1.0"}},
    {"attn_output_gate", {"false"}}, {"time_step_limit", {}}, {"rotary_dim", {}}, {"use_qk_norm", {"false"}}, {"qk_layernorm", {"false"}}};

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(at, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

Field field_of(const HubKey& key) {
  Field field;
  field.name = key.key.substr(0, key.key.find('|'));
  field.lowest = key.lowest;
  field.highest = key.highest;
  return field;
}

template <typename T>
T read_as(const Node& node, const Field& field) {
  T value{};
  detail::read_value(node, value, field);
  return value;
}

}  // namespace

HubKey count_key(std::string key, std::string places) { return {.key = std::move(key), .places = std::move(places), .lowest = 1}; }
HubKey number_key(std::string key, std::string places) {
  return {.key = std::move(key), .places = std::move(places), .kind = HubKey::Kind::number, .highest = 1e12};
}
HubKey flag_key(std::string key, std::string places) {
  return {.key = std::move(key), .places = std::move(places), .kind = HubKey::Kind::flag};
}
HubKey text_key(std::string key, std::string places) {
  return {.key = std::move(key), .places = std::move(places), .kind = HubKey::Kind::text};
}

const Node* HubReader::find(const std::string& key) const {
  const Node* found = nullptr;
  for (const std::string& name : split(key, '|')) {
    known_.insert(name.substr(0, name.find('.')));
    const Node* node = find_at(config_, name);
    if (found == nullptr && node != nullptr && !node->is_null()) found = node;
  }
  return found;
}

bool HubReader::is_null(const std::string& key) const {
  known_.insert(key);
  const Node* node = find_at(config_, key);
  return node != nullptr && node->is_null();
}

std::optional<Node> HubReader::value(const HubKey& key) const {
  const Node* found = find(key.key);
  Node node;
  if (found != nullptr) {
    node = *found;
  } else {
    check(key.standard.has_value(), "options.missing", "{}: {} is missing, and this family has no default for it",
          config_.mark().source, field_of(key).name);
    if (key.standard->empty()) return std::nullopt;
    node = Node(*key.standard);
    node.set_mark(config_.mark());
  }
  const Field field = field_of(key);
  switch (key.kind) {
    case HubKey::Kind::count:
      if (found) (void)read_as<int64_t>(node, field);
      break;
    case HubKey::Kind::number:
      if (found) (void)read_as<double>(node, field);
      break;
    case HubKey::Kind::flag: (void)read_as<bool>(node, field); break;
    case HubKey::Kind::text: (void)read_as<std::string>(node, field); break;
  }
  if (key.words.empty()) return node;
  std::vector<std::string> known;
  for (const auto& [theirs, ours] : key.words) {
    if (theirs == node.scalar()) {
      Node meant(ours);
      meant.set_mark(node.mark());
      return meant;
    }
    known.push_back(theirs);
  }
  fail("options.choice", "{}: {} is {}, which this family cannot compute here; it is one of {}", node.where(), field.name, node.scalar(),
       fmt::join(known, ", "));
}

int64_t HubReader::count(const std::string& key, std::optional<int64_t> standard, int64_t lowest) const {
  const Node* node = find(key);
  const HubKey described = count_key(key, "").from(static_cast<double>(lowest));
  if (node != nullptr) return read_as<int64_t>(*node, field_of(described));
  check(standard.has_value(), "options.missing", "{}: {} is missing, and this family has no default for it", config_.mark().source, key);
  return *standard;
}

double HubReader::number(const std::string& key, double standard) const {
  const Node* node = find(key);
  Field field;
  field.name = key;
  return node ? read_as<double>(*node, field) : standard;
}

bool HubReader::flag(const std::string& key, bool standard) const {
  const Node* node = find(key);
  Field field;
  field.name = key;
  // Some files count what others switch on.
  if (node && node->is_scalar() && node->scalar().find_first_not_of("0123456789") == std::string::npos) return read_as<int64_t>(*node, field) != 0;
  return node ? read_as<bool>(*node, field) : standard;
}

std::string HubReader::text(const std::string& key, const std::string& standard) const {
  const Node* node = find(key);
  Field field;
  field.name = key;
  return node ? read_as<std::string>(*node, field) : standard;
}

std::vector<int64_t> HubReader::counts(const std::string& key) const {
  std::vector<int64_t> list;
  const Node* node = find(key);
  if (node == nullptr) return list;
  Field field;
  field.name = key;
  if (!node->is_list()) return {read_as<int64_t>(*node, field)};
  for (const Node& item : node->items()) list.push_back(read_as<int64_t>(item, field));
  return list;
}

std::vector<std::string> HubReader::texts(const std::string& key) const {
  std::vector<std::string> list;
  const Node* node = find(key);
  if (node == nullptr) return list;
  check(node->is_list(), "options.type", "{}: {} is no list", node->where(), key);
  Field field;
  field.name = key;
  for (const Node& item : node->items()) list.push_back(read_as<std::string>(item, field));
  return list;
}

void HubReader::only(const std::string& key, const std::vector<std::string>& values) const {
  const Node* node = find(key);
  if (node == nullptr) return;
  const std::string value = node->is_scalar() ? node->scalar() : to_json(*node, -1);
  check(std::find(values.begin(), values.end(), value) != values.end(), "model.config",
        "{}: {} is {}, which changes what this family computes and is not supported; {} is", node->where(), key, value,
        fmt::join(values, ", "));
}

void HubReader::finish() const {
  std::vector<std::string> unknown;
  for (const auto& [key, value] : config_.entries()) {
    if (known_.contains(key) || std::find(kInert.begin(), kInert.end(), key) != kInert.end()) continue;
    for (const auto& [acting, neutral] : kActing)
      if (key == acting && !value.is_null()) {
        const auto changes = [&neutral = neutral](const Node& said) {
          return !said.is_scalar() || std::find(neutral.begin(), neutral.end(), said.scalar()) == neutral.end();
        };
        const bool acts = value.is_list() ? std::any_of(value.items().begin(), value.items().end(), changes) : changes(value);
        check(!acts, "model.config", "{}: {} is {}, which changes what a model computes, and this family has no such key", value.where(), key,
              value.is_scalar() ? value.scalar() : "set");
      }
    unknown.push_back(key);
  }
  if (!unknown.empty())
    log_warning(fmt::format("{}: keys that this family does not know are passed over: {}", config_.mark().source,
                            fmt::join(unknown, ", ")));
}

const Node* find_at(const Node& composition, const std::string& path) {
  const Node* node = &composition;
  for (const std::string& key : split(path, '.')) {
    if (node == nullptr) return nullptr;
    if (node->is_list()) {
      size_t index = 0;
      const auto [rest, error] = std::from_chars(key.data(), key.data() + key.size(), index);
      const bool inside = error == std::errc() && rest == key.data() + key.size() && index < node->items().size();
      node = inside ? &node->items()[index] : nullptr;
    } else {
      node = node->is_map() ? node->find(key) : nullptr;
    }
  }
  return node;
}

Node& place_at(Node& tree, const std::string& path) {
  Node* node = &tree;
  for (const std::string& key : split(path, '.')) {
    if (node->is_list()) node = &node->items().at(std::stoul(key));
    else node = &(*node)[key];
  }
  return *node;
}

namespace {

template <typename T>
T value_at(const Node& composition, const std::string& path) {
  const Node* node = find_at(composition, path);
  check(node != nullptr && node->is_scalar(), "model.family_option", "the model has no {}", path);
  Field field;
  field.name = path;
  return read_as<T>(*node, field);
}

}  // namespace

int64_t integer_at(const Node& composition, const std::string& path) { return value_at<int64_t>(composition, path); }
double number_at(const Node& composition, const std::string& path) { return value_at<double>(composition, path); }
bool flag_at(const Node& composition, const std::string& path) { return value_at<bool>(composition, path); }
std::string text_at(const Node& composition, const std::string& path) {
  const Node* node = find_at(composition, path);
  check(node != nullptr && node->is_scalar(), "model.family_option", "the model has no {}", path);
  return node->scalar();
}

int64_t labels_of(const HubReader& config) {
  const Node* labels = config.find("id2label");
  if (labels != nullptr && labels->is_map() && !labels->entries().empty()) return static_cast<int64_t>(labels->entries().size());
  return config.count("num_labels", 2);
}

void write_labels(int64_t classes, Node& config) {
  for (int64_t i = 0; i < classes; ++i) {
    config["id2label"][std::to_string(i)] = hub_text(fmt::format("LABEL_{}", i));
    config["label2id"][fmt::format("LABEL_{}", i)] = hub_count(i);
  }
}

void keep_labels(const Node& source, Node& config) {
  const Node *said = source.find("id2label"), *written = config.find("id2label");
  if (!said || !written || !said->is_map() || said->entries().size() != written->entries().size()) return;
  for (const char* key : {"id2label", "label2id"})
    if (const Node* names = source.find(key); names && names->is_map()) config[key] = *names;
}

Node hub_text(std::string text) {
  Node node(std::move(text));
  node.set_quoted(true);
  return node;
}
Node hub_count(int64_t value) { return Node(std::to_string(value)); }
Node hub_number(double value) {
  std::string text = detail::write_value(value).scalar();
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return Node(std::move(text));
}
Node hub_flag(bool value) { return Node(value ? "true" : "false"); }

// --- rotary settings -------------------------------------------------------------------------------

namespace {

/// The published names of a scaling's settings beside ours, and the kinds that have them.
struct ScalingKey {
  const char *theirs, *ours;
  std::vector<std::string> kinds;
  bool needed;
};
const std::vector<ScalingKey> kScalingKeys{
    {"factor", "factor", {"linear", "dynamic", "llama3", "yarn"}, true},
    {"low_freq_factor", "low", {"llama3"}, true},
    {"high_freq_factor", "high", {"llama3"}, true},
    {"original_max_position_embeddings", "original", {"llama3", "yarn", "longrope"}, false},
    {"alpha", "alpha", {"dynamic"}, false},
    {"beta_fast", "fast", {"yarn"}, false},
    {"beta_slow", "slow", {"yarn"}, false},
    {"truncate", "truncate", {"yarn"}, false},
    {"mscale", "mscale", {"yarn"}, false},
    {"mscale_all_dim", "mscale_all", {"yarn"}, false},
    {"attention_factor", "multiplier", {"yarn", "longrope"}, false},
    {"short_factor", "short_factors", {"longrope"}, true},
    {"long_factor", "long_factors", {"longrope"}, true},
    {"short_mscale", "short_multiplier", {"longrope"}, false},
    {"long_mscale", "long_multiplier", {"longrope"}, false}};

bool concerns(const ScalingKey& key, const std::string& kind) {
  return std::find(key.kinds.begin(), key.kinds.end(), kind) != key.kinds.end();
}

const Node* map_in(const HubReader& config, const char* key) {
  const Node* settings = config.find(key);
  check(settings == nullptr || settings->is_map(), "model.config", "{}: {} is no map", settings ? settings->where() : "", key);
  return settings;
}

double read_number(const Node* node, double standard) {
  Field field;
  field.name = "rope_scaling";
  return node && !node->is_null() ? read_as<double>(*node, field) : standard;
}

}  // namespace

void read_rotary(const HubReader& config, Node& model, const std::string& standard) {
  const Node* parameters = map_in(config, "rope_parameters");
  const Node* settings = parameters ? parameters : map_in(config, "rope_scaling");
  const auto setting = [&](const char* key) -> const Node* {
    const Node* node = settings ? settings->find(key) : nullptr;
    return node && !node->is_null() ? node : nullptr;
  };
  const Node* theta = setting("rope_theta");
  if (theta == nullptr) theta = config.find("rope_theta");
  model["rope_theta"] = theta ? *theta : Node(standard);
  config.pass("partial_rotary_factor");  // some files have it in both places
  const Node* share = setting("partial_rotary_factor");
  if (share == nullptr) share = config.find("partial_rotary_factor");
  if (share != nullptr) model["rope_fraction"] = *share;

  const Node* type = setting("rope_type");
  if (type == nullptr) type = setting("type");
  std::string kind = type && type->is_scalar() ? type->scalar() : "default";
  if (kind == "su") kind = "longrope";  // the name of its first files
  if (kind == "default" || kind == "mrope") return;
  const bool known = std::any_of(kScalingKeys.begin(), kScalingKeys.end(), [&](const ScalingKey& key) { return concerns(key, kind); });
  check(known, "model.config",
        "{}: rotary scaling of type '{}' is not supported; default, linear, dynamic, llama3, yarn and longrope are", settings->where(), kind);
  Node ours = Node::map();
  ours.set_mark(settings->mark());
  ours["kind"] = Node(kind);
  for (const ScalingKey& key : kScalingKeys) {
    if (!concerns(key, kind)) continue;
    const Node* value = setting(key.theirs);
    check(value != nullptr || !key.needed, "model.config", "{}: rotary scaling of type '{}' needs {}", settings->where(), kind, key.theirs);
    if (value != nullptr) ours[key.ours] = *value;
  }
  const Node* context = config.find("max_position_embeddings");
  if (kind == "dynamic" && context) ours["original"] = *context;
  if (kind == "llama3" || kind == "yarn" || kind == "longrope") {
    // Some files have it beside the settings, some leave it to be the context itself.
    if (!ours.find("original"))
      if (const Node* beside = config.find("original_max_position_embeddings")) ours["original"] = *beside;
    check(ours.find("original") || (kind == "yarn" && context), "model.config",
          "{}: rotary scaling of type '{}' needs original_max_position_embeddings", settings->where(), kind);
    if (!ours.find("original")) ours["original"] = *context;
    const double longer = read_number(context, 0) / std::max(1.0, read_number(ours.find("original"), 1));
    if (kind == "longrope") ours["factor"] = detail::write_value(std::max(1.0, longer));
    if (kind == "yarn" && setting("original_max_position_embeddings") && context && longer != read_number(ours.find("factor"), 1))
      log_warning(fmt::format("{}: max_position_embeddings is {} times the original, but yarn's factor is {}; the factor counts",
                              settings->where(), longer, read_number(ours.find("factor"), 1)));
  }
  model["rope_scaling"] = std::move(ours);
}

void write_rotary(const Node& composition, Node& config) {
  const Node* theta = find_at(composition, "rope_theta");
  if (theta == nullptr) return;
  config["rope_theta"] = hub_number(number_at(composition, "rope_theta"));
  const double fraction = number_at(composition, "rope_fraction");
  const std::string kind = text_at(composition, "rope_scaling.kind");
  // Library 4 reads rope_theta and rope_scaling, library 5 rope_parameters.
  if (fraction != 1) config["partial_rotary_factor"] = hub_number(fraction);
  Node parameters = Node::map();
  parameters["rope_theta"] = config["rope_theta"];
  parameters["rope_type"] = hub_text(kind == "none" ? "default" : kind);
  if (fraction != 1) parameters["partial_rotary_factor"] = hub_number(fraction);
  if (kind == "none") {
    config["rope_parameters"] = std::move(parameters);
    return;
  }
  Node scaling = Node::map();
  scaling["rope_type"] = hub_text(kind);
  for (const ScalingKey& key : kScalingKeys) {
    if (!concerns(key, kind)) continue;
    const Node& value = *find_at(composition, std::string("rope_scaling.") + key.ours);
    if (std::string_view(key.ours) == "original") {
      scaling[key.theirs] = value;
    } else if (value.is_list()) {
      for (const Node& item : value.items()) scaling[key.theirs].append(hub_number(read_number(&item, 0)));
    } else if (value.scalar() == "true" || value.scalar() == "false") {
      scaling[key.theirs] = value;
    } else if (key.needed || read_number(&value, 0) != 0) {  // 0 = not given
      scaling[key.theirs] = hub_number(read_number(&value, 0));
    }
  }
  for (const auto& [key, value] : scaling.entries()) parameters[key] = value;
  config["rope_parameters"] = std::move(parameters);
  config["rope_scaling"] = std::move(scaling);
}

}  // namespace switchyard
