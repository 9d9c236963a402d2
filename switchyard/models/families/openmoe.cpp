// OpenMoE (Xue et al. 2024): in every n-th layer two experts a token with raw probabilities, then a dense network; the activation of
// every network's gate is itself a SwiGLU, scores are not scaled, and places are limited in evaluation too.
#include "switchyard/models/families/table_family.h"

namespace switchyard {
namespace {

std::vector<NameRule> names_of_openmoe() {
  const std::string ours = "layers.{i}.", theirs = "model.layers.{i}.", experts = theirs + "mlp.experts.";
  std::vector<NameRule> rules{{{ours + "feed_forward.router.weight"}, theirs + "mlp.gate_weight"},
                              transposed({{ours + "feed_forward.experts.gate"}, experts + "wi_gate"}),
                              transposed({{ours + "feed_forward.experts.up"}, experts + "wi_up"}),
                              transposed({{ours + "feed_forward.experts.down"}, experts + "wo"}),
                              {{ours + "extra_norm.weight"}, theirs + "pre_extra_mlp_layernorm.weight"}};
  for (const char* part : {"gate", "up", "down"})
    rules.push_back({{ours + "extra." + part + ".weight"}, theirs + "extra_mlp." + part + "_proj.weight"});
  return joined(rules, llama_names());
}

class OpenMoe : public TableFamily {
 public:
  OpenMoe()
      : TableFamily({.kinds = {{"openmoe", "OpenMoeForCausalLM"}},
                     .fixed = R"(
attention: {type: gqa, scale: 1}
dense: {type: feed-forward, activation: swiglu-gated}
mixture:
  expert: {type: swiglu-gated}
  router: {type: sparse-topk, softmax: all}
  admission: {type: capacity, scope: batch, order: choice, rounding: even, generation: whole}
  combine: {renormalise: never}
  allow_leak: true
)",
                     .keys = joined({count_key("num_experts", "mixture.experts"),
                                     count_key("router_topk|topk", "mixture.router.k").absent("2"),
                                     count_key("intermediate_size", "mixture.expert.hidden dense.hidden"),
                                     number_key("router_capacity_factor_train|capacity_factor_train", "mixture.admission.factor").absent("1.25"),
                                     number_key("router_capacity_factor_eval|capacity_factor_eval", "mixture.admission.evaluation_factor").absent("2.0"),
                                     count_key("router_min_capacity|min_capacity", "mixture.admission.minimum").absent("4").from(0),
                                     text_key("hidden_act", "").absent("swiglu").means({{"swiglu", "swiglu"}}),
                                     number_key("rms_norm_eps|layer_norm_epsilon", "norm_eps").absent("1e-6")},
                                    decoder_keys()),
                     .names = names_of_openmoe(),
                     .arrange = arrange,
                     .describe = describe}) {}

 private:
  static void arrange(const HubReader& config, const std::string&, Draft& draft) {
    for (const char* key : {"router_noisy_policy", "noisy_policy", "router_aux_loss_factor", "router_z_loss_factor", "aux_loss_factor", "z_loss_factor",
                            "label_smoothing", "dropout_rate", "expert_parallel", "enable_load_balance", "load_balance_tolerance", "load_balance_beam_width",
                            "load_balance_group_swap_factor", "enable_kernel", "enable_comm_overlap", "enable_hierarchical_alltoall"})
      config.pass(key);
    for (const char* key : {"mlp_gated", "gated"}) config.only(key, {"true"});
    config.only("attention_bias", {"false"});
    const int64_t interval = config.count("moe_layer_interval", 4);
    const bool drops = config.flag("router_drop_tks|drop_tks", true);
    for (int64_t i = 0; i < draft.count(); ++i) {
      Draft::Layer& layer = draft.layers[static_cast<size_t>(i)];
      if ((i + 1) % interval != 0) {
        draft.make_dense(i);
        continue;
      }
      layer.extra = draft.part("dense");
      if (!drops) layer.mixture["admission"] = Node("dropless");
    }
  }
  static void describe(const Node& composition, const std::string&, Node& config) {
    const int64_t first = first_layer(composition, has_mixture);
    check(first >= 0, "model.family_option", "the model has no mixture, which openmoe has");
    config["moe_layer_interval"] = hub_count(first + 1);
    config["router_drop_tks"] = hub_flag(text_at(composition, fmt::format("layers.{}.mixtures.0.admission.type", first)) != "dropless");
    config["hidden_act"] = hub_text("swiglu");
    config["mlp_gated"] = hub_flag(true);
  }
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(openmoe) {
  using namespace switchyard;
  registry.add<Family, OpenMoe, NoOptions>(
      {.slug = "openmoe", .name = "OpenMoE base, 8B, 34B", .paper = "Xue et al., OpenMoE", .year = 2024, .section = "4.2.2", .room = "models/families",
       .coupling = "batch", .line = "two experts a token with limited places, then a dense network, in every 4th or 6th layer", .recipe = "recipes/methods/openmoe.yaml"});
}
