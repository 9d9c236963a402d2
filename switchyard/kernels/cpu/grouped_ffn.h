// The experts' feed-forward on the CPU, over raw memory. Forward works in columns: a tile of rows is packed once as the
// columns of B, and the weights are A, in place where they lie in the products' type. Backward works in rows and packs
// panels of the weights as B. Internal to kernels/.
#pragma once

#include <c10/util/BFloat16.h>

#include <cstdint>

#include "switchyard/kernels/cpu/stack.h"
#include "switchyard/kernels/cpu/weight_gradient.h"
#include "switchyard/kernels/grouped_ffn.h"

namespace switchyard::kernels::cpu {

/// Stacks up, gate [E, F, D], down [E, O, F], multiplied in T; biases of T or null. Even D, F and O for bf16.
template <typename T>
struct FfnWeights {
  int64_t experts = 0, in = 0, hidden = 0, out = 0;
  Stack<T> gate, up, down;
  const T *gate_bias = nullptr, *up_bias = nullptr, *down_bias = nullptr;
  ActivationOptions activation;
};

/// x: [T, D] read at rows `row` [A] (null: x is sorted already); offset: [E+1].
template <typename T>
struct FfnRows {
  const T* x = nullptr;
  const int64_t* row = nullptr;
  const int64_t* offset = nullptr;
};

/// y: [A, O], unweighted. keep_gate, keep_up: [A, F] pre-activations, biases added; written when not null.
template <typename T>
void ffn_forward(const FfnWeights<T>& w, const FfnRows<T>& rows, T* y, T* keep_gate, T* keep_up);

/// What backward reads besides the weights. grad: [R, O], the gradient of the weighted sums, read at `grad_row` [A] (null:
/// position a); weight: [A] float or null (= 1); gate, up: what forward kept, or null (computed again).
template <typename T>
struct FfnGradientInputs {
  const T* grad = nullptr;
  const int64_t* grad_row = nullptr;
  const float* weight = nullptr;
  const T *gate = nullptr, *up = nullptr;
};

/// Results, any may be null. dx: [A, D] a sorted position; dweight: [A]; stacks in the type of the parameters and biases in
/// float32, laid out like the weights, every element written (an expert without rows gets zeros).
template <typename T>
struct FfnGradients {
  T* dx = nullptr;
  float* dweight = nullptr;
  GradientStack<T> gate, up, down;
  float *gate_bias = nullptr, *up_bias = nullptr, *down_bias = nullptr;
};

template <typename T>
void ffn_backward(const FfnWeights<T>& w, const FfnRows<T>& rows, const FfnGradientInputs<T>& in, const FfnGradients<T>& out);

}  // namespace switchyard::kernels::cpu
