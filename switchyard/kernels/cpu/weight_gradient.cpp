#include "switchyard/kernels/cpu/weight_gradient.h"

#include <algorithm>
#include <cstring>

#include "switchyard/kernels/cpu/few_products.h"
#include "switchyard/kernels/cpu/parallel.h"
#include "switchyard/kernels/cpu/product.h"
#include "switchyard/kernels/cpu/stack.h"
#include "switchyard/kernels/cpu/tiles.h"
#include "switchyard/kernels/cpu/write_through.h"

#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math")

namespace switchyard::kernels::cpu {
namespace {

constexpr int64_t kTasks = 16;  ///< tasks that there should be
constexpr int64_t kLeast = 48;  ///< rows of a weight matrix for one task: products take them by sixes, lines of memory hold sixteen

/// Rows of a weight matrix that one task writes, and its columns at once; the tile stays in the second-level cache.
struct Tile { int64_t rows, columns; };
template <typename T>
Tile tile_size(int64_t rows_in_all) {
  if (!product_copies(sizeof(T) == 2)) return {64, 512};
  return {std::clamp(rows_in_all / kTasks / kLeast * kLeast, kLeast, int64_t{256}), 128};
}

/// rows x width of `tile` (null: zeros) into a gradient, from element `at` on with stride `ld`.
template <typename T>
void store(const float* tile, int64_t rows, int64_t width, const GradientStack<T>& grad, int64_t at, int64_t ld) {
  for (int64_t i = 0; i < rows; ++i) {
    const float* row = tile ? tile + i * width : nullptr;
    if (grad.wide && row) write_through(row, width, grad.wide + at + i * ld);
    else if (grad.wide) std::memset(grad.wide + at + i * ld, 0, sizeof(float) * width);
    else if (row) write_through(row, width, grad.same + at + i * ld);
    else std::memset(static_cast<void*>(grad.same + at + i * ld), 0, sizeof(T) * width);
  }
}

template <typename T>
void block_gradient(const WeightGradient<T>& p, const Padded& padded, int64_t expert, int64_t m0, const Tile& most) {
  const int64_t rows = padded.count(expert), m = std::min(most.rows, p.m - m0), first = (expert * p.m + m0) * p.n;
  float* bias = p.bias ? p.bias + expert * p.m + m0 : nullptr;
  if (rows == 0) {
    store<T>(nullptr, m, p.n, p.grad, first, p.n);
    if (bias) std::memset(bias, 0, sizeof(float) * m);
    return;
  }
  const int64_t width = std::min(most.columns, p.n);
  Scratch<For::task> scratch(bytes_of<T>(p.left ? 0 : m * rows) + bytes_of<float>(m * width));
  T* turned = scratch.template take<T>(p.left ? 0 : m * rows);
  float* tile = scratch.template take<float>(m * width);
  if (!p.left) {
    const int64_t begin = p.offset[expert], count = p.offset[expert + 1] - begin;
    transpose(p.rows + begin * p.m + m0, p.m, count, m, turned, rows);
    for (int64_t i = 0; count < rows && i < m; ++i) std::fill(turned + i * rows + count, turned + (i + 1) * rows, T(0));
  }
  const T* left = p.left ? p.left + padded.begin[expert] * p.m + m0 * rows : turned;
  const T* right = p.right + padded.begin[expert] * p.n;
  if (bias)
    for (int64_t i = 0; i < m; ++i) {
      float sum = 0;
      for (int64_t j = 0; j < rows; ++j) sum += to_float(left[i * rows + j]);
      bias[i] = sum;
    }
  if (rows <= kFewInBackward) return few_outer(m, rows, p.n, left, right, p.grad, first);
  for (int64_t n0 = 0; n0 < p.n; n0 += width) {
    const int64_t n = std::min(width, p.n - n0);
    product(m, n, rows, left, rows, right + n0 * kPair<T>, p.n, tile, n, false);
    store(tile, m, n, p.grad, first + n0, p.n);
  }
}

}  // namespace

Padded pad_experts(const int64_t* offset, int64_t experts, int64_t step) {
  Padded padded;
  padded.begin.resize(experts + 1, 0);
  for (int64_t e = 0; e < experts; ++e) padded.begin[e + 1] = padded.begin[e] + round_up(offset[e + 1] - offset[e], step);
  return padded;
}

template <typename T>
void weight_gradients(const std::vector<WeightGradient<T>>& products, const Padded& padded, int64_t experts) {
  struct Task { const WeightGradient<T>* product; int64_t expert, m0; };
  int64_t rows = 0;
  for (const WeightGradient<T>& p : products) rows += p.grad ? p.m * experts : 0;
  const Tile most = tile_size<T>(rows);
  std::vector<Task> tasks;
  int64_t operations = 0;
  for (const WeightGradient<T>& p : products) {
    if (!p.grad) continue;
    operations += p.m * p.n * (padded.begin[experts] + experts);
    for (int64_t e = 0; e < experts; ++e)
      for (int64_t m0 = 0; m0 < p.m; m0 += most.rows) tasks.push_back({&p, e, m0});
  }
  parallel_tasks(static_cast<int64_t>(tasks.size()), operations,
                 [&](int64_t i) { block_gradient(*tasks[i].product, padded, tasks[i].expert, tasks[i].m0, most); });
}

template void weight_gradients<float>(const std::vector<WeightGradient<float>>&, const Padded&, int64_t);
template void weight_gradients<c10::BFloat16>(const std::vector<WeightGradient<c10::BFloat16>>&, const Padded&, int64_t);

}  // namespace switchyard::kernels::cpu
