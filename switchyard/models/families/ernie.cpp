// ERNIE 4.5 MoE (Baidu 2025): probabilities by a softmax, a bias joins them for the choice alone; shared experts.
#include "switchyard/models/families/table_family.h"

namespace switchyard {
namespace {

std::vector<NameRule> names() {
  NameRule bias{{"layers.{i}.feed_forward.router.bias"}, "model.layers.{i}.mlp.moe_statics.e_score_correction_bias"};
  bias.unit = 0;
  NameRule memory = where_present(bias);
  memory.theirs = "model.layers.{i}.mlp.gate.moe_statics.e_score_correction_bias";
  const std::string ours = "layers.{i}.feed_forward.", theirs = "model.layers.{i}.mlp.experts.{e}.";
  return joined({memory,
                 bias,
                 {{ours + "experts.gate_bias"}, theirs + "gate_proj.bias"},
                 {{ours + "experts.up_bias"}, theirs + "up_proj.bias"},
                 {{ours + "experts.down_bias"}, theirs + "down_proj.bias"}},
                llama_names({.shared = "mlp.shared_experts"}));
}

class Ernie : public TableFamily {
 public:
  Ernie()
      : TableFamily({.kinds = {{"ernie4_5_moe", "Ernie4_5_MoeForCausalLM"}},
                     .fixed = R"(
model: {rope_pairs: adjacent}
attention: {type: gqa}
dense: {type: feed-forward, activation: swiglu}
mixture: {expert: {type: swiglu}, router: {type: sparse-topk, softmax: all, selection_bias: true}, combine: {renormalise: before_drop}}
)",
                     .keys = joined({count_key("moe_num_experts|num_experts|num_local_experts", "mixture.experts").absent("64"),
                                     count_key("moe_k|num_experts_per_tok", "mixture.router.k").absent("6"),
                                     count_key("moe_intermediate_size", "mixture.expert.hidden"),
                                     count_key("intermediate_size", "dense.hidden").absent("12288"),
                                     flag_key("use_bias", "attention.bias attention.output_bias dense.bias mixture.expert.bias head_bias")
                                         .absent("false"),
                                     number_key("moe_norm_min", "mixture.combine.least").absent("1e-12"),
                                     flag_key("tie_word_embeddings", "tied_embeddings").absent("true"),
                                     number_key("rms_norm_eps", "norm_eps").absent("1e-5")},
                                    decoder_keys()),
                     .names = switchyard::names(),
                     .rope_theta = "500000",
                     .arrange = arrange,
                     .describe = describe}) {}

 private:
  static void arrange(const HubReader& config, const std::string&, Draft& draft) {
    for (const char* key : {"moe_use_aux_free", "moe_capacity", "moe_dropout_prob", "moe_gate", "fuse_rms_norm", "moe_gate_act"}) config.pass(key);
    config.only("moe_gate_act", {"softmax"});
    const int64_t first = config.count("moe_layer_start_index", 1, 0), step = config.count("moe_layer_interval", 1);
    int64_t last = config.count("moe_layer_end_index", -1, -1);
    if (last < 0) last = draft.count() - 1;
    const int64_t shared = config.count("moe_num_shared_experts", 2, 0);
    // The published code gives experts biases by use_bias too, library 5 all maps but theirs: files say which wrote them.
    const int64_t sparse = (std::max<int64_t>(first, 0) / step + 1) * step - 1;
    const bool plain = config.lacks(fmt::format("model.layers.{}.mlp.experts.0.gate_proj.bias", sparse));
    for (int64_t i = 0; i < draft.count(); ++i) {
      Node& mixture = draft.layers[static_cast<size_t>(i)].mixture;
      if (i < first || i > last || (i + 1) % step != 0) {
        draft.make_dense(i);
      } else if (shared > 0) {
        add_shared(mixture, shared * integer_at(mixture, "expert.hidden"));
      }
      if (plain && !mixture.is_null()) mixture["expert"]["bias"] = hub_flag(false);
    }
  }

  static void describe(const Node& composition, const std::string&, Node& config) {
    const int64_t layers = layers_of(composition);
    int64_t first = first_layer(composition, has_mixture), last = layers - 1;
    if (first < 0) first = layers;
    while (last > first && !has_mixture(find_at(composition, "layers")->items()[static_cast<size_t>(last)])) --last;
    int64_t step = 1;
    while (first + step <= last && !find_at(composition, fmt::format("layers.{}.mixtures.0", first + step))) ++step;
    config["moe_use_aux_free"] = hub_flag(true);
    config["moe_layer_start_index"] = hub_count(first);
    config["moe_layer_end_index"] = hub_count(last);
    config["moe_layer_interval"] = hub_count(step);
    const std::string mixture = fmt::format("layers.{}.mixtures.0.", std::min(first, layers - 1));
    const bool shared = find_at(composition, mixture + "shared.0.expert.hidden") != nullptr;
    config["moe_num_shared_experts"] =
        hub_count(shared ? integer_at(composition, mixture + "shared.0.expert.hidden") / integer_at(composition, mixture + "expert.hidden") : 0);
  }
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(ernie) {
  using namespace switchyard;
  registry.add<Family, Ernie, NoOptions>(
      {.slug = "ernie4-5-moe", .name = "ERNIE 4.5 21B-A3B, 300B-A47B", .paper = "Baidu, ERNIE 4.5 technical report", .year = 2025,
       .section = "beyond", .room = "models/families", .coupling = "none",
       .line = "a softmax chooses with a bias and weighs without it; shared experts", .recipe = "recipes/methods/ernie4-5-moe.yaml"});
}
