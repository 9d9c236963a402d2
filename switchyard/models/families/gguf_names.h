// Which tensor of a GGUF file is which tensor of the hub's folder: one table, read in both directions (gguf_hub.h, gguf_view.h).
//
// What the container changes: experts lie stacked; rows of q and k of the "llama" architecture are permuted for another rotary
// layout; multi-head latent attention has its key and value maps apart, keys transposed; gpt-oss's gate and up columns lie apart
// instead of alternating.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard::gguf {

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
  std::string name;                     ///< general.architecture
  std::vector<std::string> model_types; ///< of config.json; the first is what a file of the architecture is read as
  std::string router = "mlp.gate", experts = "mlp.experts.{e}.", gate = "gate_proj", up = "up_proj", down = "down_proj";
  std::string shared = "mlp.shared_expert.";
  bool permuted = false;     ///< rows of q and k
  bool alternating = false;  ///< gate and up columns of one tensor at the hub
};
const std::vector<Architecture>& architectures();
/// Null when it is not known.
const Architecture* architecture_named(std::string_view name);
const Architecture* architecture_of(std::string_view model_type);

/// Of tensors in each layer. Two rules may stand for one tensor of the hub: names of other times, which are read and not written.
std::vector<Rule> layer_rules(const Architecture& architecture);
/// {theirs, hub} of those outside layers.
const std::vector<Rule>& outer_rules();

/// The text with its first `what` replaced by a number.
std::string numbered(std::string text, std::string_view what, int64_t number);

/// Metadata that lists tensors which a file holds in float32 because its readers need that, though they were narrower: read back
/// they are what they were. "switchyard.stored_as.BF16"
inline constexpr char kStoredAs[] = "switchyard.stored_as.";
/// Metadata: false when the range of YaRN is not rounded to whole dimensions, which the container has no key for.
inline constexpr char kYarnTruncate[] = "switchyard.rope.yarn_truncate";
/// Metadata: low and high factor and original length of Llama 3's scaling, of which the container has only the result.
inline constexpr char kLlama3[] = "switchyard.rope.llama3";

}  // namespace switchyard::gguf
