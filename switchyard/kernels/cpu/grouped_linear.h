// One linear map an expert over sorted rows, in the two directions that forward and backward of both weight layouts
// are made of. Internal to kernels/.
#pragma once

#include <cstdint>

#include "switchyard/kernels/cpu/stack.h"
#include "switchyard/kernels/cpu/weight_gradient.h"

namespace switchyard::kernels::cpu {

/// Rows of one expert from which on its weights move for the products, not its rows, where those are ours (fma_product.h); bits are the same.
inline constexpr int64_t kManyRows = 192;

/// y[a] = W[e] x[a] (+ bias[e]): stack [E, M, K], x [A, K], y [A, M]. Even K for bf16.
template <typename T>
void map_columns(const Stack<T>& stack, int64_t experts, const T* x, const int64_t* offset, const T* bias, T* y);

/// y[a] = x[a] W[e] (+ bias[e]): stack [E, K, N], x [A, K], y [A, N]. Even K for bf16. Not of blocks.
template <typename T>
void map_rows(const Stack<T>& stack, int64_t experts, const T* x, const int64_t* offset, const T* bias, T* y);

/// grad[e] = Σ_a left[a] ⊗ right[a]: left [A, M], right [A, N], grad [E, M, N], every element written;
/// bias [E, M]: the sums of left, or null.
template <typename T>
void outer_products(const T* left, int64_t m, const T* right, int64_t n, const int64_t* offset, int64_t experts,
                    const GradientStack<T>& grad, float* bias);

}  // namespace switchyard::kernels::cpu
