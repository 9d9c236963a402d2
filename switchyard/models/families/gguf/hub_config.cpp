#include "switchyard/models/families/gguf/hub_config.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>

#include "switchyard/models/families/gguf/architecture.h"
#include "switchyard/models/families/gguf/file_keys.h"

namespace switchyard::gguf {

Node decimal(double value) {
  const auto narrow = static_cast<float>(value);
  std::string text = static_cast<double>(narrow) == value ? fmt::format("{}", narrow) : fmt::format("{}", value);
  if (text.find_first_not_of("-0123456789") == std::string::npos) text += ".0";
  return Node(std::move(text));
}

bool HubConfig::attends(int64_t layer) const {
  const GgufValue* value = metadata_.find(prefix_ + kKeyHeads);
  if (value == nullptr || value->type != GgufType::array) return true;
  const std::vector<int64_t> each = metadata_.integers(prefix_ + kKeyHeads);
  check(layer < static_cast<int64_t>(each.size()), "model.gguf", "{}: {}{} lists {} layers of {}", metadata_.source(), prefix_, kKeyHeads, each.size(), layers());
  return each[static_cast<size_t>(layer)] > 0;
}

Node HubConfig::wrapped(const std::string& wrapper) const {
  if (wrapper.empty()) return node_;
  Node whole = Node::map();
  whole.set_mark(node_.mark());
  for (const auto& [key, value] : node_.entries()) (key == "model_type" ? whole : whole[wrapper])[key] = value;
  return whole;
}

namespace {

/// Keys by which architectures compute something else, and the numbers by which they do not.
const std::vector<std::pair<const char*, std::vector<double>>> kActing{
    {"attention.causal", {1}}, {"attention.clamp_kqv", {0}}, {"attention.max_alibi_bias", {0}}, {"attention.scale", {0}}, {"attention.sliding_window", {0}},
    {"attention.temperature_scale", {0}}, {"attn_logit_softcapping", {0}}, {"final_logit_softcapping", {0}}, {"embedding_scale", {0, 1}}, {"logit_scale", {0, 1}},
    {"residual_scale", {0, 1}}, {"expert_weights_scale", {0, 1}}, {"expert_gating_func", {0, 1}}, {"expert_group_count", {0, 1}},
    {"rope.scaling.attn_factor", {0, 1}}, {"rope.scaling.yarn_attn_factor", {0, 1}}, {"rope.scaling.yarn_ext_factor", {1}}};

}  // namespace

void HubConfig::finish() const {
  for (const auto& [key, harmless] : kActing) {
    const GgufValue* value = metadata_.find(prefix_ + key);
    if (value == nullptr || asked_.contains(key)) continue;
    const double number = value->type == GgufType::boolean ? (metadata_.flag(prefix_ + key) ? 1 : 0) : metadata_.number(prefix_ + key);
    check(std::find(harmless.begin(), harmless.end(), number) != harmless.end(), "model.gguf", "{}: {}{} is {}, which is not computed for this architecture",
          metadata_.source(), prefix_, key, number);
  }
}

double HubConfig::number(const std::string& key, double otherwise) const {
  const double stored = has(key) ? metadata_.number(prefix_ + key) : otherwise, exact = metadata_.number(kExact + prefix_ + key, stored);
  return static_cast<float>(exact) == static_cast<float>(stored) ? exact : stored;
}

namespace {

/// rope_scaling in the older key style; null when positions are not scaled.
Node scaling_of(const HubConfig& config) {
  const std::string type = config.text("rope.scaling.type");
  if (type.empty() || type == "none") return {};
  Node node = Node::map();
  node["rope_type"] = HubConfig::quoted(type);
  node["factor"] = decimal(config.number("rope.scaling.factor", 1));
  if (config.has("rope.scaling.original_context_length"))
    node["original_max_position_embeddings"] = Node(std::to_string(config.integer("rope.scaling.original_context_length")));
  if (type != "yarn") return node;
  node["beta_fast"] = decimal(config.number("rope.scaling.yarn_beta_fast", 32));
  node["beta_slow"] = decimal(config.number("rope.scaling.yarn_beta_slow", 1));
  if (config.has("rope.scaling.yarn_log_multiplier")) {  // a tenth of the hub's number; both of its keys have it in published files
    const double tenth = std::stod(decimal(config.number("rope.scaling.yarn_log_multiplier", 0)).scalar());
    const Node scale(fmt::format("{:#.7g}", 10 * tenth));
    node["mscale"] = scale;
    node["mscale_all_dim"] = scale;
  }
  return node;
}

/// Llama 3's scaling from the divisors of frequencies that the container holds in place of its four numbers. Between the two
/// wavelengths of the scheme, 1 / divisor rises linearly with the frequency; that line gives the numbers back, low being 1.
Node scaling_from(const HubConfig& config, const at::Tensor& divisors) {
  const std::string& source = config.metadata().source();
  const int64_t count = divisors.numel();
  const double theta = config.number("rope.freq_base", 10000);
  const at::Tensor plain = divisors.to(at::kDouble).contiguous();
  const double* divisor = plain.const_data_ptr<double>();
  const double factor = count == 0 ? 1 : *std::max_element(divisor, divisor + count);
  const auto turns = [&](int64_t j) { return std::pow(theta, -static_cast<double>(j) / static_cast<double>(count)) / (2 * M_PI); };  // a position
  double n = 0, x = 0, y = 0, xx = 0, xy = 0;
  for (int64_t j = 0; j < count; ++j) {
    if (!(divisor[j] > 1.0001 && divisor[j] < factor * 0.9999)) continue;
    const double share = (1 / divisor[j] - 1 / factor) / (1 - 1 / factor);
    n += 1, x += turns(j), y += share, xx += turns(j) * turns(j), xy += turns(j) * share;
  }
  double low = 1, high = 4, original = 8192;  // as published, where the line cannot be seen
  if (const double spread = n * xx - x * x; n >= 2 && spread > 0) {
    const double slope = (n * xy - x * y) / spread, offset = (y - slope * x) / n;
    high = std::round(1000 * (1 - 1 / offset)) / 1000;
    original = std::round(-slope / offset);
  }
  if (config.metadata().has(kLlama3)) {
    const std::vector<double> said = config.metadata().numbers(kLlama3);
    check(said.size() == 3 && said[0] > 0 && said[1] >= said[0] && said[2] > 0, "model.gguf", "{}: {} are no low and high factor and length", source, kLlama3);
    low = said[0], high = said[1], original = said[2];
  }
  const auto fits = [&](double at_high) {
    for (int64_t j = 0; j < count; ++j)
      if (std::fabs(llama3_divisor(original * turns(j), factor, low, at_high) / divisor[j] - 1) >= 1e-4) return false;
    return true;
  };
  if (n == 0 && !fits(high)) high = low;  // a step, as Llama 4 has it
  check(fits(high), "model.gguf", "{}: rope_freqs.weight scales positions as no known scheme does", source);
  if (factor <= 1) return {};
  Node node = Node::map();
  node["rope_type"] = HubConfig::quoted("llama3");
  node["factor"] = decimal(factor);
  node["low_freq_factor"] = decimal(low);
  node["high_freq_factor"] = decimal(high);
  node["original_max_position_embeddings"] = Node(fmt::format("{:.0f}", original));
  return node;
}

}  // namespace

void put_common(HubConfig& config) {
  const GgufMetadata& metadata = config.metadata();
  const int64_t heads = config.integer("attention.head_count"), width = config.integer("embedding_length");
  const TensorInfo* embedding = nullptr;
  for (const TensorInfo& info : config.file().tensors())
    if (info.name == "token_embd.weight") embedding = &info;
  check(embedding != nullptr && embedding->shape.size() == 2, "model.gguf", "{} has no token_embd.weight", metadata.source());
  config.put("vocab_size", embedding->shape[0]);
  config.put("hidden_size", width);
  config.put("num_hidden_layers", config.layers());
  config.put("num_attention_heads", heads);
  config.put("num_key_value_heads", config.integer("attention.head_count_kv", heads));
  config.put("max_position_embeddings", config.integer("context_length", 2048));
  config.put("intermediate_size", config.integer("feed_forward_length", 0));
  config.put_number("rms_norm_eps", config.number("attention.layer_norm_rms_epsilon", 1e-5));
  config.put_number("rope_theta", config.number("rope.freq_base", 10000));
  if (config.has("attention.key_length")) config.copy("head_dim", "attention.key_length");
  const bool divisors = config.file().has("rope_freqs.weight");
  config.put("rope_scaling", divisors ? scaling_from(config, config.file().get("rope_freqs.weight")) : scaling_of(config));
  config.put_text("hidden_act", "silu");
  config.put_text("torch_dtype", embedding->dtype == "BF16" ? "bfloat16" : embedding->dtype == "F16" ? "float16" : "float32");
  config.put_flag("tie_word_embeddings", !config.file().has("output.weight"));
  if (metadata.has("tokenizer.ggml.bos_token_id")) config.put("bos_token_id", metadata.integer("tokenizer.ggml.bos_token_id"));
  if (metadata.has("tokenizer.ggml.padding_token_id")) config.put("pad_token_id", metadata.integer("tokenizer.ggml.padding_token_id"));
  Node ends = Node::list();
  for (const char* key : {"eos_token_id", "eot_token_id", "eom_token_id"})
    if (const std::string name = std::string("tokenizer.ggml.") + key; metadata.has(name)) ends.append(Node(std::to_string(metadata.integer(name))));
  if (!ends.items().empty()) config.put("eos_token_id", ends.items().size() == 1 ? ends.items()[0] : ends);
}

void put_said_rotary(HubConfig& config, const std::function<bool(const Node& said)>& agrees) {
  const GgufMetadata& metadata = config.metadata();
  if (!metadata.has(kRotary)) return;
  const Node said = parse_json(metadata.text(kRotary), metadata.source());
  const Node *theta = said.is_map() ? said.find("rope_theta") : nullptr, *scaling = said.is_map() ? said.find("rope_scaling") : nullptr;
  check(theta != nullptr && scaling != nullptr && scaling->is_map() && agrees(said), "model.gguf",
        "{}: {} does not say what the file's other metadata says of rotary positions", metadata.source(), kRotary);
  config.put("rope_theta", *theta);
  config.put("rope_scaling", *scaling);
}

void put_softmax_experts(HubConfig& config, const char* type, bool renormalised) {
  config.put_text("model_type", type);
  config.copy("num_experts", "expert_count");
  config.copy("num_experts_per_tok", "expert_used_count");
  config.put_flag("norm_topk_prob", config.flag("expert_weights_norm", renormalised));
  if (!config.has("expert_feed_forward_length")) return;
  config.copy("moe_intermediate_size", "expert_feed_forward_length");
  config.put("decoder_sparse_step", 1);
}

void put_fine_experts(HubConfig& config) {
  config.copy("n_routed_experts", "expert_count");
  config.copy("num_experts_per_tok", "expert_used_count");
  config.put("n_shared_experts", config.integer("expert_shared_count", 0));
  config.copy("moe_intermediate_size", "expert_feed_forward_length");
  config.put("first_k_dense_replace", config.integer("leading_dense_block_count", 0));
  config.put("moe_layer_freq", 1);
  config.put_number("routed_scaling_factor", config.number("expert_weights_scale", 1));
  config.put_flag("norm_topk_prob", config.flag("expert_weights_norm", false));
  config.put("n_group", config.integer("expert_group_count", 1));
  config.put("topk_group", config.integer("expert_group_used_count", 1));
}

void put_dense_layers(HubConfig& config) {
  Node dense = Node::list();
  for (int64_t i = 0; i < config.layers(); ++i)
    if (!config.file().has(fmt::format("blk.{}.ffn_gate_inp.weight", i))) dense.append(Node(std::to_string(i)));
  config.put("mlp_only_layers", dense);
}

void put_windows(HubConfig& config) {
  if (!config.has("attention.sliding_window")) return;
  config.copy("sliding_window", "attention.sliding_window");
  config.put_flag("use_sliding_window", true);
  const std::vector<int64_t> slides = config.pattern("attention.sliding_window_pattern");
  Node kinds = Node::list();
  for (int64_t i = 0; i < config.layers(); ++i)
    kinds.append(HubConfig::quoted(slides.empty() || slides[static_cast<size_t>(i)] != 0 ? "sliding_attention" : "full_attention"));
  config.put("layer_types", kinds);
}

}  // namespace switchyard::gguf
