// Granite 3 MoE (IBM 2024): four multipliers, of the embedding, of attention scores, of what sub-layers add, and of the logits;
// fused experts, with a shared network in later models.
#include <cmath>

#include "switchyard/models/families/granite.h"

namespace switchyard {

std::vector<NameRule> granite_names() {
  const std::string ours = "layers.{i}.feed_forward.", theirs = "model.layers.{i}.", moe = theirs + "block_sparse_moe.";
  return joined(memory_names("block_sparse_moe.experts", "block_sparse_moe.router.weight"),
                joined({{{ours + "experts.gate", ours + "experts.up"}, moe + "input_linear.weight", 1},
                        {{ours + "experts.down"}, moe + "output_linear.weight"},
                        {{ours + "shared.gate", ours + "shared.up"}, theirs + "shared_mlp.input_linear.weight"},
                        {{ours + "shared.down"}, theirs + "shared_mlp.output_linear.weight"}},
                       llama_names({.router = "block_sparse_moe.router.layer.weight"})));
}

std::vector<HubKey> granite_keys() {
  return joined({count_key("num_local_experts|num_experts", "mixture.experts").absent("8"),
                 count_key("num_experts_per_tok", "mixture.router.k").absent("2"),
                 count_key("intermediate_size", "mixture.expert.hidden").absent("11008"),
                 number_key("embedding_multiplier", "embedding_scale").absent("1.0"),
                 number_key("attention_multiplier", "attention.scale").absent("1.0").from(1e-30),  // 0 is no default of its code
                 number_key("residual_multiplier", "residual.attention_add residual.feed_forward_add").absent("1.0"),
                 flag_key("attention_bias", "attention.bias attention.output_bias").absent("false")},
                decoder_keys());
}

namespace {

void arrange(const HubReader& config, const std::string&, Draft& draft) {
  draft.model["logit_scale"] = detail::write_value(1 / config.number("logits_scaling", 1));
}

/// The divisor whose inverse is the scale, to the last bit where there is one.
double divisor(double scale) {
  for (const double guess : {1 / scale, std::round(1e6 / scale) / 1e6, std::nextafter(1 / scale, 0.0), std::nextafter(1 / scale, 1e9)})
    if (1 / guess == scale) return guess;
  return 1 / scale;
}

void describe(const Node& composition, const std::string&, Node& config) {
  config["logits_scaling"] = hub_number(divisor(number_at(composition, "logit_scale")));
}

FamilyTable granite_table(FamilyTable::Kind kind, decltype(FamilyTable::arrange) arrange, decltype(FamilyTable::describe) describe) {
  return {.kinds = {std::move(kind)},
          .fixed = R"(
attention: {type: gqa}
mixture: {expert: {type: swiglu}, router: {type: sparse-topk, softmax: kept}}
)",
          .keys = granite_keys(),
          .names = granite_names(),
          .arrange = std::move(arrange),
          .describe = std::move(describe)};
}

class GraniteMoe : public TableFamily {
 public:
  GraniteMoe() : TableFamily(granite_table({"granitemoe", "GraniteMoeForCausalLM"}, arrange, describe)) {}
};

class GraniteMoeShared : public TableFamily {
 public:
  GraniteMoeShared()
      : TableFamily(granite_table({"granitemoeshared", "GraniteMoeSharedForCausalLM"}, arrange_granite_shared, describe_granite_shared)) {}
};

}  // namespace

void arrange_granite_shared(const HubReader& config, const std::string& type, Draft& draft) {
  arrange(config, type, draft);
  const int64_t width = config.count("shared_intermediate_size", type == "granitemoeshared" ? 0 : 1024, 0);
  if (width == 0) return;
  for (Draft::Layer& layer : draft.layers) add_shared(layer.mixture, width);
}

void describe_granite_shared(const Node& composition, const std::string& type, Node& config) {
  describe(composition, type, config);
  const char* shared = "layers.0.mixtures.0.shared.0.expert.hidden";
  const char* whole = "layers.0.feed_forward.hidden";
  const char* found = find_at(composition, shared) ? shared : whole;
  config["shared_intermediate_size"] = hub_count(find_at(composition, found) ? integer_at(composition, found) : 0);
}

}  // namespace switchyard

SWITCHYARD_REGISTER(granite) {
  using namespace switchyard;
  registry.add<Family, GraniteMoe, NoOptions>(
      {.slug = "granite-moe", .name = "Granite 3 MoE 1b-a400m, 3b-a800m", .paper = "IBM, Granite 3.0 language models", .year = 2024,
       .section = "beyond", .room = "models/families", .coupling = "none",
       .line = "multipliers of embedding, scores, residuals and logits; fused experts", .recipe = "recipes/methods/granite-moe.yaml"});
  registry.add<Family, GraniteMoeShared, NoOptions>(
      {.slug = "granite-moe-shared", .name = "Granite MoE with a shared network", .paper = "IBM, Granite 3.0 language models", .year = 2025,
       .section = "beyond", .room = "models/families", .coupling = "none", .line = "Granite MoE, every token passing a shared network too",
       .recipe = "recipes/methods/granite-moe-shared.yaml"});
}
