// Rows gathered, and rows summed where they belong, in a fixed order. Internal to kernels/.
#pragma once

#include <cstdint>
#include <vector>

namespace switchyard::kernels::cpu {

/// Which positions belong to each row, ascending.
struct RowLists {
  std::vector<int64_t> begin, position;  ///< [rows+1], [A]
};
RowLists list_rows(const int64_t* row, int64_t positions, int64_t rows);

/// out[a] = x[row[a]] · (weight ? weight[a] : 1); W wide elements a row.
template <typename T, typename S>
void gather(const T* x, const int64_t* row, const S* weight, int64_t positions, int64_t width, T* out);

/// out[r] = Σ over r's positions, ascending, of weight[a] y[a]; sums in S (float, or double for double).
template <typename T, typename S>
void combine(const T* y, const RowLists& lists, const S* weight, int64_t width, T* out);

/// out[a] = <y[a], grad[row[a]]>.
template <typename T, typename S>
void row_products(const T* y, const T* grad, const int64_t* row, int64_t positions, int64_t width, S* out);

}  // namespace switchyard::kernels::cpu
