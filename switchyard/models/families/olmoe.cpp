// OLMoE-1B-7B (Muennighoff et al. 2024): 64 small experts, 8 a token with their raw probabilities; queries and keys are
// normed over all heads at once, and may be clipped.
#include "switchyard/models/families/family.h"
#include "switchyard/models/families/hub_config.h"

namespace switchyard {
namespace {

struct OlmoeConfig : HubConfig {
  int64_t intermediate_size = 2048, num_experts = 64, num_experts_per_tok = 8;
  bool norm_topk_prob = false, attention_bias = false;
  std::optional<double> clip_qkv;

  OlmoeConfig() { rms_norm_eps = 1e-5; }
  static void describe(Fields<OlmoeConfig>& f) {
    using C = OlmoeConfig;
    f.title("OLMoE's config.json");
    describe_fields(f);
    f("intermediate_size", &C::intermediate_size, "width F of an expert").range(1, 1 << 20);
    f("num_experts", &C::num_experts, "experts E").range(1, 1 << 12);
    f("num_experts_per_tok", &C::num_experts_per_tok, "experts a token k").range(1, 1 << 12);
    f("norm_topk_prob", &C::norm_topk_prob, "weights of a token sum to 1");
    f("attention_bias", &C::attention_bias, "biases on the four maps of attention");
    f("clip_qkv", &C::clip_qkv, "queries, keys and values are held within plus and minus this").range(0);
  }
};

class Olmoe : public Family {
 public:
  std::vector<std::string> model_types() const override { return {"olmoe"}; }

  ModelOptions read(const Node& node) const override {
    OlmoeConfig config = read_hub_config<OlmoeConfig>(node);
    config.head_dim.reset();  // the family has no such key: a head is hidden_size / num_attention_heads wide
    ModelOptions options = common_options(config);
    Node& attention = options.attention.options;
    attention["qk_norm"] = Node("full");
    attention["bias"] = attention["output_bias"] = detail::write_value(config.attention_bias);
    if (config.clip_qkv) attention["clip"] = detail::write_value(*config.clip_qkv);
    options.mixtures.push_back(
        swiglu_mixture(config.num_experts, config.intermediate_size, config.num_experts_per_tok, config.norm_topk_prob));
    return options;
  }

  Node write(const Node& composition) const override {
    OlmoeConfig config;
    common_keys(composition, config);
    config.intermediate_size = integer_at(composition, "layers.0.mixtures.0.expert.hidden");
    config.num_experts = integer_at(composition, "layers.0.mixtures.0.experts");
    config.num_experts_per_tok = integer_at(composition, "layers.0.mixtures.0.router.k");
    config.norm_topk_prob = weights_sum_to_one(composition, 0);
    config.attention_bias = flag_at(composition, "layers.0.attention.bias");
    if (const double clip = number_at(composition, "layers.0.attention.clip"); clip > 0) config.clip_qkv = clip;
    Node written = write_hub_config(config, "olmoe", "OlmoeForCausalLM");
    std::erase_if(written.entries(), [](const auto& entry) { return entry.first == "head_dim"; });
    return written;
  }

  void names(NameMap& map, const ModelOptions& options, const HasTensor& has) const override {
    link_decoder(map, options, kMlpMixture, has);
  }
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
}
