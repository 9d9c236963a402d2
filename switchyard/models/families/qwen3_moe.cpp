// Qwen3-30B-A3B and 235B-A22B (Yang et al. 2025): 128 experts, 8 a token; queries and keys are normed head by head; layers may
// be dense by a stride or a list.
#include "switchyard/models/families/family.h"
#include "switchyard/models/families/hub_config.h"

namespace switchyard {
namespace {

struct Qwen3MoeConfig : HubConfig {
  int64_t intermediate_size = 6144, moe_intermediate_size = 768, num_experts = 128, num_experts_per_tok = 8;
  int64_t decoder_sparse_step = 1;
  std::vector<int64_t> mlp_only_layers;
  bool norm_topk_prob = false, attention_bias = false, use_sliding_window = false;
  std::optional<int64_t> sliding_window;

  static void describe(Fields<Qwen3MoeConfig>& f) {
    using C = Qwen3MoeConfig;
    f.title("Qwen3-MoE's config.json");
    describe_fields(f);
    f("intermediate_size", &C::intermediate_size, "width of dense feed-forward networks").range(1, 1 << 20);
    f("moe_intermediate_size", &C::moe_intermediate_size, "width F of an expert").range(1, 1 << 20);
    f("num_experts", &C::num_experts, "experts E").range(0, 1 << 12);
    f("num_experts_per_tok", &C::num_experts_per_tok, "experts a token k").range(1, 1 << 12);
    f("decoder_sparse_step", &C::decoder_sparse_step, "every n-th layer has a mixture").range(1, 1 << 12);
    f("mlp_only_layers", &C::mlp_only_layers, "layers that are dense all the same").range(0, 1 << 12);
    f("norm_topk_prob", &C::norm_topk_prob, "weights of a token sum to 1");
    f("attention_bias", &C::attention_bias, "biases on the four maps of attention");
    f("use_sliding_window", &C::use_sliding_window, "whether sliding_window acts");
    f("sliding_window", &C::sliding_window, "keys that a token sees").range(1, 1 << 24);
  }
};

class Qwen3Moe : public Family {
 public:
  std::vector<std::string> model_types() const override { return {"qwen3_moe"}; }

  ModelOptions read(const Node& node) const override {
    Qwen3MoeConfig config = read_hub_config<Qwen3MoeConfig>(node);
    if (!config.head_dim) config.head_dim = 128;  // the class's default; published files always say it
    ModelOptions options = common_options(config);
    Node& attention = options.attention.options;
    attention["qk_norm"] = Node("head");
    attention["bias"] = attention["output_bias"] = detail::write_value(config.attention_bias);
    if (config.use_sliding_window && config.sliding_window) attention["window"] = detail::write_value(*config.sliding_window);
    options.feed_forward = swiglu_feed_forward(config.intermediate_size);
    const std::vector<int64_t> sparse = sparse_layers(config);
    if (!sparse.empty()) {
      options.mixtures.push_back(
          swiglu_mixture(config.num_experts, config.moe_intermediate_size, config.num_experts_per_tok, config.norm_topk_prob));
      options.mixtures.back().layers.list = sparse;
    }
    return options;
  }

  Node write(const Node& composition) const override {
    Qwen3MoeConfig config;
    common_keys(composition, config);
    std::optional<int64_t> mixed;
    for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
      const std::string layer = fmt::format("layers.{}.", i);
      if (find_at(composition, layer + "mixtures.0") != nullptr) {
        if (!mixed) mixed = i;
      } else {
        config.mlp_only_layers.push_back(i);
        config.intermediate_size = integer_at(composition, layer + "feed_forward.hidden");
      }
    }
    const std::string mixture = fmt::format("layers.{}.mixtures.0.", mixed.value_or(0));
    config.moe_intermediate_size = integer_at(composition, mixture + "expert.hidden");
    config.num_experts = integer_at(composition, mixture + "experts");
    config.num_experts_per_tok = integer_at(composition, mixture + "router.k");
    config.norm_topk_prob = weights_sum_to_one(composition, *mixed);
    config.attention_bias = flag_at(composition, "layers.0.attention.bias");
    if (const int64_t window = integer_at(composition, "layers.0.attention.window")) {
      config.use_sliding_window = true;
      config.sliding_window = window;
    }
    return write_hub_config(config, "qwen3_moe", "Qwen3MoeForCausalLM");
  }

  void names(NameMap& map, const ModelOptions& options, const HasTensor& has) const override {
    link_decoder(map, options, kMlpMixture, has);
  }

 private:
  static std::vector<int64_t> sparse_layers(const Qwen3MoeConfig& config) {
    std::vector<int64_t> layers;
    for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
      const auto& dense = config.mlp_only_layers;
      const bool listed = std::find(dense.begin(), dense.end(), i) != dense.end();
      if (!listed && config.num_experts > 0 && (i + 1) % config.decoder_sparse_step == 0) layers.push_back(i);
    }
    return layers;
  }
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(qwen3_moe) {
  using namespace switchyard;
  registry.add<Family, Qwen3Moe, NoOptions>(
      {.slug = "qwen3-moe", .name = "Qwen3-30B-A3B, 235B-A22B", .paper = "Yang et al., Qwen3 technical report", .year = 2025,
       .section = "beyond", .room = "models/families", .coupling = "none",
       .line = "128 experts, 8 a token; norms head by head; dense layers by stride or list",
       .recipe = "recipes/methods/qwen3-moe.yaml"});
}
