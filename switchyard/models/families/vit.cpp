// ViT (Dosovitskiy et al. 2021): an encoder of an image's patches behind a learned row, by which the head names the image's class.
#include "switchyard/models/families/table_family.h"

namespace switchyard {
namespace {

std::vector<NameRule> names() {
  const std::string layer = "layers.{i}.", hub = "vit.encoder.layer.{i}.";
  NameRule first{{"patches.first"}, "vit.embeddings.cls_token"}, positions{{"position_embedding.weight"}, "vit.embeddings.position_embeddings"};
  first.unit = positions.unit = 0;
  std::vector<NameRule> rules{first, positions};
  for (const std::string kind : {"weight", "bias"}) {
    rules.push_back({{"patches." + kind}, "vit.embeddings.patch_embeddings.projection." + kind});
    rules.push_back({{"norm." + kind}, "vit.layernorm." + kind});
    rules.push_back({{"head." + kind}, "classifier." + kind});
    for (const auto& [ours, theirs] : {std::pair{"attention.query", "attention.attention.query"}, std::pair{"attention.key", "attention.attention.key"},
                                       std::pair{"attention.value", "attention.attention.value"}, std::pair{"attention.output", "attention.output.dense"},
                                       std::pair{"feed_forward.up", "intermediate.dense"}, std::pair{"feed_forward.down", "output.dense"},
                                       std::pair{"attention_norm", "layernorm_before"}, std::pair{"feed_forward_norm", "layernorm_after"}})
      rules.push_back({{layer + ours + "." + kind}, hub + theirs + "." + kind});
  }
  return rules;
}

/// A number, or a pair of equal ones.
int64_t square(const HubReader& config, const char* key, int64_t standard) {
  const Node* node = config.find(key);
  if (node == nullptr || !node->is_list()) return config.count(key, standard);
  const std::vector<int64_t> sides = config.counts(key);
  check(sides.size() == 2 && sides[0] == sides[1] && sides[0] > 0, "model.config", "{}: {} is not square, which is not supported", node->where(), key);
  return sides[0];
}

class Vit : public TableFamily {
 public:
  Vit()
      : TableFamily({.kinds = {{"vit", "ViTForImageClassification"}},
                     .fixed = R"(
model: {norm: layer, positions: learned, causal: false, tied_embeddings: false, head_bias: true, patches: {}}
attention: {type: gqa, output_bias: true}
dense: {type: feed-forward, bias: true}
)",
                     .keys = {count_key("hidden_size", "width").absent("768"),
                              count_key("num_hidden_layers", "layers").absent("12"),
                              count_key("num_attention_heads", "attention.heads").absent("12"),
                              count_key("intermediate_size", "dense.hidden").absent("3072"),
                              count_key("num_channels", "patches.channels").absent("3"),
                              flag_key("qkv_bias", "attention.bias").absent("true"),
                              text_key("hidden_act", "dense.activation")
                                  .absent("gelu")
                                  .means({{"gelu", "gelu"}, {"gelu_new", "gelu-tanh"}, {"gelu_pytorch_tanh", "gelu-tanh"}, {"relu", "relu"}, {"silu", "silu"}, {"swish", "silu"}}),
                              number_key("layer_norm_eps", "norm_eps").absent("1e-12"),
                              number_key("initializer_range", "init_deviation").absent("0.02")},
                     .names = switchyard::names(),
                     .rope_theta = "",
                     .arrange = arrange,
                     .describe = describe}) {}

  void names(NameMap& map, const ModelOptions& options, const HasTensor& has) const override {
    map.ignore_below("vit.pooler.");
    TableFamily::names(map, options, has);
  }

 private:
  static void arrange(const HubReader& config, const std::string&, Draft& draft) {
    for (const char* key : {"hidden_dropout_prob", "attention_probs_dropout_prob", "encoder_stride", "pooler_act", "pooler_output_size"}) config.pass(key);
    draft.model["patches"]["image"] = hub_count(square(config, "image_size", 224));
    draft.model["patches"]["patch"] = hub_count(square(config, "patch_size", 16));
    draft.model["classes"] = hub_count(labels_of(config));
  }
  static void describe(const Node& composition, const std::string&, Node& config) {
    config["image_size"] = hub_count(integer_at(composition, "patches.image"));
    config["patch_size"] = hub_count(integer_at(composition, "patches.patch"));
    write_labels(integer_at(composition, "classes"), config);
  }
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(vit) {
  using namespace switchyard;
  registry.add<Family, Vit, NoOptions>(
      {.slug = "vit", .name = "ViT", .paper = "Dosovitskiy et al., An image is worth 16x16 words", .year = 2021, .section = "4.4.1", .room = "models/families",
       .coupling = "none", .line = "an encoder of an image's patches that names its class; a start for experts on images", .recipe = "recipes/methods/vit.yaml"});
}
