// safetensors: a JSON header and raw tensors. Reading is lazy over a memory map, so opening a large
// folder reads headers only. Format: https://github.com/huggingface/safetensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace switchyard {

/// What a file says of one tensor, without reading it.
struct TensorInfo {
  std::string name;
  std::string dtype;            ///< as the file spells it: "F32", "BF16", "F8_E4M3", ...
  std::vector<int64_t> shape;
  uint64_t bytes = 0;
};

/// The tensors of one file, or of a folder with model.safetensors or model.safetensors.index.json.
/// Tensors are views of a private map and stay valid while any of them lives; writing to one touches
/// only this process's copy of the page. Throws formats.safetensors.* naming file and tensor.
class Safetensors {
 public:
  explicit Safetensors(const std::filesystem::path& file_or_folder);
  ~Safetensors();
  Safetensors(Safetensors&&) noexcept;
  Safetensors& operator=(Safetensors&&) noexcept;

  const std::vector<TensorInfo>& tensors() const;  ///< in the order of the files
  bool has(std::string_view name) const;
  /// Throws formats.safetensors.missing with the nearest name.
  at::Tensor get(std::string_view name) const;
  const std::map<std::string, std::string>& metadata() const;

 private:
  struct Data;
  std::unique_ptr<Data> data_;
};

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

/// Writes one file atomically; tensors in the given order, wide elements before narrow ones (so that each lies aligned), made
/// contiguous one at a time. Throws formats.safetensors.write for a name twice, a dtype without a place in the format, text
/// that is not UTF-8; file.write.
void write_safetensors(const std::filesystem::path& file, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata = {});
/// Writes model.safetensors, or shards of at most `shard_bytes` with an index, into `folder` (which the
/// caller makes atomic: base/files.h).
void write_safetensors_folder(const std::filesystem::path& folder, const NamedTensors& tensors,
                              uint64_t shard_bytes = uint64_t{5} << 30);

}  // namespace switchyard
