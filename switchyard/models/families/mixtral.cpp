// Mixtral 8x7B and 8x22B (Jiang et al. 2024): every feed-forward network is 8 SwiGLU experts, 2 a token, their weights a softmax
// over the two chosen logits.
#include "switchyard/models/families/table_family.h"

namespace switchyard {
namespace {

/// Files may have the mixture as `mlp`, its experts one by one.
std::vector<NameRule> renamed() {
  const std::string ours = "layers.{i}.feed_forward.", theirs = "model.layers.{i}.mlp.";
  return joined(memory_names(), {where_present({{ours + "experts.gate"}, theirs + "experts.{e}.w1.weight"}),
                                 where_present({{ours + "experts.up"}, theirs + "experts.{e}.w3.weight"}),
                                 where_present({{ours + "experts.down"}, theirs + "experts.{e}.w2.weight"})});
}

FamilyTable table() {
  return {.kinds = {{"mixtral", "MixtralForCausalLM"}},
          .fixed = R"(
attention: {type: gqa}
mixture: {expert: {type: swiglu}, router: {type: sparse-topk, softmax: kept}}
)",
          .keys = joined({count_key("num_local_experts|num_experts", "mixture.experts").absent("8"),
                          count_key("num_experts_per_tok", "mixture.router.k").absent("2"),
                          count_key("intermediate_size", "mixture.expert.hidden"),
                          count_key("sliding_window", "attention.window").or_null("0"),
                          number_key("rms_norm_eps", "norm_eps").absent("1e-5")},
                         decoder_keys()),
          .names = joined(renamed(), llama_names({.router = "block_sparse_moe.gate.weight", .experts = "block_sparse_moe.experts",
                                                  .gate = "w1", .up = "w3", .down = "w2"})),
          .rope_theta = "1000000"};
}

class Mixtral : public TableFamily {
 public:
  Mixtral() : TableFamily(table()) {}
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
