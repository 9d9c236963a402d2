// Qwen's and OLMoE's: experts by a softmax, dense layers told by their tensors.
#include "switchyard/models/families/gguf/architecture.h"
#include "switchyard/models/families/gguf/file_keys.h"
#include "switchyard/models/families/gguf/hub_config.h"

namespace switchyard::gguf {
namespace {

void olmoe_config(HubConfig& config) {
  put_softmax_experts(config, "olmoe", false);
  config.put_flag("attention_bias", config.file().has("blk.0.attn_q.bias"));
  if (config.has("attention.clamp_kqv")) config.put_number("clip_qkv", config.number("attention.clamp_kqv", 0));
}

void qwen2moe_config(HubConfig& config) {
  put_softmax_experts(config, "qwen2_moe", false);
  config.copy("shared_expert_intermediate_size", "expert_shared_feed_forward_length");
  put_dense_layers(config);
}

void qwen3moe_config(HubConfig& config) {
  put_softmax_experts(config, "qwen3_moe", true);
  config.put_flag("attention_bias", config.file().has("blk.0.attn_q.bias"));
  put_dense_layers(config);
}

void qwen2_config(HubConfig& config) {
  config.put_text("model_type", "qwen2");
  put_windows(config);
}

void qwen3_config(HubConfig& config) {
  config.put_text("model_type", "qwen3");
  config.put_flag("attention_bias", config.file().has("blk.0.attn_q.bias"));
  put_windows(config);
}

}  // namespace

std::vector<Architecture> qwen_architectures() {
  return {{.name = "olmoe", .model_types = {"olmoe"}, .config = olmoe_config, .keys = put_plain},
          {.name = "qwen2moe", .model_types = {"qwen2_moe"}, .config = qwen2moe_config, .keys = put_plain},
          {.name = "qwen3moe", .model_types = {"qwen3_moe"}, .llama_cpp = {.weights = Architecture::LlamaCpp::Weights::renormalised}, .config = qwen3moe_config, .keys = put_plain},
          {.name = "qwen2", .model_types = {"qwen2"}, .config = qwen2_config, .keys = put_plain},
          {.name = "qwen3", .model_types = {"qwen3"}, .config = qwen3_config, .keys = put_plain}};
}

}  // namespace switchyard::gguf
