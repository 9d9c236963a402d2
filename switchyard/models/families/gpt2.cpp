// GPT-2 (Radford et al. 2019): learned positions, LayerNorms, and weights that are stored the other way round.
#include <cmath>

#include "switchyard/models/families/table_family.h"

namespace switchyard {
namespace {

std::vector<NameRule> names_below(const std::string& prefix) {
  const std::string ours = "layers.{i}.", theirs = prefix + "h.{i}.";
  std::vector<NameRule> rules{{{"embedding.weight"}, prefix + "wte.weight"},
                              {{"position_embedding.weight"}, prefix + "wpe.weight"},
                              {{"norm.weight"}, prefix + "ln_f.weight"},
                              {{"norm.bias"}, prefix + "ln_f.bias"},
                              {{"head.weight"}, "lm_head.weight"}};
  for (const char* kind : {"weight", "bias"}) {
    const auto map = [&](std::vector<std::string> parts, const std::string& hub) {
      for (std::string& part : parts) part = ours + part + "." + kind;
      NameRule rule{parts, theirs + hub + "." + kind};
      rule.transposed = std::string_view(kind) == "weight";
      rules.push_back(rule);
    };
    map({"attention.query", "attention.key", "attention.value"}, "attn.c_attn");
    map({"attention.output"}, "attn.c_proj");
    map({"feed_forward.up"}, "mlp.c_fc");
    map({"feed_forward.down"}, "mlp.c_proj");
    rules.push_back({{ours + "attention_norm." + kind}, theirs + "ln_1." + kind});
    rules.push_back({{ours + "feed_forward_norm." + kind}, theirs + "ln_2." + kind});
  }
  return rules;
}

/// Files of the first releases have no prefix.
std::vector<NameRule> names() {
  std::vector<NameRule> bare = names_below("");
  for (NameRule& rule : bare) rule.if_present = true;
  return joined(bare, names_below("transformer."));
}

class Gpt2 : public TableFamily {
 public:
  Gpt2()
      : TableFamily({.kinds = {{"gpt2", "GPT2LMHeadModel"}},
                     .fixed = R"(
model: {norm: layer, positions: learned}
attention: {type: gqa, bias: true, output_bias: true}
dense: {type: feed-forward, bias: true}
)",
                     .keys = {count_key("vocab_size", "vocabulary"),
                              count_key("n_embd", "width"),
                              count_key("n_layer", "layers"),
                              count_key("n_head", "attention.heads"),
                              count_key("n_positions|n_ctx", "context"),
                              count_key("n_inner", "dense.hidden").or_null("0"),
                              text_key("activation_function", "dense.activation")
                                  .absent("gelu_new")
                                  .means({{"gelu_new", "gelu-tanh"}, {"gelu_pytorch_tanh", "gelu-tanh"}, {"gelu_fast", "gelu-tanh"}, {"gelu", "gelu"}, {"relu", "relu"}, {"silu", "silu"}, {"swish", "silu"}, {"tanh", "tanh"}}),
                              number_key("layer_norm_epsilon", "norm_eps").absent("1e-5"),
                              flag_key("tie_word_embeddings", "tied_embeddings").absent("true"),
                              number_key("initializer_range", "init_deviation").absent("0.02")},
                     .names = switchyard::names(),
                     .ignored = {"h.{i}.attn.bias", "h.{i}.attn.masked_bias", "transformer.h.{i}.attn.bias", "transformer.h.{i}.attn.masked_bias"},
                     .rope_theta = "",
                     .arrange = arrange,
                     .describe = describe}) {}

 private:
  static void arrange(const HubReader& config, const std::string&, Draft& draft) {
    for (const char* key : {"reorder_and_upcast_attn", "n_ctx", "summary_activation", "summary_first_dropout", "summary_proj_to_labels",
                            "summary_type", "summary_use_proj"})
      config.pass(key);
    config.only("add_cross_attention", {"false"});
    const bool scaled = config.flag("scale_attn_weights", true), by_layer = config.flag("scale_attn_by_inverse_layer_idx", false);
    const double d = static_cast<double>(integer_at(draft.model, "width")) / static_cast<double>(integer_at(draft.part("attention"), "heads"));
    for (int64_t i = 0; i < draft.count(); ++i) {
      Draft::Layer& layer = draft.layers[static_cast<size_t>(i)];
      const double scale = (scaled ? 1 / std::sqrt(d) : 1) / (by_layer ? static_cast<double>(i + 1) : 1);
      if (!scaled || (by_layer && i > 0)) layer.attention["scale"] = detail::write_value(scale);
    }
  }
  static void describe(const Node& composition, const std::string&, Node& config) {
    const auto scale = [&](int64_t i) { return number_at(composition, fmt::format("layers.{}.attention.scale", i)); };
    const double d = static_cast<double>(integer_at(composition, "layers.0.attention.head_dim"));
    const bool by_layer = layers_of(composition) > 1 && scale(1) > 0 && scale(0) != scale(1);
    config["scale_attn_by_inverse_layer_idx"] = hub_flag(by_layer);
    config["scale_attn_weights"] = hub_flag(scale(0) == 0 || std::abs(scale(0) - 1 / std::sqrt(d)) < 1e-12);
    config["n_ctx"] = Node(config["n_positions"]);
  }
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(gpt2) {
  using namespace switchyard;
  registry.add<Family, Gpt2, NoOptions>(
      {.slug = "gpt2", .name = "GPT-2", .paper = "Radford et al., Language models are unsupervised multitask learners", .year = 2019,
       .section = "4.4.1", .room = "models/families", .coupling = "none", .line = "learned positions and LayerNorms; a start for splitting into experts",
       .recipe = "recipes/methods/gpt2.yaml"});
}
