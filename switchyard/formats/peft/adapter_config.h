// adapter_config.json as the peft library writes it: which modules of a model an adapter acts on, and with what numbers.
// LoRA (with rsLoRA, DoRA, patterns), (IA)^3 and X-LoRA; what changes the mathematics and is not supported is refused by name.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "switchyard/base/node.h"

namespace switchyard::peft {

enum class Kind { lora, ia3, xlora };
const char* to_string(Kind kind);  ///< as "peft_type" spells it

/// A list of names (a module is meant when its name is one of them or ends in "." and one of them), or one pattern that must
/// match the whole name.
struct ModuleRule {
  std::vector<std::string> names;
  std::optional<std::string> pattern;
  bool empty() const { return names.empty() && !pattern; }
};

struct XLoraSettings {
  int64_t hidden_size = 4096, depth = 1, size = 2048;
  bool softmax = true, softmax_topk = false, layerwise = false;
  double temperature = 1, pass_value = 0, global_weight = 1;
  std::optional<int64_t> top_k;
  std::vector<std::pair<std::string, std::string>> adapters;  ///< name, where it was when it was made
};

struct AdapterConfig {
  Kind kind = Kind::lora;
  Node document = Node::map();  ///< all keys as they stood; written back with the changes of `update`

  ModuleRule target, exclude, feedforward;
  bool all_linear = false;      ///< target_modules "all-linear": every linear map but the output head
  bool targets_given = false;   ///< target_modules is not null
  std::vector<std::string> target_parameters, modules_to_save;
  /// trainable_token_indices: rows of a table, by the module's name; "" = of the input embeddings.
  std::vector<std::pair<std::string, std::vector<int64_t>>> token_indices;
  std::vector<int64_t> layers;  ///< layers_to_transform; empty = all
  std::vector<std::string> layers_pattern;

  int64_t rank = 8;
  double alpha = 8;
  std::vector<std::pair<std::string, int64_t>> rank_pattern;
  std::vector<std::pair<std::string, double>> alpha_pattern;
  bool rank_stabilised = false, dora = false, bias_on_b = false;
  std::string bias = "none";    ///< none, all, lora_only: which of the model's biases come with the adapter
  std::string init = "true";    ///< init_lora_weights; "pissa" and "olora" take their start out of the base
  XLoraSettings xlora;
};

/// Reads `folder`/adapter_config.json. Throws formats.peft.folder, formats.peft.config (a value of the wrong kind or range, with
/// file and key), formats.peft.kind, formats.peft.option (an option whose mathematics is not supported), formats.peft.pattern;
/// json.*.
AdapterConfig read_adapter_config(const std::filesystem::path& folder);
AdapterConfig parse_adapter_config(const Node& document);

/// A LoRA config's document with other numbers: what mixing writes. Patterns are emptied.
void update(AdapterConfig& config, int64_t rank, double alpha, const ModuleRule& target);
/// As peft writes it: two blanks a level, keys in order.
std::string to_text(const AdapterConfig& config);

/// Which modules a config means.
class ModuleMatcher {
 public:
  explicit ModuleMatcher(const AdapterConfig& config);
  ~ModuleMatcher();
  ModuleMatcher(ModuleMatcher&&) noexcept;
  ModuleMatcher& operator=(ModuleMatcher&&) noexcept;

  /// module: its name in the model, "model.layers.0.self_attn.q_proj". head: it is the output head.
  bool targets(std::string_view module, bool head = false) const;
  /// parameter: "model.layers.0.mlp.experts.gate_up_proj".
  bool targets_parameter(std::string_view parameter) const;
  bool saves(std::string_view module) const;
  bool is_feedforward(std::string_view module) const;
  int64_t rank(std::string_view name) const;
  /// alpha / r, or alpha / sqrt(r).
  double scale(std::string_view name, int64_t rank) const;

 private:
  struct Rules;
  std::unique_ptr<Rules> rules_;
};

}  // namespace switchyard::peft
