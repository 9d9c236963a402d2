// Grok-1: norms before and behind each sub-layer, capped scores, three multipliers.
#include "switchyard/models/families/gguf/architecture.h"
#include "switchyard/models/families/gguf/file_keys.h"
#include "switchyard/models/families/gguf/hub_config.h"

namespace switchyard::gguf {
namespace {

/// The hub's number, the container's, and what files without it mean.
struct Multiplier { const char *hub, *key; double standard; };
constexpr Multiplier kMultipliers[] = {{"embedding_multiplier_scale", "embedding_scale", 78.38367176906169}, {"output_multiplier_scale", "logit_scale", 0.5773502691896257},
                                       {"attn_output_multiplier", "attention.output_scale", 0.08838834764831845}, {"max_attn_value", "attn_logit_softcapping", 30}};
constexpr double kRouterCap = 30;  // written by everyone and computed by nobody

void grok_config(HubConfig& config) {
  config.put_text("model_type", "grok-1");
  config.only("attention.temperature_length", 0);
  config.only("router_logit_softcapping", kRouterCap);
  config.copy("num_experts", "expert_count");
  config.copy("num_experts_per_tok", "expert_used_count");
  config.put("intermediate_size", config.integer("expert_feed_forward_length", config.integer("feed_forward_length", 0)));
  config.put_text("hidden_act", "gelu_pytorch_tanh");
  for (const auto& [hub, key, standard] : kMultipliers) config.put_number(hub, config.number(key, standard));
}

void grok_keys(FileKeys& keys) {
  put_attention(keys);
  put_experts(keys);
  for (const auto& [hub, key, standard] : kMultipliers) keys.copy_number(key, hub);
  keys.number("router_logit_softcapping", kRouterCap);
  keys.notice("llama.cpp divides the weights of experts of 'grok' by their sum, which the norm behind them undoes but for its epsilon");
}

}  // namespace

std::vector<Architecture> grok_architectures() {
  std::vector<Rule> rules{{"attn_norm.weight", "pre_attn_norm.scale"}, {"attn_output_norm.weight", "post_attn_norm.scale"}, {"ffn_norm.weight", "pre_moe_norm.scale"},
                          {"layer_output_norm.weight", "post_moe_norm.scale"}, {"post_ffw_norm.weight", "post_moe_norm.scale"}};
  for (const std::string part : {"q", "k", "v"}) rules.push_back({"attn_" + part + ".weight", "attn." + part + "_proj.weight"});
  rules.push_back({"attn_output.weight", "attn.o_proj.weight"});
  return {{.name = "grok", .model_types = {"grok-1"}, .router = "moe_block.gate", .experts = "moe_block.experts.{e}.", .gate = "linear", .up = "linear_v",
           .down = "linear_1", .rules = std::move(rules), .outer = {{"output_norm.weight", "model.norm.scale"}}, .config = grok_config, .keys = grok_keys}};
}

}  // namespace switchyard::gguf
