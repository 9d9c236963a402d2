// One architecture of the container beside the families that it stands for: which tensor of a file is which tensor of the hub's folder,
// and which key of the metadata is which of config.json. Read in both directions (hub_view.h, file_view.h); adding one is a file here
// and a line in architecture.cpp.
//
// What the container changes: experts lie stacked; rows of q and k of some architectures are permuted for another rotary layout;
// multi-head latent attention has its key and value maps apart, keys transposed; what the hub has in one tensor may lie apart.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "switchyard/base/node.h"

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
    transposed,       ///< the last two axes
    convolution,      ///< [C, K], at the hub [C, 1, K]
    column,           ///< [H, 1], at the hub [H]
    groups,           ///< [G, D / G], at the hub [D]; G is the config's mamba_n_groups
  };
  /// What the file holds of a number x of the hub's; in float32, whatever the hub's type.
  enum class Value { same, decay /* -exp(x) */, above_one /* x + 1 */ };
  std::string theirs, hub;
  Move move = Move::same;
  Value value = Value::same;
};

/// Layers one behind another: what both sides put before their names, and the config's key that counts them; empty: all of the model's.
struct Layers {
  std::string theirs, hub, count = {};
};

struct Architecture {
  std::string name;                      ///< general.architecture
  std::vector<std::string> model_types;  ///< of config.json; the first is what a file of the architecture is read as
  std::string layer = "model.layers.{i}.";  ///< what the hub puts before the names of a layer
  std::string prefix = {};               ///< what it puts before all names
  std::vector<Layers> stacks = {};       ///< of a model with several; else one, "blk.{i}." and `layer`
  std::string wrapper = {};              ///< the map of config.json that holds the keys, or none
  std::string router = "mlp.gate", experts = "mlp.experts.{e}.", gate = "gate_proj", up = "up_proj", down = "down_proj";
  std::string shared = "mlp.shared_expert.";
  bool permuted = false;                 ///< rows of q and k
  bool recurrent = false;                ///< a layer without heads of keys and values has a running state instead of attention
  std::vector<Rule> rules = {};          ///< of its layers, before those that all share; the first that fits is written
  std::vector<Rule> outer = {};          ///< of tensors outside layers, before those that all share
  /// What llama.cpp's code of the architecture does whatever the metadata says, where a config says otherwise: for notices.
  struct LlamaCpp {
    bool windows = false;       ///< it has them
    bool dense_layers = false;  ///< it reads layers without experts before those that have some
    bool own_head = false;      ///< the embedding is no head
    enum class Weights { plain, renormalised, as_said } weights = Weights::plain;  ///< of a token's experts
  } llama_cpp = {};
  bool (*takes)(const Node& config) = nullptr;  ///< which configs of its model types; none: all
  void (*config)(HubConfig&);            ///< from a file: the config beyond put_common
  void (*keys)(FileKeys&);               ///< into a file: the metadata beyond the common keys
  /// What rules cannot say, before they are applied to a layer.
  void (*from_file)(HubTensors&, const std::string& prefix, const std::string& hub) = nullptr;
  void (*to_file)(FileTensors&, const std::string& prefix, const std::string& hub) = nullptr;
  void (*outer_to_file)(FileTensors&) = nullptr;  ///< the same for tensors outside layers
  std::vector<std::string> said = {};             ///< tensors of a file that its config says
};
const std::vector<Architecture>& architectures();
/// Null when it is not known. model_type: which of several of that name, the first where it is of none.
const Architecture* architecture_named(std::string_view name, std::string_view model_type = {});
const Architecture* architecture_of(std::string_view model_type);
/// Of a config in its family's own spelling, out of its wrapper.
const Architecture* architecture_for(const Node& config);

/// The model's stacks.
std::vector<Layers> stacks_of(const Architecture& architecture);
/// Of tensors in each layer. Two rules may stand for one tensor of the hub: names of other times, which are read and not written.
std::vector<Rule> layer_rules(const Architecture& architecture);
/// Of tensors outside layers.
std::vector<Rule> outer_rules(const Architecture& architecture);

/// What a file holds of float32 numbers of the hub's, and the hub's number that is nearest to such.
at::Tensor changed(const at::Tensor& hub, Rule::Value value);
at::Tensor restored(const at::Tensor& file, Rule::Value value);

/// The text with its first `what` replaced by a number.
std::string numbered(std::string text, std::string_view what, int64_t number);

/// Metadata: model_type of config.json, where the architecture stands for several that its keys do not tell apart.
inline constexpr char kModelType[] = "switchyard.model_type";
/// Metadata that lists tensors which a file holds in float32 because its readers need that, though they were narrower: read back
/// they are what they were. "switchyard.stored_as.BF16"
inline constexpr char kStoredAs[] = "switchyard.stored_as.";
/// Metadata: numbers of a tensor that its float32 there does not give back, as pairs of an index and the number's bits as a float32.
/// "switchyard.restored.blk.0.ssm_a"
inline constexpr char kRestored[] = "switchyard.restored.";
/// Metadata: false when the range of YaRN is not rounded to whole dimensions, which the container has no key for.
inline constexpr char kYarnTruncate[] = "switchyard.rope.yarn_truncate";
/// Metadata: low and high factor and original length of Llama 3's scaling, of which the container has only the result.
inline constexpr char kLlama3[] = "switchyard.rope.llama3";
/// Metadata: a number of the config that is no float32, before the key that has it as one.
inline constexpr char kExact[] = "switchyard.exact.";
/// Metadata: rope_theta and rope_scaling as the config has them, as JSON, where the container has only what comes of them.
inline constexpr char kRotary[] = "switchyard.rope.config";

// One function a file of this folder.
std::vector<Architecture> llama_architectures();
std::vector<Architecture> qwen_architectures();
std::vector<Architecture> deepseek_architectures();
std::vector<Architecture> gpt_oss_architectures();
std::vector<Architecture> granite_architectures();
std::vector<Architecture> hybrid_architectures();
std::vector<Architecture> llama4_architectures();
std::vector<Architecture> arctic_architectures();
std::vector<Architecture> t5_architectures();
std::vector<Architecture> sigmoid_architectures();
std::vector<Architecture> ernie_architectures();
std::vector<Architecture> hunyuan_architectures();
std::vector<Architecture> phimoe_architectures();
std::vector<Architecture> dbrx_architectures();
std::vector<Architecture> gpt2_architectures();
std::vector<Architecture> bert_architectures();
std::vector<Architecture> grok_architectures();

/// Of layers with a running state: convolution and output, which the hub has below `hub`.
std::vector<Rule> state_rules(const std::string& hub);

}  // namespace switchyard::gguf
