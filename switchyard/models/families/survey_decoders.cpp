// Decoders of the survey whose code came with their weights: DeepSeekMoE (Dai et al. 2024), Grok-1 (xAI 2024), Arctic (Snowflake
// 2024), LLaMA-MoE (Zhu et al. 2024) and Skywork-MoE (Wei et al. 2024).
#include <algorithm>

#include "switchyard/models/families/table_family.h"

namespace switchyard {
namespace {

class DeepseekMoe : public TableFamily {
 public:
  DeepseekMoe()
      : TableFamily({.kinds = {{"deepseek", "DeepseekForCausalLM"}},
                     .fixed = R"(
attention: {type: gqa}
dense: {type: feed-forward, activation: swiglu}
mixture: {expert: {type: swiglu}, router: {type: sparse-topk}}
)",
                     .keys = joined({count_key("n_routed_experts", "mixture.experts"),
                                     count_key("num_experts_per_tok", "mixture.router.k"),
                                     count_key("moe_intermediate_size", "mixture.expert.hidden"),
                                     count_key("intermediate_size", "dense.hidden").absent("11008"),
                                     flag_key("attention_bias", "attention.bias attention.output_bias").absent("false"),
                                     norm_topk_key("false")},
                                    decoder_keys()),
                     .names = llama_names({.shared = "mlp.shared_experts"}),
                     .arrange =
                         [](const HubReader& config, const std::string&, Draft& draft) {
                           config.only("scoring_func", {"softmax"});
                           // One expert's weight is not divided by itself.
                           if (integer_at(draft.part("mixture"), "router.k") == 1)
                             for (Draft::Layer& layer : draft.layers) layer.mixture["router"]["softmax"] = Node("all");
                           arrange_fine_layers(config, draft, {});
                         },
                     .describe =
                         [](const Node& composition, const std::string&, Node& config) {
                           describe_fine_layers(composition, config);
                           config["scoring_func"] = hub_text("softmax");
                         }}) {}
};

class Grok : public TableFamily {
 public:
  Grok()
      : TableFamily({.kinds = {{"grok-1", "Grok1ModelForCausalLM"}},
                     .fixed = R"(
model: {block: sandwich}
attention: {type: gqa}
mixture: {expert: {type: swiglu}, router: {type: sparse-topk, softmax: all}}
)",
                     .keys = joined({count_key("num_experts|num_local_experts", "mixture.experts").absent("8"),
                                     count_key("num_experts_per_tok|top_k", "mixture.router.k").absent("2"),
                                     count_key("intermediate_size", "mixture.expert.hidden"),
                                     number_key("embedding_multiplier_scale", "embedding_scale").absent("1.0"),
                                     number_key("output_multiplier_scale", "logit_scale").absent("1.0"),
                                     number_key("attn_output_multiplier", "attention.scale").absent("1.0"),
                                     number_key("max_attn_value", "attention.cap").absent("30.0"),
                                     // The original's is the tanh form; the port with exact erf says so.
                                     text_key("hidden_act", "mixture.expert.type")
                                         .absent("gelu_pytorch_tanh")
                                         .means({{"gelu_pytorch_tanh", "geglu-tanh"}, {"gelu_new", "geglu-tanh"}, {"gelu", "geglu-tanh"}, {"gelu_erf", "geglu"}}),
                                     number_key("rms_norm_eps|norm_eps", "norm_eps").absent("1e-5"),
                                     flag_key("tie_word_embeddings", "tied_embeddings").absent("true")},
                                    decoder_keys()),
                     .names = names_of_grok(),
                     .arrange = [](const HubReader& config, const std::string&, Draft&) { config.pass("attn_output_multiplier"); },
                     .describe = {}}) {}

