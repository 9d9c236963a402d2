// The fronts of the grouped products: they check, choose the path and differentiate. The fast path takes float32 and
// bf16 on the CPU with weights as [E, out, in], and on CUDA devices both layouts; everything else runs on plain ATen (reference/).
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "switchyard/base/error.h"
#include "switchyard/kernels/autograd.h"
#include "switchyard/kernels/cpu/grouped_ffn.h"
#include "switchyard/kernels/cpu/grouped_linear.h"
#include "switchyard/kernels/cpu/rows.h"
#include "switchyard/kernels/cuda/grouped.h"
#include "switchyard/kernels/grouped_packed.h"
#include "switchyard/kernels/reference/reference.h"

namespace switchyard::kernels {

void detail::check_offset(const at::Tensor& offset, int64_t experts, int64_t rows, const char* who) {
  check(offset.dim() == 1 && offset.scalar_type() == at::kLong && offset.size(0) == experts + 1, "kernels.offset",
        "{}: offset must be [{}] int64, one more than experts", who, experts + 1);
  const at::Tensor host = offset.cpu().contiguous();
  const int64_t* at_row = host.const_data_ptr<int64_t>();
  bool ascending = at_row[0] == 0 && at_row[experts] == rows;
  for (int64_t e = 0; e < experts; ++e) ascending = ascending && at_row[e] <= at_row[e + 1];
  check(ascending, "kernels.offset", "{}: offset must rise from 0 to the {} sorted rows", who, rows);
}

namespace {

using Tensors = std::vector<at::Tensor>;

bool wants(const at::Tensor& saved) { return saved.defined() && saved.requires_grad(); }

/// The type both operands are given: autocast's, or x's own.
at::ScalarType working_type(const at::Tensor& x) { return detail::product_type(x); }

using detail::check_offset;

/// A stack [E, M, K] as the kernels read it: what is not of the products' type is converted where it is multiplied.
template <typename T>
cpu::Stack<T> stack_of(const at::Tensor& t) {
  if (!t.defined()) return {};
  cpu::Stack<T> stack{.m = t.size(1), .k = t.size(2)};
  if (t.scalar_type() == c10::CppTypeToScalarType<T>::value) stack.same = t.const_data_ptr<T>();
  else stack.wide = t.const_data_ptr<float>();
  return stack;
}

/// A stack in a type that the kernels read: float32 and the products' own as they are, others in the products' type.
at::Tensor readable(const at::Tensor& t, at::ScalarType type) {
  if (!t.defined()) return t;
  return t.detach().to(t.scalar_type() == at::kFloat ? at::kFloat : type).contiguous();
}

/// An empty gradient for a stack in its own type, or in float32 where the kernels do not write that type.
at::Tensor gradient_space(const at::Tensor& stack, at::ScalarType type) {
  return at::empty(stack.sizes(), stack.options().dtype(stack.scalar_type() == type ? type : at::kFloat).requires_grad(false));
}
template <typename T>
cpu::GradientStack<T> gradient_of(const at::Tensor& t) {
  if (!t.defined()) return {};
  if (t.scalar_type() == at::kFloat) return {.wide = t.mutable_data_ptr<float>()};
  return {.same = t.mutable_data_ptr<T>()};
}

bool fast_type(const at::Tensor& x, at::ScalarType type, std::initializer_list<int64_t> widths) {
  if (!x.device().is_cpu() || (type != at::kFloat && type != at::kBFloat16)) return false;
  for (int64_t w : widths)
    if (w == 0 || (type == at::kBFloat16 && w % 2 != 0)) return false;
  return true;
}

at::Tensor cast(const at::Tensor& t, at::ScalarType type) { return t.defined() ? t.detach().to(type).contiguous() : t; }

/// A float32 gradient in the type of what it belongs to.
at::Tensor gradient_like(const at::Tensor& grad, const at::Tensor& of) {
  return grad.defined() && of.defined() ? grad.to(of.scalar_type()) : at::Tensor();
}

template <typename T> T* data(const at::Tensor& t) { return t.defined() ? t.mutable_data_ptr<T>() : nullptr; }
template <typename T> const T* values(const at::Tensor& t) { return t.defined() ? t.const_data_ptr<T>() : nullptr; }

/// Calls f with a value of the C++ type.
template <typename F>
void for_type(at::ScalarType type, F&& f) {
  if (type == at::kFloat) f(float{});
  else f(c10::BFloat16{});
}

// --- grouped_linear ---------------------------------------------------------------------------

/// saved: x, weight, bias, offset, the weights as the kernels read them.
Tensors linear_gradients(const Tensors& saved, const at::Tensor& grad, WeightLayout layout) {
  const at::Tensor &x = saved[0], &weight = saved[1], &bias = saved[2], &offset = saved[3], &w = saved[4];
  if (at::GradMode::is_enabled()) {
    const auto again = [&] { return reference::grouped_linear(x, weight.to(x.scalar_type()), offset,
                                                              bias.defined() ? bias.to(x.scalar_type()) : bias, layout); };
    return detail::differentiable_backward(again, {x, weight, bias}, grad);
  }
  const at::Tensor dy = grad.to(x.scalar_type()).contiguous(), rows = x.contiguous();
  const int64_t experts = w.size(0), in = rows.size(1), out = dy.size(1);
  const int64_t* begin = values<int64_t>(offset);
  at::Tensor dx, dw, db;
  const auto wide = rows.options().dtype(at::kFloat);
  if (wants(x)) dx = at::empty(rows.sizes(), rows.options());
  const bool bias_grad = wants(bias);
  if (wants(weight) || bias_grad) dw = gradient_space(w, x.scalar_type());
  if (bias_grad) db = at::empty({experts, out}, wide);
  for_type(x.scalar_type(), [&](auto t) {
    using T = decltype(t);
    const T *dyp = values<T>(dy), *xp = values<T>(rows);
    const cpu::Stack<T> matrices = stack_of<T>(w);
    if (layout == WeightLayout::out_in) {
      if (dx.defined()) cpu::map_rows<T>(matrices, experts, dyp, begin, nullptr, data<T>(dx));
      if (dw.defined()) cpu::outer_products<T>(dyp, out, xp, in, begin, experts, gradient_of<T>(dw), data<float>(db));
    } else {
      if (dx.defined()) cpu::map_columns<T>(matrices, experts, dyp, begin, nullptr, data<T>(dx));
      if (dw.defined()) cpu::outer_products<T>(xp, in, dyp, out, begin, experts, gradient_of<T>(dw), nullptr);
      if (db.defined()) {
        const int64_t* at_row = begin;
        db.zero_();
        for (int64_t e = 0; e < experts; ++e)
          if (at_row[e + 1] > at_row[e]) db.select(0, e).copy_(dy.slice(0, at_row[e], at_row[e + 1]).to(at::kFloat).sum(0));
      }
    }
  });
  return {dx, wants(weight) ? gradient_like(dw, weight) : at::Tensor(), gradient_like(db, bias)};
}

Computed linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& offset, WeightLayout layout) {
  const detail::NoAutocast no_autocast(detail::autocast_keys());
  const at::ScalarType type = x.scalar_type();
  const at::Tensor rows = x.contiguous(), w = readable(weight, type), b = cast(bias, type);
  const int64_t experts = w.size(0), out = w.size(layout == WeightLayout::out_in ? 1 : 2);
  at::Tensor y = at::empty({rows.size(0), out}, rows.options());
  for_type(type, [&](auto t) {
    using T = decltype(t);
    if (layout == WeightLayout::out_in)
      cpu::map_columns<T>(stack_of<T>(w), experts, values<T>(rows), values<int64_t>(offset), values<T>(b), data<T>(y));
    else
      cpu::map_rows<T>(stack_of<T>(w), experts, values<T>(rows), values<int64_t>(offset), values<T>(b), data<T>(y));
  });
  return {{y}, {x, weight, bias, offset, w},
          [layout](const Tensors& saved, const Tensors& grads) { return linear_gradients(saved, grads[0], layout); }};
}

// --- grouped_ffn ------------------------------------------------------------------------------

template <typename T>
cpu::FfnWeights<T> raw(const at::Tensor& up, const at::Tensor& gate, const at::Tensor& down, const at::Tensor& up_bias,
                       const at::Tensor& gate_bias, const at::Tensor& down_bias, const ActivationOptions& activation) {
  return {.experts = up.size(0), .in = up.size(2), .hidden = up.size(1), .out = down.size(1), .gate = stack_of<T>(gate),
          .up = stack_of<T>(up), .down = stack_of<T>(down), .gate_bias = values<T>(gate_bias), .up_bias = values<T>(up_bias),
          .down_bias = values<T>(down_bias), .activation = activation};
}

/// Operands of the fused network, in the order of its gradients.
enum Operand : size_t { kX, kWeight, kUp, kGate, kDown, kUpBias, kGateBias, kDownBias, kOperands };

/// saved: the operands, then offset, row, the stacks as the kernels read them (up, gate, down), the kept rows (up, gate).
Tensors ffn_gradients(const Tensors& s, const at::Tensor& grad, const ActivationOptions& activation) {
  const at::Tensor &x = s[0], &weight = s[1], &offset = s[8], &row = s[9];
  const at::ScalarType type = x.scalar_type();
  if (at::GradMode::is_enabled()) {
    const auto to = [&](const at::Tensor& t) { return t.defined() ? t.to(type) : t; };
    const auto again = [&] {
      return reference::grouped_ffn(x, offset, row, weight, {.up = to(s[2]), .gate = to(s[3]), .down = to(s[4]), .up_bias = to(s[5]),
                                    .gate_bias = to(s[6]), .down_bias = to(s[7])}, {.activation = activation});
    };
    return detail::differentiable_backward(again, {x, weight, s[2], s[3], s[4], s[5], s[6], s[7]}, grad);
  }
  const at::Tensor rows = x.contiguous(), dy = grad.to(type).contiguous(), w = cast(weight, at::kFloat);
  const at::Tensor up_b = cast(s[5], type), gate_b = cast(s[6], type), down_b = cast(s[7], type);
  const at::Tensor &ups = s[10], &gates = s[11], &downs = s[12];
  const int64_t positions = row.defined() ? row.size(0) : rows.size(0);
  const auto wide = rows.options().dtype(at::kFloat);
  bool stacks = false;
  for (size_t i = 2; i < 8; ++i) stacks = stacks || wants(s[i]);
  const auto like = [&](const at::Tensor& t) { return stacks && t.defined() ? gradient_space(t, type) : at::Tensor(); };
  const auto sums = [&](const at::Tensor& t) { return stacks && t.defined() ? at::empty(t.sizes(), wide) : at::Tensor(); };
  const at::Tensor dup = like(ups), dgate = like(gates), ddown = like(downs), dup_b = sums(up_b), dgate_b = sums(gate_b),
                   ddown_b = sums(down_b);
  at::Tensor dx, dsorted, dweight;
  if (wants(x)) dsorted = at::empty({positions, rows.size(1)}, rows.options());
  if (wants(weight)) dweight = at::empty({positions}, wide);
  for_type(type, [&](auto t) {
    using T = decltype(t);
    cpu::ffn_backward<T>(raw<T>(ups, gates, downs, up_b, gate_b, down_b, activation),
                         {values<T>(rows), values<int64_t>(row), values<int64_t>(offset)},
                         {values<T>(dy), values<int64_t>(row), values<float>(w), values<T>(s[14]), values<T>(s[13])},
                         {data<T>(dsorted), data<float>(dweight), gradient_of<T>(dgate), gradient_of<T>(dup), gradient_of<T>(ddown),
                          data<float>(dgate_b), data<float>(dup_b), data<float>(ddown_b)});
    if (dsorted.defined() && row.defined()) {
      dx = at::empty(rows.sizes(), rows.options());
      cpu::combine<T, float>(values<T>(dsorted), cpu::list_rows(values<int64_t>(row), positions, rows.size(0)),
                             nullptr, rows.size(1), data<T>(dx));
    } else {
      dx = dsorted;
    }
  });
  return {dx, gradient_like(dweight, weight), gradient_like(dup, s[2]), gradient_like(dgate, s[3]),
                       gradient_like(ddown, s[4]), gradient_like(dup_b, s[5]), gradient_like(dgate_b, s[6]),
                       gradient_like(ddown_b, s[7])};
}

/// Weights multiply the output here; weighing the input is composed by the front.
Computed feed_forward(const Tensors& operands, const at::Tensor& offset, const at::Tensor& row, const FeedForwardOptions& options,
                      bool training) {
  const at::Tensor &x = operands[kX], &weight = operands[kWeight], &up = operands[kUp], &gate = operands[kGate],
                   &down = operands[kDown], &up_bias = operands[kUpBias], &gate_bias = operands[kGateBias],
                   &down_bias = operands[kDownBias];
  const detail::NoAutocast no_autocast(detail::autocast_keys());
  const at::ScalarType type = x.scalar_type();
  const at::Tensor rows = x.contiguous(), w = cast(weight, at::kFloat);
  const at::Tensor ups = readable(up, type), gates = readable(gate, type), downs = readable(down, type);
  const at::Tensor up_b = cast(up_bias, type), gate_b = cast(gate_bias, type), down_b = cast(down_bias, type);
  const int64_t positions = row.defined() ? row.size(0) : rows.size(0), hidden = ups.size(1), out = downs.size(1);
  at::Tensor y = at::empty({positions, out}, rows.options()), keep_gate, keep_up, result;
  if (training && options.intermediates == Intermediates::keep) {
    keep_up = at::empty({positions, hidden}, rows.options());
    if (gates.defined()) keep_gate = at::empty({positions, hidden}, rows.options());
  }
  for_type(type, [&](auto t) {
    using T = decltype(t);
    cpu::ffn_forward<T>(raw<T>(ups, gates, downs, up_b, gate_b, down_b, options.activation),
                        {values<T>(rows), values<int64_t>(row), values<int64_t>(offset)}, data<T>(y), data<T>(keep_gate),
                        data<T>(keep_up));
    if (row.defined()) {
      result = at::empty({rows.size(0), out}, rows.options());
      cpu::combine<T, float>(values<T>(y), cpu::list_rows(values<int64_t>(row), positions, rows.size(0)), values<float>(w), out,
                             data<T>(result));
    } else if (w.defined()) {
      result = (y.to(at::kFloat) * w.unsqueeze(1)).to(type);
    } else {
      result = y;
    }
  });
  Computed computed{.outputs = {result}, .saved = {}, .backward = {}};
  if (training) {
    computed.saved = operands;
    computed.saved.insert(computed.saved.end(), {offset, row, ups, gates, downs, keep_up, keep_gate});
    computed.backward = [activation = options.activation](const Tensors& saved, const Tensors& grads) {
      return ffn_gradients(saved, grads[0], activation);
    };
  }
  return computed;
}

}  // namespace

