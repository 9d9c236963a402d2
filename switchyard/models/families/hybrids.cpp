// Decoders that mix attention with running states: Jamba (Lieber et al. 2024; Mamba, attention without positions every eighth
// layer), Granite 4 (IBM 2025; Mamba-2), Qwen3-Next (Qwen Team 2025; gated delta nets, gated attention every fourth layer) and
// MiniMax-Text-01 (MiniMax 2025; lightning attention, softmax attention every eighth layer).
#include <algorithm>

#include "switchyard/models/families/granite.h"

namespace switchyard {
namespace {

bool is_body(const Node& layer, const char* type) {
  const Node* body = layer.find("attention");
  return body && body->is_map() && text_at(*body, "type") == type;
}

/// Period and offset of the layers that satisfy; {1, 0} when none does.
std::pair<int64_t, int64_t> stride(const Node& composition, const std::function<bool(const Node&)>& which) {
  const auto& layers = find_at(composition, "layers")->items();
  const int64_t first = first_layer(composition, which);
  if (first < 0) return {layers_of(composition) + 1, layers_of(composition)};
  int64_t next = first + 1;
  while (next < layers_of(composition) && !which(layers[static_cast<size_t>(next)])) ++next;
  // An offset lies below its period, also where no second layer says one.
  return {next < layers_of(composition) ? next - first : std::max(next - first, first + 1), first};
}

/// The activation of a mixer is that of the feed-forward networks.
const std::vector<std::pair<std::string, std::string>> kCurves{
    {"silu", "silu"}, {"gelu", "gelu"}, {"gelu_pytorch_tanh", "gelu-tanh"}, {"relu", "relu"}, {"swish", "silu"}, {"gelu_new", "gelu-tanh"}};

void arrange_curve(const HubReader& config, Draft& draft, const char* body) {
  const std::string name = config.text("hidden_act", "silu");
  const auto found = std::find_if(kCurves.begin(), kCurves.end(), [&](const auto& curve) { return curve.first == name; });
  check(found != kCurves.end(), "model.config", "{}: hidden_act is {}, which this family's mixers do not have", config.config().mark().source, name);
  draft.parts.at(body)["activation"] = Node(found->second);
}

// --- Jamba -----------------------------------------------------------------------------------------

std::vector<NameRule> convolution_names(const std::string& ours, const std::string& theirs) {
  NameRule weight{{ours + "convolution.weight"}, theirs + "conv1d.weight"};
  weight.unit = 1;
  return {weight, {{ours + "convolution.bias"}, theirs + "conv1d.bias"}};
}

std::vector<NameRule> jamba_names() {
  const std::string ours = "layers.{i}.attention.", theirs = "model.layers.{i}.mamba.", layer = "model.layers.{i}.";
  std::vector<NameRule> rules = convolution_names(ours, theirs);
  for (const auto& [name, hub] : {std::pair{"in.weight", "in_proj.weight"}, std::pair{"in.bias", "in_proj.bias"},
                                  std::pair{"out.weight", "out_proj.weight"}, std::pair{"out.bias", "out_proj.bias"},
                                  std::pair{"select.weight", "x_proj.weight"}, std::pair{"step.weight", "dt_proj.weight"},
                                  std::pair{"step.bias", "dt_proj.bias"}, std::pair{"decay", "A_log"}, std::pair{"skip", "D"},
                                  std::pair{"step_norm.weight", "dt_layernorm.weight"}, std::pair{"input_norm.weight", "b_layernorm.weight"},
                                  std::pair{"output_norm.weight", "c_layernorm.weight"}})
    rules.push_back({{ours + name}, theirs + hub});
  rules.push_back({{"norm.weight"}, "model.final_layernorm.weight"});
  rules.push_back({{"layers.{i}.feed_forward_norm.weight"}, layer + "pre_ff_layernorm.weight"});
  for (const auto& [part, hub] : {std::pair{"gate", "gate_proj"}, std::pair{"up", "up_proj"}, std::pair{"down", "down_proj"}})
    rules.push_back({{std::string("layers.{i}.feed_forward.") + part + ".weight"}, layer + "feed_forward." + hub + ".weight"});
  return joined(rules, llama_names({.router = "feed_forward.router.weight", .experts = "feed_forward.experts"}));
}

class Jamba : public TableFamily {
 public:
  Jamba()
      : TableFamily({.kinds = {{"jamba", "JambaForCausalLM"}},
                     .fixed = R"(
model: {positions: none}
attention: {type: gqa}
mamba: {type: mamba}
dense: {type: feed-forward, activation: swiglu}
mixture: {expert: {type: swiglu}, router: {type: sparse-topk, softmax: all}}
)",
                     .keys = joined({count_key("num_experts|num_local_experts", "mixture.experts").absent("16"),
                                     count_key("num_experts_per_tok", "mixture.router.k").absent("2"),
                                     count_key("intermediate_size", "mixture.expert.hidden dense.hidden"),
                                     count_key("mamba_d_state", "mamba.state").absent("16"),
                                     count_key("mamba_d_conv", "mamba.convolution").absent("4"),
                                     count_key("mamba_expand", "mamba.expand").absent("2"),
                                     flag_key("mamba_conv_bias", "mamba.convolution_bias").absent("true"),
                                     flag_key("mamba_proj_bias", "mamba.bias").absent("false")},
                                    decoder_keys()),
                     .names = jamba_names(),
                     .rope_theta = "",
                     .arrange = arrange,
                     .describe = describe}) {}

