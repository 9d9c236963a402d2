// GPT-2: the hub has its weights the other way round.
#include <tuple>

#include "switchyard/models/families/gguf/architecture.h"
#include "switchyard/models/families/gguf/file_keys.h"
#include "switchyard/models/families/gguf/file_tensors.h"
#include "switchyard/models/families/gguf/hub_config.h"

namespace switchyard::gguf {
using Move = Rule::Move;

namespace {

const std::string kPrefix = "transformer.";  // which the first releases do not have

std::vector<Rule> gpt2_rules() {
  std::vector<Rule> rules;
  for (const std::string end : {".weight", ".bias"}) {
    const Move turned = end == ".weight" ? Move::transposed : Move::same;
    for (const auto& [theirs, hub, move] : {std::tuple{"attn_qkv", "attn.c_attn", turned}, {"attn_output", "attn.c_proj", turned}, {"ffn_up", "mlp.c_fc", turned},
                                            {"ffn_down", "mlp.c_proj", turned}, {"attn_norm", "ln_1", Move::same}, {"ffn_norm", "ln_2", Move::same}})
      rules.push_back({theirs + end, hub + end, move});
  }
  return rules;
}

std::vector<Rule> gpt2_outer(const std::string& prefix) {
  return {{"token_embd.weight", prefix + "wte.weight"}, {"position_embd.weight", prefix + "wpe.weight"},
          {"output_norm.weight", prefix + "ln_f.weight"}, {"output_norm.bias", prefix + "ln_f.bias"}};
}

void gpt2_config(HubConfig& config) {
  const int64_t width = config.integer("embedding_length"), hidden = config.integer("feed_forward_length", 4 * width);
  config.only("attention.head_count_kv", static_cast<double>(config.integer("attention.head_count")));
  config.keep_vocabulary();
  config.put_text("model_type", "gpt2");
  for (const auto& [hub, key] : {std::pair{"n_embd", "embedding_length"}, {"n_layer", "block_count"}, {"n_head", "attention.head_count"},
                                 {"n_positions", "context_length"}, {"n_ctx", "context_length"}})
    config.copy(hub, key);
  config.put("n_inner", hidden == 4 * width ? Node() : Node(std::to_string(hidden)));
  config.put_number("layer_norm_epsilon", config.number("attention.layer_norm_epsilon", 1e-5));
  config.put_text("activation_function", "gelu_new");
}

void gpt2_keys(FileKeys& keys) {
  for (const auto& [key, hub] : {std::pair{"block_count", "n_layer"}, {"context_length", "n_positions"}, {"embedding_length", "n_embd"}, {"attention.head_count", "n_head"}})
    keys.copy(key, hub);
  keys.count("feed_forward_length", keys.integer("n_inner", 4 * keys.integer("n_embd", 0)));
  keys.copy_number("attention.layer_norm_epsilon", "layer_norm_epsilon");
}

/// Folders without the prefix.
void bare_to_file(FileTensors& tensors, const std::string& prefix, const std::string& hub) {
  for (const Rule& rule : gpt2_rules()) tensors.add(prefix, hub.substr(kPrefix.size()), rule);
}
void bare_outer_to_file(FileTensors& tensors) {
  for (const Rule& rule : gpt2_outer("")) tensors.add("", "", rule);
}

}  // namespace

std::vector<Architecture> gpt2_architectures() {
  return {{.name = "gpt2", .model_types = {"gpt2"}, .layer = kPrefix + "h.{i}.", .rules = gpt2_rules(), .outer = gpt2_outer(kPrefix), .config = gpt2_config,
           .keys = gpt2_keys, .to_file = bare_to_file, .outer_to_file = bare_outer_to_file}};
}

}  // namespace switchyard::gguf
