// BERT: norms behind each sum. The container has a head that names the class of a sequence, and none that names hidden tokens: that one
// keeps the hub's names, which other readers do not know.
#include "switchyard/base/error.h"
#include "switchyard/models/families/gguf/architecture.h"
#include "switchyard/models/families/gguf/file_keys.h"
#include "switchyard/models/families/gguf/hub_config.h"
#include "switchyard/models/families/hub_keys.h"

namespace switchyard::gguf {
namespace {

/// Metadata: the activation where it is not "gelu", which the container's readers take for granted.
constexpr char kActivation[] = "switchyard.hidden_act";
constexpr const char* kLabels = "classifier.output_labels";
constexpr const char* kTypes = "tokenizer.ggml.token_type_count";
constexpr uint32_t kRank = 4;  ///< pooling_type: the scores of the head for classes, of the first token
const std::string kHidden = "cls.predictions.";

std::vector<Rule> bert_rules() {
  std::vector<Rule> rules;
  for (const std::string end : {".weight", ".bias"})
    for (const auto& [theirs, hub] : {std::pair{"attn_q", "attention.self.query"}, {"attn_k", "attention.self.key"}, {"attn_v", "attention.self.value"},
                                      {"attn_output", "attention.output.dense"}, {"attn_output_norm", "attention.output.LayerNorm"}, {"ffn_up", "intermediate.dense"},
                                      {"ffn_down", "output.dense"}, {"layer_output_norm", "output.LayerNorm"}})
      rules.push_back({theirs + end, hub + end});
  return rules;
}

std::vector<Rule> bert_outer() {
  const std::string embeddings = "bert.embeddings.";
  std::vector<Rule> rules{{"token_embd.weight", embeddings + "word_embeddings.weight"}, {"position_embd.weight", embeddings + "position_embeddings.weight"},
                          {"token_types.weight", embeddings + "token_type_embeddings.weight"}};
  for (const std::string end : {".weight", ".bias"}) {
    rules.push_back({"token_embd_norm" + end, embeddings + "LayerNorm" + end});
    rules.push_back({"cls" + end, "bert.pooler.dense" + end});
    rules.push_back({"cls.output" + end, "classifier" + end});
    for (const std::string own : {"transform.dense", "transform.LayerNorm", "decoder"}) rules.push_back({kHidden + own + end, kHidden + own + end});
  }
  rules.push_back({kHidden + "bias", kHidden + "bias"});
  return rules;
}

void bert_config(HubConfig& config) {
  const WeightSource& file = config.file();
  const GgufMetadata& metadata = config.metadata();
  const bool classes = file.has("cls.output.weight");
  check(classes || file.has(kHidden + "transform.dense.weight"), "model.gguf",
        "{}: this 'bert' has no head, neither for classes (cls.output.weight) nor for hidden tokens; what it gives are embeddings alone", metadata.source());
  check(!config.flag("attention.causal", true), "model.gguf", "{}: bert.attention.causal is not false", metadata.source());
  config.only("attention.head_count_kv", static_cast<double>(config.integer("attention.head_count")));
  config.keep_vocabulary();
  config.put_text("model_type", "bert");
  for (const auto& [hub, key] : {std::pair{"hidden_size", "embedding_length"}, {"num_hidden_layers", "block_count"}, {"num_attention_heads", "attention.head_count"},
                                 {"intermediate_size", "feed_forward_length"}, {"max_position_embeddings", "context_length"}})
    config.copy(hub, key);
  config.put("type_vocab_size", file.has("token_types.weight") ? metadata.integer(kTypes) : 0);
  config.put_number("layer_norm_eps", config.number("attention.layer_norm_epsilon", 1e-12));
  config.put_text("hidden_act", metadata.text(kActivation, "gelu"));
  Node architectures = Node::list();
  architectures.append(HubConfig::quoted(classes ? "BertForSequenceClassification" : "BertForMaskedLM"));
  config.put("architectures", architectures);
  config.put_flag("tie_word_embeddings", classes || !file.has(kHidden + "decoder.weight"));
  if (!classes) return;
  const std::vector<std::string> said = config.has(kLabels) ? metadata.texts("bert." + std::string(kLabels)) : std::vector<std::string>{"LABEL_0"};
  constexpr size_t kMostLabels = 1 << 14;  // a map of them is searched for each
  check(said.size() <= kMostLabels, "model.gguf", "{}: bert.{} names {} classes; at most {} are read", metadata.source(), kLabels, said.size(), kMostLabels);
  Node labels = Node::map(), numbers = Node::map();
  for (size_t i = 0; i < said.size(); ++i) {
    labels[std::to_string(i)] = HubConfig::quoted(said[i]);
    numbers[said[i]] = Node(std::to_string(i));
  }
  config.put("id2label", labels);
  config.put("label2id", numbers);
}

void bert_keys(FileKeys& keys) {
  const Node& config = keys.config();
  keys.copy_number("attention.layer_norm_epsilon", "layer_norm_eps");
  keys.flag("attention.causal", false);
  keys.metadata().set(kTypes, GgufValue::u32(static_cast<uint32_t>(keys.integer("type_vocab_size", 2))));
  if (keys.integer("type_vocab_size", 2) == 0) keys.notice("llama.cpp wants token types of 'bert'");
  if (const std::string activation = text_at(config, "hidden_act"); activation != "gelu") {
    keys.metadata().set(kActivation, GgufValue::text(activation));
    if (activation != "gelu_new" && activation != "gelu_pytorch_tanh")
      keys.notice(fmt::format("llama.cpp takes the activation of 'bert' as GELU, whatever hidden_act says ({})", activation));
  }
  const int64_t classes = integer_at(keys.composition(), "classes");
  if (classes == 0) {
    keys.notice("llama.cpp has no head that names hidden tokens, and does not read 'bert' with one");
    return;
  }
  keys.count("pooling_type", kRank);
  std::vector<std::string> labels;
  const Node* given = find_at(config, "id2label");
  for (int64_t i = 0; i < classes; ++i) {
    const Node* label = given && given->is_map() ? given->find(std::to_string(i)) : nullptr;
    labels.push_back(label && label->is_scalar() ? label->scalar() : fmt::format("LABEL_{}", i));
  }
  keys.metadata().set("bert." + std::string(kLabels), GgufValue::texts(labels));
}

}  // namespace

std::vector<Architecture> bert_architectures() {
  return {{.name = "bert", .model_types = {"bert"}, .layer = "bert.encoder.layer.{i}.", .rules = bert_rules(), .outer = bert_outer(), .config = bert_config, .keys = bert_keys}};
}

}  // namespace switchyard::gguf
