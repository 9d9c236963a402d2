// Snowflake's Arctic: a dense network behind attention, experts on the layer's input beside it.
#include "switchyard/models/families/gguf/architecture.h"
#include "switchyard/models/families/gguf/file_keys.h"
#include "switchyard/models/families/gguf/hub_config.h"

namespace switchyard::gguf {
namespace {

void arctic_config(HubConfig& config) {
  config.put_text("model_type", "arctic");
  config.copy("num_local_experts", "expert_count");
  config.copy("num_experts_per_tok", "expert_used_count");
  config.put("moe_layer_frequency", 1);
  config.put_flag("parallel_attn_mlp_res", true);
  config.put_flag("use_residual", true);
  config.put_flag("attention_bias", config.file().has("blk.0.attn_q.bias"));
}

void arctic_keys(FileKeys& keys) {
  put_plain(keys);
  if (keys.integer("num_experts_per_tok", 0) == 1) keys.notice("llama.cpp divides the weight of the one expert of 'arctic' by itself");
}

}  // namespace

std::vector<Architecture> arctic_architectures() {
  const std::string experts = "block_sparse_moe.";
  std::vector<Rule> rules{{"ffn_norm.weight", "residual_layernorm.weight"}, {"ffn_norm_exps.weight", "post_attention_layernorm.weight"}};
  for (const auto& [part, hub] : {std::pair{"gate", "w1"}, {"up", "w3"}, {"down", "w2"}})
    rules.push_back({fmt::format("ffn_{}.weight", part), fmt::format("residual_mlp.{}.weight", hub)});
  return {{.name = "arctic", .model_types = {"arctic"}, .router = experts + "gate", .experts = experts + "experts.{e}.", .gate = "w1", .up = "w3", .down = "w2", .permuted = true,
           .rules = std::move(rules), .config = arctic_config, .keys = arctic_keys}};
}

}  // namespace switchyard::gguf
