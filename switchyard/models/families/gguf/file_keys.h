// A file's metadata written from config.json.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "switchyard/base/error.h"
#include "switchyard/base/node.h"
#include "switchyard/formats/gguf_metadata.h"
#include "switchyard/models/families/hub_keys.h"

namespace switchyard::gguf {

/// Writes the keys of an architecture from those of a config in its family's own words.
class FileKeys {
 public:
  /// composition: what the config means, as a recipe (composition.h).
  FileKeys(GgufMetadata& metadata, const Node& config, const Node& composition, std::string architecture, std::vector<std::string>& notices)
      : metadata_(metadata), config_(config), composition_(composition), notices_(notices), prefix_(std::move(architecture) + ".") {}

  void count(const std::string& key, int64_t value) {
    check(value >= 0 && value <= UINT32_MAX, "convert.gguf.option", "{}{} would be {}", prefix_, key, value);
    metadata_.set(prefix_ + key, GgufValue::u32(static_cast<uint32_t>(value)));
  }
  void number(const std::string& key, double value);
  void flag(const std::string& key, bool value) { metadata_.set(prefix_ + key, GgufValue::flag(value)); }
  void flags(const std::string& key, std::vector<uint64_t> values) { metadata_.set(prefix_ + key, GgufValue::flags(std::move(values))); }
  void counts(const std::string& key, std::vector<int64_t> values) { metadata_.set(prefix_ + key, GgufValue::ints(std::move(values))); }
  void text(const std::string& key, const std::string& value) { metadata_.set(prefix_ + key, GgufValue::text(value)); }
  /// From a key of the config; nothing when it is absent or null.
  void copy(const std::string& key, const std::string& hub) {
    if (present(hub)) count(key, integer_at(config_, hub));
  }
  void copy_number(const std::string& key, const std::string& hub) {
    if (present(hub)) number(key, number_at(config_, hub));
  }

  bool present(const std::string& hub) const {
    const Node* node = find_at(config_, hub);
    return node != nullptr && !node->is_null();
  }
  int64_t integer(const std::string& hub, int64_t otherwise) const { return present(hub) ? integer_at(config_, hub) : otherwise; }
  /// What other readers of the container pass over.
  void notice(std::string text) { notices_.push_back(std::move(text)); }
  GgufMetadata& metadata() const { return metadata_; }
  const Node& config() const { return config_; }
  const Node& composition() const { return composition_; }

 private:
  GgufMetadata& metadata_;
  const Node& config_;
  const Node& composition_;
  std::vector<std::string>& notices_;
  std::string prefix_;
};

/// Width of an attention head.
int64_t head_width(const Node& config);
/// Sizes, heads, norms and rotary positions, with their keys' usual names at the hub.
void put_common(FileKeys& keys);
/// Heads of keys and values, their width, and how much of it turns.
void put_attention(FileKeys& keys);
/// Heads of keys and values of each layer, 0 where it has a running state instead of attention.
void put_key_heads(FileKeys& keys);
/// What llama.cpp wants of layers with a running state.
void note_state_limits(FileKeys& keys, int64_t expand, const char* architecture);
/// Rotary settings as the config has them, beside what other readers take.
void put_said_rotary(FileKeys& keys);
/// Experts by a softmax: how many, and the width where it is not the dense network's.
void put_experts(FileKeys& keys);
/// Fine experts with shared ones beside them behind dense layers, as DeepSeek has them.
void put_fine_experts(FileKeys& keys);
/// The window and, where not every layer has it, which do; alternate: the file's readers take every second one for granted.
void put_windows(FileKeys& keys, bool alternate = false);
/// The last three together.
void put_plain(FileKeys& keys);
/// What Llama 3's scaling divides a frequency by that turns so often within the original length.
double llama3_divisor(double turns, double factor, double low, double high);
/// Divisors of frequencies that stand for Llama 3's scaling.
at::Tensor frequency_divisors(const Node& config);

}  // namespace switchyard::gguf
