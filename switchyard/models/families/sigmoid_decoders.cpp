// Decoders whose mixtures choose as DeepSeek-V3's but whose attention is grouped-query: GLM-4.5 (Zeng et al. 2025), dots.llm1
// (Huo et al. 2025), MiniMax-M2 (2025). They differ in norms of queries and keys, in the share of a head that turns, and in
// the window.
#include "switchyard/models/families/table_family.h"

namespace switchyard {
namespace {

std::vector<HubKey> fine_keys() {
  return joined({count_key("n_routed_experts|num_local_experts", "mixture.experts"),
                 count_key("num_experts_per_tok", "mixture.router.k"),
                 count_key("moe_intermediate_size", "mixture.expert.hidden"),
                 count_key("intermediate_size", "dense.hidden").absent("10944")},
                sigmoid_mixture_keys());
}

std::vector<NameRule> names() {
  return joined({{{"layers.{i}.feed_forward.router.bias"}, "model.layers.{i}.mlp.gate.e_score_correction_bias"}},
                llama_names({.shared = "mlp.shared_experts"}));
}

class Glm4Moe : public TableFamily {
 public:
  Glm4Moe()
      : TableFamily({.kinds = {{"glm4_moe", "Glm4MoeForCausalLM"}},
                     .fixed = R"(
model: {rope_fraction: 0.5}
attention: {type: gqa}
dense: {type: feed-forward, activation: swiglu}
mixture: {expert: {type: swiglu}, router: {type: sigmoid-topk}}
)",
                     .keys = joined({flag_key("attention_bias", "attention.bias").absent("false"),
                                     flag_key("use_qk_norm", "attention.qk_norm").absent("false").means({{"true", "head"}, {"false", "none"}}),
                                     number_key("rms_norm_eps", "norm_eps").absent("1e-5")},
                                    joined(fine_keys(), decoder_keys())),
                     .names = switchyard::names(),
                     .arrange =
                         [](const HubReader& config, const std::string&, Draft& draft) {
                           config.only("scoring_func", {"sigmoid"});
                           config.only("topk_method", {"noaux_tc"});
                           arrange_fine_layers(config, draft, {.dense = 1, .shared = 1});
                         },
                     .describe =
                         [](const Node& composition, const std::string&, Node& config) {
                           describe_fine_layers(composition, config);
                           config["partial_rotary_factor"] = hub_number(number_at(composition, "rope_fraction"));
                         }}) {}
};

class Dots1 : public TableFamily {
 public:
  Dots1()
      : TableFamily({.kinds = {{"dots1", "Dots1ForCausalLM"}},
                     .fixed = R"(
attention: {type: gqa, qk_norm: head}
dense: {type: feed-forward, activation: swiglu}
mixture: {expert: {type: swiglu}, router: {type: sigmoid-topk}}
)",
                     .keys = joined({flag_key("attention_bias", "attention.bias attention.output_bias").absent("false"), normalised_key("false")},
                                    joined(fine_keys(), decoder_keys())),
                     .names = switchyard::names(),
                     .arrange =
                         [](const HubReader& config, const std::string&, Draft& draft) {
                           config.only("scoring_func", {"noaux_tc", "sigmoid"});
                           arrange_fine_layers(config, draft, {});
                           const int64_t first = config.count("max_window_layers", 62, 0);
                           arrange_windows(config, draft, 4096, [first](int64_t i) { return i >= first; });
                         },
                     .describe =
                         [](const Node& composition, const std::string&, Node& config) {
                           describe_fine_layers(composition, config);
                           describe_windows(composition, config);
                           config["scoring_func"] = hub_text("noaux_tc");
                         }}) {}
};

