// Where weights come from, whatever the files: names with shapes, each to be had as a plain tensor or as it lies packed. Loading
// a model needs nothing else, so one table of names serves safetensors, quantised safetensors and GGUF.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "switchyard/kernels/packed_tensor.h"

namespace switchyard {

/// What a file says of one tensor, without reading it.
struct TensorInfo {
  std::string name;
  std::string dtype;            ///< as the file spells it: "F32", "BF16", "F8_E4M3", "Q4_K", ...
  std::vector<int64_t> shape;   ///< as a model sees it
  uint64_t bytes = 0;           ///< in the file
};

class WeightSource {
 public:
  virtual ~WeightSource() = default;
  virtual const std::vector<TensorInfo>& tensors() const = 0;  ///< in the order of the files
  virtual bool has(std::string_view name) const = 0;
  /// A view of the file's map where the numbers lie as libtorch has them; float32 made from them where they are packed.
  /// Throws the format's code ending in .missing with the nearest name.
  virtual at::Tensor get(std::string_view name) const = 0;
  /// The tensor as it lies, when it is packed; null when it is plain. Throws like get.
  virtual std::shared_ptr<const PackedTensor> packed(std::string_view name) const = 0;
};

}  // namespace switchyard
