// A dense linear map as libtorch computes it, and by the grouped product where that is faster: bf16 on processors without AVX-512, which
// libtorch multiplies value by value, a hundred times slower than float32; few rows; and on such processors of AMD many rows of float32.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <optional>

namespace switchyard::kernels {

/// y = x W^T + b: x [..., I], weight [O, I], bias [O] or undefined; types and gradients as at::linear's, autocast included.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {});

/// For other products with x: where libtorch's would be so slow, operands become float32, autocast is off while this lives, and
/// results get the type that libtorch's would have.
class FastProducts {
 public:
  explicit FastProducts(const at::Tensor& x);
  at::Tensor operator()(const at::Tensor& operand) const;
  at::Tensor result(const at::Tensor& y) const;

 private:
  std::optional<at::ScalarType> type_;  ///< of results; none: nothing is done
  std::optional<c10::impl::ExcludeDispatchKeyGuard> no_autocast_;
};

}  // namespace switchyard::kernels
