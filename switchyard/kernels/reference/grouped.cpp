#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/clamp_max.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/unbind.h>

#include "switchyard/base/error.h"
#include "switchyard/kernels/reference/reference.h"

namespace switchyard::kernels {

bool is_gated(Activation activation) {
  switch (activation) {
    case Activation::glu:
    case Activation::reglu:
    case Activation::geglu:
    case Activation::geglu_tanh:
    case Activation::swiglu:
    case Activation::clamped_swiglu: return true;
    default: return false;
  }
}

at::Tensor activate(const at::Tensor& up, const at::Tensor& gate, const ActivationOptions& options) {
  switch (options.kind) {
    case Activation::identity: return up;
    case Activation::relu: return at::relu(up);
    case Activation::relu_squared: return at::relu(up).square();
    case Activation::gelu: return at::gelu(up);
    case Activation::gelu_tanh: return at::gelu(up, "tanh");
    case Activation::silu: return at::silu(up);
    case Activation::glu: return at::sigmoid(gate) * up;
    case Activation::reglu: return at::relu(gate) * up;
    case Activation::geglu: return at::gelu(gate) * up;
    case Activation::geglu_tanh: return at::gelu(gate, "tanh") * up;
    case Activation::swiglu: return at::silu(gate) * up;
    case Activation::clamped_swiglu: {
      at::Tensor g = at::clamp_max(gate, options.limit);
      at::Tensor u = at::clamp(up, -options.limit, options.limit);
      return g * at::sigmoid(options.alpha * g) * (u + options.shift);
    }
  }
  fail("kernels.activation", "activation {} is not known", static_cast<int>(options.kind));
}

namespace reference {

at::Tensor grouped_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& offset,
                          const at::Tensor& bias, WeightLayout layout) {
  const int64_t experts = weight.size(0);
  const int64_t width = weight.size(layout == WeightLayout::out_in ? 1 : 2);
  at::Tensor host = offset.cpu();
  const int64_t* at_row = host.const_data_ptr<int64_t>();
  std::vector<at::Tensor> matrices = at::unbind(weight, 0), biases, outputs;
  if (bias.defined()) biases = at::unbind(bias, 0);
  for (int64_t e = 0; e < experts; ++e) {
    at::Tensor rows = x.narrow(0, at_row[e], at_row[e + 1] - at_row[e]);
    at::Tensor y = at::matmul(rows, layout == WeightLayout::out_in ? matrices[e].t() : matrices[e]);
    outputs.push_back(bias.defined() ? y + biases[e] : y);
  }
  return experts ? at::cat(outputs) : at::empty({0, width}, x.options());
}

at::Tensor grouped_ffn(const at::Tensor& x, const at::Tensor& offset, const at::Tensor& row, const at::Tensor& weight,
                       const FeedForwardWeights& weights, const FeedForwardOptions& options) {
  at::Tensor rows = row.defined() ? reference::gather_rows(x, row) : x;
  const auto scale = [&](const at::Tensor& y) {
    const auto type = y.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    return (y.to(type) * weight.to(type).unsqueeze(-1)).to(y.scalar_type());
  };
  const bool on_input = weight.defined() && options.weigh_on == WeighOn::input;
  if (on_input) rows = scale(rows);
  at::Tensor gate;
  if (is_gated(options.activation.kind))
    gate = reference::grouped_linear(rows, weights.gate, offset, weights.gate_bias, weights.layout);
  at::Tensor up = reference::grouped_linear(rows, weights.up, offset, weights.up_bias, weights.layout);
  at::Tensor y = reference::grouped_linear(activate(up, gate, options.activation), weights.down, offset,
                                           weights.down_bias, weights.layout);
  const at::Tensor on_output = on_input ? at::Tensor() : weight;
  if (row.defined()) return reference::combine_rows(y, row, on_output, x.size(0));
  return on_output.defined() ? scale(y) : y;
}

}  // namespace reference
}  // namespace switchyard::kernels
