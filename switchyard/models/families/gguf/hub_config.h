// config.json written from a file's metadata.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "switchyard/base/error.h"
#include "switchyard/base/node.h"
#include "switchyard/formats/gguf_metadata.h"
#include "switchyard/formats/weight_source.h"

namespace switchyard::gguf {

/// The shortest decimal that is this number again, as it stood in the config: 1e-05, and 1.0 where the number is whole. Of a float32
/// the shortest that is the same float32.
Node decimal(double value);

/// Writes keys of a config.json from keys of the metadata, which all begin with the architecture.
class HubConfig {
 public:
  static constexpr const char* kKeyHeads = "attention.head_count_kv";
  /// recurrent: see Architecture.
  HubConfig(const GgufMetadata& metadata, const WeightSource& file, const std::string& architecture, bool recurrent)
      : file_(file), metadata_(metadata), prefix_(architecture + "."), recurrent_(recurrent) {
    node_ = Node::map();
    node_.set_mark({metadata_.source(), 0});
  }
  bool has(const std::string& key) const {
    asked_.insert(key);
    return metadata_.has(prefix_ + key);
  }
  int64_t integer(const std::string& key) const {
    asked_.insert(key);
    const GgufValue* value = metadata_.find(prefix_ + key);
    if (value == nullptr || value->type != GgufType::array) return metadata_.integer(prefix_ + key);
    // One number a layer.
    std::vector<int64_t> each = metadata_.integers(prefix_ + key);
    if (recurrent_ && key == kKeyHeads) std::erase(each, 0);
    if (recurrent_ && key == kKeyHeads && each.empty()) return 0;
    check(!each.empty() && std::all_of(each.begin(), each.end(), [&](int64_t n) { return n == each[0]; }), "model.gguf",
          "{}: {}{} differs between layers, which is not read for this architecture", metadata_.source(), prefix_, key);
    return each[0];
  }
  int64_t integer(const std::string& key, int64_t otherwise) const { return has(key) ? integer(key) : otherwise; }
  double number(const std::string& key, double otherwise) const;
  bool flag(const std::string& key, bool otherwise) const { return has(key) ? metadata_.flag(prefix_ + key) : otherwise; }
  std::string text(const std::string& key) const { return has(key) ? metadata_.text(prefix_ + key) : ""; }
  int64_t layers() const { return integer("block_count") - integer("nextn_predict_layers", 0); }
  /// Width of an attention head, and how much of it turns.
  int64_t head_width() const { return integer("attention.key_length", integer("embedding_length") / std::max<int64_t>(1, integer("attention.head_count"))); }
  int64_t turning() const { return integer("rope.dimension_count", head_width()); }
  double turning_share() const { return static_cast<double>(turning()) / static_cast<double>(std::max<int64_t>(1, head_width())); }
  /// Whether a layer has keys and values; all have them where the file does not count them by layer.
  bool attends(int64_t layer) const;
  /// Refuses keys that act on what is computed and were not asked for.
  void finish() const;
  /// One truth value a layer, or nothing.
  std::vector<int64_t> pattern(const std::string& key) const {
    if (!has(key)) return {};
    const std::vector<int64_t> each = metadata_.flags(prefix_ + key);
    check(static_cast<int64_t>(each.size()) >= layers(), "model.gguf", "{}: {}{} lists {} layers of {}", metadata_.source(), prefix_, key,
          each.size(), layers());
    return each;
  }

  void put(const std::string& key, Node value) { node_[key] = std::move(value); }
  void put(const std::string& key, int64_t value) { put(key, Node(std::to_string(value))); }
  void put_text(const std::string& key, const std::string& value) { put(key, quoted(value)); }
  void put_flag(const std::string& key, bool value) { put(key, Node(value ? "true" : "false")); }
  void put_number(const std::string& key, double value) { put(key, decimal(value)); }
  void copy(const std::string& key, const std::string& theirs) { put(key, integer(theirs)); }
  void drop(std::string_view key) {
    std::erase_if(node_.entries(), [&](const auto& entry) { return entry.first == key; });
  }
  /// Leaves what every config has, for one that spells its sizes in its own words.
  void keep_vocabulary() {
    static constexpr std::array kept{"vocab_size", "torch_dtype", "tie_word_embeddings", "bos_token_id", "pad_token_id", "eos_token_id"};
    std::erase_if(node_.entries(), [](const auto& entry) { return std::find(kept.begin(), kept.end(), entry.first) == kept.end(); });
  }
  /// Refuses metadata that says something else than what is computed.
  void only(const std::string& key, double value) const {
    check(number(key, value) == value, "model.gguf", "{}: {}{} is {}; only {} can be computed", metadata_.source(), prefix_, key, number(key, value), value);
  }

  static Node quoted(const std::string& value) {
    Node node(value);
    node.set_quoted(true);
    return node;
  }
  const WeightSource& file() const { return file_; }
  const GgufMetadata& metadata() const { return metadata_; }
  Node& node() { return node_; }
  /// The config as a file has it, all but model_type inside the map of that name; empty: none.
  Node wrapped(const std::string& wrapper) const;

 private:
  const WeightSource& file_;
  const GgufMetadata& metadata_;
  std::string prefix_;
  bool recurrent_;
  mutable std::set<std::string> asked_;
  Node node_;
};

/// What most architectures share: sizes, heads, norms, rotary positions, the vocabulary's special ids.
void put_common(HubConfig& config);
/// Rotary settings as they were in the config, where files written here have them beside what comes of them. Throws model.gguf
/// when `agrees` finds that the file computes something else.
void put_said_rotary(HubConfig& config, const std::function<bool(const Node& said)>& agrees);
/// Experts by a softmax, as Qwen and OLMoE have them.
void put_softmax_experts(HubConfig& config, const char* type, bool renormalised);
/// Fine experts with shared ones beside them behind dense layers, as DeepSeek has them.
void put_fine_experts(HubConfig& config);
/// Layers without a mixture among those with one, which the hub lists; the container tells by its tensors alone.
void put_dense_layers(HubConfig& config);
/// Windows that not all layers have, where the hub lists them.
void put_windows(HubConfig& config);

}  // namespace switchyard::gguf
