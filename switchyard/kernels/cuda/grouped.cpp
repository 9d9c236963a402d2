#include "switchyard/kernels/cuda/grouped.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "switchyard/base/error.h"
#include "switchyard/kernels/autograd.h"
#include "switchyard/kernels/cuda/products.h"
#include "switchyard/kernels/cuda/rows.h"
#include "switchyard/kernels/reference/reference.h"

namespace switchyard::kernels::cuda {
namespace {

using Tensors = std::vector<at::Tensor>;

bool wants(const at::Tensor& saved) { return saved.defined() && saved.requires_grad(); }
at::Tensor cast(const at::Tensor& t, at::ScalarType type) { return t.defined() ? t.detach().to(type).contiguous() : t; }
at::Tensor like(const at::Tensor& grad, const at::Tensor& of) {
  return grad.defined() && of.defined() ? grad.to(of.scalar_type()) : at::Tensor();
}

ActivationCode code_of(const ActivationOptions& options) {
  ActivationCode code{.limit = static_cast<float>(options.limit), .alpha = static_cast<float>(options.alpha),
                      .shift = static_cast<float>(options.shift)};
  switch (options.kind) {
    case Activation::identity: code.curve = Curve::identity; break;
    case Activation::relu:
    case Activation::reglu: code.curve = Curve::relu; break;
    case Activation::relu_squared: code.curve = Curve::relu_squared; break;
    case Activation::gelu:
    case Activation::geglu: code.curve = Curve::gelu; break;
    case Activation::gelu_tanh:
    case Activation::geglu_tanh: code.curve = Curve::gelu_tanh; break;
    case Activation::silu:
    case Activation::swiglu: code.curve = Curve::silu; break;
    case Activation::glu: code.curve = Curve::sigmoid; break;
    case Activation::clamped_swiglu: code.curve = Curve::clamped; break;
  }
  return code;
}

// --- grouped_linear ---------------------------------------------------------------------------

/// saved: x, weight, bias, offset.
Tensors linear_gradients(const Tensors& saved, const at::Tensor& grad, WeightLayout layout) {
  const at::Tensor &x = saved[0], &weight = saved[1], &bias = saved[2], &offset = saved[3];
  const at::ScalarType type = x.scalar_type();
  if (at::GradMode::is_enabled()) {
    const auto again = [&] {
      return reference::grouped_linear(x, weight.to(type), offset, bias.defined() ? bias.to(type) : bias, layout);
    };
    return detail::differentiable_backward(again, {x, weight, bias}, grad);
  }
  const at::Tensor dy = grad.to(type).contiguous(), rows = x.contiguous();
  const Groups groups{offset, {}, rows.size(0)};
  const StackView stack = readable(weight, type, layout);
  Tensors result(3);
  if (wants(x)) result[0] = map(groups, dy, stack.transposed());
  if (wants(weight)) result[1] = like(stack_gradient(groups, {dy, {}}, {rows, {}}, stack), weight);
  if (wants(bias)) result[2] = like(column_sums(groups, {dy, {}}, {}), bias);
  return result;
}

// --- grouped_ffn ------------------------------------------------------------------------------

/// Operands of the network, in the order of its gradients; then what its backward reads beside them.
enum Operand : size_t { kX, kWeight, kUp, kGate, kDown, kUpBias, kGateBias, kDownBias, kOperands, kOffset = kOperands, kRow, kKeptUp, kKeptGate };

HiddenMaps maps_of(const Tensors& s, at::ScalarType type, WeightLayout layout, const ActivationOptions& activation) {
  return {.up = readable(s[kUp], type, layout), .gate = readable(s[kGate], type, layout), .up_bias = cast(s[kUpBias], type),
          .gate_bias = cast(s[kGateBias], type), .activation = code_of(activation)};
}

Tensors plain_gradients(const Tensors& s, const at::Tensor& grad, const FeedForwardOptions& options, WeightLayout layout) {
  const auto to = [&](const at::Tensor& t) { return t.defined() ? t.to(s[kX].scalar_type()) : t; };
  const auto again = [&] {
    return reference::grouped_ffn(s[kX], s[kOffset], s[kRow], s[kWeight],
                                  {.up = to(s[kUp]), .gate = to(s[kGate]), .down = to(s[kDown]), .up_bias = to(s[kUpBias]),
                                   .gate_bias = to(s[kGateBias]), .down_bias = to(s[kDownBias]), .layout = layout},
                                  {.activation = options.activation});
  };
  return detail::differentiable_backward(again, {s.begin(), s.begin() + kOperands}, grad);
}

Tensors ffn_gradients(const Tensors& s, const at::Tensor& grad, const FeedForwardOptions& options, WeightLayout layout) {
  if (at::GradMode::is_enabled()) return plain_gradients(s, grad, options, layout);
  const at::Tensor& row = s[kRow];
  const at::ScalarType type = s[kX].scalar_type();
  const at::Tensor rows = s[kX].contiguous(), dy = grad.to(type).contiguous(), weight = cast(s[kWeight], at::kFloat);
  const at::Tensor down_bias = cast(s[kDownBias], type);
  const HiddenMaps maps = maps_of(s, type, layout, options.activation);
  const StackView down = readable(s[kDown], type, layout);
  const bool gated = maps.gate.data.defined();
  const Groups groups{s[kOffset], row, row.defined() ? row.size(0) : rows.size(0)}, sorted{s[kOffset], {}, groups.positions};
  Hidden kept{.h = {}, .up = s[kKeptUp], .gate = s[kKeptGate]};
  if (!kept.up.defined()) kept = hidden(groups, rows, maps, Outputs::sums);

  const at::Tensor dh = map(groups, dy, down.transposed());
  const auto space = [&] { return at::empty(dh.sizes(), dh.options()); };
  const at::Tensor dup = space(), dgate = gated ? space() : at::Tensor(), h = space();
  at::Tensor dweight;
  if (wants(s[kWeight])) dweight = at::empty({groups.positions}, dh.options().dtype(at::kFloat));
  const Call call(rows);
  call->activate_backward({.number = number_of(type), .gate = bytes(kept.gate), .up = bytes(kept.up), .dh = bytes(dh),
                           .weight = values<float>(weight), .down_bias = bytes(down_bias), .dy = bytes(dy), .row = values<int64_t>(row),
                           .offset = values<int64_t>(s[kOffset]), .experts = down.experts(), .positions = groups.positions,
                           .width = dh.size(1), .out = down.out(), .activation = maps.activation, .dgate = raw(dgate), .dup = raw(dup),
                           .h = raw(h), .dweight = data<float>(dweight)},
                          call.stream());

  Tensors result(kOperands);
  if (dweight.defined()) result[kWeight] = dweight.view(s[kWeight].sizes()).to(s[kWeight].scalar_type());
  if (wants(s[kX])) {
    const StackView back = maps.up.transposed();
    const at::Tensor dx = gated ? map_both(sorted, dgate, maps.gate.transposed(), dup, back) : map(sorted, dup, back);
    result[kX] = row.defined() ? combine(dx, row, {}, rows.size(0)) : dx;
  }
  if (wants(s[kUp])) result[kUp] = like(stack_gradient(groups, {dup, {}}, {rows, row}, maps.up), s[kUp]);
  if (wants(s[kGate])) result[kGate] = like(stack_gradient(groups, {dgate, {}}, {rows, row}, maps.gate), s[kGate]);
  if (wants(s[kDown])) result[kDown] = like(stack_gradient(groups, {dy, row}, {h, {}}, down), s[kDown]);
  if (wants(s[kUpBias])) result[kUpBias] = like(column_sums(groups, {dup, {}}, {}), s[kUpBias]);
  if (wants(s[kGateBias])) result[kGateBias] = like(column_sums(groups, {dgate, {}}, {}), s[kGateBias]);
  if (wants(s[kDownBias])) result[kDownBias] = like(column_sums(groups, {dy, row}, weight), s[kDownBias]);
  return result;
}

Computed feed_forward(Tensors operands, const at::Tensor& offset, const at::Tensor& row, const FeedForwardOptions& options, WeightLayout layout,
                      bool training) {
  const detail::NoAutocast no_autocast(detail::autocast_keys());
  const at::ScalarType type = operands[kX].scalar_type();
  const at::Tensor rows = operands[kX].contiguous(), weight = cast(operands[kWeight], at::kFloat);
  const Groups groups{offset, row, row.defined() ? row.size(0) : rows.size(0)};
  const bool keep = training && options.intermediates == Intermediates::keep;
  const Hidden inner = hidden(groups, rows, maps_of(operands, type, layout, options.activation), keep ? Outputs::hidden_and_sums : Outputs::hidden);
  const at::Tensor y = map({offset, {}, groups.positions}, inner.h, readable(operands[kDown], type, layout), cast(operands[kDownBias], type));
  at::Tensor result = y;
  if (row.defined()) result = combine(y, row, weight, rows.size(0));
  else if (weight.defined()) result = (y.to(at::kFloat) * weight.unsqueeze(1)).to(type);
  Computed computed{.outputs = {result}, .saved = {}, .backward = {}};
  if (training) {
    computed.saved = std::move(operands);
    computed.saved.insert(computed.saved.end(), {offset, row, keep ? inner.up : at::Tensor(), keep ? inner.gate : at::Tensor()});
    computed.backward = [options, layout](const Tensors& saved, const Tensors& grads) { return ffn_gradients(saved, grads[0], options, layout); };
  }
  return computed;
}

}  // namespace

bool takes_products(const at::Tensor& x, at::ScalarType type, int64_t experts, std::initializer_list<int64_t> widths) {
  if (!launchers_for(x) || (type != at::kFloat && type != at::kBFloat16) || experts == 0 || experts > kMostExperts) return false;
  return std::all_of(widths.begin(), widths.end(), [](int64_t width) { return width > 0 && width <= kMostWidth; });
}

at::Tensor grouped_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& offset, const at::Tensor& bias,
                          WeightLayout layout) {
  const at::Tensor begin = offset.to(x.device()).contiguous();
  return differentiable({x, weight, bias}, [&] {
    const detail::NoAutocast no_autocast(detail::autocast_keys());
    const at::ScalarType type = x.scalar_type();
    const at::Tensor y = map({begin, {}, x.size(0)}, x.contiguous(), readable(weight, type, layout), cast(bias, type));
    return Computed{{y}, {x, weight, bias, begin},
                    [layout](const Tensors& saved, const Tensors& grads) { return linear_gradients(saved, grads[0], layout); }};
  })[0];
}

at::Tensor grouped_ffn(const at::Tensor& x, const at::Tensor& offset, const at::Tensor& row, const at::Tensor& weight,
                       const FeedForwardWeights& weights, const FeedForwardOptions& options) {
  const Tensors operands{x, weight, weights.up, weights.gate, weights.down, weights.up_bias, weights.gate_bias, weights.down_bias};
  const bool training = at::GradMode::is_enabled() && std::any_of(operands.begin(), operands.end(), wants);
  const at::Tensor begin = offset.to(x.device()).contiguous(), from = row.defined() ? row.contiguous() : row;
  return differentiable(operands, [&] { return feed_forward(operands, begin, from, options, weights.layout, training); })[0];
}

}  // namespace switchyard::kernels::cuda
