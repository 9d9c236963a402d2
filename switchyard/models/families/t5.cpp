// T5 (Raffel et al. 2020) and Switch Transformers (Fedus et al. 2021), which is T5 with mixtures: an encoder and a decoder of pre-norm
// blocks without biases, scores that are not scaled and get a bias by distance, which the first block of each stack holds for all.
#include <algorithm>
#include <cmath>

#include "switchyard/models/families/table_family.h"

namespace switchyard {
namespace {

constexpr const char* kEncoder = "encoder.block.{i}.layer.";
constexpr const char* kDecoder = "decoder.block.{i}.layer.";

/// Names of both; `dense`, `sparse`: of the feed-forward inside its layer.
std::vector<NameRule> names_of(const std::string& dense) {
  std::vector<NameRule> rules{{{"embedding.weight"}, "shared.weight"}, {{"head.weight"}, "lm_head.weight"}};
  const auto stack = [&](const std::string& ours, const std::string& theirs, const char* whole, const char* feed_forward) {
    const std::string layer = ours + "layers.{i}.", ff = std::string(feed_forward) + ".";
    const auto attention = [&](const std::string& name, const std::string& hub, const char* place) {
      for (const auto& [part, map] : {std::pair{"query", "q"}, std::pair{"key", "k"}, std::pair{"value", "v"}, std::pair{"output", "o"}})
        rules.push_back({{layer + name + "." + part + ".weight"}, theirs + place + "." + hub + "." + map + ".weight"});
      rules.push_back({{layer + name + "_norm.weight"}, theirs + place + ".layer_norm.weight"});
    };
    rules.push_back({{ours + "norm.weight"}, std::string(whole) + ".final_layer_norm.weight"});
    rules.push_back({{ours + "relative_bias.weight"}, std::string(whole) + ".block.0.layer.0.SelfAttention.relative_attention_bias.weight"});
    attention("attention", "SelfAttention", "0");
    if (ours.empty()) attention("cross_attention", "EncDecAttention", "1");
    rules.push_back({{layer + "feed_forward_norm.weight"}, theirs + ff + "layer_norm.weight"});
    // A gated network has two maps where the plain one has "wi".
    rules.push_back({{layer + "feed_forward.gate.weight"}, theirs + ff + dense + ".wi_0.weight"});
    rules.push_back({{layer + "feed_forward.down.weight"}, theirs + ff + dense + ".wo.weight"});
    rules.push_back({{layer + "feed_forward.router.weight"}, theirs + ff + dense + ".router.classifier.weight"});
    rules.push_back({{layer + "feed_forward.router.logit_bias"}, theirs + ff + dense + ".router.classifier.bias"});
    rules.push_back({{layer + "feed_forward.experts.up"}, theirs + ff + dense + ".experts.expert_{e}.wi.weight"});
    rules.push_back({{layer + "feed_forward.experts.down"}, theirs + ff + dense + ".experts.expert_{e}.wo.weight"});
  };
  stack("encoder.", kEncoder, "encoder", "1");
  stack("", kDecoder, "decoder", "2");
  return rules;
}

const std::vector<std::string> kIgnored{"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"};

std::vector<HubKey> common_keys() {
  return {count_key("vocab_size", "vocabulary"),
          count_key("d_model", "width"),
          count_key("d_kv", "attention.head_dim cross.head_dim encoder_attention.head_dim"),
          count_key("num_heads", "attention.heads cross.heads encoder_attention.heads"),
          count_key("num_layers", "encoder.layers"),
          count_key("num_decoder_layers|num_layers", "layers"),
          count_key("relative_attention_num_buckets", "relative_buckets encoder.relative_buckets").absent("32"),
          count_key("relative_attention_max_distance", "relative_distance encoder.relative_distance").absent("128"),
          number_key("layer_norm_epsilon", "norm_eps encoder.norm_eps").absent("1e-6"),
          flag_key("tie_word_embeddings", "tied_embeddings").absent("true"),
          count_key("decoder_start_token_id", "encoder.start_token").absent("0").from(0)};
}

/// Both stacks; no context is given, distances beyond the last bucket are one.
const std::string kStacks = R"(
model:
  context: 1048576
  positions: relative
  encoder: {positions: relative}
attention: {type: gqa, scale: 1}
encoder_attention: {type: gqa, scale: 1}
cross: {type: cross-attention, scale: 1}
dense: {type: feed-forward}
encoder_dense: {type: feed-forward}
)";

/// What the head multiplies by: the embedding is scaled down where it is the head too.
double tied_scale(const Node& model) { return 1 / std::sqrt(static_cast<double>(integer_at(model, "width"))); }

void arrange_common(const HubReader& config, Draft& draft, bool scaled) {
  for (const char* key : {"initializer_factor", "dropout_rate", "classifier_dropout", "n_positions", "output_past", "is_gated_act", "dense_act_fn"})
    config.pass(key);
  if (scaled) draft.model["logit_scale"] = detail::write_value(tied_scale(draft.model));
}

/// Activations by their published names, plain and gated.
constexpr std::pair<const char*, std::pair<const char*, const char*>> kActivations[]{
    {"relu", {"relu", "reglu"}},           {"gelu", {"gelu", "geglu"}}, {"gelu_new", {"gelu-tanh", "geglu-tanh"}},
    {"gelu_pytorch_tanh", {"gelu-tanh", "geglu-tanh"}}, {"silu", {"silu", "swiglu"}}, {"swish", {"silu", "swiglu"}}};

class T5 : public TableFamily {
 public:
  T5()
      : TableFamily({.kinds = {{"t5", "T5ForConditionalGeneration"}},
                     .fixed = kStacks,
                     .keys = joined({count_key("d_ff", "dense.hidden encoder_dense.hidden"),
                                     text_key("feed_forward_proj", "dense.activation encoder_dense.activation").absent("relu").means(activations())},
                                    common_keys()),
                     .names = names_of("DenseReluDense"),
                     .ignored = kIgnored,
                     .rope_theta = "",
                     .arrange = arrange,
                     .describe = describe}) {}

