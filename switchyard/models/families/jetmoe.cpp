// JetMoE-8B (Shen et al. 2024): attention experts that share keys and values, and feed-forward experts; both mixtures add a
// learned vector.
#include "switchyard/models/families/table_family.h"

namespace switchyard {
namespace {

std::vector<NameRule> names() {
  const std::string ours = "layers.{i}.", theirs = "model.layers.{i}.", attention = theirs + "self_attention.", mlp = theirs + "mlp.";
  return joined({{{ours + "attention.router.weight"}, attention + "experts.router.layer.weight"},
                 {{ours + "attention.experts.query.weight"}, attention + "experts.input_linear.weight"},
                 {{ours + "attention.experts.output.weight"}, attention + "experts.output_linear.weight"},
                 {{ours + "attention.output.bias"}, attention + "experts.bias"},
                 {{ours + "attention.key.weight", ours + "attention.value.weight"}, attention + "kv_proj.weight"},
                 {{ours + "feed_forward.router.weight"}, mlp + "router.layer.weight"},
                 {{ours + "feed_forward.experts.gate", ours + "feed_forward.experts.up"}, mlp + "input_linear.weight", 1},
                 {{ours + "feed_forward.experts.down"}, mlp + "output_linear.weight"},
                 {{ours + "feed_forward.shared.value"}, mlp + "bias"}},
                llama_names());
}

class JetMoe : public TableFamily {
 public:
  JetMoe()
      : TableFamily({.kinds = {{"jetmoe", "JetMoeForCausalLM"}},
                     .fixed = R"(
model: {norm_eps: 1e-6}
attention: {type: moa, output_bias: true, router: {type: sparse-topk, softmax: kept}, combine: {renormalise: never}}
mixture: {expert: {type: swiglu}, router: {type: sparse-topk, softmax: kept}, shared: [{expert: {type: constant-expert}}]}
)",
                     .keys = {count_key("vocab_size", "vocabulary"),
                              count_key("hidden_size|n_embd", "width"),
                              count_key("num_hidden_layers|n_layer", "layers"),
                              count_key("num_key_value_heads", "attention.kv_heads"),
                              count_key("kv_channels", "attention.head_dim"),
                              count_key("num_local_experts|moe_num_experts", "attention.experts mixture.experts").absent("8"),
                              count_key("num_experts_per_tok|moe_top_k", "attention.router.k mixture.router.k").absent("2"),
                              count_key("intermediate_size|ffn_hidden_size", "mixture.expert.hidden"),
                              count_key("max_position_embeddings|n_positions", "context"),
                              text_key("activation_function", "mixture.expert.type").absent("silu").means(gated_activations()),
                              number_key("rms_norm_eps|layer_norm_epsilon", "final_norm_eps").absent("1e-6"),
                              flag_key("tie_word_embeddings", "tied_embeddings").absent("true"),
                              number_key("initializer_range", "init_deviation").absent("0.01")},
                     .names = switchyard::names(),
                     .arrange =
                         [](const HubReader& config, const std::string&, Draft&) {
                           for (const char* key : {"num_attention_heads", "aux_loss_coef", "n_head", "rotary_percent"}) config.pass(key);
                         },
                     .describe =
                         [](const Node& composition, const std::string&, Node& config) {
                           config["num_attention_heads"] = hub_count(integer_at(composition, "layers.0.attention.kv_heads") *
                                                                     integer_at(composition, "layers.0.attention.router.k"));
                         }}) {}
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(jetmoe) {
  using namespace switchyard;
  registry.add<Family, JetMoe, NoOptions>(
      {.slug = "jetmoe", .name = "JetMoE-8B", .paper = "Shen et al., JetMoE", .year = 2024, .section = "4.2.1", .room = "models/families",
       .coupling = "none", .line = "attention experts and feed-forward experts, 2 of 8 a token each", .recipe = "recipes/methods/jetmoe.yaml"});
}
