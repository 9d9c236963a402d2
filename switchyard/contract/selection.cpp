#include "switchyard/contract/selection.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/scatter_add.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/zeros.h>

#include <tuple>
#include <utility>

#include "switchyard/base/error.h"

namespace switchyard {
namespace {

at::TensorOptions index_options(const at::Tensor& like) {
  return at::TensorOptions().dtype(at::kLong).device(like.device());
}

/// 0 0 0 1 1 1 ... and 0 1 2 0 1 2 ...: k pairs a unit, unit after unit.
std::pair<at::Tensor, at::Tensor> units_and_ranks(int64_t units, int64_t k, const at::TensorOptions& options) {
  if (!options.device().is_cpu())
    return {at::arange(units, options).unsqueeze(1).expand({units, k}).reshape({-1}), at::arange(k, options).unsqueeze(0).expand({units, k}).reshape({-1})};
  at::Tensor unit = at::empty({units * k}, options), rank = at::empty({units * k}, options);
  int64_t *u = unit.mutable_data_ptr<int64_t>(), *r = rank.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < units; ++i)
    for (int64_t j = 0; j < k; ++j, ++u, ++r) *u = i, *r = j;
  return {std::move(unit), std::move(rank)};
}

}  // namespace

Selection select_pairs(const at::Tensor& ids, const at::Tensor& weights, int64_t experts) {
  check(ids.dim() == 2 && ids.sizes() == weights.sizes(), "routing.pairs",
        "select_pairs takes ids and weights of one shape [units, k], got {} and {} dimensions", ids.dim(),
        weights.dim());
  const int64_t units = ids.size(0), k = ids.size(1);
  Selection selection;
  selection.units = units;
  selection.experts = experts;
  selection.per_unit = k;
  std::tie(selection.unit, selection.rank) = units_and_ranks(units, k, index_options(ids));
  selection.expert = ids.reshape({-1});
  selection.weight = weights.reshape({-1});
  return selection;
}

Selection select_all(const at::Tensor& weights) {
  check(weights.dim() == 2, "routing.pairs", "select_all takes weights [units, E], got {} dimensions", weights.dim());
  Selection selection;
  selection.units = weights.size(0);
  selection.experts = weights.size(1);
  selection.dense_weight = weights;
  return selection;
}

Selection with_pairs(Selection selection) {
  if (selection.has_pairs()) return selection;
  const at::Tensor& dense = selection.dense_weight;
  TORCH_INTERNAL_ASSERT(dense.defined());
  const int64_t units = selection.units, experts = selection.experts;
  const at::Tensor by_weight = at::argsort(dense.detach(), /*stable=*/true, /*dim=*/1, /*descending=*/true);
  std::tie(selection.unit, selection.rank) = units_and_ranks(units, experts, index_options(dense));
  selection.expert = by_weight.reshape({-1});
  selection.weight = dense.gather(1, by_weight).reshape({-1});
  selection.per_unit = experts;
  return selection;
}

Selection over_rows(Selection selection) {
  if (!selection.unit_of_row.defined()) return selection;
  const at::Tensor unit_of_row = selection.unit_of_row;
  Selection rows;
  check(selection.outputs == 0, "routing.units", "a decision for groups of rows cannot have a combine list");
  if (selection.has_pairs()) {
    check(selection.per_unit > 0, "routing.units",
          "a decision for groups of rows must give every group the same number of experts");
    const int64_t k = selection.per_unit;
    const auto by_row = [&](const at::Tensor& of_pair) { return of_pair.view({selection.units, k}).index_select(0, unit_of_row); };
    rows = select_pairs(by_row(selection.expert), by_row(selection.weight), selection.experts);
    if (selection.kept.defined()) rows.kept = by_row(selection.kept).reshape({-1});
  } else {
    rows = select_all(selection.dense_weight.index_select(0, unit_of_row));
  }
  rows.run = selection.run;
  if (selection.always.defined()) rows.always = selection.always.index_select(0, unit_of_row);
  rows.gates = std::move(selection.gates);
  return rows;
}

at::Tensor dense_weights(const Selection& selection) {
  if (!selection.has_pairs()) return selection.dense_weight;
  at::Tensor weight = selection.weight;
  if (selection.kept.defined()) weight = weight * selection.kept.to(weight.scalar_type());
  const at::Tensor flat = selection.unit * selection.experts + selection.expert;
  return at::zeros({selection.units * selection.experts}, weight.options())
      .scatter_add(0, flat, weight)
      .view({selection.units, selection.experts});
}

at::Tensor pair_counts(const Selection& selection, bool kept_only) {
  if (!selection.has_pairs())
    return at::zeros({selection.experts}, at::kLong).fill_(selection.units);
  at::Tensor expert = selection.expert;
  if (kept_only && selection.kept.defined()) expert = expert.masked_select(selection.kept);
  return at::bincount(expert.cpu(), {}, selection.experts);
}

}  // namespace switchyard
