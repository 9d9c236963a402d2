#include "switchyard/kernels/batched_lora.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/index_select.h>

#include "switchyard/base/error.h"
#include "switchyard/kernels/grouped_linear.h"
#include "switchyard/kernels/permutation.h"

namespace switchyard::kernels {

at::Tensor batched_lora(const at::Tensor& y, const at::Tensor& x, const at::Tensor& a, const at::Tensor& b, const at::Tensor& scale,
                        const at::Tensor& adapter) {
  check(x.dim() == 2 && y.dim() == 2 && y.size(0) == x.size(0) && a.dim() == 3 && b.dim() == 3 && a.size(0) == b.size(0) &&
            a.size(1) == b.size(2) && a.size(2) == x.size(1) && b.size(1) == y.size(1),
        "kernels.shape", "batched_lora takes x [T, I], y [T, O], a [N, r, I] and b [N, O, r]; x has {} dimensions and y {}", x.dim(), y.dim());
  check(adapter.dim() == 1 && adapter.size(0) == x.size(0) && adapter.scalar_type() == at::kLong, "kernels.shape",
        "batched_lora: adapter must be [{}] int64", x.size(0));
  check(!scale.defined() || (scale.dim() == 1 && scale.size(0) == a.size(0)), "kernels.shape", "batched_lora: scale must be [{}]", a.size(0));
  if (a.size(0) == 0 || x.size(0) == 0) return y;
  const at::Tensor named = adapter != -1;
  const SlotOrder sorted = sort_by_slot(adapter.masked_fill(adapter == -1, 0), a.size(0), named);
  const at::Tensor low = grouped_linear(gather_rows(x, sorted.order), a, sorted.offset);
  const at::Tensor change = grouped_linear(low, b, sorted.offset);
  at::Tensor by;
  if (scale.defined()) by = at::index_select(scale, 0, adapter.index_select(0, sorted.order));
  return y + combine_rows(change, sorted.order, by, x.size(0)).to(y.scalar_type());
}

}  // namespace switchyard::kernels
