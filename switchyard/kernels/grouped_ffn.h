// The experts' feed-forward in one call: gather, up (and gate) product, activation, down product, weighted scatter.
// The same result as the separate kernels, without their [A, D] and [A, F] round trips through memory.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "switchyard/kernels/grouped_linear.h"

namespace switchyard {
class PackedTensor;
}

namespace switchyard::kernels {

/// h = act(u), or act(g) * u for the gated kinds (g from the gate map, u from the up map).
/// clamped_swiglu (gpt-oss): g = min(g, limit), u = clamp(u, -limit, limit), h = g sigmoid(alpha g) (u + shift).
enum class Activation { identity, relu, relu_squared, gelu, gelu_tanh, silu, glu, reglu, geglu, geglu_tanh, swiglu, clamped_swiglu };

bool is_gated(Activation activation);

/// Elementwise. gate: undefined for the ungated kinds. Plain ATen, differentiable.
struct ActivationOptions {
  Activation kind = Activation::swiglu;
  double limit = 7.0, alpha = 1.702, shift = 1.0;  ///< clamped_swiglu only
};
at::Tensor activate(const at::Tensor& up, const at::Tensor& gate, const ActivationOptions& options);

/// Stacks in one layout. out_in: up, gate [E, F, D], down [E, D, F]; in_out: up, gate [E, D, F], down [E, F, D].
/// Biases: [E, F], [E, F], [E, D]; any may be undefined. gate is undefined for the ungated kinds. A stack may be packed
/// instead (packed_tensor.h; layout out_in): then its tensor is undefined and it has no gradient.
struct FeedForwardWeights {
  at::Tensor up, gate, down;
  at::Tensor up_bias, gate_bias, down_bias;
  WeightLayout layout = WeightLayout::out_in;
  std::shared_ptr<const PackedTensor> packed_up, packed_gate, packed_down;
};

/// What backward finds: keep the pre-activations ([A, F] each), or compute them again from x.
enum class Intermediates { keep, recompute };
/// Where a pair's weight multiplies: the expert's output, or its input rows (Llama-4).
enum class WeighOn { output, input };

struct FeedForwardOptions {
  ActivationOptions activation;
  Intermediates intermediates = Intermediates::keep;
  WeighOn weigh_on = WeighOn::output;
};

/// x: [T, D]; row: [A] int64, the row of x that sorted position a reads and adds to (undefined: x is [A, D] already
/// sorted and the result is [A, D], one a position); offset: [E+1] int64; weight: [A] or undefined (= 1).
/// Returns [T, D] of x's type (bf16 under bf16 autocast). Differentiable in x, weight, stacks and biases.
/// Sums over a row's pairs run in ascending position, in float32. Packed stacks: float32 rows meet the floats that the blocks
/// stand for; bf16 rows of experts with few rows are quantised to int8 where the processor multiplies those.
at::Tensor grouped_ffn(const at::Tensor& x, const at::Tensor& offset, const at::Tensor& row, const at::Tensor& weight,
                       const FeedForwardWeights& weights, const FeedForwardOptions& options = {});

}  // namespace switchyard::kernels