at::Tensor grouped_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& offset,
                          const at::Tensor& bias, WeightLayout layout) {
  const bool out_in = layout == WeightLayout::out_in;
  check(x.dim() == 2 && weight.dim() == 3 && weight.size(out_in ? 2 : 1) == x.size(1), "kernels.shape",
        "grouped_linear takes x [A, I] and weight {}, got {}-dimensional x of width {} and weights of width {}",
        out_in ? "[E, O, I]" : "[E, I, O]", x.dim(), x.dim() == 2 ? x.size(1) : -1, weight.dim() == 3 ? weight.size(out_in ? 2 : 1) : -1);
  const int64_t out = weight.size(out_in ? 1 : 2);
  check(!bias.defined() || (bias.dim() == 2 && bias.size(0) == weight.size(0) && bias.size(1) == out), "kernels.shape",
        "grouped_linear: bias must be [{}, {}]", weight.size(0), out);
  check(at::isFloatingType(x.scalar_type()) && at::isFloatingType(weight.scalar_type()), "kernels.dtype",
        "grouped_linear takes floating point, got {} rows and {} weights", c10::toString(x.scalar_type()), c10::toString(weight.scalar_type()));
  check_offset(offset, weight.size(0), x.size(0), "grouped_linear");
  const at::ScalarType type = working_type(x);
  if (cuda::takes_products(x, type, weight.size(0), {x.size(1), out})) return cuda::grouped_linear(x.to(type), weight, offset, bias, layout);
  if (!fast_type(x, type, {x.size(1), out})) return reference::grouped_linear(x, weight, offset, bias, layout).to(type);
  const at::Tensor rows = x.to(type), begin = offset.contiguous();
  return differentiable({rows, weight, bias}, [&] { return linear(rows, weight, bias, begin, layout); })[0];
}

