// Plain ATen versions of every kernel: the oracle that the fast paths are tested against, and what runs where no fast
// path fits (float64, double backward). Never optimised. Arguments are those of the kernels' headers, already checked.
#pragma once

#include "switchyard/kernels/grouped_ffn.h"
#include "switchyard/kernels/permutation.h"
#include "switchyard/kernels/topk.h"

namespace switchyard::kernels::reference {

SlotOrder sort_by_slot(const at::Tensor& slot, int64_t slots, const at::Tensor& kept);
at::Tensor gather_rows(const at::Tensor& x, const at::Tensor& index);
at::Tensor combine_rows(const at::Tensor& y, const at::Tensor& row, const at::Tensor& weight, int64_t rows);
TopK top_k(const at::Tensor& scores, int64_t k);
TopK top_k_grouped(const at::Tensor& scores, int64_t k, GroupLimit limit);
at::Tensor admit(const at::Tensor& bin, const at::Tensor& priority, const at::Tensor& exempt,
                 const at::Tensor& capacity, int64_t bins);
at::Tensor grouped_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& offset,
                          const at::Tensor& bias, WeightLayout layout);
at::Tensor grouped_ffn(const at::Tensor& x, const at::Tensor& offset, const at::Tensor& row, const at::Tensor& weight,
                       const FeedForwardWeights& weights, const FeedForwardOptions& options);

}  // namespace switchyard::kernels::reference
