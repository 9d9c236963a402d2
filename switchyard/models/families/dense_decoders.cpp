// Dense decoders that mixtures start from and are compared with: Llama (Touvron et al. 2023), Mistral (Jiang et al. 2023), Qwen2
// (Yang et al. 2024), Qwen3 (Yang et al. 2025). They differ in biases, norms of queries and keys, and the window.
#include "switchyard/models/families/family.h"
#include "switchyard/models/families/hub_config.h"

namespace switchyard {
namespace {

struct DenseConfig : HubConfig {
  int64_t intermediate_size = 0;
  bool attention_bias = false, mlp_bias = false;
  std::optional<int64_t> sliding_window;
  bool use_sliding_window = false;
  int64_t max_window_layers = 28;

  static void describe(Fields<DenseConfig>& f) {
    using C = DenseConfig;
    f.title("A dense decoder's config.json");
    describe_fields(f);
    f("intermediate_size", &C::intermediate_size, "width F of the feed-forward network").range(1, 1 << 20).required();
    f("attention_bias", &C::attention_bias, "biases on the four maps of attention");
    f("mlp_bias", &C::mlp_bias, "biases in the feed-forward network");
    f("sliding_window", &C::sliding_window, "keys that a token sees; null = all").range(1, 1 << 24);
    f("use_sliding_window", &C::use_sliding_window, "whether sliding_window acts (Qwen)");
    f("max_window_layers", &C::max_window_layers, "layers before this one see all keys (Qwen)").range(0, 1 << 12);
  }
};

/// What a model type fixes.
struct Kind {
  std::string model_type, architecture;
  bool query_bias = false;   ///< biases on query, key and value whatever the config says
  bool head_norm = false;    ///< queries and keys normed head by head
  bool switched = false;     ///< the window acts only with use_sliding_window
};
const std::vector<Kind> kKinds{{.model_type = "llama", .architecture = "LlamaForCausalLM"},
                               {.model_type = "mistral", .architecture = "MistralForCausalLM"},
                               {.model_type = "qwen2", .architecture = "Qwen2ForCausalLM", .query_bias = true, .switched = true},
                               {.model_type = "qwen3", .architecture = "Qwen3ForCausalLM", .head_norm = true, .switched = true}};

class DenseDecoders : public Family {
 public:
  std::vector<std::string> model_types() const override {
    std::vector<std::string> types;
    for (const Kind& kind : kKinds) types.push_back(kind.model_type);
    return types;
  }

  ModelOptions read(const Node& node) const override {
    const Node* type = node.find("model_type");
    const auto kind = std::find_if(kKinds.begin(), kKinds.end(), [&](const Kind& k) { return type && k.model_type == type->scalar(); });
    check(kind != kKinds.end(), "model.config", "{}: model_type is no dense decoder's", node.where());
    const DenseConfig config = read_hub_config<DenseConfig>(node);
    ModelOptions options = common_options(config);
    Node& attention = options.attention.options;
    attention["bias"] = detail::write_value(kind->query_bias || config.attention_bias);
    attention["output_bias"] = detail::write_value(config.attention_bias && !kind->query_bias);
    if (kind->head_norm) attention["qk_norm"] = Node("head");
    set_window(options, config, *kind);
    options.feed_forward = swiglu_feed_forward(config.intermediate_size);
    if (config.mlp_bias) options.feed_forward.options["bias"] = detail::write_value(true);
    return options;
  }

  Node write(const Node& composition) const override {
    DenseConfig config;
    common_keys(composition, config);
    config.intermediate_size = integer_at(composition, "layers.0.feed_forward.hidden");
    const bool head_norm = text_at(composition, "layers.0.attention.qk_norm") == "head";
    const bool bias = flag_at(composition, "layers.0.attention.bias");
    const bool output_bias = flag_at(composition, "layers.0.attention.output_bias");
    std::optional<int64_t> first_windowed;
    for (int64_t i = 0; i < config.num_hidden_layers && !first_windowed; ++i)
      if (integer_at(composition, fmt::format("layers.{}.attention.window", i)) > 0) first_windowed = i;
    const Kind& kind = kKinds[head_norm ? 3 : bias && !output_bias ? 2 : first_windowed ? 1 : 0];
    config.attention_bias = bias && !kind.query_bias;
    config.mlp_bias = flag_at(composition, "layers.0.feed_forward.bias");
    config.max_window_layers = config.num_hidden_layers;
    if (first_windowed) {
      config.sliding_window = integer_at(composition, fmt::format("layers.{}.attention.window", *first_windowed));
      config.use_sliding_window = kind.switched;
      if (kind.switched) config.max_window_layers = *first_windowed;
    }
    return write_hub_config(config, kind.model_type, kind.architecture);
  }

  void names(NameMap& map, const ModelOptions& options, const HasTensor& has) const override {
    link_decoder(map, options, kMlpMixture, has);
  }

 private:
  static void set_window(ModelOptions& options, const DenseConfig& config, const Kind& kind) {
    if (!config.sliding_window || kind.model_type == "llama" || (kind.switched && !config.use_sliding_window)) return;
    const int64_t first = kind.switched ? config.max_window_layers : 0;
    if (first >= options.layers) return;
    Choice<Body> windowed = options.attention;
    windowed.options["window"] = detail::write_value(*config.sliding_window);
    LayerVariant variant{.layers = {}, .attention = windowed, .feed_forward = {}};
    for (int64_t i = first; i < options.layers; ++i) variant.layers.list.push_back(i);
    options.variants.push_back(std::move(variant));
  }
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
