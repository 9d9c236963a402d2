// Llama 4, the text part. Its readers take chunks of 8192 positions, a layer in four that sees everything, and norms of queries and keys
// unless there are 128 experts; what a config says otherwise stands in keys that other architectures have.
#include <algorithm>

#include "switchyard/models/families/gguf/architecture.h"
#include "switchyard/models/families/gguf/file_keys.h"
#include "switchyard/models/families/gguf/file_tensors.h"
#include "switchyard/models/families/gguf/hub_config.h"
#include "switchyard/models/families/gguf/hub_tensors.h"
#include "switchyard/models/families/table_family.h"

namespace switchyard::gguf {
using Move = Rule::Move;

namespace {

constexpr int64_t kChunk = 8192, kEvery = 4, kUnnormed = 128;
constexpr double kTemperature = 0.1;

void llama4_config(HubConfig& config) {
  const int64_t step = config.integer("interleave_moe_layer_step", 1), chunk = config.integer("attention.sliding_window", kChunk);
  const double temperature = config.number("attention.temperature_scale", kTemperature);
  config.put_text("model_type", config.metadata().text(kModelType, "llama4") == "llama4_text" ? "llama4_text" : "llama4");
  config.copy("num_local_experts", "expert_count");
  config.copy("num_experts_per_tok", "expert_used_count");
  config.put("intermediate_size_mlp", config.integer("feed_forward_length"));
  config.copy("intermediate_size", "expert_feed_forward_length");
  config.put("interleave_moe_layer_step", step);
  config.put("attention_chunk_size", chunk);
  config.put_flag("attn_temperature_tuning", temperature > 0);
  config.put_number("attn_scale", temperature);
  config.put("floor_scale", config.integer("attention.temperature_length", kChunk));
  config.put_flag("use_qk_norm", config.integer("expert_count") != kUnnormed);
  config.put_flag("attention_bias", config.file().has("blk.0.attn_q.bias"));
  const std::vector<int64_t> slides = config.pattern("attention.sliding_window_pattern");
  Node turning = Node::list(), mixed = Node::list();
  for (int64_t i = 0; i < config.layers(); ++i) {
    // Without chunks all layers turn their queries.
    const bool turns = slides.empty() ? chunk == 0 || (i + 1) % kEvery != 0 : slides[static_cast<size_t>(i)] != 0;
    turning.append(Node(turns ? "1" : "0"));
    if (step > 0 && (i + 1) % step == 0) mixed.append(Node(std::to_string(i)));
  }
  config.put("no_rope_layers", turning);
  config.put("moe_layers", mixed);
}

void llama4_keys(FileKeys& keys) {
  const Node& config = keys.config();
  if (text_at(config, "model_type") != "llama4") keys.metadata().set(kModelType, GgufValue::text(text_at(config, "model_type")));
  put_attention(keys);
  keys.copy("expert_count", "num_local_experts");
  keys.copy("expert_used_count", "num_experts_per_tok");
  keys.copy("feed_forward_length", "intermediate_size_mlp");
  keys.copy("expert_feed_forward_length", "intermediate_size");
  const int64_t first = first_layer(keys.composition(), has_mixture), chunk = keys.integer("attention_chunk_size", 0);
  keys.count("interleave_moe_layer_step", first < 0 ? 0 : first + 1);
  std::vector<uint64_t> turns;
  bool usual = true;
  for (int64_t i = 0; i < layers_of(keys.composition()); ++i) {
    turns.push_back(flag_at(keys.composition(), fmt::format("layers.{}.attention.positions", i)));
    usual = usual && (turns.back() != 0) == ((i + 1) % kEvery != 0);
  }
  const bool all_turn = std::find(turns.begin(), turns.end(), 0u) == turns.end();
  if (chunk != kChunk || (all_turn && !usual)) keys.count("attention.sliding_window", chunk);
  if (!usual && !(all_turn && chunk == 0)) {
    keys.flags("attention.sliding_window_pattern", std::move(turns));
    keys.notice("llama.cpp turns queries in all but every fourth layer of 'llama4', whatever no_rope_layers says");
  }
  if (chunk != kChunk && chunk != 0) keys.notice("llama.cpp takes chunks of 'llama4' as 8192 positions, whatever attention_chunk_size says");
  const bool tuned = flag_at(config, "attn_temperature_tuning");
  if (const double temperature = tuned ? number_at(config, "attn_scale") : 0; temperature != kTemperature) {
    keys.number("attention.temperature_scale", temperature);
    keys.notice("llama.cpp takes attn_scale of 'llama4' as 0.1");
  }
  if (const int64_t floor = tuned ? keys.integer("floor_scale", kChunk) : kChunk; floor != kChunk) {
    keys.count("attention.temperature_length", floor);
    keys.notice("llama.cpp takes floor_scale of 'llama4' as 8192");
  }
}

void experts_from_file(HubTensors& tensors, const std::string& prefix, const std::string& hub) {
  tensors.add_joined(prefix + "ffn_gate_exps.weight", prefix + "ffn_up_exps.weight", hub + "feed_forward.experts.gate_up_proj", true);
  tensors.add(prefix, hub, {"ffn_down_exps.weight", "feed_forward.experts.down_proj", Move::transposed});
}

void experts_to_file(FileTensors& tensors, const std::string& prefix, const std::string& hub) {
  tensors.add_halves(hub + "feed_forward.experts.gate_up_proj", prefix + "ffn_gate_exps.weight", prefix + "ffn_up_exps.weight", true);
  tensors.add(prefix, hub, {"ffn_down_exps.weight", "feed_forward.experts.down_proj", Move::transposed});
}

}  // namespace

std::vector<Architecture> llama4_architectures() {
  std::vector<Rule> rules;
  for (const std::string part : {"gate", "up", "down"}) rules.push_back({"ffn_" + part + ".weight", "feed_forward." + part + "_proj.weight"});
  Architecture whole{.name = "llama4", .model_types = {"llama4"}, .prefix = "language_model.", .wrapper = "text_config", .router = "feed_forward.router",
                     .experts = "feed_forward.experts.{e}.", .shared = "feed_forward.shared_expert.", .rules = std::move(rules), .llama_cpp = {.dense_layers = true},
                     .config = llama4_config, .keys = llama4_keys,
                     .from_file = experts_from_file, .to_file = experts_to_file};
  Architecture text = whole;
  text.model_types = {"llama4_text"};
  text.prefix = text.wrapper = "";
  return {whole, text};
}

}  // namespace switchyard::gguf
