// Yuan 2.0-M32 (Wu et al. 2024): attention with a local filter; 32 experts, two a token by experts that attend to each other.
#include "switchyard/models/families/table_family.h"

namespace switchyard {
namespace {

std::vector<NameRule> names() {
  const std::string ours = "layers.{i}.attention.", theirs = "model.layers.{i}.self_attn.lf_gate.";
  const std::string mixture = "layers.{i}.feed_forward.", mlp = "model.layers.{i}.mlp.";
  std::vector<NameRule> rules;
  for (const auto& [name, hub] : {std::pair{"filter_first", "conv1"}, std::pair{"filter_second", "conv2"}}) {
    NameRule weight{{ours + name + ".weight"}, theirs + hub + ".weight"};
    weight.unit = 3;
    rules.push_back(weight);
    rules.push_back({{ours + name + ".bias"}, theirs + hub + ".bias"});
  }
  rules.push_back({{ours + "filter_norm.weight"}, theirs + "output_layernorm.weight"});
  for (const char* part : {"query", "key", "value"}) rules.push_back({{mixture + "router." + part}, mlp + "gate." + part + ".weight"});
  rules.push_back({{mixture + "experts.gate", mixture + "experts.up"}, mlp + "experts.{e}.w1.weight"});
  rules.push_back({{mixture + "experts.down"}, mlp + "experts.{e}.w2.weight"});
  return joined(rules, llama_names());
}

class Yuan : public TableFamily {
 public:
  Yuan()
      : TableFamily({.kinds = {{"yuan", "YuanForCausalLM"}},
                     .fixed = R"(
attention: {type: filtered-attention}
mixture: {expert: {type: swiglu}, router: {type: sparse-topk, scorer: {type: attention-router}}}
)",
                     .keys = {count_key("vocab_size", "vocabulary"),
                              count_key("hidden_size", "width"),
                              count_key("num_hidden_layers", "layers"),
                              count_key("num_attention_heads", "attention.heads"),
                              count_key("max_position_embeddings|model_max_length", "context"),
                              count_key("moe_config.moe_num_experts", "mixture.experts"),
                              count_key("moe_config.moe_top_k", "mixture.router.k"),
                              count_key("moe_config.ffn_hidden_size", "mixture.expert.hidden"),
                              flag_key("moe_config.norm_topk_prob", "mixture.router.softmax").absent("true").means({{"true", "kept"}, {"false", "all"}}),
                              text_key("hidden_act", "mixture.expert.type").absent("silu").means({{"silu", "swiglu"}}),
                              number_key("rms_norm_eps", "norm_eps").absent("1e-6"),
                              flag_key("tie_word_embeddings", "tied_embeddings").absent("true"),
                              number_key("initializer_range", "init_deviation").absent("0.02")},
                     .names = switchyard::names(),
                     .arrange =
                         [](const HubReader& config, const std::string&, Draft& draft) {
                           config.only("moe_config.gated_linear_unit", {"true"});
                           for (const char* key : {"ffn_hidden_size", "intermediate_size", "use_loss_mask", "use_flash_attention", "eod_token", "eod_token_id",
                                                   "mask_token_id", "sep_token", "reset_position_ids", "reset_attention_mask", "output_router_logits",
                                                   "causal_mask", "dropout", "use_moe", "attention_projection_size"})
                             config.pass(key);
                           const int64_t heads = integer_at(draft.part("attention"), "heads"), width = integer_at(draft.model, "width");
                           const int64_t head = config.count("attention_projection_size", width) / heads;
                           for (Draft::Layer& layer : draft.layers) layer.attention["head_dim"] = hub_count(head);
                           // As many coordinates turn as a head of the width would have.
                           draft.model["rope_fraction"] = detail::write_value(static_cast<double>(width / heads) / static_cast<double>(head));
                         },
                     .describe =
                         [](const Node& composition, const std::string&, Node& config) {
                           config["attention_projection_size"] = hub_count(integer_at(composition, "layers.0.attention.heads") *
                                                                           integer_at(composition, "layers.0.attention.head_dim"));
                           config["ffn_hidden_size"] = Node(config["moe_config"]["ffn_hidden_size"]);
                           config["moe_config"]["gated_linear_unit"] = hub_flag(true);
                           std::erase_if(config.entries(), [](const auto& entry) { return entry.first == "partial_rotary_factor"; });
                         }}) {}
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(yuan) {
  using namespace switchyard;
  registry.add<Family, Yuan, NoOptions>(
      {.slug = "yuan-m32", .name = "Yuan 2.0-M32", .paper = "Wu et al., Yuan 2.0-M32", .year = 2024, .section = "4.2.2", .room = "models/families",
       .coupling = "none", .line = "attention with a local filter; 32 experts that attend to each other before two are chosen",
       .recipe = "recipes/methods/yuan-m32.yaml"});
}
