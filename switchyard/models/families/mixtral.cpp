// Mixtral 8x7B and 8x22B (Jiang et al. 2024): every feed-forward network is 8 SwiGLU experts, 2 a token, their weights a softmax
// over the two chosen logits.
#include "switchyard/models/families/family.h"
#include "switchyard/models/families/hub_config.h"

namespace switchyard {
namespace {

struct MixtralConfig : HubConfig {
  int64_t intermediate_size = 0, num_local_experts = 8, num_experts_per_tok = 2;
  std::optional<int64_t> sliding_window;
  double router_jitter_noise = 0;

  static void describe(Fields<MixtralConfig>& f) {
    using C = MixtralConfig;
    f.title("Mixtral's config.json");
    describe_fields(f);
    f("intermediate_size", &C::intermediate_size, "width F of an expert").range(1, 1 << 20).required();
    f("num_local_experts", &C::num_local_experts, "experts E").range(1, 1 << 12);
    f("num_experts_per_tok", &C::num_experts_per_tok, "experts a token k").range(1, 1 << 12);
    f("sliding_window", &C::sliding_window, "keys that a token sees; null = all").range(1, 1 << 24);
    f("router_jitter_noise", &C::router_jitter_noise, "noise on the router's input in training").range(0, 1);
  }
};

class Mixtral : public Family {
 public:
  std::vector<std::string> model_types() const override { return {"mixtral"}; }

  ModelOptions read(const Node& node) const override {
    MixtralConfig config = read_hub_config<MixtralConfig>(node);
    ModelOptions options = common_options(config);
    if (config.sliding_window) options.attention.options["window"] = detail::write_value(*config.sliding_window);
    options.mixtures.push_back(swiglu_mixture(config.num_local_experts, config.intermediate_size, config.num_experts_per_tok, true));
    return options;
  }

  Node write(const Node& composition) const override {
    MixtralConfig config;
    common_keys(composition, config);
    config.intermediate_size = integer_at(composition, "layers.0.mixtures.0.expert.hidden");
    config.num_local_experts = integer_at(composition, "layers.0.mixtures.0.experts");
    config.num_experts_per_tok = integer_at(composition, "layers.0.mixtures.0.router.k");
    if (const int64_t window = integer_at(composition, "layers.0.attention.window")) config.sliding_window = window;
    return write_hub_config(config, "mixtral", "MixtralForCausalLM");
  }

  void names(NameMap& map, const ModelOptions& options, const HasTensor& has) const override {
    // Library 5 holds the mixture as `mlp` in memory; files written from there may keep that name.
    const bool renamed = has && has("model.layers.0.mlp.gate.weight");
    const std::string block = renamed ? "mlp" : "block_sparse_moe";
    link_decoder(map, options, {.router = block + ".gate.weight", .experts = block + ".experts", .gate = "w1", .up = "w3",
                                .down = "w2"}, has);
  }
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(mixtral) {
  using namespace switchyard;
  registry.add<Family, Mixtral, NoOptions>(
      {.slug = "mixtral", .name = "Mixtral 8x7B, 8x22B", .paper = "Jiang et al., Mixtral of experts", .year = 2024,
       .section = "4.2.2", .room = "models/families", .coupling = "none",
       .line = "8 SwiGLU experts in every layer, 2 a token", .recipe = "recipes/methods/mixtral.yaml"});
}
