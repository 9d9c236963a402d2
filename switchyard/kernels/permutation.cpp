#include "switchyard/kernels/permutation.h"

#include "switchyard/base/error.h"
#include "switchyard/kernels/reference/reference.h"
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>

namespace switchyard::kernels {

SlotOrder sort_by_slot(const at::Tensor& slot, int64_t slots, const at::Tensor& kept) {
  return reference::sort_by_slot(slot, slots, kept);
}
at::Tensor inverse_order(const at::Tensor& order, int64_t pairs) {
  return at::full({pairs}, -1, order.options()).index_put_({order}, at::arange(order.size(0), order.options()));
}
at::Tensor gather_rows(const at::Tensor& x, const at::Tensor& index) { return reference::gather_rows(x, index); }
at::Tensor combine_rows(const at::Tensor& y, const at::Tensor& row, const at::Tensor& weight, int64_t rows) {
  return reference::combine_rows(y, row, weight, rows);
}

}  // namespace switchyard::kernels
