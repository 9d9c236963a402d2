// Layers with a running state among those with attention: Jamba (Mamba), Qwen3-Next (gated delta nets), MiniMax-Text-01 (lightning attention).
#include <ATen/ops/cat.h>
#include <ATen/ops/reshape.h>

#include <algorithm>

#include "switchyard/models/families/gguf/architecture.h"
#include "switchyard/models/families/gguf/file_keys.h"
#include "switchyard/models/families/gguf/file_tensors.h"
#include "switchyard/models/families/gguf/hub_config.h"
#include "switchyard/models/families/gguf/hub_tensors.h"
#include "switchyard/models/families/table_family.h"

namespace switchyard::gguf {
using Move = Rule::Move;
using Value = Rule::Value;

std::vector<Rule> state_rules(const std::string& hub) {
  return {{"ssm_conv1d.weight", hub + "conv1d.weight", Move::convolution}, {"ssm_conv1d.bias", hub + "conv1d.bias"}, {"ssm_out.weight", hub + "out_proj.weight"}};
}

namespace {

const char* kRecurrent = "attention.recurrent_layers";

// --- Jamba -----------------------------------------------------------------------------------------

/// Which layers are those, as the hub says it: every so many, from one on.
void put_stride(HubConfig& config, const std::string& kind, const std::function<bool(int64_t)>& is) {
  const int64_t layers = config.layers();
  int64_t first = 0;
  while (first < layers && !is(first)) ++first;
  int64_t next = first + 1;
  while (next < layers && !is(next)) ++next;
  const int64_t period = first == layers ? layers + 1 : next < layers ? next - first : std::max(next - first, first + 1);
  for (int64_t i = 0; i < layers; ++i)
    check(is(i) == (i % period == first), "model.gguf", "{}: layer {} breaks the order of layers with {}, which is not read for this architecture",
          config.metadata().source(), i, kind);
  config.put(kind + "_layer_period", period);
  config.put(kind + "_layer_offset", first);
}

void jamba_config(HubConfig& config) {
  const int64_t width = config.integer("embedding_length"), inner = config.integer("ssm.inner_size");
  check(width > 0 && inner % width == 0, "model.gguf", "{}: jamba.ssm.inner_size is {}, no multiple of the width {}", config.metadata().source(), inner, width);
  config.put_text("model_type", "jamba");
  config.put("num_experts", config.integer("expert_count", 1));
  config.put("num_experts_per_tok", config.integer("expert_used_count", 1));
  config.put("mamba_expand", inner / width);
  config.copy("mamba_d_state", "ssm.state_size");
  config.copy("mamba_d_conv", "ssm.conv_kernel");
  config.copy("mamba_dt_rank", "ssm.time_step_rank");
  put_stride(config, "attn", [&](int64_t i) { return config.attends(i); });
  put_stride(config, "expert", [&](int64_t i) { return config.file().has(fmt::format("blk.{}.ffn_gate_inp.weight", i)); });
  bool bias = true;
  for (int64_t i = 0; i < config.layers(); ++i)
    if (!config.attends(i)) bias = bias && config.file().has(fmt::format("blk.{}.ssm_conv1d.bias", i));
  config.put_flag("mamba_conv_bias", bias);
  std::erase_if(config.node().entries(), [](const auto& entry) { return entry.first == "rope_theta"; });
}

void jamba_keys(FileKeys& keys) {
  const int64_t width = integer_at(keys.config(), "hidden_size"), expand = keys.integer("mamba_expand", 2);
  put_key_heads(keys);
  keys.copy("expert_count", "num_experts");
  keys.copy("expert_used_count", "num_experts_per_tok");
  keys.count("ssm.inner_size", expand * width);
  keys.copy("ssm.state_size", "mamba_d_state");
  keys.copy("ssm.conv_kernel", "mamba_d_conv");
  const Node* rank = find_at(keys.config(), "mamba_dt_rank");
  keys.count("ssm.time_step_rank", rank != nullptr && rank->scalar() != "auto" ? integer_at(keys.config(), "mamba_dt_rank") : (width + 15) / 16);
  note_state_limits(keys, expand, "jamba");
}

Architecture jamba() {
  const std::string mamba = "mamba.";
  std::vector<Rule> rules = state_rules(mamba);
  rules.insert(rules.end(), {{"ssm_in.weight", mamba + "in_proj.weight"},
                             {"ssm_x.weight", mamba + "x_proj.weight"},
                             {"ssm_dt.weight", mamba + "dt_proj.weight"},
                             {"ssm_dt.bias", mamba + "dt_proj.bias"},
                             {"ssm_a", mamba + "A_log", Move::same, Value::decay},
                             {"ssm_d", mamba + "D"},
                             {"ssm_dt_norm.weight", mamba + "dt_layernorm.weight"},
                             {"ssm_b_norm.weight", mamba + "b_layernorm.weight"},
                             {"ssm_c_norm.weight", mamba + "c_layernorm.weight"},
                             {"ffn_norm.weight", "pre_ff_layernorm.weight"}});
  for (const std::string part : {"gate", "up", "down"}) rules.push_back({"ffn_" + part + ".weight", "feed_forward." + part + "_proj.weight"});
  return {.name = "jamba", .model_types = {"jamba"}, .router = "feed_forward.router", .experts = "feed_forward.experts.{e}.", .recurrent = true, .rules = std::move(rules),
          .outer = {{"output_norm.weight", "model.final_layernorm.weight"}}, .llama_cpp = {.dense_layers = true}, .config = jamba_config, .keys = jamba_keys};
}

// --- Qwen3-Next ------------------------------------------------------------------------------------

/// Layers with a running state; every so many have attention where the file does not list them.
std::vector<bool> states_of(const HubConfig& config, int64_t interval) {
  const std::vector<int64_t> listed = config.pattern(kRecurrent);
  interval = config.integer("full_attention_interval", interval);
  check(interval > 0, "model.gguf", "{}: full_attention_interval is {}", config.metadata().source(), interval);
  std::vector<bool> states;
  for (int64_t i = 0; i < config.layers(); ++i) states.push_back(listed.empty() ? (i + 1) % interval != 0 : listed[static_cast<size_t>(i)] != 0);
  return states;
}

void put_states(FileKeys& keys, const char* body) {
  std::vector<uint64_t> states;
  for (const Node& layer : find_at(keys.composition(), "layers")->items()) states.push_back(text_at(layer, "attention.type") == body);
  const auto attends = std::find(states.begin(), states.end(), 0u);
  keys.count("full_attention_interval", attends == states.end() ? 4 : attends - states.begin() + 1);
  keys.flags(kRecurrent, std::move(states));
}

void put_layer_types(HubConfig& config, const std::vector<bool>& states) {
  Node types = Node::list();
  for (const bool state : states) types.append(HubConfig::quoted(state ? "linear_attention" : "full_attention"));
  config.put("layer_types", types);
}

void put_fraction(HubConfig& config) {
  const int64_t width = config.integer("attention.key_length", config.integer("embedding_length") / std::max<int64_t>(1, config.integer("attention.head_count")));
  const int64_t turning = config.integer("rope.dimension_count", width);
  check(width > 0 && turning > 0 && turning <= width, "model.gguf", "{}: {} of {} dimensions of a head turn", config.metadata().source(), turning, width);
  config.put("partial_rotary_factor", Node(fmt::format("{}", static_cast<double>(turning) / static_cast<double>(width))));
}

void qwen3next_config(HubConfig& config) {
  const int64_t heads = config.integer("ssm.time_step_rank"), inner = config.integer("ssm.inner_size");
  check(heads > 0 && inner % heads == 0, "model.gguf", "{}: qwen3next.ssm.inner_size is {} in {} heads", config.metadata().source(), inner, heads);
  put_softmax_experts(config, "qwen3_next", true);
  config.copy("shared_expert_intermediate_size", "expert_shared_feed_forward_length");
  config.put("linear_num_value_heads", heads);
  config.put("linear_value_head_dim", inner / heads);
  config.copy("linear_num_key_heads", "ssm.group_count");
  config.copy("linear_key_head_dim", "ssm.state_size");
  config.copy("linear_conv_kernel_dim", "ssm.conv_kernel");
  config.put_flag("attention_bias", false);
  for (int64_t i = 0; i < config.layers(); ++i)
    if (config.file().has(fmt::format("blk.{}.attn_q.bias", i))) config.put_flag("attention_bias", true);
  put_layer_types(config, states_of(config, 4));
  put_fraction(config);
  put_dense_layers(config);
}

void qwen3next_keys(FileKeys& keys) {
  const Node& config = keys.config();
  put_attention(keys);
  put_experts(keys);
  put_states(keys, "gated-delta-net");
  keys.count("rope.dimension_count", static_cast<int64_t>(number_at(config, "partial_rotary_factor") * static_cast<double>(head_width(config)) + 0.5));
  const int64_t heads = integer_at(config, "linear_num_value_heads"), width = integer_at(config, "linear_value_head_dim"), state = integer_at(config, "linear_key_head_dim");
  keys.count("ssm.inner_size", heads * width);
  keys.count("ssm.time_step_rank", heads);
  keys.count("ssm.state_size", state);
  keys.copy("ssm.group_count", "linear_num_key_heads");
  keys.copy("ssm.conv_kernel", "linear_conv_kernel_dim");
  if (width != state) keys.notice("llama.cpp reads 'qwen3next' only where linear_value_head_dim is linear_key_head_dim");
}

/// Queries, keys, values and gates lie together for each head of keys at the hub; here all gates apart, and all of a kind one behind another.
struct Heads {
  int64_t count, key, value;  ///< heads of keys; rows of one's queries, or keys; of its values, or gates
  explicit Heads(const Node& config)
      : count(integer_at(config, "linear_num_key_heads")), key(integer_at(config, "linear_key_head_dim")),
        value(integer_at(config, "linear_num_value_heads") * integer_at(config, "linear_value_head_dim") / std::max<int64_t>(1, count)) {}
  int64_t rows() const { return count * 2 * (key + value); }
};

void delta_from_file(HubTensors& tensors, const std::string& prefix, const std::string& hub) {
  const TensorInfo *mixed = tensors.theirs(prefix + "attn_qkv.weight"), *gate = tensors.theirs(prefix + "attn_gate.weight");
  if (mixed == nullptr || gate == nullptr) return;
  const Heads heads(tensors.config());
  check(heads.count > 0 && mixed->shape.size() == 2 && gate->shape.size() == 2 && mixed->shape[1] == gate->shape[1] && gate->shape[0] == heads.count * heads.value &&
            mixed->shape[0] + gate->shape[0] == heads.rows(),
        "model.gguf", "{}: {} and {} do not fit {} heads of keys", tensors.where(), mixed->name, gate->name, heads.count);
  tensors.use(mixed->name);
  tensors.use(gate->name);
  tensors.add({{hub + "linear_attn.in_proj_qkvz.weight", mixed->dtype, {heads.rows(), mixed->shape[1]}, mixed->bytes + gate->bytes},
               [&tensors, mixed = mixed->name, gate = gate->name, heads] {
                 const at::Tensor all = tensors.read(mixed);
                 const int64_t keys = heads.count * heads.key, values = heads.count * heads.value;
                 std::vector<at::Tensor> parts;
                 for (const at::Tensor& part : {all.narrow(0, 0, keys), all.narrow(0, keys, keys), all.narrow(0, 2 * keys, values), tensors.read(gate)})
                   parts.push_back(part.reshape({heads.count, -1, all.size(1)}));
                 return at::cat(parts, 1).reshape({heads.rows(), all.size(1)});
               }});
}

void delta_to_file(FileTensors& tensors, const std::string& prefix, const std::string& hub) {
  const std::string of = hub + "linear_attn.in_proj_qkvz.weight";
  const TensorInfo* info = tensors.hub(of);
  if (info == nullptr) return;
  const Heads heads(tensors.config());
  check(info->shape.size() == 2 && info->shape[0] == heads.rows(), "convert.gguf.tensor", "{}: {} has other rows than {} heads of keys", tensors.where(), of, heads.count);
  const int64_t width = info->shape[1], values = heads.count * heads.value;
  const auto part = [heads, width](const at::Tensor& all, int64_t first, int64_t rows) {
    return all.reshape({heads.count, -1, width}).narrow(1, first, rows).reshape({-1, width});
  };
  tensors.add(prefix + "attn_qkv.weight", {of}, {heads.rows() - values, width}, [heads, part](const std::vector<at::Tensor>& one) {
    return at::cat({part(one[0], 0, heads.key), part(one[0], heads.key, heads.key), part(one[0], 2 * heads.key, heads.value)});
  });
  tensors.add(prefix + "attn_gate.weight", {of}, {values, width},
              [heads, part](const std::vector<at::Tensor>& one) { return part(one[0], 2 * heads.key + heads.value, heads.value); });
}

Architecture qwen3next() {
  const std::string delta = "linear_attn.";
  std::vector<Rule> rules = state_rules(delta);
  rules.insert(rules.end(), {{"ssm_ba.weight", delta + "in_proj_ba.weight"},
                             {"ssm_a", delta + "A_log", Move::same, Value::decay},
                             {"ssm_dt.bias", delta + "dt_bias"},
                             {"ssm_norm.weight", delta + "norm.weight"},
                             {"attn_norm.weight", "input_layernorm.weight", Move::same, Value::above_one},
                             {"post_attention_norm.weight", "post_attention_layernorm.weight", Move::same, Value::above_one},
                             {"attn_q_norm.weight", "self_attn.q_norm.weight", Move::same, Value::above_one},
                             {"attn_k_norm.weight", "self_attn.k_norm.weight", Move::same, Value::above_one}});
  return {.name = "qwen3next", .model_types = {"qwen3_next"}, .rules = std::move(rules), .outer = {{"output_norm.weight", "model.norm.weight", Move::same, Value::above_one}},
          .llama_cpp = {.weights = Architecture::LlamaCpp::Weights::renormalised}, .config = qwen3next_config, .keys = qwen3next_keys,
          .from_file = delta_from_file, .to_file = delta_to_file};
}

// --- MiniMax-Text-01 -------------------------------------------------------------------------------

constexpr std::pair<const char*, const char*> kOlder[]{{"full_attn_", "layernorm_full_attention_"}, {"linear_attn_", "layernorm_linear_attention_"}, {"mlp_", "layernorm_mlp_"}};

void minimax_config(HubConfig& config) {
  const bool first = config.metadata().text(kModelType, "minimax_text_01") == "minimax_text_01";
  const std::vector<bool> states = states_of(config, 8);
  config.put_text("model_type", first ? "minimax_text_01" : "minimax");
  config.copy("num_local_experts", "expert_count");
  config.copy("num_experts_per_tok", "expert_used_count");
  config.copy("rotary_dim", "rope.dimension_count");
  for (const auto& [newer, older] : kOlder) {
    config.put_number(first ? std::string(older) + "alpha" : std::string(newer) + "alpha_factor", config.number("residual_scale", 1));
    config.put_number(first ? std::string(older) + "beta" : std::string(newer) + "beta_factor", 1);
  }
  if (!first) return put_layer_types(config, states);
  Node types = Node::list();
  for (const bool state : states) types.append(Node(state ? "0" : "1"));
  config.put("attn_type_list", types);
  config.put_flag("postnorm", true);
}

void minimax_keys(FileKeys& keys) {
  const Node& config = keys.config();
  const std::string type = text_at(config, "model_type");
  if (type != "minimax_text_01") keys.metadata().set(kModelType, GgufValue::text(type));
  put_attention(keys);
  put_experts(keys);
  put_states(keys, "lightning-attention");
  keys.copy("rope.dimension_count", "rotary_dim");
  keys.number("residual_scale", number_at(keys.composition(), "layers.0.residual.attention_keep"));
}

/// The two kinds of attention have other names for the map behind them.
const Rule kLightningOutput{"attn_output.weight", "self_attn.out_proj.weight"};

void lightning_from_file(HubTensors& tensors, const std::string& prefix, const std::string& hub) {
  if (tensors.theirs(prefix + "attn_qkv.weight") != nullptr) tensors.add(prefix, hub, kLightningOutput);
}

void lightning_to_file(FileTensors& tensors, const std::string& prefix, const std::string& hub) { tensors.add(prefix, hub, kLightningOutput); }

Architecture minimax() {
  const std::string experts = "block_sparse_moe.", own = "self_attn.";
  return {.name = "minimax-01", .model_types = {"minimax_text_01", "minimax"}, .router = experts + "gate", .experts = experts + "experts.{e}.", .gate = "w1", .up = "w3", .down = "w2",
          .rules = {{"attn_qkv.weight", own + "qkv_proj.weight"}, {"attn_gate.weight", own + "output_gate.weight"}, {"attn_norm_2.weight", own + "norm.weight"}},
          .config = minimax_config, .keys = minimax_keys, .from_file = lightning_from_file, .to_file = lightning_to_file};
}

}  // namespace

std::vector<Architecture> hybrid_architectures() { return {jamba(), qwen3next(), minimax()}; }

}  // namespace switchyard::gguf
