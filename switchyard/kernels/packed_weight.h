// A packed tensor (packed_tensor.h) as a model's parameter: matrices multiply as they lie, tables give the rows that are asked
// of them, and stacks of experts are taken by the fused kernels. What a file of 4 bits a weight needs in memory is its size.
#pragma once

#include "switchyard/contract/parameters.h"
#include "switchyard/kernels/packed_tensor.h"

namespace switchyard::kernels {

class PackedParameter : public PackedWeight {
 public:
  /// type: of the rows of a table, and of the whole when it is unpacked.
  PackedParameter(std::shared_ptr<const PackedTensor> tensor, at::ScalarType type) : tensor_(std::move(tensor)), type_(type) {}

  const std::shared_ptr<const PackedTensor>& tensor() const { return tensor_; }
  const std::vector<int64_t>& shape() const override { return tensor_->shape(); }
  at::ScalarType type() const override { return type_; }
  at::Tensor unpack() const override { return tensor_->dequantise(type_); }
  /// Throws kernels.shape unless the weight is a matrix whose width is that of x.
  at::Tensor linear(const at::Tensor& x, const at::Tensor& bias) const override;
  /// Throws kernels.row_range when an id is not one of the table's rows.
  at::Tensor rows(const at::Tensor& ids) const override;

 private:
  std::shared_ptr<const PackedTensor> tensor_;
  at::ScalarType type_;
};

/// Lets products round the rows that meet the packed weights of a model: float32 rows become int8 before GGUF's blocks and MXFP4, 64 values a
/// scale, which is what llama.cpp computes with.
void round_rows(const Schema& schema);

/// The packed tensor inside a parameter's packed weight; null for none, and for one that is not of this class.
std::shared_ptr<const PackedTensor> packed_tensor_of(const std::shared_ptr<const PackedWeight>& weight);

}  // namespace switchyard::kernels
