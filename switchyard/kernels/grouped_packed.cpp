#include "switchyard/kernels/grouped_packed.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>

#include "switchyard/base/differentiable.h"
#include "switchyard/base/error.h"
#include "switchyard/kernels/autograd.h"
#include "switchyard/kernels/cpu/grouped_packed.h"

namespace switchyard::kernels {
namespace {

struct Sizes { int64_t experts, out, in; };

Sizes sizes_of(const PackedTensor& weight) {
  const std::vector<int64_t>& shape = weight.shape();
  check(shape.size() == 2 || shape.size() == 3, "kernels.shape", "grouped_linear_packed takes weights [E, O, I] or [O, I], not {}-dimensional ones",
        shape.size());
  if (shape.size() == 2) return {1, shape[0], shape[1]};
  return {shape[0], shape[1], shape[2]};
}

/// The matrix [O, I] of expert e, as floats of the rows' type on their device.
at::Tensor matrix(const PackedTensor& weight, const Sizes& sizes, int64_t e, const at::Tensor& rows) {
  const at::Tensor one = weight.shape().size() == 2 ? weight.dequantise(rows.scalar_type()) : weight.dequantise(e, 1, rows.scalar_type());
  return one.view({sizes.out, sizes.in}).to(rows.device());
}

/// Calls run(e, first row, rows) for every expert that has rows.
template <typename Run>
void each_expert(const at::Tensor& offset, int64_t experts, const Run& run) {
  const int64_t* begin = offset.const_data_ptr<int64_t>();
  for (int64_t e = 0; e < experts; ++e)
    if (begin[e + 1] > begin[e]) run(e, begin[e], begin[e + 1] - begin[e]);
}

at::Tensor plain(const at::Tensor& x, const PackedTensor& weight, const Sizes& sizes, const at::Tensor& offset, const at::Tensor& bias) {
  at::Tensor y = at::empty({x.size(0), sizes.out}, x.options());
  each_expert(offset, sizes.experts, [&](int64_t e, int64_t first, int64_t rows) {
    at::Tensor part = at::matmul(x.narrow(0, first, rows), matrix(weight, sizes, e, x).t());
    if (bias.defined()) part = part + bias.select(0, e);
    y.narrow(0, first, rows).copy_(part);
  });
  return y;
}

at::Tensor fast(const at::Tensor& x, const PackedRows& weight, const Sizes& sizes, const at::Tensor& offset, const at::Tensor& bias, bool learning) {
  const at::Tensor rows = x.contiguous(), wide = bias.defined() ? bias.to(at::kFloat).contiguous() : bias;
  at::Tensor y = at::empty({rows.size(0), sizes.out}, rows.options());
  const auto run = [&](auto t) {
    using T = decltype(t);
    cpu::map_packed<T>(weight, sizes.experts, sizes.out, sizes.in, rows.const_data_ptr<T>(), offset.const_data_ptr<int64_t>(),
                       wide.defined() ? wide.const_data_ptr<float>() : nullptr, y.mutable_data_ptr<T>(), !learning);
  };
  if (x.scalar_type() == at::kFloat) run(float{});
  else run(c10::BFloat16{});
  return y;
}

}  // namespace

at::Tensor grouped_linear_packed(const at::Tensor& x, const std::shared_ptr<const PackedTensor>& packed, const at::Tensor& offset,
                                 const at::Tensor& bias) {
  const PackedTensor& weight = *packed;
  const Sizes sizes = sizes_of(weight);
  check(x.dim() == 2 && x.size(1) == sizes.in, "kernels.shape", "grouped_linear_packed: weights map rows of width {}, not {}", sizes.in,
        x.dim() == 2 ? x.size(1) : -1);
  check(!bias.defined() || (bias.dim() == 2 && bias.size(0) == sizes.experts && bias.size(1) == sizes.out), "kernels.shape",
        "grouped_linear_packed: bias must be [{}, {}]", sizes.experts, sizes.out);
  check(at::isFloatingType(x.scalar_type()), "kernels.dtype", "grouped_linear_packed takes floating point rows, not {}",
        c10::toString(x.scalar_type()));
  detail::check_offset(offset, sizes.experts, x.size(0), "grouped_linear_packed");
  const at::Tensor rows = x.to(detail::product_type(x)), begin = offset.cpu().contiguous();
  const auto* by_rows = dynamic_cast<const PackedRows*>(&weight);
  const at::ScalarType type = rows.scalar_type();
  const bool native = by_rows && rows.device().is_cpu() &&
                      (type == at::kFloat || (type == at::kBFloat16 && sizes.in % 2 == 0));
  const detail::NoAutocast no_autocast(detail::autocast_keys());
  const bool learning = at::GradMode::is_enabled() && (rows.requires_grad() || (bias.defined() && bias.requires_grad()));
  return differentiable({rows, bias}, [&] {
    return Computed{{native ? fast(rows, *by_rows, sizes, begin, bias, learning) : plain(rows, weight, sizes, begin, bias)},
                    {begin, bias},
                    [packed, sizes, type](const std::vector<at::Tensor>& saved, const std::vector<at::Tensor>& grads) {
                      const at::Tensor grad = grads[0].to(type);
                      at::Tensor dx = at::empty({grad.size(0), sizes.in}, grad.options()), db;
                      if (saved[1].defined() && saved[1].requires_grad()) db = at::zeros(saved[1].sizes(), saved[1].options());
                      each_expert(saved[0], sizes.experts, [&](int64_t e, int64_t first, int64_t count) {
                        const at::Tensor part = grad.narrow(0, first, count);
                        dx.narrow(0, first, count).copy_(at::matmul(part, matrix(*packed, sizes, e, part)));
                        if (db.defined()) db.select(0, e).copy_(part.sum(0));
                      });
                      return std::vector<at::Tensor>{dx, db};
                    }};
  })[0];
}

}  // namespace switchyard::kernels
