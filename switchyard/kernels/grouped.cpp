#include "switchyard/kernels/autograd.h"
#include "switchyard/kernels/reference/reference.h"

namespace switchyard::kernels {

at::Tensor grouped_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& offset,
                          const at::Tensor& bias, WeightLayout layout) {
  return reference::grouped_linear(x, weight, offset, bias, layout);
}
at::Tensor grouped_ffn(const at::Tensor& x, const at::Tensor& offset, const at::Tensor& row, const at::Tensor& weight,
                       const FeedForwardWeights& weights, const FeedForwardOptions& options) {
  return reference::grouped_ffn(x, offset, row, weight, weights, options);
}

}  // namespace switchyard::kernels