 private:
  static void arrange(const HubReader& config, const std::string&, Draft& draft) {
    config.only("sliding_window", {});
    for (const char* key : {"use_mamba_kernels", "use_mambapy", "use_associative_scan", "layer_types", "layers_block_type"}) config.pass(key);
    arrange_curve(config, draft, "mamba");
    const int64_t period = config.count("attn_layer_period", 8), offset = config.count("attn_layer_offset", 4, 0);
    const int64_t expert_period = config.count("expert_layer_period", 2), expert_offset = config.count("expert_layer_offset", 1, 0);
    const Node* rank = config.find("mamba_dt_rank");  // "auto" = width / 16
    if (rank && rank->scalar() != "auto") draft.parts.at("mamba")["step_rank"] = hub_count(config.count("mamba_dt_rank", 1));
    const bool mixed = integer_at(draft.part("mixture"), "experts") > 1;
    for (int64_t i = 0; i < draft.count(); ++i) {
      if (i % period != offset) draft.layers[static_cast<size_t>(i)].attention = draft.part("mamba");
      if (!mixed || i % expert_period != expert_offset) draft.make_dense(i);
    }
  }
  static void describe(const Node& composition, const std::string&, Node& config) {
    const auto [period, offset] = stride(composition, [](const Node& layer) { return is_body(layer, "gqa"); });
    const auto [expert_period, expert_offset] = stride(composition, has_mixture);
    config["attn_layer_period"] = hub_count(period);
    config["attn_layer_offset"] = hub_count(offset);
    config["expert_layer_period"] = hub_count(expert_period);
    config["expert_layer_offset"] = hub_count(expert_offset);
    const int64_t at = first_layer(composition, [](const Node& layer) { return is_body(layer, "mamba"); });
    const int64_t rank = at < 0 ? 0 : integer_at(composition, fmt::format("layers.{}.attention.step_rank", at));
    config["mamba_dt_rank"] = rank > 0 ? hub_count(rank) : hub_text("auto");
    config["use_mamba_kernels"] = hub_flag(false);
    std::erase_if(config.entries(), [](const auto& entry) { return entry.first == "head_dim"; });
  }
};

// --- Granite 4 -------------------------------------------------------------------------------------

std::vector<NameRule> granite_hybrid_names() {
  const std::string ours = "layers.{i}.attention.", theirs = "model.layers.{i}.mamba.", layer = "model.layers.{i}.shared_mlp.";
  std::vector<NameRule> rules = convolution_names(ours, theirs);
  for (const auto& [name, hub] : {std::pair{"in.weight", "in_proj.weight"}, std::pair{"in.bias", "in_proj.bias"},
                                  std::pair{"out.weight", "out_proj.weight"}, std::pair{"out.bias", "out_proj.bias"},
                                  std::pair{"decay", "A_log"}, std::pair{"skip", "D"}, std::pair{"step_bias", "dt_bias"},
                                  std::pair{"norm.weight", "norm.weight"}})
    rules.push_back({{ours + name}, theirs + hub});
  rules.push_back({{"layers.{i}.feed_forward.gate.weight", "layers.{i}.feed_forward.up.weight"}, layer + "input_linear.weight"});
  rules.push_back({{"layers.{i}.feed_forward.down.weight"}, layer + "output_linear.weight"});
  return joined(rules, granite_names());
}

/// Infinity as library 5 writes it.
Node endless() {
  Node node = Node::map();
  node["__float__"] = hub_text("Infinity");
  return node;
}

/// time_step_limit: the lowest and the highest step size.
void limit_steps(const HubReader& config, Node& mamba) {
  const Node* limit = config.find("time_step_limit");
  if (limit == nullptr) return;
  check(limit->is_list() && limit->items().size() == 2, "model.config", "{}: time_step_limit is no list of two numbers", limit->where());
  const Node &lowest = limit->items()[0], &highest = limit->items()[1];
  if (lowest.is_scalar()) mamba["step_lowest"] = lowest;
  if (highest.is_scalar() && highest.scalar() != "Infinity") mamba["step_highest"] = highest;
}

class GraniteHybrid : public TableFamily {
 public:
  GraniteHybrid()
      : TableFamily({.kinds = {{"granitemoehybrid", "GraniteMoeHybridForCausalLM"}},
                     .fixed = R"(
attention: {type: gqa}
mamba: {type: mamba2}
dense: {type: feed-forward, activation: swiglu}
mixture: {expert: {type: swiglu}, router: {type: sparse-topk, softmax: kept}}
)",
                     .keys = joined({count_key("num_local_experts|num_experts", "mixture.experts").absent("8").from(0),
                                     count_key("num_experts_per_tok", "mixture.router.k").absent("2").from(0),
                                     count_key("intermediate_size", "mixture.expert.hidden").absent(""),  // no experts, no width
                                     count_key("mamba_n_heads", "mamba.heads").absent("128"),
                                     count_key("mamba_d_state", "mamba.state").absent("256"),
                                     count_key("mamba_d_conv", "mamba.convolution").absent("4"),
                                     count_key("mamba_n_groups", "mamba.groups").absent("1"),
                                     flag_key("mamba_conv_bias", "mamba.convolution_bias").absent("true"),
                                     flag_key("mamba_proj_bias", "mamba.bias").absent("false"),
                                     text_key("position_embedding_type", "positions").or_null("none").means({{"rope", "rope"}, {"nope", "none"}, {"none", "none"}})},
                                    granite_keys()),
                     .names = granite_hybrid_names(),
                     .arrange = arrange,
                     .describe = describe}) {}

