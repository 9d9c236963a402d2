// IBM's Granite 3 and 4: four multipliers, gates and maps of experts in one tensor at the hub; "granitehybrid" has Mamba-2 in most layers.
#include <algorithm>
#include <cmath>

#include "switchyard/models/families/gguf/architecture.h"
#include "switchyard/models/families/gguf/file_keys.h"
#include "switchyard/models/families/gguf/file_tensors.h"
#include "switchyard/models/families/gguf/hub_config.h"
#include "switchyard/models/families/gguf/hub_tensors.h"
#include "switchyard/models/families/hub_keys.h"

namespace switchyard::gguf {
using Move = Rule::Move;
using Value = Rule::Value;

namespace {

/// Metadata: the context that the hub says, where the container's key says what its readers take for endless.
constexpr char kContext[] = "switchyard.context_length";

/// A 0 is no multiplier.
double multiplier(const HubConfig& config, const char* key, double otherwise) {
  const double said = config.number(key, 0);
  return said == 0 ? otherwise : said;
}

void granite_config(HubConfig& config) {
  const int64_t shared = config.integer("expert_shared_feed_forward_length", 0), heads = config.integer("attention.head_count");
  const int64_t width = config.integer("attention.key_length", config.integer("embedding_length") / std::max<int64_t>(1, heads));
  config.put_text("model_type", shared > 0 ? "granitemoeshared" : "granitemoe");
  config.put("num_local_experts", config.integer("expert_count", 0));
  config.put("num_experts_per_tok", config.integer("expert_used_count", 0));
  if (shared > 0) config.put("shared_intermediate_size", shared);
  config.put_number("embedding_multiplier", multiplier(config, "embedding_scale", 1));
  config.put_number("residual_multiplier", multiplier(config, "residual_scale", 1));
  config.put_number("logits_scaling", multiplier(config, "logit_scale", 1));
  config.put_number("attention_multiplier", multiplier(config, "attention.scale", 1 / std::sqrt(static_cast<double>(width))));
  config.put_flag("attention_bias", config.file().has("blk.0.attn_q.bias"));
}

void multiplier_keys(FileKeys& keys) {
  put_experts(keys);
  if (keys.integer("shared_intermediate_size", 0) > 0) keys.copy("expert_shared_feed_forward_length", "shared_intermediate_size");
  for (const auto& [key, hub] : {std::pair{"attention.scale", "attention_multiplier"}, {"embedding_scale", "embedding_multiplier"},
                                 {"residual_scale", "residual_multiplier"}, {"logit_scale", "logits_scaling"}})
    keys.copy_number(key, hub);
}

void granite_keys(FileKeys& keys) {
  put_attention(keys);
  multiplier_keys(keys);
}

// --- granitehybrid, and what is left of it without running states ------------------------------------

bool has_states(const Node& config) {
  const Node* types = find_at(config, "layer_types");
  return types != nullptr && std::any_of(types->items().begin(), types->items().end(), [](const Node& type) { return type.scalar() == "mamba"; });
}
bool has_experts(const Node& config) { return integer_at(config, "num_local_experts") > 0; }

void hybrid_config(HubConfig& config) {
  granite_config(config);
  const int64_t inner = config.integer("ssm.inner_size", 0), width = config.integer("embedding_length"), heads = config.integer("ssm.time_step_rank", 0);
  const bool experts = config.integer("expert_count", 0) > 0, turns = config.flag("rope.scaling.finetuned", true);
  config.put_text("model_type", "granitemoehybrid");
  config.put("shared_intermediate_size", experts ? config.integer("expert_shared_feed_forward_length", 0) : config.integer("feed_forward_length"));
  config.put_text("position_embedding_type", turns ? "rope" : "nope");
  if (config.metadata().has(kContext)) config.put("max_position_embeddings", config.metadata().integer(kContext));
  bool bias = true, turned = false;
  Node types = Node::list();
  for (int64_t i = 0; i < config.layers(); ++i) {
    types.append(HubConfig::quoted(config.attends(i) ? "attention" : "mamba"));
    if (config.attends(i)) turned = turned || config.file().has(fmt::format("blk.{}.attn_q.bias", i));
    else bias = bias && config.file().has(fmt::format("blk.{}.ssm_conv1d.bias", i));
  }
  config.put("layer_types", types);
  config.put_flag("attention_bias", turned);
  if (heads == 0) {  // no layer has them; the library holds these against the width all the same
    config.put("mamba_n_heads", 1);
    config.put("mamba_d_head", 2 * width);
    return;
  }
  check(width > 0 && inner % width == 0 && inner % heads == 0, "model.gguf", "{}: granitehybrid.ssm.inner_size is {}, no multiple of the width {} and {} heads",
        config.metadata().source(), inner, width, heads);
  config.put("mamba_n_heads", heads);
  config.put("mamba_d_head", inner / heads);
  config.put("mamba_expand", inner / width);
  config.copy("mamba_d_state", "ssm.state_size");
  config.copy("mamba_d_conv", "ssm.conv_kernel");
  config.copy("mamba_n_groups", "ssm.group_count");
  config.put_flag("mamba_conv_bias", bias);
}

void hybrid_keys(FileKeys& keys) {
  const Node& config = keys.config();
  const bool turns = text_at(keys.composition(), "positions") == "rope", states = has_states(config);
  granite_keys(keys);
  put_key_heads(keys);
  keys.flag("rope.scaling.finetuned", turns);
  if (!has_experts(config)) keys.copy("feed_forward_length", "shared_intermediate_size");
  if (!states) return;
  if (!turns) {
    keys.metadata().set(kContext, GgufValue::u32(static_cast<uint32_t>(integer_at(config, "max_position_embeddings"))));
    keys.count("context_length", 1 << 20);
  }
  const int64_t heads = integer_at(config, "mamba_n_heads"), inner = heads * integer_at(config, "mamba_d_head");
  keys.count("ssm.inner_size", inner);
  keys.count("ssm.time_step_rank", heads);
  keys.copy("ssm.state_size", "mamba_d_state");
  keys.copy("ssm.conv_kernel", "mamba_d_conv");
  keys.copy("ssm.group_count", "mamba_n_groups");
  note_state_limits(keys, inner / integer_at(config, "hidden_size"), "granitehybrid");
}

/// Without experts the network that the hub calls shared is the layer's.
const std::string kGate = "ffn_gate.weight", kUp = "ffn_up.weight", kShared = "shared_mlp.input_linear.weight";
const Rule kDown{"ffn_down.weight", "shared_mlp.output_linear.weight"};

void pairs_from_file(HubTensors& tensors, const std::string& prefix, const std::string& hub) {
  tensors.add_joined(prefix + "ffn_gate_exps.weight", prefix + "ffn_up_exps.weight", hub + "block_sparse_moe.input_linear.weight");
  tensors.add_joined(prefix + "ffn_gate_shexp.weight", prefix + "ffn_up_shexp.weight", hub + "shared_mlp.input_linear.weight");
}

void layers_from_file(HubTensors& tensors, const std::string& prefix, const std::string& hub) {
  pairs_from_file(tensors, prefix, hub);
  tensors.add_joined(prefix + kGate, prefix + kUp, hub + kShared);
  tensors.add(prefix, hub, kDown);
}

void pairs_to_file(FileTensors& tensors, const std::string& prefix, const std::string& hub) {
  tensors.add_halves(hub + "block_sparse_moe.input_linear.weight", prefix + "ffn_gate_exps.weight", prefix + "ffn_up_exps.weight");
  tensors.add_halves(hub + "shared_mlp.input_linear.weight", prefix + "ffn_gate_shexp.weight", prefix + "ffn_up_shexp.weight");
}

void layers_to_file(FileTensors& tensors, const std::string& prefix, const std::string& hub) {
  if (!has_experts(tensors.config())) {
    tensors.add_halves(hub + kShared, prefix + kGate, prefix + kUp);
    tensors.add(prefix, hub, kDown);
  }
  pairs_to_file(tensors, prefix, hub);
}

const std::vector<Rule> kRules{{"ffn_down_exps.weight", "block_sparse_moe.output_linear.weight"}, {"ffn_down_shexp.weight", "shared_mlp.output_linear.weight"}};

}  // namespace

std::vector<Architecture> granite_architectures() {
  const std::string mamba = "mamba.";
  Architecture moe{.name = "granitemoe", .model_types = {"granitemoe", "granitemoeshared", "granitemoehybrid"}, .router = "block_sparse_moe.router.layer",
                   .experts = "block_sparse_moe.experts.{e}.", .permuted = true, .rules = kRules,
                   .takes = [](const Node& config) { return !has_states(config) && has_experts(config); },
                   .config = granite_config, .keys = granite_keys, .from_file = pairs_from_file, .to_file = pairs_to_file};
  Architecture hybrid = moe;
  hybrid.name = "granitehybrid";
  hybrid.model_types = {"granitemoehybrid"};
  hybrid.recurrent = true;
  const std::vector<Rule> states = state_rules(mamba);
  hybrid.rules.insert(hybrid.rules.end(), states.begin(), states.end());
  hybrid.rules.insert(hybrid.rules.end(), {{"ssm_in.weight", mamba + "in_proj.weight"},
                                           {"ssm_a", mamba + "A_log", Move::column, Value::decay},
                                           {"ssm_d", mamba + "D", Move::column},
                                           {"ssm_dt.bias", mamba + "dt_bias"},
                                           {"ssm_norm.weight", mamba + "norm.weight", Move::groups}});
  hybrid.takes = has_states;
  hybrid.config = hybrid_config;
  hybrid.keys = hybrid_keys;
  hybrid.from_file = layers_from_file;
  hybrid.to_file = layers_to_file;
  Architecture dense = hybrid;  // Granite 3 and 4 without experts
  dense.name = "granite";
  dense.takes = [](const Node& config) { return !has_states(config) && !has_experts(config); };
  return {hybrid, dense, moe};
}

}  // namespace switchyard::gguf