  void names(NameMap& map, const ModelOptions& options, const HasTensor& has) const override {
    // "up" is "wi_1" beside a gate and "wi" alone.
    std::vector<NameRule> rules;
    for (const auto& [ours, theirs] : {std::pair{std::string("encoder.layers.{i}."), std::string(kEncoder) + "1."},
                                       std::pair{std::string("layers.{i}."), std::string(kDecoder) + "2."}}) {
      const bool gated = map.declares(ours.substr(0, ours.find('{')) + "0.feed_forward.gate.weight");
      rules.push_back({{ours + "feed_forward.up.weight"}, theirs + "DenseReluDense." + (gated ? "wi_1" : "wi") + ".weight"});
    }
    link_names(map, std::max(options.layers, options.encoder->layers), rules, has);
    TableFamily::names(map, options, has);
    copy_embedding(map, "", has, false);
  }

 private:
  static std::vector<std::pair<std::string, std::string>> activations() {
    // The gated GELU of version 1.1 is the tanh form, whatever its name.
    std::vector<std::pair<std::string, std::string>> words{{"relu", "relu"}, {"gated-gelu", "geglu-tanh"}};
    for (const auto& [name, ours] : kActivations) {
      words.emplace_back(name, ours.first);
      if (std::string_view(name) != "gelu") words.emplace_back(std::string("gated-") + name, ours.second);
    }
    return words;
  }
  static void arrange(const HubReader& config, const std::string&, Draft& draft) {
    // Library 5 ties always and keeps apart whether the head is scaled.
    arrange_common(config, draft, config.flag("scale_decoder_outputs", config.flag("tie_word_embeddings", true)));
  }
  static void describe(const Node& composition, const std::string&, Node& config) {
    const bool scaled = number_at(composition, "logit_scale") == tied_scale(composition);
    if (scaled != flag_at(composition, "tied_embeddings")) config["scale_decoder_outputs"] = hub_flag(scaled);
    config["is_encoder_decoder"] = hub_flag(true);
    config["pad_token_id"] = hub_count(0);
  }
};

class SwitchTransformers : public TableFamily {
 public:
  SwitchTransformers()
      : TableFamily({.kinds = {{"switch_transformers", "SwitchTransformersForConditionalGeneration"}},
                     .fixed = kStacks + mixture("mixture") + mixture("encoder_mixture"),
                     .keys = joined({count_key("d_ff", "dense.hidden encoder_dense.hidden mixture.expert.hidden encoder_mixture.expert.hidden"),
                                     count_key("num_experts", "mixture.experts encoder_mixture.experts"),
                                     count_key("expert_capacity", both("admission.places") + " " + both("admission.evaluation_places")).absent("64"),
                                     flag_key("router_bias", both("router.scorer.bias")).absent("false"),
                                     number_key("router_jitter_noise", both("router.jitter")).absent("0.01"),
                                     text_key("dense_act_fn", "dense.activation encoder_dense.activation " + both("expert.activation"))
                                         .absent("relu").means(activations())},
                                    common_keys()),
                     .names = table_of_names(),
                     .ignored = kIgnored,
                     .rope_theta = "",
                     .arrange = arrange,
                     .describe = describe}) {}
  void names(NameMap& map, const ModelOptions& options, const HasTensor& has) const override {
    TableFamily::names(map, options, has);
    copy_embedding(map, "", has, true);
  }