 private:
  static void arrange(const HubReader& config, const std::string& type, Draft& draft) {
    arrange_granite_shared(config, type, draft);
    arrange_curve(config, draft, "mamba");
    config.pass("mamba_chunk_size");
    limit_steps(config, draft.parts.at("mamba"));
    const std::vector<std::string> older = texts_by_layer(config, draft, "layers_block_type"), newer = texts_by_layer(config, draft, "layer_types");
    const std::vector<std::string>& types = newer.empty() ? older : newer;
    const auto runs = [](const std::string& kind) { return kind == "mamba" || kind == "linear_attention"; };  // library 5 has one name for all
    const int64_t inner = config.count("mamba_expand", 2) * integer_at(draft.model, "width"), heads = integer_at(draft.part("mamba"), "heads");
    const Node* given = config.find("mamba_d_head");
    const bool none = !types.empty() && std::none_of(types.begin(), types.end(), runs);
    check(none || (inner % heads == 0 && (!given || given->scalar() == "auto" || config.count("mamba_d_head", 1) == inner / heads)), "model.config",
          "{}: mamba_n_heads {} times mamba_d_head is not mamba_expand times hidden_size, {}", config.config().mark().source, heads, inner);
    draft.parts.at("mamba")["head_dim"] = hub_count(std::max<int64_t>(1, inner / heads));
    for (int64_t i = 0; i < draft.count(); ++i) {
      Draft::Layer& layer = draft.layers[static_cast<size_t>(i)];
      const std::string kind = types.empty() ? "mamba" : types.at(static_cast<size_t>(i));
      const bool mamba = runs(kind);
      check(mamba || kind == "attention" || kind == "full_attention", "model.config", "{}: layer_types names '{}'; mamba and attention are known",
            config.config().mark().source, kind);
      if (mamba) layer.attention = draft.part("mamba");
      if (integer_at(draft.part("mixture"), "experts") == 0) {
        // Without experts the shared network is the layer's.
        draft.parts.at("dense")["hidden"] = hub_count(config.count("shared_intermediate_size", 1024));
        draft.make_dense(i);
      }
    }
  }
  static void describe(const Node& composition, const std::string& type, Node& config) {
    describe_granite_shared(composition, type, config);
    if (!config.find("intermediate_size")) config["intermediate_size"] = Node(config["shared_intermediate_size"]);
    if (first_layer(composition, has_mixture) < 0) config["num_local_experts"] = config["num_experts_per_tok"] = hub_count(0);
    config["layer_types"] = Node::list();
    for (const Node& layer : find_at(composition, "layers")->items())
      config["layer_types"].append(hub_text(is_body(layer, "mamba2") ? "mamba" : "attention"));
    const int64_t at = first_layer(composition, [](const Node& layer) { return is_body(layer, "mamba2"); });
    const std::string mamba = fmt::format("layers.{}.attention.", at);
    const int64_t width = integer_at(composition, "width");
    if (at >= 0) {
      config["mamba_d_head"] = hub_count(integer_at(composition, mamba + "head_dim"));
      config["mamba_expand"] = hub_count(integer_at(composition, mamba + "head_dim") * integer_at(composition, mamba + "heads") / width);
      const double lowest = number_at(composition, mamba + "step_lowest"), highest = number_at(composition, mamba + "step_highest");
      if (lowest > 0 || highest > 0) {
        config["time_step_limit"].append(hub_number(lowest));
        config["time_step_limit"].append(highest > 0 ? hub_number(highest) : endless());
      }
    } else {
      // The library holds heads against the width also where no layer has them.
      config["mamba_n_heads"] = hub_count(1);
      config["mamba_d_head"] = hub_count(2 * width);
      config["mamba_expand"] = hub_count(2);
    }
  }
};

