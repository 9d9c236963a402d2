// One architecture of the container beside the families that it stands for: which tensor of a file is which tensor of the hub's folder,
// and which key of the metadata is which of config.json. Read in both directions (hub_view.h, file_view.h); adding one is a file here
// and a line in architecture.cpp.
//
// What the container changes: experts lie stacked; rows of q and k of some architectures are permuted for another rotary layout;
// multi-head latent attention has its key and value maps apart, keys transposed; what the hub has in one tensor may lie apart.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard::gguf {

class HubConfig;
class HubTensors;
class FileKeys;
class FileTensors;

/// How a tensor of one side is made from one of the other. Names are those within a layer, {e} an expert.
struct Rule {
  enum class Move {
    same,
    expert,           ///< one of a stack
    rows_of_queries,  ///< stored row 2 j + s of a head of d rows is row s d / 2 + j of the hub's
    rows_of_keys,
    row,              ///< [D] or [1, D], at the hub [1, D]
    transposed,       ///< the last two axes of a stack
  };
  std::string theirs, hub;
  Move move = Move::same;
};

struct Architecture {
  std::string name;                      ///< general.architecture
  std::vector<std::string> model_types;  ///< of config.json; the first is what a file of the architecture is read as
  std::string layer = "model.layers.{i}.";  ///< what the hub puts before the names of a layer
  std::string router = "mlp.gate", experts = "mlp.experts.{e}.", gate = "gate_proj", up = "up_proj", down = "down_proj";
  std::string shared = "mlp.shared_expert.";
  bool permuted = false;                 ///< rows of q and k
  std::vector<Rule> rules = {};          ///< of its layers, before those that all share; the first that fits is written
  std::vector<Rule> outer = {};          ///< of tensors outside layers, before those that all share
  void (*config)(HubConfig&);            ///< from a file: the config beyond put_common
  void (*keys)(FileKeys&);               ///< into a file: the metadata beyond the common keys
  /// What rules cannot say, before they are applied to a layer.
  void (*from_file)(HubTensors&, const std::string& prefix, const std::string& hub) = nullptr;
  void (*to_file)(FileTensors&, const std::string& prefix, const std::string& hub) = nullptr;
};
const std::vector<Architecture>& architectures();
/// Null when it is not known.
const Architecture* architecture_named(std::string_view name);
const Architecture* architecture_of(std::string_view model_type);

/// Of tensors in each layer. Two rules may stand for one tensor of the hub: names of other times, which are read and not written.
std::vector<Rule> layer_rules(const Architecture& architecture);
/// Of tensors outside layers.
std::vector<Rule> outer_rules(const Architecture& architecture);

/// The text with its first `what` replaced by a number.
std::string numbered(std::string text, std::string_view what, int64_t number);

/// Metadata that lists tensors which a file holds in float32 because its readers need that, though they were narrower: read back
/// they are what they were. "switchyard.stored_as.BF16"
inline constexpr char kStoredAs[] = "switchyard.stored_as.";
/// Metadata: false when the range of YaRN is not rounded to whole dimensions, which the container has no key for.
inline constexpr char kYarnTruncate[] = "switchyard.rope.yarn_truncate";
/// Metadata: low and high factor and original length of Llama 3's scaling, of which the container has only the result.
inline constexpr char kLlama3[] = "switchyard.rope.llama3";

// One function a file of this folder.
std::vector<Architecture> llama_architectures();
std::vector<Architecture> qwen_architectures();
std::vector<Architecture> deepseek_architectures();
std::vector<Architecture> gpt_oss_architectures();

}  // namespace switchyard::gguf
