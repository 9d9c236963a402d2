// BERT (Devlin et al. 2019): an encoder of tokens with types, norms behind each sum, and a head that names hidden tokens, or the class
// of a sequence.
#include "switchyard/models/families/table_family.h"

namespace switchyard {
namespace {

std::vector<NameRule> names() {
  const std::string layer = "layers.{i}.", hub = "bert.encoder.layer.{i}.";
  std::vector<NameRule> rules{{{"embedding.weight"}, "bert.embeddings.word_embeddings.weight"},
                              {{"position_embedding.weight"}, "bert.embeddings.position_embeddings.weight"},
                              {{"token_types.weight"}, "bert.embeddings.token_type_embeddings.weight"},
                              {{"head.weight"}, "cls.predictions.decoder.weight"},
                              where_present({{"head.bias"}, "cls.predictions.bias"})};
  const auto norm = [&](const std::string& ours, const std::string& theirs) {
    // Files converted from the first release have other names for the two.
    rules.push_back(where_present({{ours + ".weight"}, theirs + ".LayerNorm.gamma"}));
    rules.push_back(where_present({{ours + ".bias"}, theirs + ".LayerNorm.beta"}));
    rules.push_back({{ours + ".weight"}, theirs + ".LayerNorm.weight"});
    rules.push_back({{ours + ".bias"}, theirs + ".LayerNorm.bias"});
  };
  norm("embedding_norm", "bert.embeddings");
  norm("head.norm", "cls.predictions.transform");
  norm(layer + "attention_after_norm", hub + "attention.output");
  norm(layer + "feed_forward_after_norm", hub + "output");
  for (const std::string kind : {"weight", "bias"})
    for (const auto& [ours, theirs] : {std::pair{"attention.query", "attention.self.query"}, std::pair{"attention.key", "attention.self.key"},
                                       std::pair{"attention.value", "attention.self.value"}, std::pair{"attention.output", "attention.output.dense"},
                                       std::pair{"feed_forward.up", "intermediate.dense"}, std::pair{"feed_forward.down", "output.dense"}})
      rules.push_back({{layer + ours + "." + kind}, hub + theirs + "." + kind});
  return rules;
}

class Bert : public TableFamily {
 public:
  Bert()
      : TableFamily({.kinds = {{"bert", "BertForMaskedLM"}},
                     .fixed = R"(
model: {norm: layer, positions: learned, causal: false, block: after_norm, embedding_norm: true, final_norm: false, head_bias: true}
attention: {type: gqa, bias: true, output_bias: true}
dense: {type: feed-forward, bias: true}
)",
                     .keys = {count_key("vocab_size", "vocabulary").absent("30522"),
                              count_key("hidden_size", "width").absent("768"),
                              count_key("num_hidden_layers", "layers").absent("12"),
                              count_key("num_attention_heads", "attention.heads").absent("12"),
                              count_key("intermediate_size", "dense.hidden").absent("3072"),
                              count_key("max_position_embeddings", "context").absent("512"),
                              count_key("type_vocab_size", "token_types").absent("2").from(0),
                              text_key("hidden_act", "dense.activation")
                                  .absent("gelu")
                                  .means({{"gelu", "gelu"}, {"gelu_new", "gelu-tanh"}, {"gelu_pytorch_tanh", "gelu-tanh"}, {"relu", "relu"}, {"silu", "silu"}, {"swish", "silu"}}),
                              number_key("layer_norm_eps", "norm_eps").absent("1e-12"),
                              flag_key("tie_word_embeddings", "tied_embeddings").absent("true"),
                              number_key("initializer_range", "init_deviation").absent("0.02")},
                     .names = switchyard::names(),
                     .ignored = {"bert.embeddings.position_ids"},
                     .rope_theta = "",
                     .arrange = arrange,
                     .describe = describe}) {}

  void names(NameMap& map, const ModelOptions& options, const HasTensor& has) const override {
    if (options.classes > 0) {  // behind the pooler
      for (const char* kind : {"weight", "bias"}) {
        map.rename(std::string("head.") + kind, std::string("classifier.") + kind);
        map.rename(std::string("head.transform.") + kind, std::string("bert.pooler.dense.") + kind);
      }
    } else {
      for (const char* kind : {"weight", "bias"})
        map.rename(std::string("head.transform.") + kind, std::string("cls.predictions.transform.dense.") + kind);
      // One bias under two names; and what a masked-language model does without.
      const bool moved = has && !has("cls.predictions.bias");
      map.rename("head.bias", moved ? "cls.predictions.decoder.bias" : "cls.predictions.bias");
      map.ignore("cls.predictions.decoder.bias");
      if (!map.declares("head.weight")) map.repeat("embedding.weight", "cls.predictions.decoder.weight", NameMap::NoCopy::warn);
      map.ignore_below("bert.pooler.");
      map.ignore_below("cls.seq_relationship.");
    }
    TableFamily::names(map, options, has);
  }

 private:
  static void arrange(const HubReader& config, const std::string&, Draft& draft) {
    for (const char* key : {"hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "gradient_checkpointing", "num_labels",
                            "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type", "directionality"})
      config.pass(key);
    config.only("position_embedding_type", {"absolute"});
    config.only("is_decoder", {"false"});
    config.only("add_cross_attention", {"false"});
    const Node* architectures = config.find("architectures");
    const std::string architecture = architectures && architectures->is_list() && !architectures->items().empty() ? architectures->items()[0].scalar() : "BertForMaskedLM";
    if (architecture == "BertForSequenceClassification") {
      draft.model["classes"] = hub_count(labels_of(config));
      draft.model["head_transform"] = Node("tanh");
      draft.model["tied_embeddings"] = hub_flag(false);
      return;
    }
    check(architecture == "BertForMaskedLM" || architecture == "BertForPreTraining", "model.config",
          "{}: the architecture is {}; BertForMaskedLM, BertForPreTraining and BertForSequenceClassification can be computed", config.config().mark().source, architecture);
    draft.model["head_transform"] = *draft.part("dense").find("activation");
    draft.model["head_norm"] = hub_flag(true);
  }
  static void describe(const Node& composition, const std::string&, Node& config) {
    if (const int64_t classes = integer_at(composition, "classes"); classes > 0) {
      config["architectures"].append(hub_text("BertForSequenceClassification"));
      write_labels(classes, config);
    }
    config["position_embedding_type"] = hub_text("absolute");
  }
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(bert) {
  using namespace switchyard;
  registry.add<Family, Bert, NoOptions>(
      {.slug = "bert", .name = "BERT", .paper = "Devlin et al., BERT", .year = 2019, .section = "4.4.1", .room = "models/families", .coupling = "none",
       .line = "an encoder of tokens with types that names hidden ones, or classes of sequences; a start for splitting into experts",
       .recipe = "recipes/methods/bert.yaml"});
}