 private:
  static std::vector<NameRule> names_of_grok() {
    const std::string ours = "layers.{i}.", theirs = "model.layers.{i}.";
    std::vector<NameRule> rules{{{"norm.weight"}, "model.norm.scale"},
                                {{ours + "attention_norm.weight"}, theirs + "pre_attn_norm.scale"},
                                {{ours + "attention_post_norm.weight"}, theirs + "post_attn_norm.scale"},
                                {{ours + "feed_forward_norm.weight"}, theirs + "pre_moe_norm.scale"},
                                {{ours + "feed_forward_post_norm.weight"}, theirs + "post_moe_norm.scale"}};
    for (const auto& [part, hub] : {std::pair{"query", "q"}, std::pair{"key", "k"}, std::pair{"value", "v"}, std::pair{"output", "o"}})
      rules.push_back({{ours + "attention." + part + ".weight"}, theirs + "attn." + hub + "_proj.weight"});
    return joined(rules, llama_names({.router = "moe_block.gate.weight", .experts = "moe_block.experts", .gate = "linear", .up = "linear_v", .down = "linear_1"}));
  }
};

class Arctic : public TableFamily {
 public:
  Arctic()
      : TableFamily({.kinds = {{"arctic", "ArcticForCausalLM"}},
                     .fixed = R"(
attention: {type: gqa}
dense: {type: feed-forward, activation: swiglu}
mixture: {expert: {type: swiglu}, router: {type: sparse-topk, softmax: kept}}
)",
                     .keys = joined({count_key("num_local_experts|num_experts", "mixture.experts").absent("8"),
                                     count_key("num_experts_per_tok", "mixture.router.k").absent("1"),
                                     count_key("intermediate_size", "mixture.expert.hidden dense.hidden"),
                                     flag_key("attention_bias", "attention.bias attention.output_bias").absent("false"),
                                     count_key("sliding_window", "attention.window").or_null("0"),
                                     number_key("rms_norm_eps", "norm_eps").absent("1e-5")},
                                    decoder_keys()),
                     .names = names_of_arctic(),
                     .rope_theta = "1000000",
                     .arrange = arrange,
                     .describe = describe}) {}

 private:
  static std::vector<NameRule> names_of_arctic() {
    const std::string ours = "layers.{i}.", theirs = "model.layers.{i}.";
    std::vector<NameRule> rules{{{ours + "extra_norm.weight"}, theirs + "residual_layernorm.weight"}};
    for (const auto& [part, hub] : {std::pair{"gate", "w1"}, std::pair{"up", "w3"}, std::pair{"down", "w2"}}) {
      rules.push_back({{ours + "extra." + part + ".weight"}, theirs + "residual_mlp." + hub + ".weight"});
      rules.push_back({{ours + "feed_forward." + part + ".weight"}, theirs + "block_sparse_moe.mlp." + hub + ".weight"});
    }
    return joined(rules, llama_names({.router = "block_sparse_moe.gate.weight", .experts = "block_sparse_moe.experts", .gate = "w1", .up = "w3", .down = "w2"}));
  }
  static void arrange(const HubReader& config, const std::string&, Draft& draft) {
    for (const char* key : {"moe_train_capacity_factor", "moe_eval_capacity_factor", "moe_min_capacity", "moe_token_dropping", "use_residual",
                            "enable_expert_tensor_parallelism", "quantization", "enc_index"})
      config.pass(key);
    const bool beside = config.flag("parallel_attn_mlp_res", false);
    const int64_t frequency = config.count("moe_layer_frequency", 2);
    if (beside) draft.model["block"] = Node("beside");
    const bool one = integer_at(draft.part("mixture"), "router.k") == 1;  // whose weight is not divided by itself
    for (int64_t i = 0; i < draft.count(); ++i) {
      if (one) draft.layers[static_cast<size_t>(i)].mixture["router"]["softmax"] = Node("all");
      if ((i + 1) % frequency != 0) {
        draft.make_dense(i);
      } else if (beside) {
        Node extra = draft.part("dense");
        extra["hidden"] = draft.model["width"];
        draft.layers[static_cast<size_t>(i)].extra = std::move(extra);
      }
    }
  }
  static void describe(const Node& composition, const std::string&, Node& config) {
    const int64_t first = first_layer(composition, has_mixture);
    config["moe_layer_frequency"] = hub_count(first < 0 ? layers_of(composition) + 1 : first + 1);
    config["parallel_attn_mlp_res"] = hub_flag(text_at(composition, "block") == "beside");
    config["use_residual"] = Node(config["parallel_attn_mlp_res"]);
  }
};

