#include "switchyard/kernels/cpu/rows.h"

#include <cstring>

#include "switchyard/kernels/cpu/parallel.h"
#include "switchyard/kernels/cpu/tiles.h"

#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math")

namespace switchyard::kernels::cpu {
namespace {

template <typename S> inline S widen(float x) { return x; }
template <typename S> inline S widen(double x) { return static_cast<S>(x); }
template <typename S> inline S widen(c10::BFloat16 x) { return to_float(x); }
template <typename T, typename S> inline T narrow(S x) {
  if constexpr (std::is_same_v<T, double>) return x;
  else return from_float<T>(static_cast<float>(x));
}

/// Rows are handed out so that a piece is worth a thread's while.
int64_t grain(int64_t width) { return std::max<int64_t>(1, 16384 / std::max<int64_t>(width, 1)); }

}  // namespace

RowLists list_rows(const int64_t* row, int64_t positions, int64_t rows) {
  RowLists lists;
  lists.begin.assign(rows + 1, 0);
  lists.position.resize(positions);
  for (int64_t a = 0; a < positions; ++a) ++lists.begin[row[a] + 1];
  for (int64_t r = 0; r < rows; ++r) lists.begin[r + 1] += lists.begin[r];
  std::vector<int64_t> next(lists.begin.begin(), lists.begin.end() - 1);
  for (int64_t a = 0; a < positions; ++a) lists.position[next[row[a]]++] = a;
  return lists;
}

template <typename T, typename S>
void gather(const T* x, const int64_t* row, const S* weight, int64_t positions, int64_t width, T* out) {
  at::parallel_for(0, positions, grain(width), [&](int64_t begin, int64_t end) {
    if (!weight) {
      for (int64_t a = begin; a < end; ++a) std::memcpy(out + a * width, x + row[a] * width, sizeof(T) * width);
      return;
    }
    at_level([=] {
      for (int64_t a = begin; a < end; ++a)
        for (int64_t i = 0; i < width; ++i) out[a * width + i] = narrow<T>(widen<S>(x[row[a] * width + i]) * weight[a]);
    });
  });
}

template <typename T, typename S>
void combine(const T* y, const RowLists& lists, const S* weight, int64_t width, T* out) {
  const int64_t rows = static_cast<int64_t>(lists.begin.size()) - 1;
  const int64_t* begin_of = lists.begin.data();
  const int64_t* position = lists.position.data();
  at::parallel_for(0, rows, grain(width), [&](int64_t begin, int64_t end) {
    Scratch<For::task> scratch(bytes_of<S>(width));
    S* sum = scratch.template take<S>(width);
    at_level([=] {
      for (int64_t r = begin; r < end; ++r) {
        for (int64_t i = 0; i < width; ++i) sum[i] = 0;
        for (int64_t p = begin_of[r]; p < begin_of[r + 1]; ++p) {
          const T* from = y + position[p] * width;
          const S w = weight ? weight[position[p]] : S(1);
          for (int64_t i = 0; i < width; ++i) sum[i] += widen<S>(from[i]) * w;
        }
        for (int64_t i = 0; i < width; ++i) out[r * width + i] = narrow<T>(sum[i]);
      }
    });
  });
}

template <typename T, typename S>
void row_products(const T* y, const T* grad, const int64_t* row, int64_t positions, int64_t width, S* out) {
  at::parallel_for(0, positions, grain(width), [&](int64_t begin, int64_t end) {
    at_level([=] {
      for (int64_t a = begin; a < end; ++a) {
        // Eight partial sums in a fixed order, so that the loop vectorises and every level adds alike.
        S part[8] = {};
        const T *left = y + a * width, *right = grad + row[a] * width;
        int64_t i = 0;
        for (; i + 8 <= width; i += 8)
          for (int64_t j = 0; j < 8; ++j) part[j] += widen<S>(left[i + j]) * widen<S>(right[i + j]);
        for (; i < width; ++i) part[i % 8] += widen<S>(left[i]) * widen<S>(right[i]);
        out[a] = ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
      }
    });
  });
}

#define SWITCHYARD_ROWS(T, S)                                                                        \
  template void gather<T, S>(const T*, const int64_t*, const S*, int64_t, int64_t, T*);              \
  template void combine<T, S>(const T*, const RowLists&, const S*, int64_t, T*);                     \
  template void row_products<T, S>(const T*, const T*, const int64_t*, int64_t, int64_t, S*);
SWITCHYARD_ROWS(float, float)
SWITCHYARD_ROWS(double, double)
SWITCHYARD_ROWS(c10::BFloat16, float)

}  // namespace switchyard::kernels::cpu
