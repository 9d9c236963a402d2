#include "switchyard/kernels/cuda/rows.h"

#include <ATen/ops/empty.h>

#include "switchyard/kernels/cuda/routing.h"

namespace switchyard::kernels::cuda {
namespace {

/// Up to so many positions, each row looks for its own among all.
constexpr int64_t kLookedFor = 1024;

int64_t width_of(const at::Tensor& x) {
  int64_t width = 1;
  for (int64_t d = 1; d < x.dim(); ++d) width *= x.size(d);
  return width;
}

std::vector<int64_t> with_rows(const at::Tensor& x, int64_t rows) {
  std::vector<int64_t> shape = x.sizes().vec();
  shape[0] = rows;
  return shape;
}

}  // namespace

at::Tensor gather(const at::Tensor& x, const at::Tensor& row, const at::Tensor& weight) {
  const at::Tensor out = at::empty(with_rows(x, row.size(0)), x.options());
  const Call call(x);
  call->gather({.number = number_of(x.scalar_type()), .x = bytes(x), .row = values<int64_t>(row), .weight = values<float>(weight),
                .count = row.size(0), .width = width_of(x), .out = raw(out)},
               call.stream());
  return out;
}

at::Tensor combine(const at::Tensor& y, const at::Tensor& row, const at::Tensor& weight, int64_t rows) {
  const at::Tensor out = at::empty(with_rows(y, rows), y.options());
  SlotOrder list;
  if (row.size(0) > kLookedFor) list = positions_by_row(row, rows);
  const Call call(y);
  call->combine({.number = number_of(y.scalar_type()), .y = bytes(y), .weight = values<float>(weight), .row = values<int64_t>(row),
                 .order = values<int64_t>(list.order), .begin = values<int64_t>(list.offset), .count = row.size(0), .rows = rows,
                 .width = width_of(y), .out = raw(out)},
                call.stream());
  return out;
}

at::Tensor row_products(const at::Tensor& y, const at::Tensor& x, const at::Tensor& row) {
  const at::Tensor out = at::empty({row.size(0)}, y.options().dtype(at::kFloat));
  const Call call(y);
  call->row_products({.number = number_of(y.scalar_type()), .y = bytes(y), .x = bytes(x), .row = values<int64_t>(row),
                      .count = row.size(0), .width = width_of(y), .out = data<float>(out)},
                     call.stream());
  return out;
}

}  // namespace switchyard::kernels::cuda
