// Moving rows between token order and slot order: stable counting sort, gather, weighted combine.
// Sums run in a fixed order (ascending position), so results depend on neither threads nor runs.
// A slot is a place that computes: an expert in the plain case.
#pragma once

#include <ATen/core/Tensor.h>

namespace switchyard::kernels {

/// Pairs grouped by slot: slot s owns order[offset[s] .. offset[s+1]).
struct SlotOrder {
  at::Tensor order;   ///< [A] int64: pair indices, by slot, ascending within a slot
  at::Tensor offset;  ///< [slots+1] int64: where each slot begins in `order`
};

/// slot: [P] int64 in [0, slots); kept: [P] bool or undefined (= all). Pairs not kept are left out (A <= P).
/// Throws kernels.slot_range naming the first pair whose slot is out of range.
SlotOrder sort_by_slot(const at::Tensor& slot, int64_t slots, const at::Tensor& kept = {});

/// Where each pair went: [pairs] int64, the position of pair p in `order`, or -1 when it was left out.
at::Tensor inverse_order(const at::Tensor& order, int64_t pairs);

/// x: [T, ...]; index: [A] int64 in [0, T). Returns [A, ...]. Differentiable in x.
at::Tensor gather_rows(const at::Tensor& x, const at::Tensor& index);

/// out[r] = sum over positions a with row[a] = r, ascending, of weight[a] * y[a].
/// y: [A, ...]; row: [A] int64 in [0, rows); weight: [A] or undefined (= 1). Returns [rows, ...] of y's type.
/// Sums and weights are float32 (float64 for float64 y). Differentiable in y and weight.
at::Tensor combine_rows(const at::Tensor& y, const at::Tensor& row, const at::Tensor& weight, int64_t rows);

}  // namespace switchyard::kernels
