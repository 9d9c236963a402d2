// A safetensors folder whose weights are packed, seen as the model that it stands for: the parts of a weight (`X.qweight`,
// `X.scales`, ...; `X.weight` with `X.weight_scale_inv`; `X_blocks` with `X_scales`) become one tensor under its plain name.
#pragma once

#include <memory>

#include "switchyard/base/node.h"
#include "switchyard/formats/safetensors.h"
#include "switchyard/formats/weight_source.h"

namespace switchyard {

class QuantisedWeights : public WeightSource {
 public:
  /// config: the "quantization_config" of config.json (quant_method fp8, fbgemm_fp8, compressed-tensors with floats, mxfp4, gptq or
  /// awq), or null; packed weights are also known by their parts. Throws formats.quantised.method for a method that is not read,
  /// .config for a value that makes no sense, .missing when a part is absent, .shape and .dtype when parts do not fit together.
  QuantisedWeights(Safetensors file, const Node& config);
  ~QuantisedWeights() override;

  /// Whether anything is packed.
  bool any() const;
  const std::vector<TensorInfo>& tensors() const override;
  bool has(std::string_view name) const override;
  at::Tensor get(std::string_view name) const override;
  std::shared_ptr<const PackedTensor> packed(std::string_view name) const override;

 private:
  struct Data;
  std::unique_ptr<Data> data_;
};

/// What a path holds: a GGUF file or split set, or a folder with one; a safetensors file; a folder with safetensors and, when its
/// config.json or quantize_config.json says how they are packed, with that undone. This is what a loader calls.
std::unique_ptr<WeightSource> open_weights(const std::filesystem::path& file_or_folder);

}  // namespace switchyard
