// OLMoE-1B-7B (Muennighoff et al. 2024): 64 small experts, 8 a token with their raw probabilities; queries and keys are
// normed over all heads at once, and may be clipped.
#include "switchyard/models/families/table_family.h"

namespace switchyard {
namespace {

FamilyTable table() {
  return {.kinds = {{"olmoe", "OlmoeForCausalLM"}},
          .fixed = R"(
attention: {type: gqa, qk_norm: full}
mixture: {expert: {type: swiglu}, router: {type: sparse-topk}}
)",
          .keys = joined({count_key("num_experts|num_local_experts", "mixture.experts").absent("64"),
                          count_key("num_experts_per_tok", "mixture.router.k").absent("8"),
                          count_key("intermediate_size", "mixture.expert.hidden").absent("2048"),
                          norm_topk_key("false"),
                          flag_key("attention_bias", "attention.bias attention.output_bias").absent("false"),
                          number_key("clip_qkv", "attention.clip").or_null("0"),
                          number_key("rms_norm_eps", "norm_eps").absent("1e-5")},
                         decoder_keys()),
          .names = llama_names(),
          // A head is hidden_size / num_attention_heads wide, whatever a file says.
          .arrange = [](const HubReader&, const std::string&, Draft& draft) {
            for (Draft::Layer& layer : draft.layers) layer.attention["head_dim"] = hub_count(0);
          },
          .describe = [](const Node&, const std::string&, Node& config) {
            std::erase_if(config.entries(), [](const auto& entry) { return entry.first == "head_dim"; });
          }};
}

/// FlexOlmo (Shi et al. 2025): OLMoE's mixtures in OLMo 2's blocks, whose norms stand behind the sub-layers.
FamilyTable flexible() {
  FamilyTable changed = table();
  changed.kinds = {{"flex_olmo", "FlexOlmoForCausalLM"}};
  changed.fixed = "model: {block: post_norm}\n" + changed.fixed;
  std::erase_if(changed.keys, [](const HubKey& key) { return key.key == "clip_qkv"; });
  for (HubKey& key : changed.keys) {
    if (key.key == "rms_norm_eps") key.standard = "1e-6";
    if (key.key == "num_experts|num_local_experts") key.standard = "7";
    if (key.key == "num_experts_per_tok") key.standard = "5";
  }
  changed.names = joined({{{"layers.{i}.attention_post_norm.weight"}, "model.layers.{i}.post_attention_layernorm.weight"},
                          {{"layers.{i}.feed_forward_post_norm.weight"}, "model.layers.{i}.post_feedforward_layernorm.weight"}},
                         changed.names);
  changed.rope_theta = "500000";
  return changed;
}

class FlexOlmo : public TableFamily {
 public:
  FlexOlmo() : TableFamily(flexible()) {}
};

class Olmoe : public TableFamily {
 public:
  Olmoe() : TableFamily(table()) {}
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(olmoe) {
  using namespace switchyard;
  registry.add<Family, Olmoe, NoOptions>(
      {.slug = "olmoe", .name = "OLMoE-1B-7B", .paper = "Muennighoff et al., OLMoE: Open mixture-of-experts language models",
       .year = 2024, .section = "4.2.2", .room = "models/families", .coupling = "none",
       .line = "64 small experts, 8 a token with raw probabilities; norms over whole queries and keys",
       .recipe = "recipes/methods/olmoe.yaml"});
  registry.add<Family, FlexOlmo, NoOptions>(
      {.slug = "flex-olmo", .name = "FlexOlmo-7x7B", .paper = "Shi et al., FlexOlmo: Open language models for flexible data use", .year = 2025,
       .section = "beyond", .room = "models/families", .coupling = "none",
       .line = "experts trained apart and joined; norms behind the sub-layers", .recipe = "recipes/methods/flex-olmo.yaml"});
}
