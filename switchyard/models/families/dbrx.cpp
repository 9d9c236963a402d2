// DBRX (Databricks 2024): 16 experts, 4 a token; one map gives queries, keys and values, which are clipped; LayerNorms without
// biases.
#include "switchyard/models/families/table_family.h"

namespace switchyard {
namespace {

constexpr const char* kOrder = "ffn_config.moe_normalize_expert_weights";

std::vector<NameRule> names() {
  const std::string ours = "layers.{i}.", theirs = "transformer.blocks.{i}.", attention = theirs + "norm_attn_norm.";
  const auto flat = [](NameRule rule) {
    rule.flat = true;
    return rule;
  };
  return {{{"embedding.weight"}, "transformer.wte.weight"},
          {{"norm.weight"}, "transformer.norm_f.weight"},
          {{"head.weight"}, "lm_head.weight"},
          {{ours + "attention_norm.weight"}, attention + "norm_1.weight"},
          {{ours + "feed_forward_norm.weight"}, attention + "norm_2.weight"},
          {{ours + "attention.query.weight", ours + "attention.key.weight", ours + "attention.value.weight"}, attention + "attn.Wqkv.weight"},
          {{ours + "attention.output.weight"}, attention + "attn.out_proj.weight"},
          {{ours + "feed_forward.router.weight"}, theirs + "ffn.router.layer.weight"},
          flat({{ours + "feed_forward.experts.gate"}, theirs + "ffn.experts.mlp.w1"}),
          flat({{ours + "feed_forward.experts.up"}, theirs + "ffn.experts.mlp.v1"}),
          flat(transposed({{ours + "feed_forward.experts.down"}, theirs + "ffn.experts.mlp.w2"}))};
}

class Dbrx : public TableFamily {
 public:
  Dbrx()
      : TableFamily({.kinds = {{"dbrx", "DbrxForCausalLM"}},
                     .fixed = R"(
model: {norm: layer_unbiased, norm_eps: 1e-5}
attention: {type: gqa}
mixture: {expert: {type: swiglu}, router: {type: sparse-topk}}
)",
                     .keys = {count_key("vocab_size", "vocabulary"),
                              count_key("d_model", "width"),
                              count_key("n_layers", "layers"),
                              count_key("n_heads", "attention.heads"),
                              count_key("max_seq_len", "context"),
                              count_key("attn_config.kv_n_heads", "attention.kv_heads").absent("1"),
                              number_key("attn_config.clip_qkv", "attention.clip").or_null("0"),
                              number_key("attn_config.rope_theta|rope_parameters.rope_theta|rope_theta", "rope_theta").absent("10000.0"),
                              count_key("ffn_config.ffn_hidden_size", "mixture.expert.hidden").absent("3584"),
                              count_key("ffn_config.moe_num_experts", "mixture.experts").absent("4"),
                              count_key("ffn_config.moe_top_k", "mixture.router.k").absent("1"),
                              text_key("ffn_config.ffn_act_fn.name", "mixture.expert.type").absent("silu").means(gated_activations()),
                              flag_key("tie_word_embeddings", "tied_embeddings").absent("false"),
                              number_key("initializer_range", "init_deviation").absent("0.02")},
                     .names = switchyard::names(),
                     .rope_theta = "",
                     .arrange = arrange,
                     .describe = describe}) {}

 private:
  static void arrange(const HubReader& config, const std::string&, Draft& draft) {
    config.only("ffn_config.uniform_expert_assignment", {"false"});
    config.pass("num_key_value_heads");  // beside attn_config.kv_n_heads
    // The p of the norm that weights are divided by; null = they are not.
    const bool divided = config.find(kOrder) != nullptr;
    const double p = config.number(kOrder, 1);
    check(p >= 1 && p <= 8, "model.config", "{}: {} is {}; 1 to 8 and null can be computed", config.config().mark().source, kOrder, p);
    for (Draft::Layer& layer : draft.layers) {
      layer.mixture["router"]["softmax"] = Node(divided && p == 1 ? "kept" : "all");
      if (p == 1) continue;
      layer.mixture["combine"]["renormalise"] = Node("before_drop");
      layer.mixture["combine"]["order"] = detail::write_value(p);
    }
  }

  static void describe(const Node& composition, const std::string&, Node& config) {
    const std::string mixture = "layers.0.mixtures.0.";
    const bool kept = text_at(composition, mixture + "router.softmax") == "kept", divided = text_at(composition, mixture + "combine.renormalise") != "never";
    place_at(config, kOrder) = kept || divided ? hub_number(number_at(composition, mixture + "combine.order")) : Node();
    // Newer readers look for it here.
    config["rope_theta"] = Node(*find_at(config, "attn_config.rope_theta"));
  }
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(dbrx) {
  using namespace switchyard;
  registry.add<Family, Dbrx, NoOptions>(
      {.slug = "dbrx", .name = "DBRX", .paper = "Databricks, Introducing DBRX", .year = 2024, .section = "4.2.2", .room = "models/families",
       .coupling = "none", .line = "16 experts, 4 a token; fused and clipped queries, keys and values", .recipe = "recipes/methods/dbrx.yaml"});
}
