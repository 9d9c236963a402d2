// Phi-3.5-MoE (Abdin et al. 2024): 16 experts, two a token by SparseMixer; LayerNorms, and biases on attention and head.
#include "switchyard/models/families/table_family.h"

namespace switchyard {
namespace {

class PhiMoe : public TableFamily {
 public:
  PhiMoe()
      : TableFamily({.kinds = {{"phimoe", "PhimoeForCausalLM"}},
                     .fixed = R"(
model: {norm: layer}
attention: {type: gqa}
mixture: {expert: {type: swiglu}, router: {type: sparsemixer}}
)",
                     .keys = joined({count_key("num_local_experts|num_experts", "mixture.experts").absent("16"),
                                     count_key("num_experts_per_tok", "").absent("2"),
                                     count_key("intermediate_size", "mixture.expert.hidden"),
                                     number_key("router_jitter_noise", "mixture.router.jitter").absent("0.01"),
                                     flag_key("attention_bias", "attention.bias attention.output_bias").absent("false"),
                                     flag_key("lm_head_bias", "head_bias").absent("false"),
                                     count_key("sliding_window", "attention.window").or_null("0"),
                                     number_key("rms_norm_eps", "norm_eps").absent("1e-5")},
                                    decoder_keys()),
                     .names = joined(memory_names("mlp.experts", "mlp.router.weight"),
                                     llama_names({.router = "block_sparse_moe.gate.weight", .experts = "block_sparse_moe.experts",
                                                  .gate = "w1", .up = "w3", .down = "w2"})),
                     .rope_theta = "1000000",
                     .arrange =
                         [](const HubReader& config, const std::string&, Draft& draft) {
                           config.only("num_experts_per_tok", {"2"});
                           config.pass("input_jitter_noise");
                           config.pass("original_max_position_embeddings");
                         },
                     .describe =
                         [](const Node& composition, const std::string&, Node& config) {
                           const Node* scaling = config.find("rope_scaling");
                           if (scaling == nullptr || scaling->is_null() || text_at(composition, "rope_scaling.kind") != "longrope") return;
                           Node typed = *scaling;
                           typed["type"] = hub_text("longrope");
                           config["original_max_position_embeddings"] = Node(*typed.find("original_max_position_embeddings"));
                           config["rope_scaling"] = std::move(typed);
                         }}) {}
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(phimoe) {
  using namespace switchyard;
  registry.add<Family, PhiMoe, NoOptions>(
      {.slug = "phi-moe", .name = "Phi-3.5-MoE", .paper = "Abdin et al., Phi-3 technical report", .year = 2024, .section = "beyond",
       .room = "models/families", .coupling = "none", .line = "16 experts, two a token by SparseMixer; LayerNorms and biases",
       .recipe = "recipes/methods/phi-moe.yaml"});
}
