// DeepSeek-V2 (DeepSeek-AI 2024) and DeepSeek-V3, R1, Kimi K2 (DeepSeek-AI 2024; Kimi Team 2025): latent attention, many fine
// experts beside shared ones, first layers dense, choice limited to a token's best groups. V2 weighs by a softmax, V3 by
// sigmoids that a bias balances.
#include "switchyard/models/families/table_family.h"

namespace switchyard {
namespace {

std::vector<HubKey> latent_keys() {
  return {count_key("num_attention_heads", "attention.heads"),
          count_key("q_lora_rank", "attention.query_rank").or_null("0"),
          count_key("kv_lora_rank", "attention.latent_rank"),
          count_key("qk_nope_head_dim", "attention.plain_dim"),
          count_key("qk_rope_head_dim", "attention.turning_dim"),
          count_key("v_head_dim", "attention.value_dim"),
          flag_key("attention_bias", "attention.bias").absent("false"),
          count_key("intermediate_size", "dense.hidden").absent("18432"),
          count_key("moe_intermediate_size", "mixture.expert.hidden"),
          count_key("n_routed_experts|num_local_experts", "mixture.experts"),
          count_key("num_experts_per_tok", "mixture.router.k")};
}

/// Keys that every decoder has, but for those of its attention's heads.
std::vector<HubKey> without_heads() {
  std::vector<HubKey> keys = decoder_keys();
  std::erase_if(keys, [](const HubKey& key) {
    return key.key == "num_attention_heads" || key.key == "num_key_value_heads" || key.key == "head_dim";
  });
  return keys;
}

std::vector<NameRule> names() {
  const std::string ours = "layers.{i}.attention.", theirs = "model.layers.{i}.self_attn.";
  std::vector<NameRule> rules{{{"layers.{i}.feed_forward.router.bias"}, "model.layers.{i}.mlp.gate.e_score_correction_bias"},
                              {{ours + "latent.weight"}, theirs + "kv_a_proj_with_mqa.weight"},
                              {{ours + "latent.bias"}, theirs + "kv_a_proj_with_mqa.bias"},
                              {{ours + "latent_norm.weight"}, theirs + "kv_a_layernorm.weight"},
                              {{ours + "key_value.weight"}, theirs + "kv_b_proj.weight"}};
  return joined(rules, llama_names({.shared = "mlp.shared_experts"}));
}

/// The queries' map is called by whether they have a latent row.
class Latent : public TableFamily {
 public:
  using TableFamily::TableFamily;
  void names(NameMap& map, const ModelOptions& options, const HasTensor& has) const override {
    const std::string ours = "layers.{i}.attention.", theirs = "model.layers.{i}.self_attn.";
    if (map.declares("layers.0.attention.query_down.weight"))
      link_names(map, options.layers,
                 {{{ours + "query_down.weight"}, theirs + "q_a_proj.weight"},
                  {{ours + "query_down.bias"}, theirs + "q_a_proj.bias"},
                  {{ours + "query_norm.weight"}, theirs + "q_a_layernorm.weight"},
                  {{ours + "query.weight"}, theirs + "q_b_proj.weight"}},
                 has);
    TableFamily::names(map, options, has);
  }
};

/// Every head has keys and values of its own, of the widths that other keys say.
void pass_heads(const HubReader& config) {
  for (const char* key : {"num_key_value_heads", "qk_head_dim", "head_dim"}) config.pass(key);
}

class DeepseekV2 : public Latent {
 public:
  DeepseekV2()
      : Latent({.kinds = {{"deepseek_v2", "DeepseekV2ForCausalLM"}},
                .fixed = R"(
model: {rope_pairs: adjacent}
attention: {type: mla}
dense: {type: feed-forward, activation: swiglu}
mixture: {expert: {type: swiglu}, router: {type: sparse-topk}}
)",
                .keys = joined(latent_keys(), joined({norm_topk_key("false")}, without_heads())),
                .names = switchyard::names(),
                .arrange =
                    [](const HubReader& config, const std::string&, Draft& draft) {
                      config.only("scoring_func", {"softmax"});
                      const std::string method = config.text("topk_method", "greedy");
                      check(method == "greedy" || method == "group_limited_greedy", "model.config",
                            "{}: topk_method is '{}'; greedy and group_limited_greedy can be computed",
                            config.config().mark().source, method);
                      Node& router = draft.parts.at("mixture")["router"];
                      const bool limited = method == "group_limited_greedy";
                      const int64_t groups = config.count("n_group", 1), chosen = config.count("topk_group", 1);
                      router["groups"] = hub_count(limited ? groups : 1);
                      router["chosen_groups"] = hub_count(limited ? chosen : 1);
                      config.only("mlp_bias", {"false"});
                      // Published code divides by the sum of several or scales, never both.
                      if (integer_at(draft.part("mixture"), "router.k") == 1) router["softmax"] = Node("all");
                      const double scale = config.number("routed_scaling_factor", 1);
                      if (text_at(router, "softmax") == "all") draft.parts.at("mixture")["combine"]["scale"] = hub_number(scale);
                      for (Draft::Layer& layer : draft.layers) layer.mixture = draft.part("mixture");
                      arrange_fine_layers(config, draft, {.shared = 2});
                      pass_heads(config);
                    },
                .describe =
                    [](const Node& composition, const std::string&, Node& config) {
                      describe_fine_layers(composition, config);
                      config["num_key_value_heads"] = Node(config["num_attention_heads"]);
                      config["scoring_func"] = hub_text("softmax");
                      const int64_t at = first_layer(composition, has_mixture);
                      const std::string mixture = fmt::format("layers.{}.mixtures.0.", at);
                      const int64_t groups = at < 0 ? 1 : integer_at(composition, mixture + "router.groups");
                      config["topk_method"] = hub_text(groups > 1 ? "group_limited_greedy" : "greedy");
                      config["n_group"] = hub_count(groups);
                      config["topk_group"] = hub_count(at < 0 ? 1 : integer_at(composition, mixture + "router.chosen_groups"));
                      config["routed_scaling_factor"] = hub_number(at < 0 ? 1 : number_at(composition, mixture + "combine.scale"));
                    }}) {}
};

class DeepseekV3 : public Latent {
 public:
  DeepseekV3()
      : Latent({.kinds = {{"deepseek_v3", "DeepseekV3ForCausalLM"}, {"kimi_k2", "DeepseekV3ForCausalLM"}},
                .fixed = R"(
attention: {type: mla}
dense: {type: feed-forward, activation: swiglu}
mixture: {expert: {type: swiglu}, router: {type: sigmoid-topk}}
)",
                .keys = joined(latent_keys(),
                               joined({flag_key("rope_interleave", "rope_pairs").absent("true")
                                           .means({{"true", "adjacent"}, {"false", "half"}}),
                                       count_key("n_group", "mixture.router.groups").absent("8"),
                                       count_key("topk_group", "mixture.router.chosen_groups").absent("4"),
                                       number_key("routed_scaling_factor", "mixture.combine.scale").absent("2.5")},
                                      joined(sigmoid_mixture_keys(), without_heads()))),
                .names = switchyard::names(),
                .arrange =
                    [](const HubReader& config, const std::string&, Draft& draft) {
                      config.only("scoring_func", {"sigmoid"});
                      config.only("topk_method", {"noaux_tc"});
                      arrange_fine_layers(config, draft, {.dense = 3, .shared = 1});
                      pass_heads(config);
                    },
                .describe =
                    [](const Node& composition, const std::string&, Node& config) {
                      describe_fine_layers(composition, config);
                      config["num_key_value_heads"] = Node(config["num_attention_heads"]);
                      config["scoring_func"] = hub_text("sigmoid");
                      config["topk_method"] = hub_text("noaux_tc");
                    }}) {}
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(deepseek) {
  using namespace switchyard;
  registry.add<Family, DeepseekV2, NoOptions>(
      {.slug = "deepseek-v2", .name = "DeepSeek-V2, V2-Lite, V2-Chat", .paper = "DeepSeek-AI, DeepSeek-V2", .year = 2024,
       .section = "4.2.2", .room = "models/families", .coupling = "none",
       .line = "latent attention; 160 fine experts in 8 groups, 6 a token from 3 groups, beside shared ones",
       .recipe = "recipes/methods/deepseek-v2.yaml"});
  registry.add<Family, DeepseekV3, NoOptions>(
      {.slug = "deepseek-v3", .name = "DeepSeek-V3, R1, Kimi K2", .paper = "DeepSeek-AI, DeepSeek-V3", .year = 2024,
       .section = "4.2.2", .room = "models/families", .coupling = "none",
       .line = "latent attention; 256 experts by sigmoids and a balancing bias, 8 a token from 4 of 8 groups",
       .recipe = "recipes/methods/deepseek-v3.yaml"});
}
