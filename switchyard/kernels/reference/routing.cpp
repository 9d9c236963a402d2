#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "switchyard/kernels/reference/reference.h"

namespace switchyard::kernels::reference {

TopK top_k(const at::Tensor& scores, int64_t k) {
  auto [values, indices] = at::sort(scores.detach(), /*stable=*/true, -1, /*descending=*/true);
  indices = indices.narrow(-1, 0, k).contiguous();
  return {at::gather(scores, -1, indices), indices};
}

TopK top_k_grouped(const at::Tensor& scores, int64_t k, GroupLimit limit) {
  const int64_t rows = scores.size(0), width = scores.size(1) / limit.groups;
  at::Tensor columns = scores.detach().view({rows, limit.groups, width});
  at::Tensor group_score =
      std::get<0>(at::sort(columns, true, -1, true)).narrow(-1, 0, limit.best).sum(-1);
  at::Tensor groups = std::get<1>(at::sort(group_score, true, -1, true)).narrow(-1, 0, limit.chosen);
  at::Tensor open = at::zeros({rows, limit.groups}, scores.options().dtype(at::kBool)).scatter(1, groups, true);
  // Sort the open columns first, then by score within them: -inf stays legal inside an open group.
  at::Tensor open_columns = open.unsqueeze(-1).expand({rows, limit.groups, width}).reshape({rows, limit.groups * width});
  at::Tensor by_score = std::get<1>(at::sort(scores.detach(), true, -1, true));
  at::Tensor first = std::get<1>(at::sort(at::gather(open_columns, 1, by_score).to(at::kInt), true, -1, true));
  at::Tensor indices = at::gather(by_score, 1, first.narrow(1, 0, k)).contiguous();
  return {at::gather(scores, -1, indices), indices};
}

at::Tensor admit(const at::Tensor& bin, const at::Tensor& priority, const at::Tensor& exempt,
                 const at::Tensor& capacity, int64_t bins) {
  const int64_t pairs = bin.size(0);
  at::Tensor asks = bin.ge(0);
  if (exempt.defined()) asks = asks.logical_and(exempt.logical_not());
  // Order: by bin, then by priority (descending), then by pair. Those that do not ask get a bin of their own.
  at::Tensor place = at::where(asks, bin, at::full_like(bin, bins));
  at::Tensor by = at::arange(pairs, bin.options());
  if (priority.defined()) by = std::get<1>(at::sort(priority.detach(), true, 0, true));
  by = at::index_select(by, 0, std::get<1>(at::sort(at::index_select(place, 0, by), true, 0, false)));
  at::Tensor counts = at::zeros({bins + 1}, bin.options()).index_add(0, place, at::full_like(place, 1));
  at::Tensor begin = counts.cumsum(0) - counts;
  at::Tensor sorted_place = at::index_select(place, 0, by);
  at::Tensor rank = at::arange(pairs, bin.options()) - at::index_select(begin, 0, sorted_place);
  at::Tensor room = at::zeros({bins + 1}, bin.options());
  room.narrow(0, 0, bins).copy_(capacity);
  at::Tensor in = rank.lt(at::index_select(room, 0, sorted_place));
  at::Tensor kept = at::zeros_like(in).index_copy(0, by, in);
  return exempt.defined() ? kept.logical_or(exempt.logical_and(bin.ge(0))) : kept;
}

}  // namespace switchyard::kernels::reference
