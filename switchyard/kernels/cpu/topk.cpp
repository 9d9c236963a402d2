#include "switchyard/kernels/cpu/topk.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "switchyard/kernels/cpu/parallel.h"

namespace switchyard::kernels::cpu {
namespace {

/// Up to here the best are kept in order by insertion; beyond, columns are sorted partially.
constexpr int64_t kInsertion = 16;

/// The sum of a group's best columns may be no number, inf - inf: it comes first, as in a sort.
template <typename T>
bool better(T a, T b) {
  return a > b || (a != a && b == b);
}

/// The k best of `count` columns, column(i) ascending in i.
template <typename T, typename Column>
void insert_best(const T* row, int64_t count, const Column& column, int64_t k, int64_t* ids) {
  T value[kInsertion];
  int64_t held = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t c = column(i);
    const T v = row[c];
    if (held == k && !better(v, value[k - 1])) continue;
    int64_t at = held < k ? held++ : k - 1;
    for (; at > 0 && better(v, value[at - 1]); --at) {
      value[at] = value[at - 1];
      ids[at] = ids[at - 1];
    }
    value[at] = v;
    ids[at] = c;
  }
}

template <typename T, typename Column>
void sort_best(const T* row, int64_t count, const Column& column, int64_t k, int64_t* ids) {
  thread_local std::vector<int64_t> order;
  order.resize(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) order[i] = column(i);
  std::partial_sort(order.begin(), order.begin() + k, order.end(),
                    [row](int64_t a, int64_t b) { return better(row[a], row[b]) || (!better(row[b], row[a]) && a < b); });
  std::copy_n(order.begin(), k, ids);
}

template <typename T, typename Column>
void best(const T* row, int64_t count, const Column& column, int64_t k, int64_t* ids) {
  if (k <= kInsertion) insert_best(row, count, column, k, ids);
  else sort_best(row, count, column, k, ids);
}

/// Calls choose(row, ids) for every row of numbers, on all threads; returns the first that is none.
template <typename T, typename Choose>
Place for_rows(const T* scores, int64_t rows, int64_t columns, const Choose& choose) {
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
      choose(row, r);
    }
  });
  const int64_t bad = first_bad.load();
  return bad == INT64_MAX ? Place{} : Place{bad / columns, bad % columns};
}

}  // namespace

template <typename T>
Place top_k(const T* scores, int64_t rows, int64_t columns, int64_t k, int64_t* ids) {
  return for_rows(scores, rows, columns, [=](const T* row, int64_t r) { best(row, columns, [](int64_t i) { return i; }, k, ids + r * k); });
}

template <typename T>
Place top_k_grouped(const T* scores, int64_t rows, int64_t columns, int64_t k, GroupLimit limit, int64_t* ids) {
  const int64_t width = columns / limit.groups;
  return for_rows(scores, rows, columns, [=](const T* row, int64_t r) {
    thread_local std::vector<T> sums;
    thread_local std::vector<int64_t> chosen;
    sums.assign(static_cast<size_t>(limit.groups), 0);
    chosen.resize(static_cast<size_t>(std::max(limit.chosen, limit.best)));
    for (int64_t g = 0; g < limit.groups; ++g) {
      best(row, width, [=](int64_t i) { return g * width + i; }, limit.best, chosen.data());
      for (int64_t i = 0; i < limit.best; ++i) sums[g] += row[chosen[i]];
    }
    best(sums.data(), limit.groups, [](int64_t g) { return g; }, limit.chosen, chosen.data());
    std::sort(chosen.begin(), chosen.begin() + limit.chosen);
    best(row, limit.chosen * width, [&](int64_t i) { return chosen[i / width] * width + i % width; }, k, ids + r * k);
  });
}

#define SWITCHYARD_TOP_K(T)                                                        \
  template Place top_k<T>(const T*, int64_t, int64_t, int64_t, int64_t*);          \
  template Place top_k_grouped<T>(const T*, int64_t, int64_t, int64_t, GroupLimit, int64_t*)
SWITCHYARD_TOP_K(float);
SWITCHYARD_TOP_K(double);
#undef SWITCHYARD_TOP_K

}  // namespace switchyard::kernels::cpu
