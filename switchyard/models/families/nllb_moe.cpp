// NLLB-MoE (NLLB Team 2022): M2M-100's encoder and decoder with a mixture in every n-th layer. Two experts a token with probabilities
// divided by the sum of those that kept a place; places are a share of the whole batch's tokens, and outputs are masked by lot in
// training. What implementations disagree in follows the code that came with the weights (library 4).
#include <cmath>

#include "switchyard/base/error.h"
#include "switchyard/models/families/table_family.h"

namespace switchyard {
namespace {

std::string both(const std::string& place) { return "mixture." + place + " encoder_mixture." + place; }

/// A batch's tokens share the places, first choices before second ones; in generation the sequence so far does.
std::string mixture(const std::string& part) {
  return part + R"(:
  expert: {type: ffn-expert, bias: true}
  router: {type: gshard-random, scorer: {type: linear}, measure: probability, threshold: 0.5}
  admission: {type: capacity, scope: batch, order: choice, generation: whole, minimum: 0, factor: 1, rounding: by_choice}
  combine: {renormalise: after_drop}
  allow_leak: true
)";
}

const std::string kFixed = R"(
model:
  norm: layer
  positions: sinusoidal
  encoder: {norm: layer, positions: sinusoidal}
attention: {type: gqa, bias: true, output_bias: true}
encoder_attention: {type: gqa, bias: true, output_bias: true}
cross: {type: cross-attention, bias: true, output_bias: true}
dense: {type: feed-forward, bias: true}
encoder_dense: {type: feed-forward, bias: true}
)";

std::vector<NameRule> names() {
  std::vector<NameRule> rules{{{"embedding.weight"}, "model.shared.weight"}, {{"head.weight"}, "lm_head.weight"}};
  for (const auto& [ours, theirs] : {std::pair{std::string("encoder."), std::string("model.encoder.")}, std::pair{std::string(), std::string("model.decoder.")}})
    for (const std::string kind : {"weight", "bias"}) {
      const std::string layer = ours + "layers.{i}.", hub = theirs + "layers.{i}.", bias = kind == "bias" ? "_bias" : "";
      const auto map = [&](const std::string& name, const std::string& published) { rules.push_back({{layer + name + "." + kind}, hub + published + "." + kind}); };
      rules.push_back({{ours + "norm." + kind}, theirs + "layer_norm." + kind});
      for (const auto& [name, published] : {std::pair<std::string, std::string>{"attention", "self_attn"}, {"cross_attention", "cross_attention"}}) {
        for (const auto& [part, proj] : {std::pair{"query", "q_proj"}, std::pair{"key", "k_proj"}, std::pair{"value", "v_proj"}, std::pair{"output", "out_proj"}})
          map(name + "." + part, published + "." + proj);
        map(name + "_norm", published + "_layer_norm");
      }
      map("feed_forward_norm", "ff_layer_norm");
      map("feed_forward.up", "ffn.fc1");
      map("feed_forward.down", "ffn.fc2");
      rules.push_back({{layer + "feed_forward.experts.up" + bias}, hub + "ffn.experts.expert_{e}.fc1." + kind});
      rules.push_back({{layer + "feed_forward.experts.down" + bias}, hub + "ffn.experts.expert_{e}.fc2." + kind});
      rules.push_back({{layer + "feed_forward.router." + (kind == "bias" ? "logit_bias" : "weight")}, hub + "ffn.router.classifier." + kind});
    }
  return rules;
}

class NllbMoe : public TableFamily {
 public:
  NllbMoe()
      : TableFamily({.kinds = {{"nllb-moe", "NllbMoeForConditionalGeneration"}},
                     .fixed = kFixed + mixture("mixture") + mixture("encoder_mixture"),
                     .keys = {count_key("vocab_size", "vocabulary"),
                              count_key("d_model", "width"),
                              count_key("encoder_layers", "encoder.layers").absent("12"),
                              count_key("decoder_layers", "layers").absent("12"),
                              count_key("encoder_attention_heads", "encoder_attention.heads").absent("16"),
                              count_key("decoder_attention_heads", "attention.heads cross.heads").absent("16"),
                              count_key("encoder_ffn_dim", "encoder_dense.hidden encoder_mixture.expert.hidden").absent("4096"),
                              count_key("decoder_ffn_dim", "dense.hidden mixture.expert.hidden").absent("4096"),
                              text_key("activation_function", "dense.activation encoder_dense.activation " + both("expert.activation"))
                                  .absent("relu")
                                  .means({{"relu", "relu"}, {"gelu", "gelu"}, {"gelu_new", "gelu-tanh"}, {"silu", "silu"}, {"swish", "silu"}}),
                              count_key("max_position_embeddings", "context").absent("1024"),
                              count_key("num_experts", both("experts")).absent("128"),
                              flag_key("router_bias", both("router.scorer.bias")).absent("false"),
                              flag_key("normalize_router_prob_before_dropping", both("combine.renormalise"))
                                  .absent("false").means({{"true", "before_drop"}, {"false", "after_drop"}}),
                              text_key("second_expert_policy", both("router.policy") + " " + both("router.evaluation_policy"))
                                  .absent("all").means({{"all", "all"}, {"random", "random"}, {"sampling", "sampling"}}),
                              flag_key("batch_prioritized_routing", both("admission.type")).absent("false").means({{"true", "bpr"}, {"false", "capacity"}}),
                              number_key("moe_token_dropout", both("combine.output_masking")).absent("0.2"),
                              flag_key("tie_word_embeddings", "tied_embeddings").absent("true"),
                              count_key("decoder_start_token_id", "encoder.start_token").absent("2").from(0),
                              number_key("init_std", "init_deviation").absent("0.02")},
                     .names = switchyard::names(),
                     .ignored = {"model.encoder.embed_positions.weights", "model.decoder.embed_positions.weights"},
                     .rope_theta = "",
                     .arrange = arrange,
                     .describe = describe}) {}
  void names(NameMap& map, const ModelOptions& options, const HasTensor& has) const override {
    TableFamily::names(map, options, has);
    copy_embedding(map, "model.", has, true);
  }

