// Llama 4 Scout and Maverick, the text part (Meta 2025): one expert a token, whose input is scaled by a sigmoid, beside a shared one;
// three layers in four turn their queries and see chunks, the fourth knows no positions and sees everything.
#include <algorithm>

#include "switchyard/models/families/table_family.h"

namespace switchyard {
namespace {

std::vector<NameRule> names(const std::string& prefix) {
  const std::string ours = "layers.{i}.feed_forward.", theirs = prefix + "model.layers.{i}.feed_forward.";
  std::vector<NameRule> rules{{{"head.weight"}, prefix + "lm_head.weight"},
                              transposed({{ours + "experts.gate", ours + "experts.up"}, theirs + "experts.gate_up_proj", 1}),
                              transposed({{ours + "experts.down"}, theirs + "experts.down_proj"})};
  for (const auto& [part, hub] : {std::pair{"gate", "gate_proj"}, std::pair{"up", "up_proj"}, std::pair{"down", "down_proj"}})
    rules.push_back({{ours + part + ".weight"}, theirs + hub + ".weight"});
  return joined(rules, llama_names({.router = "feed_forward.router.weight", .shared = "feed_forward.shared_expert", .prefix = prefix + "model."}));
}

void arrange(const HubReader& config, const std::string&, Draft& draft) {
  config.pass("for_llm_compressor");
  config.pass("layer_types");
  std::vector<int64_t> turning = config.counts("no_rope_layers"), mixed = config.counts("moe_layers");
  const int64_t every = config.count("no_rope_layer_interval", 4), step = config.count("interleave_moe_layer_step", 1);
  const int64_t chunk = config.is_null("attention_chunk_size") ? 0 : config.count("attention_chunk_size", 8192, 0);
  const bool unit = config.flag("use_qk_norm", true), tuned = config.flag("attn_temperature_tuning", true);
  check(turning.empty() || static_cast<int64_t>(turning.size()) == draft.count(), "model.config",
        "{}: no_rope_layers lists {} layers, but there are {}", config.config().mark().source, turning.size(), draft.count());
  if (config.find("moe_layers") == nullptr)  // an empty list is an answer
    for (int64_t i = step - 1; i < draft.count(); i += step) mixed.push_back(i);
  for (int64_t i = 0; i < draft.count(); ++i) {
    Draft::Layer& layer = draft.layers[static_cast<size_t>(i)];
    // The list says 1 where a layer turns.
    const bool turns = turning.empty() ? (i + 1) % every != 0 : turning[static_cast<size_t>(i)] != 0;
    layer.attention["positions"] = hub_flag(turns);
    if (turns) {
      layer.attention["chunk"] = hub_count(chunk);
      if (unit) layer.attention["qk_norm"] = Node("unit");
    } else if (tuned) {
      layer.attention["temperature"] = hub_number(config.number("attn_scale", 0.1));
      layer.attention["temperature_floor"] = hub_count(config.count("floor_scale", 8192));
    }
    config.pass("attn_scale");
    config.pass("floor_scale");
    if (std::find(mixed.begin(), mixed.end(), i) == mixed.end()) {
      draft.make_dense(i);
    } else {
      add_shared(layer.mixture, integer_at(layer.mixture, "expert.hidden"));
    }
  }
}

void describe(const Node& composition, const std::string&, Node& config) {
  for (const char* list : {"no_rope_layers", "moe_layers"}) config[list] = Node::list();
  for (const char* flag : {"use_qk_norm", "attn_temperature_tuning"}) config[flag] = hub_flag(false);
  for (int64_t i = 0; i < layers_of(composition); ++i) {
    const std::string layer = fmt::format("layers.{}.", i), attention = layer + "attention.";
    const bool turns = flag_at(composition, attention + "positions");
    config["no_rope_layers"].append(hub_count(turns ? 1 : 0));
    if (find_at(composition, layer + "mixtures.0")) config["moe_layers"].append(hub_count(i));
    if (turns) {
      config["attention_chunk_size"] = hub_count(integer_at(composition, attention + "chunk"));
      if (text_at(composition, attention + "qk_norm") == "unit") config["use_qk_norm"] = hub_flag(true);
    } else if (number_at(composition, attention + "temperature") > 0) {
      config["attn_temperature_tuning"] = hub_flag(true);
      config["attn_scale"] = hub_number(number_at(composition, attention + "temperature"));
      config["floor_scale"] = hub_count(integer_at(composition, attention + "temperature_floor"));
    }
  }
}

FamilyTable table(const std::string& prefix) {
  return {.kinds = {prefix.empty() ? FamilyTable::Kind{"llama4_text", "Llama4ForCausalLM"} : FamilyTable::Kind{"llama4", "Llama4ForConditionalGeneration"}},
          .fixed = R"(
model: {rope_pairs: adjacent}
attention: {type: gqa}
dense: {type: feed-forward, activation: swiglu}
mixture: {expert: {type: swiglu}, router: {type: sigmoid-topk, bias: false}, combine: {on: input}}
)",
          .keys = joined({count_key("num_local_experts|num_experts", "mixture.experts").absent("16"),
                          count_key("num_experts_per_tok", "mixture.router.k").absent("1"),
                          count_key("intermediate_size", "mixture.expert.hidden"),
                          count_key("intermediate_size_mlp", "dense.hidden").absent("16384"),
                          count_key("head_dim", "attention.head_dim").absent("128"),
                          flag_key("attention_bias", "attention.bias attention.output_bias").absent("false"),
                          number_key("rms_norm_eps", "norm_eps").absent("1e-5")},
                         decoder_keys()),
          .names = names(prefix),
          .rope_theta = "500000",
          .wrapper = prefix.empty() ? "" : "text_config",
          .arrange = arrange,
          .describe = describe};
}

class Llama4 : public TableFamily {
 public:
  Llama4() : TableFamily(table("language_model.")) {}
  void names(NameMap& map, const ModelOptions& options, const HasTensor& has) const override {
    TableFamily::names(map, options, has);
    map.ignore_below("vision_model.");
    map.ignore_below("multi_modal_projector.");
  }
};
class Llama4Text : public TableFamily {
 public:
  Llama4Text() : TableFamily(table("")) {}
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(llama4) {
  using namespace switchyard;
  registry.add<Family, Llama4, NoOptions>(
      {.slug = "llama4", .name = "Llama 4 Scout, Maverick (text)", .paper = "Meta, The Llama 4 herd", .year = 2025, .section = "beyond",
       .room = "models/families", .coupling = "none", .line = "one expert a token with a scaled input beside a shared one; chunks, and layers without positions",
       .recipe = "recipes/methods/llama4.yaml"});
  registry.add<Family, Llama4Text, NoOptions>(
      {.slug = "llama4-text", .name = "Llama 4 text part alone", .paper = "Meta, The Llama 4 herd", .year = 2025, .section = "beyond",
       .room = "models/families", .coupling = "none", .line = "Llama 4 as text models save it: keys and names without the outer ones",
       .recipe = "recipes/methods/llama4.yaml"});
}
