// DeepSeek-V2 and V3 and Kimi K2: multi-head latent attention, grouped experts. And the first, DeepSeekMoE, with neither.
#include <ATen/ops/empty.h>
#include <ATen/ops/reshape.h>

#include "switchyard/models/families/gguf/architecture.h"
#include "switchyard/models/families/gguf/file_keys.h"
#include "switchyard/models/families/gguf/file_tensors.h"
#include "switchyard/models/families/gguf/hub_config.h"
#include "switchyard/models/families/gguf/hub_tensors.h"

namespace switchyard::gguf {
namespace {

void latent_config(HubConfig& config) {
  const int64_t rope = config.integer("rope.dimension_count");
  const bool own = config.has("attention.key_length_mla");  // newer files give the compressed sizes under the plain keys
  config.put("num_key_value_heads", config.integer("attention.head_count"));
  if (config.has("attention.q_lora_rank")) config.copy("q_lora_rank", "attention.q_lora_rank");
  else config.put("q_lora_rank", Node());
  config.copy("kv_lora_rank", "attention.kv_lora_rank");
  config.put("qk_rope_head_dim", rope);
  config.put("qk_nope_head_dim", config.integer(own ? "attention.key_length_mla" : "attention.key_length") - rope);
  config.copy("v_head_dim", own ? "attention.value_length_mla" : "attention.value_length");
  config.drop("head_dim");
}

void deepseek_config(HubConfig& config) {
  const bool sigmoid = config.integer("expert_gating_func", 1) == 2;
  const int64_t groups = config.integer("expert_group_count", 1);
  latent_config(config);
  config.put_text("model_type", sigmoid ? "deepseek_v3" : "deepseek_v2");
  put_fine_experts(config);
  config.put_text("scoring_func", sigmoid ? "sigmoid" : "softmax");
  config.put_text("topk_method", sigmoid ? "noaux_tc" : groups > 1 ? "group_limited_greedy" : "greedy");
  config.put_flag("attention_bias", false);
}

void first_deepseek_config(HubConfig& config) {
  config.put_text("model_type", "deepseek");
  put_fine_experts(config);
  for (const char* later : {"routed_scaling_factor", "n_group", "topk_group"}) config.drop(later);
  config.put_text("scoring_func", "softmax");
  config.put_flag("attention_bias", config.file().has("blk.0.attn_q.bias"));
}

void first_deepseek_keys(FileKeys& keys) {
  put_attention(keys);
  put_fine_experts(keys);
  keys.number("expert_weights_scale", 1);
  keys.count("expert_gating_func", 1);
  if (!keys.present("rope_scaling.rope_type")) keys.text("rope.scaling.type", "none");
}

void latent_keys(FileKeys& keys) {
  const Node& config = keys.config();
  const int64_t rank = integer_at(config, "kv_lora_rank"), turning = integer_at(config, "qk_rope_head_dim"), plain = integer_at(config, "qk_nope_head_dim");
  keys.count("attention.head_count_kv", 1);  // all heads share the compressed key
  if (keys.integer("q_lora_rank", 0) > 0) keys.copy("attention.q_lora_rank", "q_lora_rank");
  keys.count("attention.kv_lora_rank", rank);
  keys.count("attention.key_length", rank + turning);
  keys.count("attention.value_length", rank);
  keys.count("attention.key_length_mla", plain + turning);
  keys.copy("attention.value_length_mla", "v_head_dim");
  keys.count("rope.dimension_count", turning);
}

void deepseek_keys(FileKeys& keys) {
  const Node& config = keys.config();
  latent_keys(keys);
  put_fine_experts(keys);
  keys.count("expert_gating_func", text_at(config, "scoring_func") == "sigmoid" ? 2 : 1);
  if (text_at(config, "model_type") == "deepseek_v2" && keys.integer("n_group", 1) > 1)
    keys.notice("llama.cpp chooses groups of experts by the sum of their two best, as DeepSeek-V3 does, where DeepSeek-V2 takes the best one");
}

/// Multi-head latent attention: [H, kv, nope] and [H, v, kv] become the hub's [H (nope + v), kv].
void key_value_map_from_file(HubTensors& tensors, const std::string& prefix, const std::string& hub) {
  const TensorInfo *keys = tensors.theirs(prefix + "attn_k_b.weight"), *values = tensors.theirs(prefix + "attn_v_b.weight");
  if (keys == nullptr || values == nullptr) return;
  check(keys->shape.size() == 3 && values->shape.size() == 3 && keys->shape[0] == values->shape[0] && keys->shape[1] == values->shape[2],
        "model.gguf", "{}: {} and {} do not fit together", tensors.where(), keys->name, values->name);
  tensors.use(keys->name);
  tensors.use(values->name);
  const int64_t rows = keys->shape[0] * (keys->shape[2] + values->shape[1]), rank = keys->shape[1];
  tensors.add({{hub + "self_attn.kv_b_proj.weight", keys->dtype, {rows, rank}, keys->bytes + values->bytes},
               [&tensors, keys = keys->name, values = values->name, rows, rank] {
                 const at::Tensor k = tensors.read(keys).transpose(1, 2), v = tensors.read(values);
                 at::Tensor both = at::empty({k.size(0), k.size(1) + v.size(1), rank}, k.options());
                 both.narrow(1, 0, k.size(1)).copy_(k);
                 both.narrow(1, k.size(1), v.size(1)).copy_(v);
                 return both.view({rows, rank});
               }});
}

/// Multi-head latent attention: the hub's [H (nope + v), kv] become [H, kv, nope] and [H, v, kv].
void key_value_maps_to_file(FileTensors& tensors, const std::string& prefix, const std::string& hub) {
  const Node& config = tensors.config();
  const std::string of = hub + "self_attn.kv_b_proj.weight";
  const TensorInfo* info = tensors.hub(of);
  if (info == nullptr || info->shape.size() != 2) return;
  const int64_t heads = integer_at(config, "num_attention_heads"), plain = integer_at(config, "qk_nope_head_dim"), value = integer_at(config, "v_head_dim");
  const int64_t rank = info->shape[1];
  check(info->shape[0] == heads * (plain + value), "convert.gguf.tensor", "{}: {} has {} rows, not {} heads of {}", tensors.where(), of,
        info->shape[0], heads, plain + value);
  const auto apart = [heads, rank](const at::Tensor& both) { return both.reshape({heads, -1, rank}); };
  tensors.add(prefix + "attn_k_b.weight", {of}, {heads, rank, plain},
              [=](const std::vector<at::Tensor>& one) { return apart(one[0]).narrow(1, 0, plain).transpose(1, 2); });
  tensors.add(prefix + "attn_v_b.weight", {of}, {heads, value, rank},
              [=](const std::vector<at::Tensor>& one) { return apart(one[0]).narrow(1, plain, value); });
}

}  // namespace

std::vector<Architecture> deepseek_architectures() {
  return {{.name = "deepseek2", .model_types = {"deepseek_v3", "deepseek_v2", "kimi_k2"}, .shared = "mlp.shared_experts.",
           .llama_cpp = {.dense_layers = true, .weights = Architecture::LlamaCpp::Weights::as_said}, .config = deepseek_config,
           .keys = deepseek_keys, .from_file = key_value_map_from_file, .to_file = key_value_maps_to_file},
          {.name = "deepseek", .model_types = {"deepseek"}, .shared = "mlp.shared_experts.", .permuted = true, .llama_cpp = {.dense_layers = true},
           .config = first_deepseek_config, .keys = first_deepseek_keys}};
}

}  // namespace switchyard::gguf
