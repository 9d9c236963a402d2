// Grouped products of tensors: what the experts' kernels are made of. One product may run on libtorch's own grouped product, where
// that is the faster one: bfloat16 on devices of capability 9 and above, whose tensor cores it reaches through CUTLASS.
#pragma once

#include "switchyard/kernels/cuda/backend.h"
#include "switchyard/kernels/grouped_ffn.h"

namespace switchyard::kernels::cuda {

/// A stack of matrices as the kernels read it.
struct StackView {
  at::Tensor data;  ///< [E, out, in], or [E, in, out] when in_out; the rows' type or float32; undefined for no stack
  bool in_out = false;
  int64_t experts() const { return data.size(0); }
  int64_t out() const { return data.size(in_out ? 2 : 1); }
  int64_t in() const { return data.size(in_out ? 1 : 2); }
  /// The same memory as the map in the other direction: what rows' gradients go through.
  StackView transposed() const { return {data, !in_out}; }
};
/// t without its graph, contiguous, float32 as it is and other types as `type`.
StackView readable(const at::Tensor& t, at::ScalarType type, WeightLayout layout);

/// Rows by expert: position a reads row[a] of the rows (row undefined: row a).
struct Groups {
  at::Tensor offset, row;  ///< [E + 1], [A] int64
  int64_t positions;
};

/// y[a] = x[row(a)] W[e]^T + bias[e], [A, out] of x's type. bias: [E, out] of x's type or undefined.
at::Tensor map(const Groups& groups, const at::Tensor& x, const StackView& stack, const at::Tensor& bias = {});

/// The sum of two maps, of rows that are sorted already, rounded once.
at::Tensor map_both(const Groups& groups, const at::Tensor& x, const StackView& stack, const at::Tensor& x2, const StackView& stack2);

/// The first half of a feed-forward. Biases are of x's type or undefined; gate.data and gate_bias are undefined for ungated kinds.
struct Hidden {
  at::Tensor h, up, gate;  ///< [A, F]; up and gate before the activation, where they were asked for
};
struct HiddenMaps {
  StackView up, gate;
  at::Tensor up_bias, gate_bias;
  ActivationCode activation;
};
enum class Outputs { hidden, hidden_and_sums, sums };
Hidden hidden(const Groups& groups, const at::Tensor& x, const HiddenMaps& maps, Outputs outputs);

/// One side of a weights' gradient: rows [.., width] through `row`, or sorted ones.
struct Side {
  at::Tensor rows, row;
};
/// The gradient of `stack` from the gradients of its outputs and from its inputs, in the stack's layout: float32 where the
/// stack's own type is not the rows'. An expert without rows gets zeros.
at::Tensor stack_gradient(const Groups& groups, const Side& outputs, const Side& inputs, const StackView& stack);

/// sum[e] = sum over positions of weight[a] · y[row(a)]: [E, width] float32.
at::Tensor column_sums(const Groups& groups, const Side& y, const at::Tensor& weight);

}  // namespace switchyard::kernels::cuda
