// Hunyuan-A13B: the rotary base is stretched once for all, and the container has only the result.
#include <cmath>

#include "switchyard/models/families/composition.h"
#include "switchyard/models/families/gguf/architecture.h"
#include "switchyard/models/families/gguf/file_keys.h"
#include "switchyard/models/families/gguf/hub_config.h"

namespace switchyard::gguf {
namespace {

double stretched(double theta, double alpha, int64_t width) {
  return theta * std::pow(alpha, static_cast<double>(width) / static_cast<double>(width - 2));
}

void hunyuan_config(HubConfig& config) {
  config.put_text("model_type", "hunyuan_v1_moe");
  config.copy("num_experts", "expert_count");
  config.copy("moe_topk", "expert_used_count");
  config.put("num_shared_expert", 1);
  config.put("intermediate_size", config.integer("expert_shared_feed_forward_length", config.integer("feed_forward_length", 0)));
  config.put("moe_intermediate_size", config.integer("expert_feed_forward_length", config.integer("feed_forward_length", 0)));
  config.put_flag("norm_topk_prob", true);
  config.put_flag("attention_bias", config.file().has("blk.0.attn_q.bias"));
  config.put_flag("use_qk_norm", config.file().has("blk.0.attn_q_norm.weight"));
  put_said_rotary(config, [&](const Node& said) {
    const double base = stretched(number_at(said, "rope_theta"), number_at(said, "rope_scaling.alpha"), config.head_width());
    return std::fabs(base / config.number("rope.freq_base", 1) - 1) < 1e-5;
  });
}

void hunyuan_keys(FileKeys& keys) {
  const std::string mixture = "layers.0.mixtures.0.";
  const int64_t dense = keys.integer("intermediate_size", 0), fine = integer_at(keys.composition(), mixture + "expert.hidden");
  put_attention(keys);
  keys.copy("expert_count", "num_experts");
  keys.count("expert_used_count", integer_at(keys.composition(), mixture + "router.k"));
  keys.count("expert_feed_forward_length", fine);
  keys.count("expert_shared_count", 1);
  keys.count("expert_shared_feed_forward_length", integer_at(keys.composition(), mixture + "shared.0.expert.hidden"));
  if (dense != fine) keys.notice("llama.cpp takes experts of 'hunyuan-moe' to be as wide as intermediate_size says");
  if (!keys.present("rope_scaling.alpha") || number_at(keys.config(), "rope_scaling.alpha") == 0) return;
  keys.number("rope.freq_base", stretched(number_at(keys.config(), "rope_theta"), number_at(keys.config(), "rope_scaling.alpha"), head_width(keys.config())));
  keys.text("rope.scaling.type", "none");
  keys.number("rope.scaling.factor", 1);
  put_said_rotary(keys);
}

}  // namespace

std::vector<Architecture> hunyuan_architectures() {
  return {{.name = "hunyuan-moe", .model_types = {"hunyuan_v1_moe"}, .router = "mlp.gate.wg", .shared = "mlp.shared_mlp.",
           .rules = {{"attn_q_norm.weight", "self_attn.query_layernorm.weight"}, {"attn_k_norm.weight", "self_attn.key_layernorm.weight"}},
           .llama_cpp = {.weights = Architecture::LlamaCpp::Weights::renormalised}, .config = hunyuan_config, .keys = hunyuan_keys}};
}

}  // namespace switchyard::gguf
