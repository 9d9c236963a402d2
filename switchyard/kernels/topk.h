// The k best columns of each row, best first, ties to the lower index (at::topk promises no order on ties).
#pragma once

#include <ATen/core/Tensor.h>

namespace switchyard::kernels {

struct TopK {
  at::Tensor values;   ///< [T, k] of the scores' type, best first; differentiable in scores
  at::Tensor indices;  ///< [T, k] int64
};

/// scores: [T, E] float. -inf is a legal score (a masked expert). Throws routing.k_range unless 0 < k <= E,
/// routing.nan naming the first row that holds a NaN.
TopK top_k(const at::Tensor& scores, int64_t k);

/// Columns are `groups` equal runs; a group's score is the sum of its `best` highest columns; only columns of the
/// `chosen` best groups may be selected (DeepSeek-V2 with best = 1, V3 with best = 2). Same ties and errors, and
/// routing.group_range unless groups divides E, chosen <= groups, best <= E/groups and k <= chosen*E/groups.
struct GroupLimit {
  int64_t groups = 1, chosen = 1, best = 1;
};
TopK top_k_grouped(const at::Tensor& scores, int64_t k, GroupLimit limit);

}  // namespace switchyard::kernels
