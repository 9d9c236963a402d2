// A GGUF file with its weights packed in fewer bits. Everything else (metadata, vocabulary, norms, biases, routers) stays as it is.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "switchyard/formats/gguf_metadata.h"
#include "switchyard/formats/weight_source.h"

namespace switchyard {

struct QuantiseOptions {
  std::string type = "Q4_K";  ///< of weight matrices; any block format that can be written, or F16, BF16, F32
  /// Other types for some: by role (embedding, head, router, attention, experts, shared, dense) or by a tensor's name. A name
  /// counts before a role, and both before `type`. Routers keep their type unless named here.
  std::vector<std::pair<std::string, std::string>> keep;
  uint64_t shard_bytes = 0;   ///< largest file, 0 = one file
  std::function<void(const std::string& tensor, int64_t done, int64_t of)> progress = nullptr;
};

struct QuantiseReport {
  std::vector<std::filesystem::path> files;
  uint64_t bytes_before = 0, bytes_after = 0;  ///< of tensors
  int64_t packed = 0;                          ///< tensors that were packed
  int64_t packed_again = 0;                    ///< of these, those that came packed in another format, and lost twice
  std::vector<std::string> fallbacks;          ///< "NAME: Q8_0": their rows are no whole number of blocks of the type
};

/// Reads `in` (GGUF, any file of a set), writes `out`; tensors are packed one at a time. Throws convert.quantise.type,
/// convert.quantise.keep, convert.quantise.exists, convert.quantise.input for a folder, formats.gguf.*.
QuantiseReport quantise_gguf(const std::filesystem::path& in, const std::filesystem::path& out, const QuantiseOptions& options);

/// The same of tensors under the container's names that are in no file yet; an empty options.type leaves all as they are but
/// those in options.keep.
QuantiseReport write_quantised(GgufMetadata metadata, const std::shared_ptr<const WeightSource>& source, const std::filesystem::path& out,
                               const QuantiseOptions& options);

/// "router=f32,experts=Q4_K" as QuantiseOptions::keep; throws convert.quantise.keep.
std::vector<std::pair<std::string, std::string>> parse_keep(const std::string& text);

}  // namespace switchyard
