#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/index_add.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/zeros.h>

#include "switchyard/kernels/reference/reference.h"

namespace switchyard::kernels::reference {

SlotOrder sort_by_slot(const at::Tensor& slot, int64_t slots, const at::Tensor& kept) {
  at::Tensor chosen = kept.defined() ? at::nonzero(kept).view({-1}) : at::arange(slot.size(0), slot.options());
  auto [sorted, by] = at::sort(at::index_select(slot, 0, chosen), /*stable=*/true, 0, /*descending=*/false);
  at::Tensor ends = at::cumsum(at::bincount(sorted, {}, slots), 0);
  return {at::index_select(chosen, 0, by), at::cat({at::zeros({1}, ends.options()), ends})};
}

at::Tensor gather_rows(const at::Tensor& x, const at::Tensor& index) { return at::index_select(x, 0, index); }

at::Tensor combine_rows(const at::Tensor& y, const at::Tensor& row, const at::Tensor& weight, int64_t rows) {
  auto sum = y.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  at::Tensor terms = y.to(sum);
  if (weight.defined()) {
    std::vector<int64_t> shape(y.dim(), 1);
    shape[0] = y.size(0);
    terms = terms * weight.to(sum).view(shape);
  }
  std::vector<int64_t> shape = y.sizes().vec();
  shape[0] = rows;
  return at::index_add(at::zeros(shape, terms.options()), 0, row, terms).to(y.scalar_type());
}

}  // namespace switchyard::kernels::reference
