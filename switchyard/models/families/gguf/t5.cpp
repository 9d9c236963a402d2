// T5 and T5 1.1: an encoder's and a decoder's layers under names of their own.
#include "switchyard/models/families/gguf/architecture.h"
#include "switchyard/models/families/gguf/file_keys.h"
#include "switchyard/models/families/gguf/file_tensors.h"
#include "switchyard/models/families/gguf/hub_config.h"
#include "switchyard/models/families/gguf/hub_tensors.h"
#include "switchyard/models/families/hub_keys.h"

namespace switchyard::gguf {
namespace {

/// Metadata: the distance that the last bucket begins with, where it is not 128, which the container's readers take for granted.
constexpr char kDistance[] = "switchyard.relative_max_distance";
/// Metadata: false where a head that is the embedding does not scale by the width's root, and true where another one does.
constexpr char kScaled[] = "switchyard.scale_decoder_outputs";
constexpr int64_t kUsualDistance = 128;

void t5_config(HubConfig& config) {
  const Node common = config.node();
  Node& own = config.node() = Node::map();
  own.set_mark(common.mark());
  for (const char* key : {"vocab_size", "torch_dtype", "tie_word_embeddings", "pad_token_id", "eos_token_id"})
    if (const Node* value = common.find(key)) own[key] = *value;
  config.put_text("model_type", "t5");
  config.put_flag("is_encoder_decoder", true);
  config.copy("d_model", "embedding_length");
  config.copy("d_ff", "feed_forward_length");
  config.copy("d_kv", "attention.key_length");
  config.copy("num_heads", "attention.head_count");
  config.copy("num_layers", "block_count");
  config.put("num_decoder_layers", config.integer("decoder_block_count", config.integer("block_count")));
  config.put("n_positions", config.integer("context_length", 512));
  config.copy("relative_attention_num_buckets", "attention.relative_buckets_count");
  config.put("relative_attention_max_distance", config.metadata().integer(kDistance, kUsualDistance));
  config.put_number("layer_norm_epsilon", config.number("attention.layer_norm_rms_epsilon", 1e-6));
  config.put("decoder_start_token_id", config.integer("decoder_start_token_id", 0));
  config.put_text("feed_forward_proj", config.file().has("enc.blk.0.ffn_gate.weight") ? "gated-gelu" : "relu");
  if (config.metadata().has(kScaled)) config.put_flag("scale_decoder_outputs", config.metadata().flag(kScaled));
}

void t5_keys(FileKeys& keys) {
  const Node& config = keys.config();
  for (const auto& [key, hub] : {std::pair{"embedding_length", "d_model"}, {"feed_forward_length", "d_ff"}, {"attention.key_length", "d_kv"}, {"attention.value_length", "d_kv"},
                                 {"attention.head_count", "num_heads"}, {"block_count", "num_layers"}, {"decoder_block_count", "num_decoder_layers"},
                                 {"attention.relative_buckets_count", "relative_attention_num_buckets"}, {"decoder_start_token_id", "decoder_start_token_id"}})
    keys.copy(key, hub);
  keys.count("context_length", keys.integer("n_positions", 512));
  for (const char* key : {"attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"}) keys.copy_number(key, "layer_norm_epsilon");
  if (const int64_t distance = keys.integer("relative_attention_max_distance", kUsualDistance); distance != kUsualDistance) {
    keys.metadata().set(kDistance, GgufValue::u32(static_cast<uint32_t>(distance)));
    keys.notice("llama.cpp takes relative_attention_max_distance of 't5' as 128");
  }
  const bool tied = flag_at(config, "tie_word_embeddings"), scaled = keys.present("scale_decoder_outputs") ? flag_at(config, "scale_decoder_outputs") : tied;
  if (scaled != tied) keys.metadata().set(kScaled, GgufValue::flag(scaled));
  if (scaled) keys.notice("llama.cpp does not divide the logits of 't5' by the root of d_model");
}

std::vector<Rule> rules_of(const std::string& prefix, bool gated) {
  const bool decodes = prefix.starts_with("dec.");
  std::vector<Rule> rules{{"attn_rel_b.weight", "0.SelfAttention.relative_attention_bias.weight"}};
  const auto attention = [&](const std::string& theirs, const std::string& place, const std::string& name) {
    for (const char* map : {"q", "k", "v", "o"}) rules.push_back({fmt::format("{}_{}.weight", theirs, map), fmt::format("{}.{}.{}.weight", place, name, map)});
    rules.push_back({theirs + "_norm.weight", place + ".layer_norm.weight"});
  };
  attention("attn", "0", "SelfAttention");
  if (decodes) attention("cross_attn", "1", "EncDecAttention");
  const std::string place = decodes ? "2." : "1.", dense = place + "DenseReluDense.";
  rules.push_back({"ffn_norm.weight", place + "layer_norm.weight"});
  rules.push_back({"ffn_gate.weight", dense + "wi_0.weight"});
  rules.push_back({"ffn_up.weight", dense + (gated ? "wi_1.weight" : "wi.weight")});
  rules.push_back({"ffn_down.weight", dense + "wo.weight"});
  return rules;
}

void layers_from_file(HubTensors& tensors, const std::string& prefix, const std::string& hub) {
  for (const Rule& rule : rules_of(prefix, tensors.theirs(prefix + "ffn_gate.weight") != nullptr)) tensors.add(prefix, hub, rule);
}

void layers_to_file(FileTensors& tensors, const std::string& prefix, const std::string& hub) {
  const bool gated = tensors.hub(hub + (prefix.starts_with("dec.") ? "2." : "1.") + "DenseReluDense.wi_0.weight") != nullptr;
  for (const Rule& rule : rules_of(prefix, gated)) tensors.add(prefix, hub, rule);
}

}  // namespace

std::vector<Architecture> t5_architectures() {
  return {{.name = "t5", .model_types = {"t5"},
           .stacks = {{"enc.blk.{i}.", "encoder.block.{i}.layer.", "num_layers"}, {"dec.blk.{i}.", "decoder.block.{i}.layer.", "num_decoder_layers"}},
           .outer = {{"token_embd.weight", "shared.weight"}, {"enc.output_norm.weight", "encoder.final_layer_norm.weight"},
                     {"dec.output_norm.weight", "decoder.final_layer_norm.weight"}},
           .config = t5_config, .keys = t5_keys, .from_file = layers_from_file, .to_file = layers_to_file}};
}

}  // namespace switchyard::gguf
