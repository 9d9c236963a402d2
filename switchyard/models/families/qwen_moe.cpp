// Qwen1.5-MoE and Qwen2-57B-A14B (Qwen Team 2024): fine experts beside a wide one that a sigmoid of the token weighs. Qwen3-MoE
// (Yang et al. 2025): 128 experts and none beside them; queries and keys are normed head by head. In both, layers may be
// dense by a stride or a list.
#include <algorithm>

#include "switchyard/models/families/table_family.h"

namespace switchyard {
namespace {

void arrange(const HubReader& config, const std::string& type, Draft& draft) {
  const int64_t step = config.count("decoder_sparse_step", 1);
  const std::vector<int64_t> listed = config.counts("mlp_only_layers");
  const bool any = integer_at(draft.part("mixture"), "experts") > 0;
  for (int64_t i = 0; i < draft.count(); ++i)
    if (!any || (i + 1) % step != 0 || std::find(listed.begin(), listed.end(), i) != listed.end()) draft.make_dense(i);
  // Queries, keys and values have biases in Qwen2 whatever a file says, except by a key of newer files.
  const bool biased = type == "qwen2_moe" ? config.flag("qkv_bias", true) : config.flag("attention_bias", false);
  const bool windowed = config.flag("use_sliding_window", false);
  const int64_t window = config.count("sliding_window", 0, 0), first = type == "qwen2_moe" ? config.count("max_window_layers", 28, 0) : 0;
  const std::vector<std::string> types = texts_by_layer(config, draft, "layer_types");  // newer files list what they mean
  for (int64_t i = 0; i < draft.count(); ++i) {
    Node& attention = draft.layers[static_cast<size_t>(i)].attention;
    attention["bias"] = hub_flag(biased);
    if (type == "qwen3_moe") attention["output_bias"] = hub_flag(biased);
    const bool slides = types.empty() ? i >= first : types[static_cast<size_t>(i)] == "sliding_attention";
    if (windowed && window > 0 && slides) attention["window"] = hub_count(window);
  }
}

void describe(const Node& composition, const std::string& type, Node& config) {
  config["mlp_only_layers"] = Node::list();
  for (int64_t i = 0; i < layers_of(composition); ++i) {
    const std::string layer = fmt::format("layers.{}.", i);
    if (!find_at(composition, layer + "mixtures.0")) config["mlp_only_layers"].append(hub_count(i));
  }
  const int64_t windowed = describe_late_windows(composition, config);
  config[type == "qwen2_moe" ? "qkv_bias" : "attention_bias"] = hub_flag(flag_at(composition, "layers.0.attention.bias"));
  config["use_sliding_window"] = hub_flag(windowed >= 0);
  if (windowed >= 0) config["sliding_window"] = hub_count(integer_at(composition, fmt::format("layers.{}.attention.window", windowed)));
  if (type == "qwen2_moe") config["max_window_layers"] = hub_count(windowed >= 0 ? windowed : layers_of(composition));
}

std::vector<HubKey> keys(const std::string& experts, const std::string& k, const std::string& hidden) {
  return {count_key("num_experts|num_local_experts", "mixture.experts").absent(experts).from(0),
          count_key("num_experts_per_tok", "mixture.router.k").absent(k),
          count_key("moe_intermediate_size", "mixture.expert.hidden").absent(hidden),
          count_key("intermediate_size", "dense.hidden").absent("6144"),
          count_key("decoder_sparse_step", "").absent("1"),
          norm_topk_key("false")};
}

class Qwen2Moe : public TableFamily {
 public:
  Qwen2Moe()
      : TableFamily({.kinds = {{"qwen2_moe", "Qwen2MoeForCausalLM"}},
                     .fixed = R"(
attention: {type: gqa}
dense: {type: feed-forward, activation: swiglu}
mixture: {expert: {type: swiglu}, router: {type: sparse-topk}, shared: [{expert: {type: swiglu}, gate: sigmoid}]}
)",
                     .keys = joined(keys("60", "4", "1408"),
                                    joined({count_key("shared_expert_intermediate_size", "mixture.shared.0.expert.hidden").absent("5632")},
                                           decoder_keys())),
                     .names = llama_names(),
                     .arrange = arrange,
                     .describe = describe}) {}
};

class Qwen3Moe : public TableFamily {
 public:
  Qwen3Moe()
      : TableFamily({.kinds = {{"qwen3_moe", "Qwen3MoeForCausalLM"}},
                     .fixed = R"(
attention: {type: gqa, qk_norm: head}
dense: {type: feed-forward, activation: swiglu}
mixture: {expert: {type: swiglu}, router: {type: sparse-topk}}
)",
                     .keys = joined(keys("128", "8", "768"),
                                    decoder_keys()),
                     .names = llama_names(),
                     .arrange = arrange,
                     .describe = describe}) {}
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(qwen_moe) {
  using namespace switchyard;
  registry.add<Family, Qwen2Moe, NoOptions>(
      {.slug = "qwen2-moe", .name = "Qwen1.5-MoE-A2.7B, Qwen2-57B-A14B", .paper = "Qwen Team, Qwen1.5-MoE", .year = 2024,
       .section = "4.2.2", .room = "models/families", .coupling = "none",
       .line = "60 fine experts, 4 a token, beside a wide one weighed by a sigmoid", .recipe = "recipes/methods/qwen2-moe.yaml"});
  registry.add<Family, Qwen3Moe, NoOptions>(
      {.slug = "qwen3-moe", .name = "Qwen3-30B-A3B, 235B-A22B", .paper = "Yang et al., Qwen3 technical report", .year = 2025,
       .section = "beyond", .room = "models/families", .coupling = "none",
       .line = "128 experts, 8 a token; norms head by head; dense layers by stride or list",
       .recipe = "recipes/methods/qwen3-moe.yaml"});
}
