// One linear map an expert over sorted rows, in the two directions that forward and backward of both weight layouts
// are made of. Internal to kernels/.
#pragma once

#include <cstdint>

namespace switchyard::kernels::cpu {

/// y[a] = W[e] x[a] (+ bias[e]): stack [E, M, K], x [A, K], y [A, M]. Reads the weights as they lie. Even K for bf16.
template <typename T>
void map_columns(const T* stack, int64_t experts, int64_t m, int64_t k, const T* x, const int64_t* offset, const T* bias, T* y);

/// y[a] = x[a] W[e] (+ bias[e]): stack [E, K, N], x [A, K], y [A, N]. Even K for bf16.
template <typename T>
void map_rows(const T* stack, int64_t experts, int64_t k, int64_t n, const T* x, const int64_t* offset, const T* bias, T* y);

/// grad[e] = Σ_a left[a] ⊗ right[a]: left [A, M], right [A, N], grad [E, M, N] float32, every element written;
/// bias [E, M]: the sums of left, or null.
template <typename T>
void outer_products(const T* left, int64_t m, const T* right, int64_t n, const int64_t* offset, int64_t experts, float* grad,
                    float* bias);

}  // namespace switchyard::kernels::cpu
