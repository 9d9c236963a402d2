// Dense decoders that mixtures start from and are compared with: Llama (Touvron et al. 2023), Mistral (Jiang et al. 2023), Qwen2
// (Yang et al. 2024), Qwen3 (Yang et al. 2025). They differ in biases, norms of queries and keys, and the window.
#include "switchyard/models/families/table_family.h"

namespace switchyard {
namespace {

/// The window acts only with use_sliding_window, and from a layer on.
bool switched(const std::string& type) { return type.starts_with("qwen"); }

void arrange(const HubReader& config, const std::string& type, Draft& draft) {
  const bool all = config.flag("attention_bias", false), mlp = config.flag("mlp_bias", false);
  const bool acts = switched(type) ? config.flag("use_sliding_window", false) : type == "mistral";
  const int64_t window = config.is_null("sliding_window") ? 0 : config.count("sliding_window", 4096, 0);
  const int64_t first = switched(type) ? config.count("max_window_layers", 28, 0) : 0;
  const std::vector<std::string> types = texts_by_layer(config, draft, "layer_types");  // newer files list what they mean
  for (int64_t i = 0; i < draft.count(); ++i) {
    Draft::Layer& layer = draft.layers[static_cast<size_t>(i)];
    layer.attention["bias"] = hub_flag(all || type == "qwen2");
    layer.attention["output_bias"] = hub_flag(all && type != "qwen2");
    if (type == "qwen3") {
      layer.attention["qk_norm"] = Node("head");
      if (!config.find("head_dim")) layer.attention["head_dim"] = hub_count(128);
    }
    const bool slides = types.empty() ? i >= first : types[static_cast<size_t>(i)] == "sliding_attention";
    if (acts && window > 0 && slides) layer.attention["window"] = hub_count(window);
    if (mlp) layer.dense["bias"] = hub_flag(true);
  }
}

void describe(const Node& composition, const std::string& type, Node& config) {
  int64_t windowed = first_layer(composition, has_window);
  if (switched(type)) windowed = describe_late_windows(composition, config);
  if (type != "qwen2") config["attention_bias"] = hub_flag(flag_at(composition, "layers.0.attention.bias"));
  config["mlp_bias"] = hub_flag(flag_at(composition, "layers.0.feed_forward.bias"));
  if (switched(type)) {
    config["use_sliding_window"] = hub_flag(windowed >= 0);
    config["max_window_layers"] = hub_count(windowed >= 0 ? windowed : layers_of(composition));
  }
  if (type == "mistral" || windowed >= 0)
    config["sliding_window"] = windowed < 0 ? Node() : hub_count(integer_at(composition, fmt::format("layers.{}.attention.window", windowed)));
}

class DenseDecoders : public TableFamily {
 public:
  DenseDecoders()
      : TableFamily({.kinds = {{"llama", "LlamaForCausalLM"},
                               {"mistral", "MistralForCausalLM"},
                               {"qwen2", "Qwen2ForCausalLM"},
                               {"qwen3", "Qwen3ForCausalLM"}},
                     .fixed = "{attention: {type: gqa}, dense: {type: feed-forward, activation: swiglu}}",
                     .keys = joined({count_key("intermediate_size", "dense.hidden")}, decoder_keys()),
                     .names = llama_names(),
                     .arrange = arrange,
                     .describe = describe}) {}
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(dense_decoders) {
  using namespace switchyard;
  registry.add<Family, DenseDecoders, NoOptions>(
      {.slug = "dense-decoders", .name = "Llama, Mistral, Qwen2, Qwen3 (dense)", .paper = "Touvron et al., Llama 2", .year = 2023,
       .section = "4.4.1", .room = "models/families", .coupling = "none",
       .line = "the dense models that mixtures start from", .recipe = "recipes/methods/dense-decoders.yaml"});
}