class LlamaMoe : public TableFamily {
 public:
  LlamaMoe()
      : TableFamily({.kinds = {{"llama_moe", "LlamaMoEForCausalLM"}},
                     .fixed = R"(
attention: {type: gqa}
mixture: {expert: {type: swiglu}, router: {type: noisy-topk, floor: 0.01}}
)",
                     .keys = joined({count_key("num_experts", "mixture.experts"),
                                     count_key("num_selects", "mixture.router.k"),
                                     number_key("gate_noise_epsilon", "mixture.router.floor").absent("0.01")},
                                    decoder_keys()),
                     .names = names_of_llama_moe(),
                     .arrange = arrange,
                     .describe = describe}) {}

  void names(NameMap& map, const ModelOptions& options, const HasTensor& has) const override {
    // A gate of one map has another name than the last of a gate of two, also where no file says so.
    const bool one = options.layers > 0 && !map.declares("layers.0.feed_forward.router.inner");
    TableFamily::names(map, options, [&](const std::string& name) { return name.ends_with("gate.gate_network.weight") ? one : has && has(name); });
  }

 private:
  static std::vector<NameRule> names_of_llama_moe() {
    const std::string ours = "layers.{i}.feed_forward.", theirs = "model.layers.{i}.mlp.", experts = theirs + "calculator.experts.weight_";
    return joined({{{ours + "router.inner"}, theirs + "gate.gate_network.0.weight"},
                   where_present({{ours + "router.weight"}, theirs + "gate.gate_network.weight"}),
                   {{ours + "router.weight"}, theirs + "gate.gate_network.2.weight"},
                   {{ours + "router.noise"}, theirs + "gate.weight_noise.weight"},
                   {{ours + "experts.gate"}, experts + "gate.{e}"},
                   {{ours + "experts.up"}, experts + "up.{e}"},
                   {{ours + "experts.down"}, experts + "down.{e}"}},
                  llama_names());
  }
  static void arrange(const HubReader& config, const std::string&, Draft& draft) {
    for (const char* key : {"gate_use_balance", "gate_balance_loss_weight", "gate_add_noise", "calculator_type", "intermediate_size", "hidden_dropout"})
      config.pass(key);
    config.only("gate_type", {"TopKBalancedNoisyGate"});
    config.only("gate_use_softmax", {"true"});
    config.only("multiply_gate_scores", {"true"});
    config.only("add_weight_norm", {"false"});
    const std::string network = config.text("gate_network", "mlp");
    check(network == "mlp" || network == "linear", "model.config", "{}: gate_network is '{}'; mlp and linear can be computed",
          config.config().mark().source, network);
    const int64_t experts = integer_at(draft.part("mixture"), "experts"), whole = config.count("intermediate_size");
    const Node* sizes = config.find("size_experts");
    const Node* scales = config.find("score_scale_factor");
    check(!scales || !scales->is_list() || static_cast<int64_t>(scales->items().size()) == draft.count(), "model.config",
          "{}: score_scale_factor lists {} layers, but there are {}", config.config().mark().source, scales ? scales->items().size() : 0, draft.count());
    for (int64_t i = 0; i < draft.count(); ++i) {
      Node& mixture = draft.layers[static_cast<size_t>(i)].mixture;
      int64_t width = whole / experts;
      if (sizes) {
        const Node* of_layer = sizes->is_list() && i < static_cast<int64_t>(sizes->items().size()) ? &sizes->items()[static_cast<size_t>(i)] : nullptr;
        check(of_layer && of_layer->is_list() && !of_layer->items().empty(), "model.config", "{}: size_experts lists no widths for layer {}", sizes->where(), i);
        width = integer_at(*of_layer, "0");
        for (const Node& item : of_layer->items())
          check(item.scalar() == of_layer->items()[0].scalar(), "model.config", "{}: experts of layer {} have different widths, which is not supported", sizes->where(), i);
      }
      mixture["expert"]["hidden"] = hub_count(width);
      mixture["router"]["scorer"]["type"] = Node(network == "mlp" ? "tanh-scorer" : "linear");
      if (scales) mixture["combine"]["scale"] = scales->is_list() ? scales->items()[static_cast<size_t>(i)] : *scales;
    }
  }
  static void describe(const Node& composition, const std::string&, Node& config) {
    const std::string mixture = "layers.0.mixtures.0.";
    config["intermediate_size"] = hub_count(integer_at(composition, mixture + "expert.hidden") * integer_at(composition, mixture + "experts"));
    config["gate_type"] = hub_text("TopKBalancedNoisyGate");
    config["gate_network"] = hub_text(text_at(composition, mixture + "router.scorer.type") == "tanh-scorer" ? "mlp" : "linear");
    config["score_scale_factor"] = Node::list();
    Node sizes = Node::list();
    bool alike = true;
    for (int64_t i = 0; i < layers_of(composition); ++i) {
      const std::string of_layer = fmt::format("layers.{}.mixtures.0.", i);
      config["score_scale_factor"].append(hub_number(number_at(composition, of_layer + "combine.scale")));
      const int64_t width = integer_at(composition, of_layer + "expert.hidden");
      alike = alike && width == integer_at(composition, mixture + "expert.hidden");
      Node widths = Node::list();
      for (int64_t e = 0; e < integer_at(composition, of_layer + "experts"); ++e) widths.append(hub_count(width));
      sizes.append(std::move(widths));
    }
    if (!alike) config["size_experts"] = std::move(sizes);
  }
};

