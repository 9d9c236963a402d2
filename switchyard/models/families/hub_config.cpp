#include "switchyard/models/families/hub_config.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "switchyard/base/progress.h"

namespace switchyard {
namespace {

/// Keys without effect on what a model computes: training, generation defaults, book-keeping.
constexpr std::array kInert{
    "architectures", "model_type", "torch_dtype", "dtype", "transformers_version", "use_cache", "bos_token_id", "eos_token_id",
    "pad_token_id", "attention_dropout", "hidden_dropout", "output_router_logits", "router_aux_loss_coef", "auto_map",
    "chunk_size_feed_forward", "id2label", "label2id", "is_encoder_decoder", "output_attentions", "output_hidden_states",
    "problem_type", "return_dict", "_name_or_path", "pretraining_tp", "max_window_layers", "rope_scaling", "rope_parameters",
    "add_cross_attention", "is_decoder", "cross_attention_hidden_size", "task_specific_params", "use_bfloat16", "_attn_implementation"};

/// Keys that libraries spell in either way.
constexpr std::pair<const char*, const char*> kSpellings[]{{"num_experts", "num_local_experts"}, {"num_local_experts", "num_experts"}};

const Node* map_in(const Node& config, const char* key) {
  const Node* settings = config.find(key);
  if (settings == nullptr || settings->is_null()) return nullptr;
  check(settings->is_map(), "model.config", "{}: {} is no map", settings->where(), key);
  return settings;
}

/// rope_theta from either spelling.
Node rotary_theta(const Node& config) {
  if (const Node* parameters = map_in(config, "rope_parameters"))
    if (const Node* theta = parameters->find("rope_theta")) return *theta;
  const Node* theta = config.find("rope_theta");
  return theta ? *theta : Node();
}

/// The published names of a scaling's numbers beside ours.
constexpr std::pair<const char*, const char*> kScalingKeys[]{
    {"factor", "factor"}, {"low_freq_factor", "low"}, {"high_freq_factor", "high"}, {"original_max_position_embeddings", "original"}};

}  // namespace

Node known_keys(const Node& config, const Description& described) {
  Node known = Node::map();
  known.set_mark(config.mark());
  std::vector<std::string> unknown;
  for (const auto& [name, value] : config.entries()) {
    if (name == "rope_theta") continue;
    std::string key = name;
    for (const auto& [one, other] : kSpellings)
      if (name == one && described.find(one) == nullptr) key = other;
    if (described.find(key) != nullptr) {
      // null stands for "as the class has it", except where it is a value
      if (!value.is_null() || described.find(key)->type.kind == ValueType::Kind::optional) known[key] = value;
    } else if (std::find(kInert.begin(), kInert.end(), key) == kInert.end()) {
      unknown.push_back(key);
    }
  }
  if (Node theta = rotary_theta(config); !theta.is_null()) known["rope_theta"] = std::move(theta);
  if (!unknown.empty())
    log_warning(fmt::format("{}: keys that this family does not know are passed over: {}", config.mark().source,
                            fmt::join(unknown, ", ")));
  return known;
}

Node hub_config(Node keys, const Description& described, const RotaryScaling& scaling, const std::string& model_type,
                const std::string& architecture) {
  // Readers tell 1 from 1.0.
  for (auto& [key, value] : keys.entries()) {
    const ValueType& type = described.find(key)->type;
    const bool number = type.kind == ValueType::Kind::number || (type.item && type.item->kind == ValueType::Kind::number);
    if (number && value.is_scalar() && value.scalar().find_first_of(".e") == std::string::npos) value = Node(value.scalar() + ".0");
  }
  const auto text = [](std::string value) {
    Node node(std::move(value));
    node.set_quoted(true);
    return node;
  };
  Node config = Node::map();
  config["architectures"].append(text(architecture));
  config["model_type"] = text(model_type);
  for (const auto& [key, value] : keys.entries()) config[key] = value;
  // Library 4 reads rope_theta, library 5 rope_parameters.
  if (const Node* theta = keys.find("rope_theta")) {
    const Node copy = *theta;
    config["rope_parameters"]["rope_theta"] = copy;
    config["rope_parameters"]["rope_type"] = text("default");
  }
  if (scaling.kind != RotaryScaling::Kind::none) {
    const Node ours = write_options(scaling);
    for (const char* key : {"rope_parameters", "rope_scaling"}) {
      Node& settings = config[key];
      settings["rope_type"] = text(ours.find("kind")->scalar());
      for (const auto& [theirs, name] : kScalingKeys) {
        std::string value = ours.find(name)->scalar();
        const bool whole = std::string_view(name) == "original";
        if (!whole && value.find_first_of(".e") == std::string::npos) value += ".0";
        if (scaling.kind == RotaryScaling::Kind::llama3 || std::string_view(name) == "factor") settings[theirs] = Node(value);
      }
    }
  }
  return config;
}

RotaryScaling rotary_scaling(const Node& config) {
  const Node* settings = map_in(config, "rope_parameters");
  if (settings == nullptr) settings = map_in(config, "rope_scaling");
  if (settings == nullptr) return {};
  const Node* share = settings->find("partial_rotary_factor");
  check(share == nullptr || share->is_null() || share->scalar() == "1" || share->scalar() == "1.0", "model.config",
        "{}: partial_rotary_factor {} is not part of this family", settings->where(), share ? share->scalar() : "");
  const Node* type = settings->find("rope_type");
  if (type == nullptr) type = settings->find("type");
  const std::string kind = type && type->is_scalar() ? type->scalar() : "default";
  if (kind == "default") return {};
  check(kind == "linear" || kind == "llama3", "model.config",
        "{}: rotary scaling of type '{}' is not supported; default, linear and llama3 are", settings->where(), kind);
  Node ours = Node::map();
  ours.set_mark(settings->mark());
  ours["kind"] = Node(kind);
  for (const auto& [theirs, name] : kScalingKeys) {
    const Node* value = settings->find(theirs);
    check(value != nullptr || (kind == "linear" && std::string_view(name) != "factor"), "model.config",
          "{}: rotary scaling of type '{}' needs {}", settings->where(), kind, theirs);
    if (value != nullptr) ours[name] = *value;
  }
  return read_options<RotaryScaling>(ours);
}

ModelOptions common_options(const HubConfig& config) {
  ModelOptions options;
  options.vocabulary = config.vocab_size;
  options.width = config.hidden_size;
  options.layers = config.num_hidden_layers;
  options.context = config.max_position_embeddings;
  options.norm = Norm::rms;
  options.norm_eps = config.rms_norm_eps;
  options.positions = Positions::rope;
  options.rope_theta = config.rope_theta;
  options.rope_scaling = config.scaling;
  options.tied_embeddings = config.tie_word_embeddings;
  options.init_deviation = config.initializer_range;
  const int64_t kv_heads = config.num_key_value_heads.value_or(config.num_attention_heads);
  check(config.num_attention_heads % kv_heads == 0, "model.config",
        "num_attention_heads {} is no multiple of num_key_value_heads {}", config.num_attention_heads, kv_heads);
  check(config.head_dim || config.hidden_size % config.num_attention_heads == 0, "model.config",
        "hidden_size {} is no multiple of num_attention_heads {}, and head_dim is not given", config.hidden_size,
        config.num_attention_heads);
  options.attention = "gqa";
  options.attention.options["heads"] = detail::write_value(config.num_attention_heads);
  options.attention.options["kv_heads"] = detail::write_value(kv_heads);
  options.attention.options["head_dim"] =
      detail::write_value(config.head_dim.value_or(config.hidden_size / config.num_attention_heads));
  return options;
}

MixtureOptions swiglu_mixture(int64_t experts, int64_t hidden, int64_t k, bool renormalised) {
  check(k <= experts, "model.config", "num_experts_per_tok is {}, but there are {} experts", k, experts);
  MixtureOptions mixture;
  mixture.experts = experts;
  mixture.expert = "swiglu";
  mixture.expert.options["hidden"] = detail::write_value(hidden);
  mixture.router = "sparse-topk";
  mixture.router.options["k"] = detail::write_value(k);
  mixture.router.options["softmax"] = Node("all");
  mixture.combine = CombineOptions{.renormalise = renormalised ? Renormalise::before_drop : Renormalise::never};
  return mixture;
}

Choice<Body> swiglu_feed_forward(int64_t hidden) {
  Choice<Body> body = "feed-forward";
  body.options["activation"] = Node("swiglu");
  body.options["hidden"] = detail::write_value(hidden);
  return body;
}

bool weights_sum_to_one(const Node& composition, int64_t layer) {
  return text_at(composition, fmt::format("layers.{}.mixtures.0.router.softmax", layer)) == "kept";
}

void common_keys(const Node& composition, HubConfig& config) {
  config.vocab_size = integer_at(composition, "vocabulary");
  config.hidden_size = integer_at(composition, "width");
  config.num_hidden_layers = static_cast<int64_t>(find_at(composition, "layers")->items().size());
  config.max_position_embeddings = integer_at(composition, "context");
  config.rms_norm_eps = number_at(composition, "norm_eps");
  config.rope_theta = number_at(composition, "rope_theta");
  if (const Node* scaling = find_at(composition, "rope_scaling")) config.scaling = read_options<RotaryScaling>(*scaling);
  config.tie_word_embeddings = flag_at(composition, "tied_embeddings");
  config.num_attention_heads = integer_at(composition, "layers.0.attention.heads");
  config.num_key_value_heads = integer_at(composition, "layers.0.attention.kv_heads");
  config.head_dim = integer_at(composition, "layers.0.attention.head_dim");
}

const Node* find_at(const Node& composition, const std::string& path) {
  const Node* node = &composition;
  for (size_t begin = 0; node != nullptr && begin <= path.size();) {
    const size_t end = std::min(path.find('.', begin), path.size());
    const std::string key = path.substr(begin, end - begin);
    if (node->is_list()) {
      size_t index = 0;
      const auto [rest, error] = std::from_chars(key.data(), key.data() + key.size(), index);
      const bool inside = error == std::errc() && rest == key.data() + key.size() && index < node->items().size();
      node = inside ? &node->items()[index] : nullptr;
    } else {
      node = node->is_map() ? node->find(key) : nullptr;
    }
    begin = end + 1;
  }
  return node;
}

namespace {

const Node& scalar_at(const Node& composition, const std::string& path) {
  const Node* node = find_at(composition, path);
  check(node != nullptr && node->is_scalar(), "model.family_option", "the model has no {}", path);
  return *node;
}

template <typename T>
T value_at(const Node& composition, const std::string& path) {
  Field field;
  field.name = path;
  T value{};
  detail::read_value(scalar_at(composition, path), value, field);
  return value;
}

}  // namespace

int64_t integer_at(const Node& composition, const std::string& path) { return value_at<int64_t>(composition, path); }
double number_at(const Node& composition, const std::string& path) { return value_at<double>(composition, path); }
bool flag_at(const Node& composition, const std::string& path) { return value_at<bool>(composition, path); }
std::string text_at(const Node& composition, const std::string& path) { return scalar_at(composition, path).scalar(); }

namespace {

void link_mixture(NameMap& map, const std::string& ours, const std::string& layer, const MixtureNames& names,
                  const HasTensor& has) {
  map.rename(ours + ".router.weight", layer + names.router);
  const std::string experts = layer + names.experts;
  if (has && has(experts + ".gate_up_proj")) {
    map.fuse({ours + ".experts.gate", ours + ".experts.up"}, experts + ".gate_up_proj", 1);
    map.rename(ours + ".experts.down", experts + ".down_proj");
    return;
  }
  const std::pair<const char*, const std::string&> parts[]{{"gate", names.gate}, {"up", names.up}, {"down", names.down}};
  for (const auto& [part, theirs] : parts)
    map.stack(ours + ".experts." + part, [&](int64_t e) { return fmt::format("{}.{}.{}.weight", experts, e, theirs); });
}

}  // namespace

void link_decoder(NameMap& map, const ModelOptions& options, const MixtureNames& names, const HasTensor& has) {
  map.rename("embedding.weight", "model.embed_tokens.weight");
  for (int64_t i = 0; i < options.layers; ++i) {
    const std::string ours = fmt::format("layers.{}.", i), theirs = fmt::format("model.layers.{}.", i);
    const std::pair<const char*, const char*> renamed[]{
        {"attention_norm.weight", "input_layernorm.weight"},
        {"attention.query.weight", "self_attn.q_proj.weight"},
        {"attention.query.bias", "self_attn.q_proj.bias"},
        {"attention.key.weight", "self_attn.k_proj.weight"},
        {"attention.key.bias", "self_attn.k_proj.bias"},
        {"attention.value.weight", "self_attn.v_proj.weight"},
        {"attention.value.bias", "self_attn.v_proj.bias"},
        {"attention.output.weight", "self_attn.o_proj.weight"},
        {"attention.output.bias", "self_attn.o_proj.bias"},
        {"attention.query_norm.weight", "self_attn.q_norm.weight"},
        {"attention.key_norm.weight", "self_attn.k_norm.weight"},
        {"feed_forward_norm.weight", "post_attention_layernorm.weight"},
        {"feed_forward.gate.weight", "mlp.gate_proj.weight"},
        {"feed_forward.up.weight", "mlp.up_proj.weight"},
        {"feed_forward.down.weight", "mlp.down_proj.weight"},
        {"feed_forward.gate.bias", "mlp.gate_proj.bias"},
        {"feed_forward.up.bias", "mlp.up_proj.bias"},
        {"feed_forward.down.bias", "mlp.down_proj.bias"},
        {"feed_forward.shared.gate", "mlp.shared_expert.gate_proj.weight"},
        {"feed_forward.shared.up", "mlp.shared_expert.up_proj.weight"},
        {"feed_forward.shared.down", "mlp.shared_expert.down_proj.weight"},
        {"feed_forward.shared.mix", "mlp.shared_expert_gate.weight"}};
    for (const auto& [name, hub] : renamed)
      if (map.declares(ours + name)) map.rename(ours + name, theirs + hub);
    if (map.declares(ours + "feed_forward.router.weight")) link_mixture(map, ours + "feed_forward", theirs, names, has);
    map.ignore(theirs + "self_attn.rotary_emb.inv_freq");
  }
  map.rename("norm.weight", "model.norm.weight");
  if (map.declares("head.weight")) map.rename("head.weight", "lm_head.weight");
  else map.ignore("lm_head.weight");
}

}  // namespace switchyard
