#include "switchyard/kernels/packed_weight.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include "switchyard/base/error.h"
#include "switchyard/kernels/grouped_packed.h"

namespace switchyard::kernels {

at::Tensor PackedParameter::linear(const at::Tensor& x, const at::Tensor& bias) const {
  check(shape().size() == 2 && x.dim() >= 1 && x.size(-1) == shape()[1], "kernels.shape",
        "a packed matrix [{}, {}] cannot multiply rows of width {}", shape().front(), shape().back(), x.dim() > 0 ? x.size(-1) : 0);
  const at::Tensor rows = x.reshape({-1, shape()[1]});
  const int64_t range[2] = {0, rows.size(0)};
  const at::Tensor offset = at::tensor(at::ArrayRef<int64_t>(range, 2), at::kLong);
  std::vector<int64_t> result = x.sizes().vec();
  result.back() = shape()[0];
  return grouped_linear_packed(rows, tensor_, offset, bias.defined() ? bias.unsqueeze(0) : bias).reshape(result);
}

at::Tensor PackedParameter::rows(const at::Tensor& ids) const {
  at::NoGradGuard guard;
  const at::Tensor flat = ids.to(at::kCPU, at::kLong).contiguous();
  const int64_t* id = flat.const_data_ptr<int64_t>();
  std::vector<int64_t> result = ids.sizes().vec();
  result.insert(result.end(), shape().begin() + 1, shape().end());
  at::Tensor found = at::empty(result, type_);
  const at::Tensor list = found.view({flat.numel(), -1});
  for (int64_t i = 0; i < flat.numel(); ++i) {
    check(id[i] >= 0 && id[i] < shape()[0], "kernels.row_range", "row {} is asked of a table of {}", id[i], shape()[0]);
    list.select(0, i).copy_(tensor_->dequantise(id[i], 1, type_).view({-1}));
  }
  return found;
}

void round_rows(const Schema& schema) {
  for (const Parameter& parameter : schema.all())
    if (const std::shared_ptr<const PackedTensor> tensor = packed_tensor_of(parameter.packed())) tensor->round_rows();
}

std::shared_ptr<const PackedTensor> packed_tensor_of(const std::shared_ptr<const PackedWeight>& weight) {
  const auto parameter = std::dynamic_pointer_cast<const PackedParameter>(weight);
  return parameter ? parameter->tensor() : nullptr;
}

}  // namespace switchyard::kernels
