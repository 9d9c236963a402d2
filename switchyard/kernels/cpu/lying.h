// What the attentions share: keys and values as they lie, and sinks as they read them. Internal to kernels/.
#pragma once

#include <ATen/core/Tensor.h>

#include "switchyard/base/error.h"

namespace switchyard::kernels::cpu {

/// Queries, keys or values [m, H, ·] from row `first` on: rows of a head are contiguous, the other strides free.
template <typename T>
struct Lying {
  const T* data;
  int64_t stride, head_stride;
  explicit Lying(const at::Tensor& t, int64_t first = 0) : data(t.const_data_ptr<T>() + first * t.stride(0)), stride(t.stride(0)), head_stride(t.stride(1)) {}
  const T* at(int64_t j, int64_t head) const { return data + j * stride + head * head_stride; }
};

/// Sinks [heads] as float32, or undefined. Throws kernels.shape.
inline at::Tensor sinks_of(const at::Tensor& given, int64_t heads) {
  if (!given.defined()) return {};
  check(given.dim() == 1 && given.size(0) == heads, "kernels.shape", "{}-dimensional sinks of {} numbers are not for {} heads", given.dim(), given.numel(), heads);
  return given.to(at::kFloat).contiguous();
}

}  // namespace switchyard::kernels::cpu