 private:
  static void arrange(const HubReader& config, const std::string&, Draft& draft) {
    for (const char* key : {"activation_dropout", "encoder_layerdrop", "decoder_layerdrop", "num_hidden_layers", "router_z_loss_coef",
                            "router_ignore_padding_tokens", "max_length", "router_type"})
      config.pass(key);
    config.only("router_dtype", {"float32"});
    if (config.flag("scale_embedding", true))
      draft.model["embedding_scale"] = detail::write_value(std::sqrt(static_cast<double>(integer_at(draft.model, "width"))));
    // Places are numbered from the one behind the padding token's.
    const int64_t pad = config.count("pad_token_id", 1, 0);
    draft.model["position_offset"] = draft.model["encoder"]["position_offset"] = hub_count(pad + 1);
    const double fraction = config.number("moe_eval_capacity_token_fraction", 1);
    // With as many places as rows, padding among the experts takes nobody's.
    check(!config.flag("router_ignore_padding_tokens", false) || fraction >= 1, "model.config",
          "{}: router_ignore_padding_tokens lets padding compete for places, which it never does here; it can be true where "
          "moe_eval_capacity_token_fraction, now {}, is 1 or more", config.config().mark().source, fraction);
    const Node* places = config.find("expert_capacity");
    const auto give = [&](Node& mixture) {
      Node& admission = mixture["admission"];
      if (places) admission["places"] = *places;
      if (fraction > 0) {
        admission["evaluation_of"] = Node("rows");
        admission["evaluation_factor"] = detail::write_value(fraction);
      } else {
        admission["evaluation_factor"] = Node("1");
        if (places) admission["evaluation_places"] = *places;
      }
    };
    const int64_t encoder = config.count("encoder_sparse_step", 4, 0), decoder = config.count("decoder_sparse_step", 4, 0);
    for (size_t i = 0; i < draft.encoder.size(); ++i) {
      give(draft.encoder[i].mixture);
      if (encoder == 0 || (static_cast<int64_t>(i) + 1) % encoder != 0) draft.make_dense_encoder(static_cast<int64_t>(i));
    }
    for (int64_t i = 0; i < draft.count(); ++i) {
      give(draft.layers[static_cast<size_t>(i)].mixture);
      if (decoder == 0 || (i + 1) % decoder != 0) draft.make_dense(i);
    }
  }

  static void describe_stack(const Node& stack, const std::string& side, Node& config) {
    const int64_t first = first_layer(stack, has_mixture);
    config[side + "_sparse_step"] = hub_count(first + 1);  // 0 when there is none
    if (first < 0) return;
    const std::string admission = fmt::format("layers.{}.mixtures.0.admission.", first);
    const int64_t places = integer_at(stack, admission + "places");
    config["expert_capacity"] = places > 0 ? hub_count(places) : Node();
    const bool by_rows = text_at(stack, admission + "evaluation_of") == "rows";
    config["moe_eval_capacity_token_fraction"] = hub_number(by_rows ? number_at(stack, admission + "evaluation_factor") : -1.0);
  }
  static void describe(const Node& composition, const std::string&, Node& config) {
    check(find_at(composition, "position_offset") && integer_at(composition, "position_offset") > 0, "model.family_option",
          "the model's positions are not numbered from behind a padding token, as nllb-moe's are");
    config["pad_token_id"] = hub_count(integer_at(composition, "position_offset") - 1);
    config["scale_embedding"] = hub_flag(number_at(composition, "embedding_scale") != 1);
    describe_stack(composition, "decoder", config);
    if (const Node* encoder = composition.find("encoder")) describe_stack(*encoder, "encoder", config);
    config["router_dtype"] = hub_text("float32");
    config["is_encoder_decoder"] = hub_flag(true);
  }
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(nllb_moe) {
  using namespace switchyard;
  registry.add<Family, NllbMoe, NoOptions>(
      {.slug = "nllb-moe", .name = "NLLB-MoE-54B", .paper = "NLLB Team, No language left behind", .year = 2022, .section = "4.2.4",
       .room = "models/families", .coupling = "batch", .line = "two of 128 experts a token, weighed by those that kept a place; outputs masked by lot in training",
       .recipe = "recipes/methods/nllb-moe.yaml"});
}