// --- Qwen3-Next ------------------------------------------------------------------------------------

class Qwen3Next : public TableFamily {
 public:
  Qwen3Next()
      : TableFamily({.kinds = {{"qwen3_next", "Qwen3NextForCausalLM"}},
                     .fixed = R"(
model: {norm: rms_centred, rope_fraction: 0.25}
attention: {type: gqa, qk_norm: head, gate: true}
delta: {type: gated-delta-net}
dense: {type: feed-forward, activation: swiglu}
mixture: {expert: {type: swiglu}, router: {type: sparse-topk}, shared: [{expert: {type: swiglu}, gate: sigmoid}]}
)",
                     .keys = joined({count_key("num_experts|num_local_experts", "mixture.experts").absent("512").from(0),
                                     count_key("num_experts_per_tok", "mixture.router.k").absent("10"),
                                     count_key("moe_intermediate_size", "mixture.expert.hidden").absent("512"),
                                     count_key("shared_expert_intermediate_size", "mixture.shared.0.expert.hidden").absent("512"),
                                     count_key("intermediate_size", "dense.hidden").absent("5632"),
                                     count_key("head_dim", "attention.head_dim").absent("256"),
                                     flag_key("attention_bias", "attention.bias attention.output_bias").absent("false"),
                                     count_key("linear_num_key_heads", "delta.key_heads").absent("16"),
                                     count_key("linear_num_value_heads", "delta.value_heads").absent("32"),
                                     count_key("linear_key_head_dim", "delta.key_dim").absent("128"),
                                     count_key("linear_value_head_dim", "delta.value_dim").absent("128"),
                                     count_key("linear_conv_kernel_dim", "delta.convolution").absent("4"),
                                     count_key("decoder_sparse_step", "").absent("1"),
                                     norm_topk_key("true")},
                                    decoder_keys()),
                     .names = {},
                     .ignored = {},
                     .arrange = arrange,
                     .describe = describe}) {}

  void names(NameMap& map, const ModelOptions& options, const HasTensor& has) const override {
    const std::string ours = "layers.{i}.attention.", theirs = "model.layers.{i}.linear_attn.", full = "model.layers.{i}.self_attn.";
    std::vector<NameRule> rules = convolution_names(ours, theirs);
    for (const auto& [name, hub] : {std::pair{"in.weight", "in_proj_qkvz.weight"}, std::pair{"gates.weight", "in_proj_ba.weight"},
                                    std::pair{"out.weight", "out_proj.weight"}, std::pair{"decay", "A_log"},
                                    std::pair{"step_bias", "dt_bias"}, std::pair{"norm.weight", "norm.weight"}})
      rules.push_back({{ours + name}, theirs + hub});
    // Queries and their gates lie head by head in one map.
    for (int64_t i = 0; i < options.layers; ++i) {
      const std::string at = fmt::format("layers.{}.attention.", i), hub = fmt::format("model.layers.{}.self_attn.q_proj.", i);
      if (!map.declares(at + "gate.weight")) continue;
      const int64_t heads = integer_at(options.attention_of(i).options, "heads"), d = map.shape(at + "query.weight")[0] / heads;
      for (const char* which : {"weight", "bias"}) {
        if (!map.declares(at + "query." + which)) continue;
        std::vector<int64_t> shape = map.shape(at + "query." + which);
        shape[0] *= 2;
        for (int64_t h = 0; h < heads; ++h) {
          map.link(at + "query." + which, {ViewStep::slice(0, h * d, d)}, hub + which, shape, {ViewStep::slice(0, 2 * h * d, d)});
          map.link(at + "gate." + which, {ViewStep::slice(0, h * d, d)}, hub + which, shape, {ViewStep::slice(0, (2 * h + 1) * d, d)});
        }
      }
    }
    link_names(map, options.layers, joined(rules, llama_names()), has);
    TableFamily::names(map, options, has);
    map.ignore_below("mtp.");
  }

 private:
  static void arrange(const HubReader& config, const std::string&, Draft& draft) {
    arrange_curve(config, draft, "delta");
    const int64_t interval = config.count("full_attention_interval", 4), step = config.count("decoder_sparse_step", 1);
    const std::vector<std::string> types = texts_by_layer(config, draft, "layer_types");
    const std::vector<int64_t> listed = config.counts("mlp_only_layers");
    const bool any = integer_at(draft.part("mixture"), "experts") > 0;
    for (int64_t i = 0; i < draft.count(); ++i) {
      const bool full = types.empty() ? (i + 1) % interval == 0 : types.at(static_cast<size_t>(i)) == "full_attention";
      if (!full) draft.layers[static_cast<size_t>(i)].attention = draft.part("delta");
      if (!any || (i + 1) % step != 0 || std::find(listed.begin(), listed.end(), i) != listed.end()) draft.make_dense(i);
    }
  }
  static void describe(const Node& composition, const std::string&, Node& config) {
    for (const char* list : {"layer_types", "mlp_only_layers"}) config[list] = Node::list();
    for (int64_t i = 0; i < layers_of(composition); ++i) {
      const Node& layer = find_at(composition, "layers")->items()[static_cast<size_t>(i)];
      config["layer_types"].append(hub_text(is_body(layer, "gqa") ? "full_attention" : "linear_attention"));
      if (!has_mixture(layer)) config["mlp_only_layers"].append(hub_count(i));
    }
    config["partial_rotary_factor"] = hub_number(number_at(composition, "rope_fraction"));
  }
};