namespace {

/// One map of a feed-forward whose stacks may be packed.
struct Map {
  const at::Tensor& plain;
  const std::shared_ptr<const PackedTensor>& packed;
  explicit operator bool() const { return packed || plain.defined(); }
  std::vector<int64_t> shape() const { return packed ? packed->shape() : plain.sizes().vec(); }
  const PackedRows* rows() const { return dynamic_cast<const PackedRows*>(packed.get()); }
  bool fuses() const { return !packed || rows() != nullptr; }
  at::Tensor times(const at::Tensor& x, const at::Tensor& offset, const at::Tensor& bias) const {
    return packed ? grouped_linear_packed(x, packed, offset, bias) : grouped_linear(x, plain, offset, bias);
  }
  template <typename T>
  cpu::Stack<T> stack(const at::Tensor& read) const {
    if (!packed) return stack_of<T>(read);
    return cpu::packed_stack<T>(*rows(), packed->shape()[1], packed->shape()[2]);
  }
};

/// The feed-forward with packed stacks. Without gradients it runs fused; with them, map by map.
at::Tensor packed_ffn(const at::Tensor& x, const at::Tensor& offset, const at::Tensor& row, const at::Tensor& weight,
                      const FeedForwardWeights& weights, const FeedForwardOptions& options) {
  const Map up{weights.up, weights.packed_up}, gate{weights.gate, weights.packed_gate}, down{weights.down, weights.packed_down};
  const std::vector<int64_t> inner = up.shape(), outer = down.shape();
  check(weights.layout == WeightLayout::out_in && x.dim() == 2 && inner.size() == 3 && outer.size() == 3 && inner[2] == x.size(1) &&
            outer[2] == inner[1] && outer[0] == inner[0] && (!gate || gate.shape() == inner),
        "kernels.shape", "grouped_ffn takes packed stacks [E, F, D], [E, F, D] and [E, O, F] for rows of width {}", x.dim() == 2 ? x.size(1) : -1);
  check(is_gated(options.activation.kind) == static_cast<bool>(gate), "kernels.shape",
        "grouped_ffn: a gated activation needs a gate stack, the others take none");
  const int64_t positions = row.defined() ? row.size(0) : x.size(0), out = outer[1];
  check_offset(offset, inner[0], positions, "grouped_ffn");
  const at::ScalarType type = working_type(x);
  const bool grad = at::GradMode::is_enabled() &&
                    (wants(x) || wants(weight) || wants(weights.up_bias) || wants(weights.gate_bias) || wants(weights.down_bias) ||
                     wants(weights.up) || wants(weights.gate) || wants(weights.down));
  if (grad || options.weigh_on == WeighOn::input || !up.fuses() || !gate.fuses() || !down.fuses() ||
      !fast_type(x, type, {x.size(1), inner[1], out})) {
    const auto scaled = [&](const at::Tensor& t) { return weight.defined() ? t * weight.unsqueeze(1).to(t.scalar_type()) : t; };
    at::Tensor sorted = row.defined() ? gather_rows(x, row) : x;
    if (options.weigh_on == WeighOn::input) sorted = scaled(sorted);
    const at::Tensor g = gate ? gate.times(sorted, offset, weights.gate_bias) : at::Tensor();
    const at::Tensor y = down.times(activate(up.times(sorted, offset, weights.up_bias), g, options.activation), offset, weights.down_bias);
    const at::Tensor& by = options.weigh_on == WeighOn::output ? weight : at::Tensor();
    return row.defined() ? combine_rows(y, row, by, x.size(0)) : by.defined() ? scaled(y) : y;
  }
  const at::NoGradGuard guard;
  const detail::NoAutocast no_autocast(detail::autocast_keys());
  const at::Tensor rows = x.to(type).contiguous(), begin = offset.cpu().contiguous(), index = row.defined() ? row.contiguous() : row;
  const at::Tensor ups = readable(weights.up, type), gates = readable(weights.gate, type), downs = readable(weights.down, type);
  const at::Tensor up_b = cast(weights.up_bias, type), gate_b = cast(weights.gate_bias, type), down_b = cast(weights.down_bias, type);
  const at::Tensor y = at::empty({positions, out}, rows.options());
  for_type(type, [&](auto t) {
    using T = decltype(t);
    const cpu::FfnWeights<T> w{.experts = inner[0], .in = inner[2], .hidden = inner[1], .out = out, .gate = gate ? gate.stack<T>(gates) : cpu::Stack<T>{},
                               .up = up.stack<T>(ups), .down = down.stack<T>(downs), .gate_bias = values<T>(gate_b),
                               .up_bias = values<T>(up_b), .down_bias = values<T>(down_b), .activation = options.activation};
    cpu::ffn_forward<T>(w, {values<T>(rows), values<int64_t>(index), values<int64_t>(begin)}, data<T>(y), nullptr, nullptr);
  });
  if (index.defined()) return combine_rows(y, index, weight, x.size(0));
  return weight.defined() ? (y.to(at::kFloat) * weight.unsqueeze(1)).to(type) : y;
}

}  // namespace

