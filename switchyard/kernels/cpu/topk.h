// The k best columns of each row in one pass. Internal to kernels/.
#pragma once

#include <cstdint>

#include "switchyard/kernels/topk.h"

namespace switchyard::kernels::cpu {

/// ids: [rows, k], best first, ties to the lower column. Returns the first row and column that is not a number, or {-1, -1}.
struct Place { int64_t row = -1, column = -1; };
template <typename T>
Place top_k(const T* scores, int64_t rows, int64_t columns, int64_t k, int64_t* ids);
/// The same of the columns of the best groups.
template <typename T>
Place top_k_grouped(const T* scores, int64_t rows, int64_t columns, int64_t k, GroupLimit limit, int64_t* ids);

}  // namespace switchyard::kernels::cpu
