// Computations that bring their own derivative. One autograd node serves them all: each method gives a forward pass and,
// from it, the function that maps gradients back, and no source but this one's pays for libtorch's custom functions.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace switchyard {

/// Maps (what the forward saved, the gradients of its outputs) to the gradients of the inputs, in the order of the inputs.
/// A gradient that nobody gave is undefined, and so may be a result: for an input that needs none (its saved copy still says
/// whether it requires a gradient), or where it is zero. Gradient mode is on when a second derivative is wanted.
using Backward = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>& saved, const std::vector<at::Tensor>& grads)>;

/// What a forward pass leaves.
struct Computed {
  std::vector<at::Tensor> outputs;
  std::vector<at::Tensor> saved;  ///< kept for backward, freed with the graph; undefined ones stay so
  Backward backward;              ///< holds constants only: a tensor of the graph inside it would never be freed
};

/// The outputs of `forward`, which runs without recording, joined to the graph of `inputs` (undefined ones stand for
/// absent operands). Where nothing is differentiated, this is the forward alone.
std::vector<at::Tensor> differentiable(const std::vector<at::Tensor>& inputs, const std::function<Computed()>& forward);

/// Gradients of `outputs`, weighted by `grads` (empty: ones), in each of `inputs`; undefined where there is no dependence.
/// With create_graph they can be differentiated again.
std::vector<at::Tensor> gradients(const std::vector<at::Tensor>& outputs, const std::vector<at::Tensor>& inputs,
                                  const std::vector<at::Tensor>& grads = {}, bool retain_graph = false, bool create_graph = false);

}  // namespace switchyard