class MiniMaxM2 : public TableFamily {
 public:
  MiniMaxM2()
      : TableFamily({.kinds = {{"minimax_m2", "MiniMaxM2ForCausalLM"}},
                     .fixed = R"(
attention: {type: gqa}
mixture: {expert: {type: swiglu}, router: {type: sigmoid-topk}, combine: {renormalise: before_drop}}
)",
                     .keys = joined({count_key("num_local_experts|num_experts", "mixture.experts"),
                                     count_key("num_experts_per_tok", "mixture.router.k"),
                                     count_key("intermediate_size", "mixture.expert.hidden"),
                                     flag_key("use_qk_norm", "attention.qk_norm").absent("true").means({{"true", "full"}, {"false", "none"}}),
                                     flag_key("use_routing_bias", "mixture.router.bias").absent("true"),
                                     count_key("head_dim", "attention.head_dim").absent("128")},
                                    decoder_keys()),
                     .names = joined(joined({where_present({{"layers.{i}.feed_forward.router.bias"}, "model.layers.{i}.mlp.e_score_correction_bias"}),
                                             {{"layers.{i}.feed_forward.router.bias"}, "model.layers.{i}.block_sparse_moe.e_score_correction_bias"}},
                                            memory_names()),
                                     llama_names({.router = "block_sparse_moe.gate.weight", .experts = "block_sparse_moe.experts",
                                                  .gate = "w1", .up = "w3", .down = "w2"})),
                     .rope_theta = "5000000",
                     .arrange =
                         [](const HubReader& config, const std::string&, Draft& draft) {
                           config.only("scoring_func", {"sigmoid"});
                           config.only("qk_norm_type", {"per_layer"});
                           config.only("shared_intermediate_size", {"0"});
                           for (const char* key : {"use_mtp", "num_mtp_modules", "mtp_transformer_layers"}) config.pass(key);
                           for (const int64_t type : config.counts("attn_type_list"))
                             check(type == 1, "model.config", "{}: attn_type_list has {}; every layer's attention is of type 1 here",
                                   config.config().mark().source, type);
                           const int64_t heads = integer_at(draft.part("attention"), "heads"), given = integer_at(draft.part("attention"), "head_dim");
                           const int64_t width = given > 0 ? given : integer_at(draft.model, "width") / heads;
                           const int64_t turning = config.count("rotary_dim", width);
                           if (config.find("rotary_dim"))
                             draft.model["rope_fraction"] = detail::write_value(static_cast<double>(turning) / static_cast<double>(width));
                         },
                     .describe =
                         [](const Node& composition, const std::string&, Node& config) {
                           const double fraction = number_at(composition, "rope_fraction");
                           const auto width = static_cast<double>(integer_at(composition, "layers.0.attention.head_dim"));
                           config["rotary_dim"] = hub_count(static_cast<int64_t>(fraction * width + 0.5));
                           config["scoring_func"] = hub_text("sigmoid");
                         }}) {}
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(sigmoid_decoders) {
  using namespace switchyard;
  registry.add<Family, Glm4Moe, NoOptions>(
      {.slug = "glm4-moe", .name = "GLM-4.5, 4.5-Air, 4.6", .paper = "Zeng et al., GLM-4.5", .year = 2025, .section = "beyond",
       .room = "models/families", .coupling = "none", .line = "DeepSeek-V3's choice of experts; half of each head turns",
       .recipe = "recipes/methods/glm4-moe.yaml"});
  registry.add<Family, Dots1, NoOptions>(
      {.slug = "dots1", .name = "dots.llm1", .paper = "Huo et al., dots.llm1 technical report", .year = 2025, .section = "beyond",
       .room = "models/families", .coupling = "none", .line = "DeepSeek-V3's choice of experts; norms head by head, windows by layer",
       .recipe = "recipes/methods/dots1.yaml"});
  registry.add<Family, MiniMaxM2, NoOptions>(
      {.slug = "minimax-m2", .name = "MiniMax-M2", .paper = "MiniMax, MiniMax-M2", .year = 2025, .section = "beyond",
       .room = "models/families", .coupling = "none", .line = "256 experts by sigmoids and a bias; norms over whole queries and keys, half of each head turns",
       .recipe = "recipes/methods/minimax-m2.yaml"});
}
