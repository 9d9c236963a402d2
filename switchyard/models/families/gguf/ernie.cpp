// ERNIE 4.5: a softmax chooses with a bias and weighs without it.
#include "switchyard/models/families/composition.h"
#include "switchyard/models/families/gguf/architecture.h"
#include "switchyard/models/families/gguf/file_keys.h"
#include "switchyard/models/families/gguf/hub_config.h"
#include "switchyard/models/families/table_family.h"

namespace switchyard::gguf {
namespace {

void ernie_config(HubConfig& config) {
  config.put_text("model_type", "ernie4_5_moe");
  config.copy("moe_num_experts", "expert_count");
  config.copy("moe_k", "expert_used_count");
  config.copy("moe_intermediate_size", "expert_feed_forward_length");
  config.put("moe_num_shared_experts", config.integer("expert_shared_count", 0));
  config.put("moe_layer_start_index", config.integer("leading_dense_block_count", 0));
  config.put("moe_layer_interval", config.integer("interleave_moe_layer_step", 1));
  int64_t last = config.layers() - 1;  // the container tells by its tensors alone
  while (last > 0 && !config.file().has(fmt::format("blk.{}.ffn_gate_inp.weight", last))) --last;
  config.put("moe_layer_end_index", last);
  config.put_flag("use_bias", config.file().has("blk.0.attn_q.bias"));
}

void ernie_keys(FileKeys& keys) {
  put_attention(keys);
  keys.copy("expert_count", "moe_num_experts");
  keys.copy("expert_used_count", "moe_k");
  keys.copy("expert_feed_forward_length", "moe_intermediate_size");
  keys.copy("leading_dense_block_count", "moe_layer_start_index");
  keys.copy("interleave_moe_layer_step", "moe_layer_interval");
  const int64_t shared = keys.integer("moe_num_shared_experts", 0);
  keys.count("expert_shared_count", shared);
  if (shared > 0) keys.count("expert_shared_feed_forward_length", shared * keys.integer("moe_intermediate_size", 0));
  const int64_t first = first_layer(keys.composition(), has_mixture);
  if (first >= 0 && first_layer(keys.composition(), [&, i = int64_t{0}](const Node& layer) mutable { return i++ >= first && !has_mixture(layer); }) >= 0)
    keys.notice("llama.cpp wants experts in every layer of 'ernie4_5-moe' behind the first ones");
}

}  // namespace

std::vector<Architecture> ernie_architectures() {
  return {{.name = "ernie4_5-moe", .model_types = {"ernie4_5_moe"}, .shared = "mlp.shared_experts.",
           .rules = {{"exp_probs_b.bias", "mlp.moe_statics.e_score_correction_bias", Rule::Move::row},
                     {"exp_probs_b.bias", "mlp.gate.moe_statics.e_score_correction_bias", Rule::Move::row}},
           .llama_cpp = {.dense_layers = true}, .config = ernie_config, .keys = ernie_keys}};
}

}  // namespace switchyard::gguf
