// gpt-oss-20b and 120b (OpenAI 2025): every other layer sees a window; a learned logit a head takes part in each softmax; experts
// with biases and a clamped SwiGLU, chosen by biased logits.
#include "switchyard/models/families/table_family.h"

namespace switchyard {
namespace {

std::vector<NameRule> names() {
  const std::string ours = "layers.{i}.feed_forward.", theirs = "model.layers.{i}.mlp.";
  return joined({{{ours + "router.weight"}, theirs + "router.weight"},
                 {{ours + "router.logit_bias"}, theirs + "router.bias"},
                 interleaved(transposed({{ours + "experts.gate", ours + "experts.up"}, theirs + "experts.gate_up_proj", 1})),
                 interleaved({{ours + "experts.gate_bias", ours + "experts.up_bias"}, theirs + "experts.gate_up_proj_bias", 1}),
                 transposed({{ours + "experts.down"}, theirs + "experts.down_proj"}),
                 {{ours + "experts.down_bias"}, theirs + "experts.down_proj_bias"}},
                llama_names());
}

class GptOss : public TableFamily {
 public:
  GptOss()
      : TableFamily({.kinds = {{"gpt_oss", "GptOssForCausalLM"}},
                     .fixed = R"(
attention: {type: gqa, sinks: true}
mixture: {expert: {type: clamped-swiglu, bias: true}, router: {type: sparse-topk, softmax: kept, scorer: {type: linear, bias: true}}}
)",
                     .keys = joined({count_key("num_local_experts|num_experts", "mixture.experts"),
                                     count_key("num_experts_per_tok|experts_per_token", "mixture.router.k"),
                                     count_key("intermediate_size", "mixture.expert.hidden"),
                                     number_key("swiglu_limit", "mixture.expert.limit").absent("7.0"),
                                     number_key("swiglu_alpha", "mixture.expert.alpha").absent("1.702"),
                                     flag_key("attention_bias", "attention.bias attention.output_bias").absent("true"),
                                     text_key("hidden_act", "").absent("silu").means({{"silu", "silu"}}),
                                     count_key("head_dim", "attention.head_dim").absent("64"),
                                     number_key("rms_norm_eps", "norm_eps").absent("1e-5")},
                                    decoder_keys()),
                     .names = switchyard::names(),
                     .rope_theta = "150000",
                     .arrange =
                         [](const HubReader& config, const std::string&, Draft& draft) {
                           config.pass("initial_context_length");
                           config.pass("experts_per_token");
                           // A file that says nothing of the stretch has that of the published models; null is none.
                           const auto says = [&](const char* key) { return config.find(key) != nullptr || config.is_null(key); };
                           if (!says("rope_scaling") && !says("rope_parameters"))
                             draft.model["rope_scaling"] = parse_yaml("{kind: yarn, factor: 32, original: 4096, truncate: false}", "family gpt_oss");
                           arrange_windows(config, draft, 128, [](int64_t i) { return i % 2 == 0; });
                         },
                     .describe = [](const Node& composition, const std::string&, Node& config) {
                       describe_windows(composition, config);
                       if (config["sliding_window"].is_null()) config["sliding_window"] = hub_count(128);  // readers want a number
                       config["experts_per_token"] = Node(config["num_experts_per_tok"]);
                     }}) {}
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(gpt_oss) {
  using namespace switchyard;
  registry.add<Family, GptOss, NoOptions>(
      {.slug = "gpt-oss", .name = "gpt-oss-20b, 120b", .paper = "OpenAI, gpt-oss-120b and gpt-oss-20b model card", .year = 2025,
       .section = "beyond", .room = "models/families", .coupling = "none",
       .line = "attention sinks, alternating windows, biased experts with a clamped SwiGLU", .recipe = "recipes/methods/gpt-oss.yaml"});
}
