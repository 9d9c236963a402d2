#include "switchyard/kernels/cpu/topk.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "switchyard/kernels/cpu/parallel.h"

namespace switchyard::kernels::cpu {
namespace {

/// Up to here the best are kept in order by insertion; beyond, rows are sorted partially.
constexpr int64_t kInsertion = 16;

template <typename T>
void insert_best(const T* row, int64_t columns, int64_t k, int64_t* ids) {
  T value[kInsertion];
  int64_t held = 0;
  for (int64_t c = 0; c < columns; ++c) {
    const T v = row[c];
    if (held == k && !(v > value[k - 1])) continue;
    int64_t at = held < k ? held++ : k - 1;
    for (; at > 0 && v > value[at - 1]; --at) {
      value[at] = value[at - 1];
      ids[at] = ids[at - 1];
    }
    value[at] = v;
    ids[at] = c;
  }
}

template <typename T>
void sort_best(const T* row, int64_t columns, int64_t k, int64_t* ids) {
  std::vector<int64_t> order(columns);
  for (int64_t c = 0; c < columns; ++c) order[c] = c;
  std::partial_sort(order.begin(), order.begin() + k, order.end(),
                    [row](int64_t a, int64_t b) { return row[a] > row[b] || (row[a] == row[b] && a < b); });
  std::copy_n(order.begin(), k, ids);
}

}  // namespace

template <typename T>
Place top_k(const T* scores, int64_t rows, int64_t columns, int64_t k, int64_t* ids) {
  std::atomic<int64_t> first_bad{INT64_MAX};
  at::parallel_for(0, rows, std::max<int64_t>(1, 32768 / columns), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const T* row = scores + r * columns;
      for (int64_t c = 0; c < columns; ++c)
        if (row[c] != row[c]) {
          int64_t seen = first_bad.load();
          const int64_t here = r * columns + c;
          while (here < seen && !first_bad.compare_exchange_weak(seen, here)) {}
          return;
        }
      if (k <= kInsertion) insert_best(row, columns, k, ids + r * k);
      else sort_best(row, columns, k, ids + r * k);
    }
  });
  const int64_t bad = first_bad.load();
  return bad == INT64_MAX ? Place{} : Place{bad / columns, bad % columns};
}

template Place top_k<float>(const float*, int64_t, int64_t, int64_t, int64_t*);
template Place top_k<double>(const double*, int64_t, int64_t, int64_t, int64_t*);

}  // namespace switchyard::kernels::cpu
