#include "switchyard/kernels/cuda/products.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_grouped_mm.h>
#include <ATen/ops/empty.h>

#include "switchyard/kernels/cuda/rows.h"

namespace switchyard::kernels::cuda {
namespace {

Matrices matrices(const StackView& stack, at::ScalarType type) {
  return {.data = bytes(stack.data), .wide = stack.data.defined() && stack.data.scalar_type() != type};
}

MapArguments arguments(const Groups& groups, const at::Tensor& x, const StackView& stack) {
  return {.number = number_of(x.scalar_type()), .part = {{bytes(x), matrices(stack, x.scalar_type())}, {}},
          .row = values<int64_t>(groups.row), .offset = values<int64_t>(groups.offset), .experts = stack.experts(),
          .positions = groups.positions, .in = stack.in(), .out = stack.out(), .in_out = stack.in_out};
}

void run(const at::Tensor& x, const MapArguments& m) {
  const Call call(x);
  if (m.positions <= kFewPositions && !m.in_out) call->map_few(m, call.stream());
  else call->map(m, call.stream());
}

/// libtorch's product wants rows of 16 bytes, and of one type. What few rows need is reading, which it is not made for.
bool library_is_faster(const Groups& groups, const at::Tensor& x, const StackView& stack) {
  const Launchers& launchers = *launchers_for(x);
  return x.scalar_type() == at::kBFloat16 && stack.data.scalar_type() == at::kBFloat16 && stack.in() % 8 == 0 && stack.out() % 8 == 0 &&
         groups.positions > kFewPositions && launchers.capability(x.is_cuda() ? x.device().index() : 0) >= 90;
}

at::Tensor library_map(const Groups& groups, const at::Tensor& x, const StackView& stack) {
  const at::Tensor rows = groups.row.defined() ? gather(x, groups.row, {}) : x;
  const at::Tensor ends = groups.offset.narrow(0, 1, stack.experts()).to(at::kInt);
  return at::_grouped_mm(rows, stack.in_out ? stack.data : stack.data.transpose(1, 2), ends);
}

}  // namespace

StackView readable(const at::Tensor& t, at::ScalarType type, WeightLayout layout) {
  if (!t.defined()) return {};
  return {t.detach().to(t.scalar_type() == at::kFloat ? at::kFloat : type).contiguous(), layout == WeightLayout::in_out};
}

at::Tensor map(const Groups& groups, const at::Tensor& x, const StackView& stack, const at::Tensor& bias) {
  if (!bias.defined() && library_is_faster(groups, x, stack)) return library_map(groups, x, stack);
  const at::Tensor y = at::empty({groups.positions, stack.out()}, x.options());
  MapArguments m = arguments(groups, x, stack);
  m.bias = bytes(bias);
  m.y = raw(y);
  run(x, m);
  return y;
}

at::Tensor map_both(const Groups& groups, const at::Tensor& x, const StackView& stack, const at::Tensor& x2, const StackView& stack2) {
  const at::Tensor y = at::empty({groups.positions, stack.out()}, x.options());
  MapArguments m = arguments(groups, x, stack);
  m.part[1] = {bytes(x2), matrices(stack2, x.scalar_type())};
  m.parts = 2;
  m.y = raw(y);
  run(x, m);
  return y;
}

Hidden hidden(const Groups& groups, const at::Tensor& x, const HiddenMaps& maps, Outputs outputs) {
  const bool gated = maps.gate.data.defined();
  const int64_t width = maps.up.out();
  const auto space = [&] { return at::empty({groups.positions, width}, x.options()); };
  if (library_is_faster(groups, x, maps.up) && (!gated || library_is_faster(groups, x, maps.gate))) {
    const Groups sorted{groups.offset, {}, groups.positions};
    const at::Tensor rows = groups.row.defined() ? gather(x, groups.row, {}) : x;
    Hidden result{.h = space(), .up = library_map(sorted, rows, maps.up)};
    if (gated) result.gate = library_map(sorted, rows, maps.gate);
    const Call call(x);
    call->activate({.number = number_of(x.scalar_type()), .gate = raw(result.gate), .up = raw(result.up), .gate_bias = bytes(maps.gate_bias),
                    .bias = bytes(maps.up_bias), .offset = values<int64_t>(groups.offset), .experts = maps.up.experts(),
                    .positions = groups.positions, .width = width, .activation = maps.activation, .keep = outputs != Outputs::hidden,
                    .h = raw(result.h)},
                   call.stream());
    return result;
  }
  Hidden result;
  if (outputs != Outputs::sums) result.h = space();
  if (outputs != Outputs::hidden) {
    result.up = space();
    if (gated) result.gate = space();
  }
  MapArguments m = arguments(groups, x, gated ? maps.gate : maps.up);
  if (gated) m.part[1] = {bytes(x), matrices(maps.up, x.scalar_type())};
  m.gated = gated;
  m.bias = bytes(maps.up_bias);
  m.gate_bias = bytes(maps.gate_bias);
  m.activation = maps.activation;
  m.keep = raw(result.up);
  m.keep_gate = raw(result.gate);
  m.y = raw(result.h);
  run(x, m);
  return result;
}

at::Tensor stack_gradient(const Groups& groups, const Side& outputs, const Side& inputs, const StackView& stack) {
  const Side &left = stack.in_out ? inputs : outputs, &right = stack.in_out ? outputs : inputs;
  const at::ScalarType type = outputs.rows.scalar_type();
  const bool wide = stack.data.scalar_type() != type;
  const at::Tensor gradient = at::empty(stack.data.sizes(), stack.data.options().requires_grad(false));
  const Call call(outputs.rows);
  call->outer_products({.number = number_of(type), .left = bytes(left.rows), .right = bytes(right.rows), .left_row = values<int64_t>(left.row),
                        .right_row = values<int64_t>(right.row), .offset = values<int64_t>(groups.offset), .experts = stack.experts(),
                        .m = gradient.size(1), .n = gradient.size(2), .gradient = raw(gradient), .wide = wide, .accumulate = false},
                       call.stream());
  return gradient;
}

at::Tensor column_sums(const Groups& groups, const Side& y, const at::Tensor& weight) {
  const int64_t experts = groups.offset.size(0) - 1, width = y.rows.size(1);
  const at::Tensor sum = at::empty({experts, width}, y.rows.options().dtype(at::kFloat));
  const Call call(y.rows);
  call->column_sums({.number = number_of(y.rows.scalar_type()), .y = bytes(y.rows), .row = values<int64_t>(y.row),
                     .weight = values<float>(weight), .offset = values<int64_t>(groups.offset), .experts = experts, .width = width,
                     .sum = data<float>(sum)},
                    call.stream());
  return sum;
}

}  // namespace switchyard::kernels::cuda
