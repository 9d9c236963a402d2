// Products of backward where an expert has few rows: they are bound by reading the weights and by writing the gradients, so both are met in the
// order in which they lie. Internal to kernels/.
#pragma once

#include <cstdint>

#include "switchyard/kernels/cpu/stack.h"
#include "switchyard/kernels/cpu/weight_gradient.h"

namespace switchyard::kernels::cpu {

/// Rows of an expert that are few here, at most: more are met sooner by tiles.
constexpr int64_t kFewInBackward = 8;

/// The stride of rows of `width` floats that are met together: a line more, since rows of 4 KB would displace one another in the first-level cache.
constexpr int64_t few_stride(int64_t width) { return width + 16; }

/// out[j, c] (+)= Σ_r a[j, r] W[e][r, first + c], c < width, n few, summed in float32 in an order that the stack's shape alone decides: a [n, M]; out's rows
/// few_stride(width) apart. floats: room for a, [n, M]. The stack [E, M, K] is plain, of any type.
template <typename T>
void few_times(const Stack<T>& stack, int64_t e, int64_t first, int64_t width, int64_t n, const T* a, float* floats, float* out, bool add);

/// Rows of one expert's gradient, [rows, width] from element `at` on with stride `width`: Σ_j left[r, j] right[j, c], j < n, n few, past the caches. left [rows, n];
/// right [n, width] as B of `product`.
template <typename T>
void few_outer(int64_t rows, int64_t n, int64_t width, const T* left, const T* right, const GradientStack<T>& grad, int64_t at);

}  // namespace switchyard::kernels::cpu