// --- MiniMax-Text-01 -------------------------------------------------------------------------------

/// The type of the first files, whose code came with them, and what they call the weights of stream and sub-layer.
constexpr const char* kFirstMiniMax = "minimax_text_01";
constexpr std::pair<const char*, const char*> kFactors[]{
    {"full_attn_alpha_factor", "layernorm_full_attention_alpha"}, {"full_attn_beta_factor", "layernorm_full_attention_beta"},
    {"linear_attn_alpha_factor", "layernorm_linear_attention_alpha"}, {"linear_attn_beta_factor", "layernorm_linear_attention_beta"},
    {"mlp_alpha_factor", "layernorm_mlp_alpha"}, {"mlp_beta_factor", "layernorm_mlp_beta"}};

class MiniMax : public TableFamily {
 public:
  MiniMax()
      : TableFamily({.kinds = {{"minimax", "MiniMaxForCausalLM"}, {kFirstMiniMax, "MiniMaxText01ForCausalLM"}},
                     .fixed = R"(
model: {block: keep_norm}
attention: {type: gqa}
lightning: {type: lightning-attention}
mixture: {expert: {type: swiglu}, router: {type: sparse-topk, softmax: kept}}
)",
                     .keys = joined({count_key("num_local_experts|num_experts", "mixture.experts").absent("8"),
                                     count_key("num_experts_per_tok", "mixture.router.k").absent("2"),
                                     count_key("intermediate_size", "mixture.expert.hidden"),
                                     count_key("num_attention_heads", "attention.heads lightning.heads"),
                                     count_key("head_dim", "attention.head_dim lightning.head_dim").absent("0"),
                                     count_key("sliding_window", "attention.window").or_null("0"),
                                     number_key("rms_norm_eps", "norm_eps").absent("1e-5")},
                                    decoder_keys()),
                     .names = names_of_minimax(),
                     .ignored = {"model.layers.{i}.self_attn.slope_rate", "model.layers.{i}.self_attn.query_decay",
                                 "model.layers.{i}.self_attn.key_decay", "model.layers.{i}.self_attn.diagonal_decay"},
                     .rope_theta = "1000000",
                     .arrange = arrange,
                     .describe = describe}) {}

 private:
  static std::vector<NameRule> names_of_minimax() {
    const std::string ours = "layers.{i}.attention.", theirs = "model.layers.{i}.self_attn.";
    return joined(joined({{{ours + "in.weight"}, theirs + "qkv_proj.weight"},
                          {{ours + "gate.weight"}, theirs + "output_gate.weight"},
                          {{ours + "out.weight"}, theirs + "out_proj.weight"},
                          {{ours + "norm.weight"}, theirs + "norm.weight"},
                          {{ours + "decay.slope"}, theirs + "slope_rate"},
                          {{ours + "decay.query"}, theirs + "query_decay"},
                          {{ours + "decay.key"}, theirs + "key_decay"},
                          {{ours + "decay.diagonal"}, theirs + "diagonal_decay"}},
                         memory_names()),
                  llama_names({.router = "block_sparse_moe.gate.weight", .experts = "block_sparse_moe.experts", .gate = "w1", .up = "w3", .down = "w2"}));
  }
  static void arrange(const HubReader& config, const std::string&, Draft& draft) {
    arrange_curve(config, draft, "lightning");
    config.pass("shared_moe_mode");
    // The published weights have no tables of decays; transformers writes them, and reads them where they are.
    const int64_t block = config.count("block_size", 256);
    if (config.flag("decay_tables", false)) draft.parts.at("lightning")["table_rows"] = hub_count(block);
    config.only("postnorm", {"true"});
    config.only("shared_intermediate_size", {"0"});
    const std::vector<std::string> types = texts_by_layer(config, draft, "layer_types");
    const std::vector<int64_t> full_types = config.counts("attn_type_list");  // of the first files: 1 = full
    check(full_types.empty() || static_cast<int64_t>(full_types.size()) == draft.count(), "model.config", "{}: attn_type_list lists {} layers, but there are {}",
          config.config().mark().source, full_types.size(), draft.count());
    const int64_t heads = integer_at(draft.part("attention"), "heads"), given = integer_at(draft.part("attention"), "head_dim");
    if (config.find("rotary_dim")) {
      const int64_t width = given > 0 ? given : integer_at(draft.model, "width") / heads;
      draft.model["rope_fraction"] = detail::write_value(static_cast<double>(config.count("rotary_dim", width)) / static_cast<double>(width));
    }
    double factor[std::size(kFactors)];
    for (size_t f = 0; f < std::size(kFactors); ++f) factor[f] = config.number(kFactors[f].first, config.number(kFactors[f].second, 1));
    const auto [full_alpha, full_beta, linear_alpha, linear_beta, mlp_alpha, mlp_beta] = factor;
    for (int64_t i = 0; i < draft.count(); ++i) {
      Draft::Layer& layer = draft.layers[static_cast<size_t>(i)];
      bool full = (i + 1) % 2 == 0;
      if (!types.empty()) full = types.at(static_cast<size_t>(i)) == "full_attention";
      else if (!full_types.empty()) full = full_types.at(static_cast<size_t>(i)) == 1;
      if (!full) layer.attention = draft.part("lightning");
      layer.residual = Node::map();
      layer.residual["attention_keep"] = detail::write_value(full ? full_alpha : linear_alpha);
      layer.residual["attention_add"] = detail::write_value(full ? full_beta : linear_beta);
      layer.residual["feed_forward_keep"] = detail::write_value(mlp_alpha);
      layer.residual["feed_forward_add"] = detail::write_value(mlp_beta);
    }
  }
  static void describe(const Node& composition, const std::string& type, Node& config) {
    const bool first = type == kFirstMiniMax;
    for (int64_t i = 0; i < layers_of(composition); ++i) {
      const Node& layer = find_at(composition, "layers")->items()[static_cast<size_t>(i)];
      const bool full = is_body(layer, "gqa");
      if (first) config["attn_type_list"].append(hub_count(full ? 1 : 0));
      else config["layer_types"].append(hub_text(full ? "full_attention" : "linear_attention"));
      const std::string kind = full ? "full_attn_" : "linear_attn_";
      config[kind + "alpha_factor"] = hub_number(number_at(layer, "residual.attention_keep"));
      config[kind + "beta_factor"] = hub_number(number_at(layer, "residual.attention_add"));
      config["mlp_alpha_factor"] = hub_number(number_at(layer, "residual.feed_forward_keep"));
      config["mlp_beta_factor"] = hub_number(number_at(layer, "residual.feed_forward_add"));
    }
    if (first) {
      for (auto& [key, value] : config.entries())
        for (const auto& [newer, older] : kFactors)
          if (key == newer) key = older;
      config["postnorm"] = hub_flag(true);
    }
    const int64_t running = first_layer(composition, [](const Node& layer) { return is_body(layer, "lightning-attention"); });
    const int64_t block = running < 0 ? 0 : integer_at(composition, fmt::format("layers.{}.attention.table_rows", running));
    if (block > 0) {
      config["block_size"] = hub_count(block);
      config["decay_tables"] = hub_flag(true);
    }
    const double fraction = number_at(composition, "rope_fraction");
    const int64_t at = first_layer(composition, [](const Node& layer) { return is_body(layer, "gqa"); });
    if (at < 0) {
      // Heads of the other kind say how many there are.
      for (const char* key : {"num_key_value_heads", "num_attention_heads"}) config[key] = hub_count(integer_at(composition, "layers.0.attention.heads"));
      config["head_dim"] = hub_count(integer_at(composition, "layers.0.attention.head_dim"));
    } else if (fraction != 1)
      config["rotary_dim"] = hub_count(static_cast<int64_t>(fraction * static_cast<double>(integer_at(composition, fmt::format("layers.{}.attention.head_dim", at))) + 0.5));
  }
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(hybrids) {
  using namespace switchyard;
  registry.add<Family, Jamba, NoOptions>(
      {.slug = "jamba", .name = "Jamba, Jamba-1.5", .paper = "Lieber et al., Jamba", .year = 2024, .section = "4.2.2", .room = "models/families",
       .coupling = "none", .line = "Mamba, attention without positions every eighth layer; experts every second, raw probabilities",
       .recipe = "recipes/methods/jamba.yaml"});
  registry.add<Family, GraniteHybrid, NoOptions>(
      {.slug = "granite-moe-hybrid", .name = "Granite 4 tiny, small", .paper = "IBM, Granite 4.0 language models", .year = 2025, .section = "beyond",
       .room = "models/families", .coupling = "none", .line = "Granite MoE with Mamba-2 in most layers", .recipe = "recipes/methods/granite-moe-hybrid.yaml"});
  registry.add<Family, Qwen3Next, NoOptions>(
      {.slug = "qwen3-next", .name = "Qwen3-Next-80B-A3B", .paper = "Qwen Team, Qwen3-Next", .year = 2025, .section = "beyond", .room = "models/families",
       .coupling = "none", .line = "gated delta nets, gated attention every fourth layer; 512 experts beside a gated one",
       .recipe = "recipes/methods/qwen3-next.yaml"});
  registry.add<Family, MiniMax, NoOptions>(
      {.slug = "minimax", .name = "MiniMax-Text-01", .paper = "MiniMax, MiniMax-01", .year = 2025, .section = "beyond", .room = "models/families",
       .coupling = "none", .line = "lightning attention, softmax attention every eighth layer; the residual is the normed stream",
       .recipe = "recipes/methods/minimax.yaml"});
}
