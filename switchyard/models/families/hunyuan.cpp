// Hunyuan-A13B and its kin (Tencent 2025): one shared network beside fine experts; queries and keys are normed after they turned;
// a fixed stretch of the rotary base.
#include "switchyard/models/families/table_family.h"

namespace switchyard {
namespace {

std::vector<NameRule> names() {
  const std::string ours = "layers.{i}.attention.", theirs = "model.layers.{i}.self_attn.";
  return joined({{{ours + "query_norm.weight"}, theirs + "query_layernorm.weight"},
                 {{ours + "key_norm.weight"}, theirs + "key_layernorm.weight"}},
                llama_names({.router = "mlp.gate.wg.weight", .shared = "mlp.shared_mlp"}));
}

int64_t in_layer(const std::vector<int64_t>& list, int64_t layer, int64_t standard) {
  if (list.empty()) return standard;
  return list.size() == 1 ? list[0] : list.at(static_cast<size_t>(layer));
}

class Hunyuan : public TableFamily {
 public:
  Hunyuan()
      : TableFamily({.kinds = {{"hunyuan_v1_moe", "HunYuanMoEV1ForCausalLM"}},
                     .fixed = R"(
attention: {type: gqa}
mixture: {expert: {type: swiglu}, router: {type: sparse-topk, softmax: kept}}
)",
                     .keys = joined({flag_key("use_qk_norm", "attention.qk_norm").absent("true").means({{"true", "turned"}, {"false", "none"}}),
                                     flag_key("attention_bias", "attention.bias attention.output_bias").absent("false"),
                                     count_key("intermediate_size", "mixture.expert.hidden"),
                                     number_key("rms_norm_eps", "norm_eps").absent("1e-5")},
                                    decoder_keys()),
                     .names = switchyard::names(),
                     .arrange = arrange,
                     .describe = describe}) {}

 private:
  static void arrange(const HubReader& config, const std::string&, Draft& draft) {
    config.only("use_cla", {"false"});
    config.only("norm_topk_prob", {"true"});
    config.only("use_mla", {"false"});
    for (const char* key : {"use_mixed_mlp_moe", "cla_share_factor", "moe_layer_num_skipped", "moe_drop_tokens", "moe_random_routing_dropped_token",
                            "capacity_factor", "group_limited_greedy", "norm_type", "mlp_bias", "add_classification_head", "routed_scaling_factor",
                            "attention_head_dim", "eod_token_id", "im_start_id", "im_end_id", "im_newline_id", "text_start_id", "text_end_id", "pool_type",
                            "class_num", "position_embedding_xdrope", "use_rotary_pos_emb"})
      config.pass(key);
    config.only("group_limited_greedy", {"false"});
    const std::vector<int64_t> experts = config.counts("num_experts"), k = config.counts("moe_topk"), shared = config.counts("num_shared_expert"),
                               hidden = config.counts("moe_intermediate_size");
    for (const auto* list : {&experts, &k, &shared, &hidden})
      check(list->size() <= 1 || static_cast<int64_t>(list->size()) == draft.count(), "model.config",
            "{}: a list by layers has {} entries, but there are {} layers", config.config().mark().source, list->size(), draft.count());
    for (int64_t i = 0; i < draft.count(); ++i) {
      Node& mixture = draft.layers[static_cast<size_t>(i)].mixture;
      const int64_t width = integer_at(mixture, "expert.hidden"), beside = in_layer(shared, i, 1);
      mixture["experts"] = hub_count(in_layer(experts, i, 1));
      mixture["router"]["k"] = hub_count(in_layer(k, i, 1));
      mixture["expert"]["hidden"] = hub_count(in_layer(hidden, i, width));
      if (beside > 0) add_shared(mixture, beside * width);
    }
  }

  static void describe(const Node& composition, const std::string&, Node& config) {
    for (const char* list : {"moe_topk", "moe_intermediate_size", "num_shared_expert"}) config[list] = Node::list();
    const bool shared = find_at(composition, "layers.0.mixtures.0.shared.0.expert.hidden") != nullptr;
    check(shared, "model.family_option", "the model has no shared network, which hunyuan_v1_moe has");
    config["num_experts"] = hub_count(integer_at(composition, "layers.0.mixtures.0.experts"));
    // The shared network says the width of a dense one.
    if (shared) config["intermediate_size"] = hub_count(integer_at(composition, "layers.0.mixtures.0.shared.0.expert.hidden"));
    for (int64_t i = 0; i < layers_of(composition); ++i) {
      const std::string mixture = fmt::format("layers.{}.mixtures.0.", i);
      config["moe_topk"].append(hub_count(integer_at(composition, mixture + "router.k")));
      config["moe_intermediate_size"].append(hub_count(integer_at(composition, mixture + "expert.hidden")));
      config["num_shared_expert"].append(hub_count(shared ? 1 : 0));
    }
    config["norm_topk_prob"] = hub_flag(true);
    if (const Node* scaling = config.find("rope_scaling"); scaling && !scaling->is_null()) {
      Node typed = *scaling;
      typed["type"] = hub_text(text_at(composition, "rope_scaling.kind"));
      config["rope_scaling"] = std::move(typed);
    }
  }
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(hunyuan) {
  using namespace switchyard;
  registry.add<Family, Hunyuan, NoOptions>(
      {.slug = "hunyuan-moe", .name = "Hunyuan-A13B", .paper = "Tencent, Hunyuan-A13B technical report", .year = 2025, .section = "beyond",
       .room = "models/families", .coupling = "none", .line = "queries and keys normed after they turned; a shared network beside fine experts",
       .recipe = "recipes/methods/hunyuan-moe.yaml"});
}
