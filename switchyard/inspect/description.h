// What a path holds, told from headers alone: a model folder, one of its files, a GGUF, an adapter, a tokenizer or a run of
// ours. No weights are read, so a folder of 100 GB is described at once, of known families and unknown ones alike.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "switchyard/formats/weight_source.h"

namespace switchyard {

/// Bytes to run a model whose matrices are stored in one format; what has one axis stays float32.
struct MemoryNeed {
  std::string format;            ///< "as stored", "BF16", "Q4_K"
  double bits = 0;               ///< a weight of a matrix; 0 = as stored
  uint64_t weights = 0;          ///< bytes
  uint64_t with_context = 0;     ///< with keys and values (16 bits each) of one sequence of the whole context; 0 = unknown
};

struct DtypeShare {
  int64_t tensors = 0, parameters = 0;
  uint64_t bytes = 0;
};

struct FileSummary {
  std::string kind;                         ///< "model folder", "safetensors file", "GGUF file", "adapter", "tokenizer", "chat template", "run"
  std::filesystem::path path;               ///< of what is described: of a run, its newest checkpoint
  std::string family;                       ///< model_type or architecture; empty = unknown
  bool family_known = false;                ///< does this version load it?
  std::vector<TensorInfo> tensors;
  int64_t parameters = 0;
  std::optional<int64_t> active;            ///< that take part for one token; none when the files do not say
  std::map<std::string, DtypeShare> dtypes;
  uint64_t bytes = 0;                       ///< of the weights' files
  int64_t files = 0;
  std::string quantisation;                 ///< "gptq, 4 bits, groups of 128"; empty = none
  // Zero where the files do not say.
  int64_t layers = 0, moe_layers = 0, experts = 0, experts_per_token = 0, shared_experts = 0;
  int64_t width = 0, heads = 0, key_value_heads = 0, vocabulary = 0, context = 0;
  bool has_tokenizer = false, has_chat_template = false;
  std::vector<MemoryNeed> memory;
  /// What else there is to say, by name, in order: an adapter's rank, a run's step, a tokenizer's kind.
  std::vector<std::pair<std::string, std::string>> more;
};

/// Throws show.missing, show.unknown, show.config, and what the readers of the formats throw.
FileSummary describe(const std::filesystem::path& path);

}  // namespace switchyard