at::Tensor grouped_ffn(const at::Tensor& x, const at::Tensor& offset, const at::Tensor& row, const at::Tensor& weight,
                       const FeedForwardWeights& weights, const FeedForwardOptions& options) {
  if (weights.packed_up || weights.packed_gate || weights.packed_down) return packed_ffn(x, offset, row, weight, weights, options);
  const bool out_in = weights.layout == WeightLayout::out_in;
  const int width = out_in ? 2 : 1;
  check(x.dim() == 2 && weights.up.dim() == 3 && weights.down.dim() == 3 && weights.up.size(width) == x.size(1), "kernels.shape",
        "grouped_ffn takes x [A, D] and stacks over experts of that width, got x of {} dimensions and width {}", x.dim(),
        x.dim() == 2 ? x.size(1) : -1);
  check(is_gated(options.activation.kind) == weights.gate.defined(), "kernels.shape",
        "grouped_ffn: a gated activation needs a gate stack, the others take none");
  const int64_t positions = row.defined() ? row.size(0) : x.size(0);
  check_offset(offset, weights.up.size(0), positions, "grouped_ffn");
  if (row.defined() && positions > 0)
    check(row.min().item<int64_t>() >= 0 && row.max().item<int64_t>() < x.size(0), "kernels.row_range",
          "grouped_ffn: a position reads a row outside the {} rows", x.size(0));
  check(!weight.defined() || weight.numel() == positions, "kernels.shape", "grouped_ffn: {} weights for {} positions",
        weight.defined() ? weight.numel() : 0, positions);
  const at::ScalarType type = working_type(x);
  const int64_t hidden = weights.up.size(out_in ? 1 : 2), out = weights.down.size(out_in ? 1 : 2);
  const bool on_cuda = cuda::takes_products(x, type, weights.up.size(0), {x.size(1), hidden, out});
  if (!on_cuda && (!out_in || !fast_type(x, type, {x.size(1), hidden, out})))
    return reference::grouped_ffn(x, offset, row, weight, weights, options).to(type);
  const auto run = [&](const at::Tensor& rows, const at::Tensor& index, const at::Tensor& scale) {
    if (on_cuda) return cuda::grouped_ffn(rows.to(type), offset, index, scale, weights, options);
    const Tensors operands{rows.to(type), scale, weights.up, weights.gate, weights.down, weights.up_bias, weights.gate_bias,
                           weights.down_bias};
    const bool training = at::GradMode::is_enabled() && std::any_of(operands.begin(), operands.end(), wants);
    return differentiable(operands, [&] { return feed_forward(operands, offset.contiguous(), index, options, training); })[0];
  };
  if (weight.defined() && options.weigh_on == WeighOn::input) {
    const at::Tensor sorted = row.defined() ? gather_rows(x, row) : x;
    const at::Tensor y = run(sorted * weight.unsqueeze(1).to(sorted.scalar_type()), {}, {});
    return row.defined() ? combine_rows(y, row, {}, x.size(0)) : y;
  }
  return run(x, row.defined() ? row.contiguous() : row, weight);
}

}  // namespace switchyard::kernels
