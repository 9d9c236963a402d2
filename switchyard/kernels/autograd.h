// What the differentiable fronts of the kernels share. Internal to kernels/.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <functional>
#include <vector>

#include "switchyard/base/autocast.h"
#include "switchyard/base/differentiable.h"

namespace switchyard::kernels::detail {

/// Runs the body below autocast: the front has already chosen the types.
using NoAutocast = c10::impl::ExcludeDispatchKeyGuard;
inline c10::DispatchKeySet autocast_keys() {
  return c10::DispatchKeySet({c10::DispatchKey::AutocastCPU, c10::DispatchKey::AutocastCUDA});
}

/// The type products of x run in: autocast's on its device when it is on (float64 is never lowered), else x's own.
inline at::ScalarType product_type(const at::Tensor& x) {
  if (x.scalar_type() == at::kDouble) return at::kDouble;
  const Autocast autocast = Autocast::now(x.is_cuda() ? c10::DeviceType::CUDA : c10::DeviceType::CPU);
  return autocast.enabled ? autocast.type : x.scalar_type();
}

/// offset must rise from 0 to `rows`, one entry more than experts; throws kernels.offset naming `who`.
void check_offset(const at::Tensor& offset, int64_t experts, int64_t rows, const char* who);

/// Backward under create_graph: differentiate the plain reference again, so that second derivatives are right
/// instead of silently missing. `inputs` are the saved inputs; undefined ones and those without gradient get {}.
inline std::vector<at::Tensor> differentiable_backward(const std::function<at::Tensor()>& reference,
                                                       const std::vector<at::Tensor>& inputs,
                                                       const at::Tensor& grad_output) {
  std::vector<at::Tensor> wanted;
  for (const at::Tensor& t : inputs)
    if (t.defined() && t.requires_grad()) wanted.push_back(t);
  std::vector<at::Tensor> found = gradients({reference()}, wanted, {grad_output}, /*retain_graph=*/true, /*create_graph=*/true);
  std::vector<at::Tensor> result;
  size_t next = 0;
  for (const at::Tensor& t : inputs) result.push_back(t.defined() && t.requires_grad() ? found[next++] : at::Tensor());
  return result;
}

}  // namespace switchyard::kernels::detail