class Skywork : public TableFamily {
 public:
  Skywork()
      : TableFamily({.kinds = {{"skywork", "SkyworkForCausalLM"}},
                     .fixed = R"(
attention: {type: gqa}
dense: {type: feed-forward, activation: swiglu}
mixture: {expert: {type: swiglu}, router: {type: sparse-topk, softmax: kept}}
)",
                     .keys = joined({count_key("intermediate_size", "mixture.expert.hidden dense.hidden")}, decoder_keys()),
                     .names = names_of_skywork(),
                     .arrange = arrange,
                     .describe = describe}) {}

  void names(NameMap& map, const ModelOptions& options, const HasTensor& has) const override {
    // The last layer of a gate of two has another name than a gate of one, also where no file says so.
    bool two = false;
    for (int64_t layer = 0; layer < options.layers; ++layer)
      two = two || map.declares(fmt::format("layers.{}.feed_forward.router.inner", layer));
    TableFamily::names(map, options, [&](const std::string& name) { return name.ends_with("gate.wg.2.weight") ? two : has && has(name); });
  }

 private:
  static std::vector<NameRule> names_of_skywork() {
    const std::string ours = "layers.{i}.feed_forward.router.", theirs = "model.layers.{i}.mlp.moe.gate.wg.";
    return joined({{{ours + "inner"}, theirs + "0.weight"},
                   where_present({{ours + "weight"}, theirs + "2.weight"}),
                   {{ours + "weight"}, theirs + "weight"}},
                  llama_names({.router = "mlp.moe.gate.wg.weight", .experts = "mlp.moe.experts.experts"}));
  }
  static void arrange(const HubReader& config, const std::string&, Draft& draft) {
    const std::vector<int64_t> experts = config.counts("num_experts");
    const int64_t interval = config.count("moe_expert_interval", 1), k = config.count("num_experts_per_tok|moe_topk|top_k", 2);
    check(experts.size() <= 1 || static_cast<int64_t>(experts.size()) == draft.count(), "model.config", "{}: num_experts lists {} numbers, but there are {} layers",
          config.config().mark().source, experts.size(), draft.count());
    const bool mixtral = config.flag("moe_use_mixtral_gating", false), own = config.flag("moe_use_skywork_gating", false);
    check(mixtral || own || config.flag("moe_feature_no_mul_topk", false), "model.config",
          "{}: without moe_use_mixtral_gating or moe_feature_no_mul_topk experts get rows times k, which is not supported", config.config().mark().source);
    const bool two = config.flag("moe_2layer_gate", false), normed = config.flag("moe_use_logits_norm", false);
    for (int64_t i = 0; i < draft.count(); ++i) {
      Node& mixture = draft.layers[static_cast<size_t>(i)].mixture;
      const int64_t count = experts.empty() ? 0 : experts.size() == 1 ? experts[0] : experts[static_cast<size_t>(i)];
      if (count <= 1 || (i + 1) % interval != 0) {
        draft.make_dense(i);
        continue;
      }
      mixture["experts"] = hub_count(count);
      mixture["router"]["k"] = hub_count(k);
      Node scorer = Node::map();
      scorer["type"] = Node(two ? "tanh-scorer" : "linear");
      if (two) scorer["hidden"] = hub_count(8 * count);
      if (normed) {
        Node outer = Node::map();
        outer["type"] = Node("skywork-logitnorm");
        outer["spread"] = detail::write_value(config.number("moe_gate_norm_std", 1));
        outer["scorer"] = std::move(scorer);
        scorer = std::move(outer);
      }
      mixture["router"]["scorer"] = std::move(scorer);
    }
    for (const char* key : {"moe_gate_norm_std", "moe_2layer_gate", "moe_use_logits_norm", "moe_use_skywork_gating", "moe_feature_no_mul_topk"}) config.pass(key);
  }
  static void describe(const Node& composition, const std::string&, Node& config) {
    const int64_t first = std::max<int64_t>(0, first_layer(composition, has_mixture));
    const std::string router = fmt::format("layers.{}.mixtures.0.router.", first);
    const bool normed = text_at(composition, router + "scorer.type") == "skywork-logitnorm";
    const std::string inner = router + (normed ? "scorer.scorer.type" : "scorer.type");
    config["num_experts"] = Node::list();
    config["num_experts"].append(hub_count(integer_at(composition, fmt::format("layers.{}.mixtures.0.experts", first))));
    config["moe_expert_interval"] = hub_count(first + 1);
    config["num_experts_per_tok"] = hub_count(integer_at(composition, router + "k"));
    config["moe_use_mixtral_gating"] = hub_flag(true);
    config["moe_2layer_gate"] = hub_flag(text_at(composition, inner) == "tanh-scorer");
    config["moe_use_logits_norm"] = hub_flag(normed);
    if (normed) config["moe_gate_norm_std"] = hub_number(number_at(composition, router + "scorer.spread"));
  }
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(survey_decoders) {
  using namespace switchyard;
  const std::string room = "models/families";
  registry.add<Family, DeepseekMoe, NoOptions>(
      {.slug = "deepseek-v1", .name = "DeepSeekMoE-16B", .paper = "Dai et al., DeepSeekMoE", .year = 2024, .section = "4.2.2", .room = room,
       .coupling = "none", .line = "64 fine experts, 6 a token with raw probabilities, beside shared ones", .recipe = "recipes/methods/deepseek-v1.yaml"});
  registry.add<Family, Grok, NoOptions>(
      {.slug = "grok-1", .name = "Grok-1", .paper = "xAI, Open release of Grok-1", .year = 2024, .section = "4.2.2", .room = room, .coupling = "none",
       .line = "norms before and behind each sub-layer, capped scores, raw probabilities", .recipe = "recipes/methods/grok-1.yaml"});
  registry.add<Family, Arctic, NoOptions>(
      {.slug = "arctic", .name = "Snowflake Arctic", .paper = "Snowflake, Arctic", .year = 2024, .section = "4.2.4", .room = room, .coupling = "none",
       .line = "a dense network behind attention, and 128 experts on the layer's input beside it", .recipe = "recipes/methods/arctic.yaml"});
  registry.add<Family, LlamaMoe, NoOptions>(
      {.slug = "llama-moe", .name = "LLaMA-MoE 2/16, 4/16, 2/8", .paper = "Zhu et al., LLaMA-MoE", .year = 2024, .section = "4.2.2", .room = room,
       .coupling = "none", .line = "a dense network cut into experts, a two-layer noisy gate, outputs scaled up", .recipe = "recipes/methods/llama-moe.yaml"});
  registry.add<Family, Skywork, NoOptions>(
      {.slug = "skywork-moe", .name = "Skywork-MoE", .paper = "Wei et al., Skywork-MoE", .year = 2024, .section = "4.2.2", .room = room, .coupling = "none",
       .line = "16 experts, 2 a token by logits of a fixed spread", .recipe = "recipes/methods/skywork-moe.yaml"});
}
