// "llama" stands for Llama, Mistral and Mixtral alike: what is there tells which.
#include "switchyard/models/families/gguf/architecture.h"
#include "switchyard/models/families/gguf/file_keys.h"
#include "switchyard/models/families/gguf/hub_config.h"

namespace switchyard::gguf {
namespace {

void llama_config(HubConfig& config) {
  const bool mixture = config.integer("expert_count", 0) > 0, windowed = config.has("attention.sliding_window");
  config.put_text("model_type", mixture ? "mixtral" : windowed ? "mistral" : "llama");
  if (windowed) config.copy("sliding_window", "attention.sliding_window");
  else if (mixture) config.put("sliding_window", Node());
  if (mixture) {
    config.copy("num_local_experts", "expert_count");
    config.copy("num_experts_per_tok", "expert_used_count");
  } else if (!windowed) {
    config.put_flag("attention_bias", config.file().has("blk.0.attn_q.bias"));
    config.put_flag("mlp_bias", config.file().has("blk.0.ffn_up.bias"));
  }
}

}  // namespace

std::vector<Architecture> llama_architectures() {
  return {{.name = "llama", .model_types = {"mixtral", "llama", "mistral"}, .router = "block_sparse_moe.gate",
           .experts = "block_sparse_moe.experts.{e}.", .gate = "w1", .up = "w3", .down = "w2", .permuted = true, .config = llama_config, .keys = put_plain}};
}

}  // namespace switchyard::gguf
