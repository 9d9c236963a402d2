// DBRX: one map gives queries, keys and values; experts lie in one matrix at the hub.
#include <ATen/ops/reshape.h>

#include "switchyard/models/families/gguf/architecture.h"
#include "switchyard/models/families/gguf/file_keys.h"
#include "switchyard/models/families/gguf/file_tensors.h"
#include "switchyard/models/families/gguf/hub_config.h"
#include "switchyard/models/families/gguf/hub_tensors.h"

namespace switchyard::gguf {
namespace {

/// The hub's matrix and the container's stack; the maps down lie transposed.
struct Stack { const char *hub, *theirs; bool transposed; };
constexpr Stack kStacks[] = {{"w1", "ffn_gate_exps.weight", false}, {"v1", "ffn_up_exps.weight", false}, {"w2", "ffn_down_exps.weight", true}};

void dbrx_config(HubConfig& config) {
  const auto number = [&](const char* key) { return Node(std::to_string(config.integer(key))); };
  const double clip = config.number("attention.clamp_kqv", 0);
  config.only("rope.dimension_count", static_cast<double>(config.head_width()));
  check(config.number("attention.layer_norm_epsilon", 1e-5) == static_cast<double>(1e-5f), "model.gguf", "{}: dbrx.attention.layer_norm_epsilon is {}; only 1e-05 can be computed",
        config.metadata().source(), config.number("attention.layer_norm_epsilon", 1e-5));
  config.keep_vocabulary();
  config.put_text("model_type", "dbrx");
  for (const auto& [hub, key] : {std::pair{"d_model", "embedding_length"}, {"n_layers", "block_count"}, {"n_heads", "attention.head_count"}, {"max_seq_len", "context_length"}})
    config.copy(hub, key);
  Node attention = Node::map(), experts = Node::map();
  attention["kv_n_heads"] = Node(std::to_string(config.integer("attention.head_count_kv", config.integer("attention.head_count"))));
  attention["clip_qkv"] = clip > 0 ? decimal(clip) : Node();
  attention["rope_theta"] = decimal(config.number("rope.freq_base", 10000));
  experts["ffn_hidden_size"] = number("feed_forward_length");
  experts["moe_num_experts"] = number("expert_count");
  experts["moe_top_k"] = number("expert_used_count");
  experts["moe_normalize_expert_weights"] = Node("1.0");
  config.put("attn_config", attention);
  config.put("ffn_config", experts);
}

void dbrx_keys(FileKeys& keys) {
  for (const auto& [key, hub] : {std::pair{"block_count", "n_layers"}, {"context_length", "max_seq_len"}, {"embedding_length", "d_model"}, {"attention.head_count", "n_heads"},
                                 {"feed_forward_length", "ffn_config.ffn_hidden_size"}, {"attention.head_count_kv", "attn_config.kv_n_heads"},
                                 {"expert_count", "ffn_config.moe_num_experts"}, {"expert_used_count", "ffn_config.moe_top_k"}})
    keys.copy(key, hub);
  keys.copy_number("rope.freq_base", "attn_config.rope_theta");
  keys.number("attention.clamp_kqv", keys.present("attn_config.clip_qkv") ? number_at(keys.config(), "attn_config.clip_qkv") : 0);
  keys.number("attention.layer_norm_epsilon", 1e-5);
}

void stacks_from_file(HubTensors& tensors, const std::string& prefix, const std::string& hub) {
  for (const auto& [name, theirs, transposed] : kStacks) {
    const TensorInfo* info = tensors.theirs(prefix + theirs);
    if (info == nullptr) continue;
    check(info->shape.size() == 3, "model.gguf", "{}: {} is no stack of experts", tensors.where(), info->name);
    tensors.use(info->name);
    const int64_t rows = info->shape[0] * info->shape[transposed ? 2 : 1], width = info->shape[transposed ? 1 : 2];
    tensors.add({{hub + "ffn.experts.mlp." + name, info->dtype, {rows, width}, info->bytes}, [&tensors, stored = info->name, rows, width, transposed = transposed] {
                   const at::Tensor stack = tensors.read(stored);
                   return (transposed ? stack.transpose(1, 2) : stack).reshape({rows, width});
                 }});
  }
}

void stacks_to_file(FileTensors& tensors, const std::string& prefix, const std::string& hub) {
  const int64_t experts = integer_at(tensors.config(), "ffn_config.moe_num_experts");
  for (const auto& [name, theirs, transposed] : kStacks) {
    const TensorInfo* info = tensors.hub(hub + "ffn.experts.mlp." + name);
    if (info == nullptr) continue;
    check(info->shape.size() == 2 && info->shape[0] % experts == 0, "convert.gguf.tensor", "{}: {} is no matrix of {} experts", tensors.where(), info->name, experts);
    const int64_t rows = info->shape[0] / experts, width = info->shape[1];
    tensors.add(prefix + theirs, {info->name}, transposed ? std::vector{experts, width, rows} : std::vector{experts, rows, width},
                [experts, rows, width, transposed = transposed](const std::vector<at::Tensor>& one) {
                  const at::Tensor stack = one[0].reshape({experts, rows, width});
                  return transposed ? stack.transpose(1, 2) : stack;
                });
  }
}

}  // namespace

std::vector<Architecture> dbrx_architectures() {
  return {{.name = "dbrx", .model_types = {"dbrx"}, .layer = "transformer.blocks.{i}.",
           .rules = {{"attn_norm.weight", "norm_attn_norm.norm_1.weight"}, {"attn_output_norm.weight", "norm_attn_norm.norm_2.weight"},
                     {"attn_qkv.weight", "norm_attn_norm.attn.Wqkv.weight"}, {"attn_output.weight", "norm_attn_norm.attn.out_proj.weight"},
                     {"ffn_gate_inp.weight", "ffn.router.layer.weight"}},
           .outer = {{"token_embd.weight", "transformer.wte.weight"}, {"output_norm.weight", "transformer.norm_f.weight"}},
           .llama_cpp = {.own_head = true}, .config = dbrx_config, .keys = dbrx_keys, .from_file = stacks_from_file, .to_file = stacks_to_file}};
}

}  // namespace switchyard::gguf
