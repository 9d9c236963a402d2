// Phi-3.5-MoE: LayerNorms with biases, SparseMixer, and two lists of divisors for short and long texts.
#include <ATen/ops/tensor.h>

#include <cmath>

#include "switchyard/models/families/composition.h"
#include "switchyard/models/families/gguf/architecture.h"
#include "switchyard/models/families/gguf/file_keys.h"
#include "switchyard/models/families/gguf/file_tensors.h"
#include "switchyard/models/families/gguf/hub_config.h"

namespace switchyard::gguf {
namespace {

/// Metadata: the width of SparseMixer's choice, which the container has no key for.
constexpr const char* kJitter = "switchyard.router_jitter";
constexpr const char *kLong = "rope_factors_long.weight", *kShort = "rope_factors_short.weight";

/// What the container's readers multiply queries and keys by, whatever the config's two numbers are.
double usual_scale(int64_t context, int64_t original) {
  const double longer = static_cast<double>(context) / static_cast<double>(original);
  return longer > 1 ? std::sqrt(1 + std::log(longer) / std::log(static_cast<double>(original))) : 1;
}

/// As the container has it: float32, with one scale for both lists.
Node scaling_of_file(const HubConfig& config) {
  Node node = Node::map();
  node["rope_type"] = HubConfig::quoted("longrope");
  node["type"] = HubConfig::quoted("longrope");
  node["original_max_position_embeddings"] = Node(std::to_string(config.integer("rope.scaling.original_context_length")));
  for (const auto& [hub, name] : {std::pair{"short_factor", kShort}, {"long_factor", kLong}}) {
    const at::Tensor divisors = config.file().get(name).to(at::kFloat).contiguous();
    node[hub] = Node::list();
    for (int64_t j = 0; j < divisors.numel(); ++j) node[hub].append(decimal(divisors.const_data_ptr<float>()[j]));
  }
  for (const char* hub : {"short_mscale", "long_mscale"}) node[hub] = decimal(config.number("rope.scaling.attn_factor", 1));
  return node;
}

bool same_scheme(const Node& said, const Node& file) {
  const Node* original = find_at(said, "rope_scaling.original_max_position_embeddings");
  if (original == nullptr || original->scalar() != file.find("original_max_position_embeddings")->scalar()) return false;
  for (const char* list : {"short_factor", "long_factor"}) {
    const Node *here = find_at(said, std::string("rope_scaling.") + list), *there = file.find(list);
    if (here == nullptr || !here->is_list() || here->items().size() != there->items().size()) return false;
    for (size_t j = 0; j < here->items().size(); ++j)
      if (decimal(number_at(*here, std::to_string(j))).scalar() != there->items()[j].scalar()) return false;
  }
  return true;
}

void phimoe_config(HubConfig& config) {
  config.put_text("model_type", "phimoe");
  config.copy("num_local_experts", "expert_count");
  config.copy("num_experts_per_tok", "expert_used_count");
  config.put_flag("attention_bias", config.file().has("blk.0.attn_q.bias"));
  config.put_flag("lm_head_bias", config.file().has("output.bias"));
  config.put_number("router_jitter_noise", config.metadata().number(kJitter, 0.01));
  const int64_t window = config.integer("attention.sliding_window", 0);
  config.put("sliding_window", window > 0 ? Node(std::to_string(window)) : Node());
  if (!config.file().has(kLong)) return;
  check(config.file().has(kShort), "model.gguf", "{} has {} and no {}", config.metadata().source(), kLong, kShort);
  const Node scaling = scaling_of_file(config);
  config.copy("original_max_position_embeddings", "rope.scaling.original_context_length");
  config.put("rope_scaling", scaling);
  put_said_rotary(config, [&](const Node& said) { return same_scheme(said, scaling); });
}

void phimoe_keys(FileKeys& keys) {
  const Node& config = keys.config();
  put_attention(keys);
  put_experts(keys);
  keys.count("attention.sliding_window", keys.integer("sliding_window", 0));
  keys.metadata().set(kJitter, GgufValue::f32(static_cast<float>(number_at(config, "router_jitter_noise"))));
  keys.notice("llama.cpp computes 'phimoe' with root-mean-square norms and a softmax, where the model has LayerNorms and SparseMixer");
  if (!keys.present("rope_scaling.long_factor")) return;
  const int64_t original = integer_at(config, "rope_scaling.original_max_position_embeddings");
  const double scale = usual_scale(keys.integer("max_position_embeddings", 0), original);
  keys.count("rope.scaling.original_context_length", original);
  keys.number("rope.scaling.attn_factor", scale);
  put_said_rotary(keys);
}

void divisors_to_file(FileTensors& tensors) {
  for (const auto& [hub, name] : {std::pair{"short_factor", kShort}, {"long_factor", kLong}}) {
    const Node* list = find_at(tensors.config(), std::string("rope_scaling.") + hub);
    if (list == nullptr || !list->is_list()) continue;
    std::vector<float> each;
    for (size_t j = 0; j < list->items().size(); ++j) each.push_back(static_cast<float>(number_at(*list, std::to_string(j))));
    const at::Tensor divisors = at::tensor(each);
    tensors.add({{name, "F32", divisors.sizes().vec(), divisors.nbytes()}, [divisors] { return divisors; }});
  }
}

}  // namespace

std::vector<Architecture> phimoe_architectures() {
  return {{.name = "phimoe", .model_types = {"phimoe"}, .router = "block_sparse_moe.gate", .experts = "block_sparse_moe.experts.{e}.",
           .gate = "w1", .up = "w3", .down = "w2", .rules = {{"ffn_gate_inp.weight", "block_sparse_moe.gate.weight"}, {"ffn_gate_inp.weight", "mlp.router.weight"}},
           .llama_cpp = {.own_head = true}, .config = phimoe_config, .keys = phimoe_keys, .outer_to_file = divisors_to_file, .said = {kLong, kShort}}};
}

}  // namespace switchyard::gguf
