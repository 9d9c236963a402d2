// The routing fronts (topk.h, permutation.h, admission.h) on the CUDA kernels. Each returns nothing where the kernels do not take
// the tensors (device, type, size): the front goes on with plain ATen then. Arguments are checked by the fronts, but for what
// only a look at the device can tell, which is returned.
#pragma once

#include <optional>

#include "switchyard/kernels/cuda/backend.h"
#include "switchyard/kernels/permutation.h"
#include "switchyard/kernels/topk.h"

namespace switchyard::kernels::cuda {

struct BestColumns {
  at::Tensor ids;          ///< [T, k] int64, best first
  int64_t first_nan = -1;  ///< row · E + column of the first NaN, or -1
};
/// scores: [T, E] float32, k of each row; limit.groups 1 for no limit. Not for long rows of which many are wanted (a sort is faster).
std::optional<BestColumns> top_k(const at::Tensor& scores, int64_t k, GroupLimit limit = {});

struct SortedPairs {
  SlotOrder sorted;
  int64_t first_bad = -1;  ///< the first pair whose slot is out of range, or -1
};
/// slot: [P] int64; kept: [P] bool or undefined.
std::optional<SortedPairs> sort_by_slot(const at::Tensor& slot, int64_t slots, const at::Tensor& kept);

/// The positions of each row, ascending: row [A] int64 in [0, rows). Waits for nothing.
SlotOrder positions_by_row(const at::Tensor& row, int64_t rows);

/// order: [A] int64. Returns [pairs] int64.
std::optional<at::Tensor> inverse_order(const at::Tensor& order, int64_t pairs);

/// As kernels::admit, of float32 priorities.
std::optional<at::Tensor> admit(const at::Tensor& bin, const at::Tensor& priority, const at::Tensor& exempt, const at::Tensor& capacity,
                                int64_t bins);

}  // namespace switchyard::kernels::cuda
