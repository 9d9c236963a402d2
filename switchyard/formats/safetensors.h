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

#include "switchyard/formats/weight_source.h"

namespace switchyard {

/// The tensors of one file, or of a folder with model.safetensors or model.safetensors.index.json.
/// Tensors are views of a private map and stay valid while any of them lives; writing to one touches
/// only this process's copy of the page. Throws formats.safetensors.* naming file and tensor.
class Safetensors : public WeightSource {
 public:
  explicit Safetensors(const std::filesystem::path& file_or_folder);
  ~Safetensors() override;
  Safetensors(Safetensors&&) noexcept;
  Safetensors& operator=(Safetensors&&) noexcept;

  const std::vector<TensorInfo>& tensors() const override;
  bool has(std::string_view name) const override;
  /// In the file's own dtype, eight-bit floats and packed integers too; F4 two to an element. Where libtorch has no such tensor (F6_E2M3,
  /// F6_E3M2, F4 with an odd last extent): the bytes as they lie, [bytes] uint8. Throws formats.safetensors.missing with the nearest name.
  at::Tensor get(std::string_view name) const override;
  /// Null: what belongs together in a quantised folder is known to formats/quantised.h.
  std::shared_ptr<const PackedTensor> packed(std::string_view name) const override;
  const std::map<std::string, std::string>& metadata() const;

 private:
  struct Data;
  std::unique_ptr<Data> data_;
};

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

/// Writes one file atomically; tensors in the given order, wide elements before narrow ones (so that each lies aligned), made
/// contiguous one at a time. `raw`: what tensors of bytes stand for, as tensors() said when they were read. Throws
/// formats.safetensors.write for a name twice, a dtype without a place in the format, another number of bytes than `raw` needs, text
/// that is not UTF-8; file.write.
void write_safetensors(const std::filesystem::path& file, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata = {}, const std::vector<TensorInfo>& raw = {});
/// Writes model.safetensors, or shards of at most `shard_bytes` with an index, into `folder` (which the
/// caller makes atomic: base/files.h); `metadata` in each file.
void write_safetensors_folder(const std::filesystem::path& folder, const NamedTensors& tensors,
                              uint64_t shard_bytes = uint64_t{5} << 30, const std::map<std::string, std::string>& metadata = {},
                              const std::vector<TensorInfo>& raw = {});

}  // namespace switchyard
