#include "switchyard/kernels/permutation.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/aminmax.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>

#include <numeric>
#include <optional>

#include "switchyard/base/error.h"
#include "switchyard/kernels/autograd.h"
#include "switchyard/kernels/cpu/rows.h"
#include "switchyard/kernels/cuda/routing.h"
#include "switchyard/kernels/cuda/rows.h"
#include "switchyard/kernels/reference/reference.h"

namespace switchyard::kernels {
namespace {

bool on_cuda(const at::Tensor& x) { return cuda::takes(x, {at::kFloat, at::kBFloat16}); }

bool fast(const at::Tensor& x) {
  return on_cuda(x) ||
         (x.device().is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16 || x.scalar_type() == at::kDouble));
}

int64_t width_of(const at::Tensor& x) {
  int64_t width = 1;
  for (int64_t d = 1; d < x.dim(); ++d) width *= x.size(d);
  return width;
}

/// Sums and weights are of this type.
at::ScalarType sum_type(const at::Tensor& x) { return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }

template <typename F>
void for_type(at::ScalarType type, F&& f) {
  if (type == at::kFloat) f(float{}, float{});
  else if (type == at::kDouble) f(double{}, double{});
  else f(c10::BFloat16{}, float{});
}

template <typename T> const T* values(const at::Tensor& t) { return t.defined() ? t.const_data_ptr<T>() : nullptr; }

at::Tensor gathered(const at::Tensor& x, const at::Tensor& row, const at::Tensor& weight) {
  if (on_cuda(x)) return cuda::gather(x, row, weight);
  std::vector<int64_t> shape = x.sizes().vec();
  shape[0] = row.size(0);
  at::Tensor out = at::empty(shape, x.options());
  for_type(x.scalar_type(), [&]<typename T, typename S>(T, S) {
    cpu::gather<T, S>(values<T>(x), values<int64_t>(row), values<S>(weight), row.size(0), width_of(x), out.mutable_data_ptr<T>());
  });
  return out;
}

at::Tensor combined(const at::Tensor& y, const at::Tensor& row, const at::Tensor& weight, int64_t rows) {
  if (on_cuda(y)) return cuda::combine(y, row, weight, rows);
  std::vector<int64_t> shape = y.sizes().vec();
  shape[0] = rows;
  at::Tensor out = at::empty(shape, y.options());
  for_type(y.scalar_type(), [&]<typename T, typename S>(T, S) {
    cpu::combine<T, S>(values<T>(y), cpu::list_rows(values<int64_t>(row), row.size(0), rows), values<S>(weight), width_of(y),
                       out.mutable_data_ptr<T>());
  });
  return out;
}

at::Tensor products(const at::Tensor& y, const at::Tensor& x, const at::Tensor& row) {
  if (on_cuda(y)) return cuda::row_products(y, x, row);
  at::Tensor out = at::empty({row.size(0)}, y.options().dtype(sum_type(y)));
  for_type(y.scalar_type(), [&]<typename T, typename S>(T, S) {
    cpu::row_products<T, S>(values<T>(y), values<T>(x), values<int64_t>(row), row.size(0), width_of(y), out.mutable_data_ptr<S>());
  });
  return out;
}

using Tensors = std::vector<at::Tensor>;

Tensors combine_gradients(const Tensors& saved, const at::Tensor& given) {
  const at::Tensor &y = saved[0], &row = saved[1], &weight = saved[2];
  if (at::GradMode::is_enabled()) {
    const int64_t rows = given.size(0);
    return detail::differentiable_backward([&] { return reference::combine_rows(y, row, weight, rows); }, {y, weight}, given);
  }
  const at::Tensor grad = given.to(y.scalar_type()).contiguous();
  const at::Tensor w = weight.defined() ? weight.to(sum_type(y)).contiguous() : weight;
  at::Tensor dy, dw;
  if (y.requires_grad()) dy = gathered(grad, row, w);
  if (weight.defined() && weight.requires_grad()) {
    dw = products(y.contiguous(), grad, row).view(weight.sizes()).to(weight.scalar_type());
  }
  return {dy, dw};
}

void check_rows(const at::Tensor& row, int64_t rows, const char* who) {
  check(row.dim() == 1 && row.scalar_type() == at::kLong, "kernels.row_range", "{}: the row of each position must be [A] int64", who);
  if (row.numel() == 0) return;
  if (!row.device().is_cpu()) {  // two numbers come to the host, not all of them
    const auto [low, high] = at::aminmax(row);
    const at::Tensor ends = at::stack({low, high}).cpu();
    const int64_t* end = ends.const_data_ptr<int64_t>();
    check(end[0] >= 0 && end[1] < rows, "kernels.row_range", "{}: positions have rows {} to {}, but there are {}", who, end[0], end[1], rows);
    return;
  }
  const at::Tensor host = row.cpu().contiguous();
  const int64_t* r = host.const_data_ptr<int64_t>();
  for (int64_t a = 0; a < host.size(0); ++a)
    check(r[a] >= 0 && r[a] < rows, "kernels.row_range", "{}: position {} has row {}, but there are {}", who, a, r[a], rows);
}

}  // namespace

