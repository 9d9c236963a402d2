// GLM-4.5, dots.llm1 and MiniMax-M2: experts chosen by sigmoids and a bias.
#include "switchyard/models/families/gguf/architecture.h"
#include "switchyard/models/families/gguf/file_keys.h"
#include "switchyard/models/families/gguf/hub_config.h"

namespace switchyard::gguf {
namespace {

constexpr int kSigmoid = 2;  // of expert_gating_func

void glm4_moe_config(HubConfig& config) {
  config.put_text("model_type", "glm4_moe");
  config.only("expert_gating_func", kSigmoid);
  check(!config.has("rope.dimension_sections"), "model.gguf", "{}: glm4moe.rope.dimension_sections turns heads by positions in pictures, which are not read",
        config.metadata().source());
  put_fine_experts(config);
  config.put_flag("attention_bias", config.file().has("blk.0.attn_q.bias"));
  config.put_flag("use_qk_norm", config.file().has("blk.0.attn_q_norm.weight"));
  config.put_number("partial_rotary_factor", config.turning_share());
}

void dots1_config(HubConfig& config) {
  config.put_text("model_type", "dots1");
  config.only("expert_gating_func", kSigmoid);
  put_fine_experts(config);
  config.put_flag("attention_bias", config.file().has("blk.0.attn_q.bias"));
  config.put("sliding_window", Node());  // which the family would take for granted
  put_windows(config);
  config.drop("use_sliding_window");
}

void minimax_m2_config(HubConfig& config) {
  config.put_text("model_type", "minimax_m2");
  config.only("expert_gating_func", kSigmoid);
  config.copy("num_local_experts", "expert_count");
  config.copy("num_experts_per_tok", "expert_used_count");
  config.put("intermediate_size", config.integer("expert_feed_forward_length", config.integer("feed_forward_length", 0)));
  config.put_flag("use_qk_norm", config.file().has("blk.0.attn_q_norm.weight"));
  config.put_flag("use_routing_bias", config.file().has("blk.0.exp_probs_b.bias"));
  config.put("head_dim", config.head_width());
  config.put("rotary_dim", config.turning());
}

void sigmoid_keys(FileKeys& keys) {
  put_attention(keys);
  put_fine_experts(keys);
  put_windows(keys);
  keys.count("expert_gating_func", kSigmoid);
}

void dots1_keys(FileKeys& keys) {
  sigmoid_keys(keys);
  if (keys.integer("num_key_value_heads", 0) != integer_at(keys.config(), "num_attention_heads"))
    keys.notice("llama.cpp wants as many heads of keys and values as of queries in 'dots1'");
}

void glm4_moe_keys(FileKeys& keys) {
  sigmoid_keys(keys);
  keys.count("nextn_predict_layers", 0);
}

void minimax_m2_keys(FileKeys& keys) {
  put_attention(keys);
  put_experts(keys);
  keys.copy("expert_feed_forward_length", "intermediate_size");
  keys.count("expert_gating_func", kSigmoid);
}

}  // namespace

std::vector<Architecture> sigmoid_architectures() {
  using Weights = Architecture::LlamaCpp::Weights;
  return {{.name = "glm4moe", .model_types = {"glm4_moe"}, .shared = "mlp.shared_experts.",
           .rules = {{"post_attention_norm.weight", "post_attention_layernorm.weight"}},
           .llama_cpp = {.dense_layers = true, .weights = Weights::as_said}, .config = glm4_moe_config, .keys = glm4_moe_keys},
          {.name = "dots1", .model_types = {"dots1"}, .shared = "mlp.shared_experts.",
           .llama_cpp = {.dense_layers = true, .own_head = true, .weights = Weights::as_said}, .config = dots1_config, .keys = dots1_keys},
          {.name = "minimax-m2", .model_types = {"minimax_m2"}, .router = "block_sparse_moe.gate", .experts = "block_sparse_moe.experts.{e}.",
           .gate = "w1", .up = "w3", .down = "w2", .rules = {{"exp_probs_b.bias", "block_sparse_moe.e_score_correction_bias"}, {"exp_probs_b.bias", "mlp.e_score_correction_bias"}},
           .llama_cpp = {.own_head = true}, .config = minimax_m2_config, .keys = minimax_m2_keys}};
}

}  // namespace switchyard::gguf
