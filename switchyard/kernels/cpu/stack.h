// A stack of matrices [E, M, K] as the products read it: in the type of the products, or wider (float32 parameters of a bf16
// pass) or packed. What is not in the products' type becomes so panel by panel, inside the task that multiplies
// with it: the panel is still in cache then, and no copy of the stack is ever written. Internal to kernels/.
#pragma once

#include <cstdint>

#include "switchyard/kernels/packed_tensor.h"

namespace switchyard::kernels::cpu {

template <typename T>
struct Stack {
  int64_t m = 0, k = 0;
  const T* same = nullptr;               ///< one of these four is set; none: there is no such stack
  const float* wide = nullptr;
  const BlockTensor* blocks = nullptr;
  const PackedRows* other = nullptr;     ///< packed in any other way

  explicit operator bool() const { return same || wide || blocks || other; }
  /// Rows that are made at a time where they meet few columns.
  int64_t together() const { return other ? other->together() : 1; }

  struct Panel { const T* data; int64_t ld; };

  /// Rows first ... first + count of expert e, stride `ld`, to be multiplied with so many columns: in place, or made in `space`,
  /// [count, panel_stride()]. Where the product reads rows in place, few columns have them copied too if their lines displace one another.
  Panel rows(int64_t e, int64_t first, int64_t count, int64_t columns, T* space) const;

  /// Rows that are a multiple of 2 KB apart fall into the same few sets of the first-level cache: panels are a line wider.
  static int64_t panel_stride(int64_t k) { return clashing(k) ? k + 64 / static_cast<int64_t>(sizeof(T)) : k; }
  static bool clashing(int64_t k) { return k * static_cast<int64_t>(sizeof(T)) % 2048 == 0; }

  /// A part of expert e's matrix as B of `product`, stride `ld`: depth r0 ... r0 + depth, columns c0 ... c0 + width; `space`
  /// [depth, width]. depth is a multiple of kPair<T>. Not of packed ones.
  Panel panel(int64_t e, int64_t r0, int64_t depth, int64_t c0, int64_t width, T* space) const;
};

template <typename T>
Stack<T> packed_stack(const PackedRows& packed, int64_t m, int64_t k) {
  const auto* blocks = dynamic_cast<const BlockTensor*>(&packed);
  return {.m = m, .k = k, .blocks = blocks, .other = blocks ? nullptr : &packed};
}

/// dst[i] = T(src[i]), vectorised.
template <typename T>
void narrow(const float* src, int64_t count, T* dst);
/// dst[i] = src[i], vectorised.
template <typename T>
void widen(const T* src, int64_t count, float* dst);

}  // namespace switchyard::kernels::cpu
