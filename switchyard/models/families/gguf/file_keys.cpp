#include "switchyard/models/families/gguf/file_keys.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/reciprocal.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>

#include "switchyard/models/families/composition.h"
#include "switchyard/models/families/gguf/architecture.h"
#include "switchyard/models/families/gguf/hub_config.h"
#include "switchyard/models/families/table_family.h"

namespace switchyard::gguf {

void FileKeys::number(const std::string& key, double value) {
  const auto narrow = static_cast<float>(value);
  metadata_.set(prefix_ + key, GgufValue::f32(narrow));
  if (std::fabs(std::stod(decimal(narrow).scalar()) - value) > 1e-12 * std::fabs(value)) metadata_.set(kExact + prefix_ + key, {GgufType::f64, value});
}

int64_t head_width(const Node& config) {
  const Node* own = find_at(config, "head_dim");
  const int64_t given = own != nullptr && own->is_scalar() ? integer_at(config, "head_dim") : 0;
  return given > 0 ? given : integer_at(config, "hidden_size") / std::max<int64_t>(1, integer_at(config, "num_attention_heads"));
}

namespace {

void put_rotary(FileKeys& keys) {
  const Node& config = keys.config();
  keys.copy_number("rope.freq_base", "rope_theta");
  if (!keys.present("rope_scaling.rope_type")) return;
  const std::string kind = text_at(config, "rope_scaling.rope_type");
  if (kind == "llama3")  // a tensor, which comes with the others
    keys.metadata().set(kLlama3, GgufValue::floats({number_at(config, "rope_scaling.low_freq_factor"), number_at(config, "rope_scaling.high_freq_factor"),
                                                          number_at(config, "rope_scaling.original_max_position_embeddings")}));
  if (kind != "linear" && kind != "yarn") return;  // what remains is found to be missing
  keys.text("rope.scaling.type", kind);
  keys.copy_number("rope.scaling.factor", "rope_scaling.factor");
  if (kind == "linear") return;
  keys.copy("rope.scaling.original_context_length", "rope_scaling.original_max_position_embeddings");
  keys.copy_number("rope.scaling.yarn_beta_fast", "rope_scaling.beta_fast");
  keys.copy_number("rope.scaling.yarn_beta_slow", "rope_scaling.beta_slow");
  if (keys.present("rope_scaling.mscale_all_dim")) keys.number("rope.scaling.yarn_log_multiplier", 0.1 * number_at(config, "rope_scaling.mscale_all_dim"));
  if (keys.present("rope_scaling.truncate") && !flag_at(config, "rope_scaling.truncate"))
    keys.metadata().set(kYarnTruncate, GgufValue::flag(false));
}

}  // namespace

void put_common(FileKeys& keys) {
  keys.copy("block_count", "num_hidden_layers");
  keys.copy("context_length", "max_position_embeddings");
  keys.copy("embedding_length", "hidden_size");
  keys.copy("feed_forward_length", "intermediate_size");
  keys.copy("attention.head_count", "num_attention_heads");
  keys.copy("vocab_size", "vocab_size");
  keys.copy_number("attention.layer_norm_rms_epsilon", "rms_norm_eps");
  put_rotary(keys);
}

void put_attention(FileKeys& keys) {
  const Node& config = keys.config();
  const int64_t heads = integer_at(config, "num_attention_heads"), width = head_width(config), own = keys.integer("num_key_value_heads", 0);
  keys.count("attention.head_count_kv", own > 0 ? own : heads);
  const double turning = keys.present("partial_rotary_factor") ? number_at(config, "partial_rotary_factor") * static_cast<double>(width) : static_cast<double>(width);
  keys.count("rope.dimension_count", keys.integer("rotary_dim", static_cast<int64_t>(turning)));
  if (width * heads != integer_at(config, "hidden_size") || find_at(config, "head_dim") != nullptr) {
    keys.count("attention.key_length", width);
    keys.count("attention.value_length", width);
  }
}

void put_key_heads(FileKeys& keys) {
  const int64_t all = integer_at(keys.config(), "num_attention_heads"), own = keys.integer("num_key_value_heads", 0);
  std::vector<int64_t> heads;
  for (const Node& layer : find_at(keys.composition(), "layers")->items()) heads.push_back(text_at(layer, "attention.type") == "gqa" ? own > 0 ? own : all : 0);
  keys.counts("attention.head_count_kv", std::move(heads));
}

void note_state_limits(FileKeys& keys, int64_t expand, const char* architecture) {
  if (expand != 2) keys.notice(fmt::format("llama.cpp reads '{}' only with a mamba_expand of 2", architecture));
  if (keys.present("mamba_conv_bias") && !flag_at(keys.config(), "mamba_conv_bias")) keys.notice(fmt::format("llama.cpp wants a bias of the convolutions of '{}'", architecture));
}

void put_said_rotary(FileKeys& keys) {
  Node said = Node::map();
  for (const char* key : {"rope_theta", "rope_scaling"}) said[key] = Node(*find_at(keys.config(), key));
  keys.metadata().set(kRotary, GgufValue::text(to_json(said, 0)));
}

void put_experts(FileKeys& keys) {
  for (const char* hub : {"num_local_experts", "num_experts"}) keys.copy("expert_count", hub);
  keys.copy("expert_used_count", "num_experts_per_tok");
  keys.copy("expert_feed_forward_length", "moe_intermediate_size");
  keys.copy("expert_shared_feed_forward_length", "shared_expert_intermediate_size");
  if (keys.present("norm_topk_prob")) keys.flag("expert_weights_norm", flag_at(keys.config(), "norm_topk_prob"));
  if (keys.present("clip_qkv")) keys.copy_number("attention.clamp_kqv", "clip_qkv");
}

void put_fine_experts(FileKeys& keys) {
  keys.copy("leading_dense_block_count", "first_k_dense_replace");
  keys.copy("expert_feed_forward_length", "moe_intermediate_size");
  keys.copy("expert_count", "n_routed_experts");
  keys.copy("expert_used_count", "num_experts_per_tok");
  keys.count("expert_shared_count", keys.integer("n_shared_experts", 0));
  keys.copy_number("expert_weights_scale", "routed_scaling_factor");
  keys.flag("expert_weights_norm", keys.present("norm_topk_prob") && flag_at(keys.config(), "norm_topk_prob"));
  keys.copy("expert_group_count", "n_group");
  keys.copy("expert_group_used_count", "topk_group");
}

void put_windows(FileKeys& keys, bool alternate) {
  const int64_t layers = layers_of(keys.composition());
  std::vector<uint64_t> slides;
  int64_t window = 0;
  for (int64_t i = 0; i < layers; ++i) {
    const int64_t here = integer_at(keys.composition(), fmt::format("layers.{}.attention.window", i));
    slides.push_back(here > 0);
    window = std::max(window, here);
  }
  if (window == 0) return;
  keys.count("attention.sliding_window", window);
  for (size_t i = 0; i < slides.size(); ++i) alternate = alternate && slides[i] == (i % 2 == 0);
  if (!alternate && std::find(slides.begin(), slides.end(), 0u) != slides.end()) keys.flags("attention.sliding_window_pattern", std::move(slides));
}

void put_plain(FileKeys& keys) {
  put_attention(keys);
  put_experts(keys);
  put_windows(keys);
}

double llama3_divisor(double turns, double factor, double low, double high) {
  const double share = low == high ? (turns >= low ? 1 : 0) : std::clamp((turns - low) / (high - low), 0.0, 1.0);
  return 1 / ((1 - share) / factor + share);
}

at::Tensor frequency_divisors(const Node& config) {
  const double theta = number_at(config, "rope_theta"), factor = number_at(config, "rope_scaling.factor"), low = number_at(config, "rope_scaling.low_freq_factor"),
               high = number_at(config, "rope_scaling.high_freq_factor"), original = number_at(config, "rope_scaling.original_max_position_embeddings");
  const int64_t width = head_width(config);
  // In float32, as the reference's converter has it, to the bit.
  const at::Tensor frequencies = at::pow(theta, at::arange(0, width, 2, at::kFloat) / width).reciprocal().contiguous();
  std::vector<float> divisors;
  for (int64_t j = 0; j < frequencies.numel(); ++j) {
    const float length = static_cast<float>(2 * M_PI) / frequencies.const_data_ptr<float>()[j], turns = static_cast<float>(original) / length;
    const float share = (turns - static_cast<float>(low)) / static_cast<float>(high - low);
    const bool whole = length < static_cast<float>(original / high) || low == high;
    divisors.push_back(length > static_cast<float>(original / low) ? static_cast<float>(factor) : whole ? 1 : 1 / ((1 - share) / static_cast<float>(factor) + share));
  }
  return at::tensor(divisors);
}

}  // namespace switchyard::gguf