 private:
  static std::string both(const std::string& place) { return "mixture." + place + " encoder_mixture." + place; }
  /// Every sequence has its own places, in evaluation too; who comes late gets nothing from the layer.
  static std::string mixture(const std::string& part) {
    return part + ": {expert: {type: ffn-expert}, router: {type: switch-top1, scorer: {type: linear}}, "
                  "admission: {type: capacity, scope: sequence, generation: whole}}\n";
  }
  static std::vector<std::pair<std::string, std::string>> activations() {
    std::vector<std::pair<std::string, std::string>> words;
    for (const auto& [name, ours] : kActivations) words.emplace_back(name, ours.first);
    return words;
  }
  static std::vector<NameRule> table_of_names() {
    return joined({{{"encoder.layers.{i}.feed_forward.up.weight"}, std::string(kEncoder) + "1.mlp.wi.weight"},
                   {{"layers.{i}.feed_forward.up.weight"}, std::string(kDecoder) + "2.mlp.wi.weight"}},
                  names_of("mlp"));
  }
  /// From one sparse layer to the next; the first is the second layer, or the first where all are.
  static int64_t step(const HubReader& config, const char* said, const char* sparse, int64_t layers) {
    const int64_t count = config.count(sparse, 3, 0), derived = count > 0 ? layers / count : layers;
    return config.count(said, derived, 0);
  }
  static bool is_sparse(int64_t layer, int64_t step) { return step == 1 || (step > 1 && layer % step == 1); }

  static void arrange(const HubReader& config, const std::string&, Draft& draft) {
    arrange_common(config, draft, flag_at(draft.model, "tied_embeddings"));
    for (const char* key : {"feed_forward_proj", "add_router_probs", "router_type", "router_z_loss_coef", "router_ignore_padding_tokens",
                            "num_sparse_decoder_layers", "num_sparse_encoder_layers"})
      config.pass(key);
    config.only("router_dtype", {"float32"});
    const auto encoder_layers = static_cast<int64_t>(draft.encoder.size());
    const int64_t encoder = step(config, "encoder_sparse_step", "num_sparse_encoder_layers", encoder_layers);
    const int64_t decoder = step(config, "decoder_sparse_step", "num_sparse_decoder_layers", draft.count());
    for (int64_t i = 0; i < encoder_layers; ++i)
      if (!is_sparse(i, encoder)) draft.make_dense_encoder(i);
    for (int64_t i = 0; i < draft.count(); ++i)
      if (!is_sparse(i, decoder)) draft.make_dense(i);
  }

  /// The step by which a stack's mixtures stand, 0 = there are none; other placements read back otherwise and are refused.
  static void describe_steps(const Node& stack, const std::string& side, Node& config) {
    int64_t count = 0, first = -1, second = -1, layers = layers_of(stack);
    for (int64_t i = 0; i < layers; ++i) {
      if (!find_at(stack, fmt::format("layers.{}.mixtures.0", i))) continue;
      if (count == 0) first = i;
      else if (count == 1) second = i;
      ++count;
    }
    const int64_t step = count == 0 ? 0 : first == 0 ? 1 : second > 0 ? second - first : layers > 2 ? layers - 1 : 2;
    config[side + "_sparse_step"] = hub_count(step);
    config["num_sparse_" + side + "_layers"] = hub_count(count == 0 ? 0 : std::max<int64_t>(1, step == 1 ? layers : layers / step));
  }
  static void describe(const Node& composition, const std::string&, Node& config) {
    describe_steps(composition, "decoder", config);
    if (const Node* encoder = composition.find("encoder")) describe_steps(*encoder, "encoder", config);
    config["router_dtype"] = hub_text("float32");
    config["is_encoder_decoder"] = hub_flag(true);
    config["pad_token_id"] = hub_count(0);
  }
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(t5) {
  using namespace switchyard;
  registry.add<Family, T5, NoOptions>(
      {.slug = "t5", .name = "T5, T5 1.1", .paper = "Raffel et al., Exploring the limits of transfer learning", .year = 2020, .section = "4.4.1",
       .room = "models/families", .coupling = "none", .line = "an encoder and a decoder whose scores get a bias by distance; a start for splitting into experts",
       .recipe = "recipes/methods/t5.yaml"});
  registry.add<Family, SwitchTransformers, NoOptions>(
      {.slug = "switch-transformers", .name = "Switch Transformer base-8 to c-2048", .paper = "Fedus et al., Switch Transformers", .year = 2021,
       .section = "4.2.2", .room = "models/families", .coupling = "sequence", .line = "T5 with one expert a token in every n-th layer, each with a fixed number of places a sequence",
       .recipe = "recipes/methods/switch-transformers.yaml"});
}