SlotOrder sort_by_slot(const at::Tensor& slot, int64_t slots, const at::Tensor& kept) {
  check(slot.dim() == 1 && slot.scalar_type() == at::kLong, "kernels.slot_range", "slots must be [P] int64");
  check(!kept.defined() || (kept.scalar_type() == at::kBool && kept.sizes() == slot.sizes()), "kernels.shape",
        "kept must be [{}] bool", slot.size(0));
  const auto refuse = [&](int64_t pair, int64_t named) {
    fail("kernels.slot_range", "pair {} goes to slot {}, but there are {}", pair, named, slots);
  };
  if (const auto found = cuda::sort_by_slot(slot, slots, kept)) {
    if (found->first_bad >= 0) refuse(found->first_bad, slot[found->first_bad].item<int64_t>());
    return found->sorted;
  }
  const at::Tensor s = slot.cpu().contiguous(), k = kept.defined() ? kept.cpu().contiguous() : kept;
  const int64_t pairs = s.size(0);
  const int64_t* of = s.const_data_ptr<int64_t>();
  const bool* in = k.defined() ? k.const_data_ptr<bool>() : nullptr;
  SlotOrder sorted;
  sorted.offset = at::full({slots + 1}, 0, s.options());
  int64_t* offset = sorted.offset.mutable_data_ptr<int64_t>();
  for (int64_t p = 0; p < pairs; ++p) {
    if (of[p] < 0 || of[p] >= slots) refuse(p, of[p]);
    if (!in || in[p]) ++offset[of[p] + 1];
  }
  std::partial_sum(offset, offset + slots + 1, offset);
  sorted.order = at::empty({offset[slots]}, s.options());
  int64_t* order = sorted.order.mutable_data_ptr<int64_t>();
  std::vector<int64_t> next(offset, offset + slots);
  for (int64_t p = 0; p < pairs; ++p)
    if (!in || in[p]) order[next[of[p]]++] = p;
  sorted.order = sorted.order.to(slot.device());
  sorted.offset = sorted.offset.to(slot.device());
  return sorted;
}

at::Tensor inverse_order(const at::Tensor& order, int64_t pairs) {
  if (const auto position = cuda::inverse_order(order, pairs)) return *position;
  return at::full({pairs}, -1, order.options()).index_copy_(0, order, at::arange(order.size(0), order.options()));
}

at::Tensor gather_rows(const at::Tensor& x, const at::Tensor& index) {
  check(x.dim() >= 1, "kernels.shape", "gather_rows takes x [T, ...]");
  check_rows(index, x.size(0), "gather_rows");
  if (!fast(x)) return reference::gather_rows(x, index);
  const at::Tensor of = index.contiguous();
  return differentiable({x}, [&] {
    return Computed{{gathered(x.contiguous(), of, {})}, {of}, [rows = x.size(0)](const Tensors& saved, const Tensors& grads) -> Tensors {
      return {combine_rows(grads[0], saved[0], {}, rows)};  // differentiable itself, so second derivatives follow
    }};
  })[0];
}

at::Tensor combine_rows(const at::Tensor& y, const at::Tensor& row, const at::Tensor& weight, int64_t rows) {
  check(y.dim() >= 1 && row.dim() == 1 && y.size(0) == row.size(0) && (!weight.defined() || weight.numel() == row.size(0)),
        "kernels.shape", "combine_rows takes y [A, ...], row [A] and weight [A]");
  check_rows(row, rows, "combine_rows");
  if (!fast(y)) return reference::combine_rows(y, row, weight, rows);
  const at::Tensor of = row.contiguous();
  return differentiable({y, weight}, [&] {
    const at::Tensor w = weight.defined() ? weight.detach().to(sum_type(y)).contiguous() : weight;
    return Computed{{combined(y.contiguous(), of, w, rows)}, {y, of, weight},
                    [](const Tensors& saved, const Tensors& grads) { return combine_gradients(saved, grads[0]); }};
  })[0];
}

}  // namespace switchyard::kernels
