// A stack of matrices [E, M, K] as the products read it: in the type of the products, or wider (float32 parameters of a bf16
// pass) or packed in blocks. What is not in the products' type becomes so panel by panel, inside the task that multiplies
// with it: the panel is still in cache then, and no copy of the stack is ever written. Internal to kernels/.
#pragma once

#include <cstdint>

#include "switchyard/kernels/packed_tensor.h"

namespace switchyard::kernels::cpu {

template <typename T>
struct Stack {
  int64_t m = 0, k = 0;
  const T* same = nullptr;               ///< one of these three is set; none: there is no such stack
  const float* wide = nullptr;
  const BlockTensor* blocks = nullptr;

  explicit operator bool() const { return same || wide || blocks; }

  /// Rows first ... first + count of expert e, row-major with stride k: in place, or made in `space` [count, k].
  const T* rows(int64_t e, int64_t first, int64_t count, T* space) const;

  /// A part of expert e's matrix as B of `product`, stride `ld`: depth r0 ... r0 + depth, columns c0 ... c0 + width; `space`
  /// [depth, width]. depth is a multiple of kPair<T>. Not of blocks.
  struct Panel { const T* data; int64_t ld; };
  Panel panel(int64_t e, int64_t r0, int64_t depth, int64_t c0, int64_t width, T* space) const;
};

/// dst[i] = T(src[i]), vectorised.
template <typename T>
void narrow(const float* src, int64_t count, T* dst);

}  // namespace switchyard::kernels::cpu
