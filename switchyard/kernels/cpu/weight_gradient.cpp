#include "switchyard/kernels/cpu/weight_gradient.h"

#include <algorithm>
#include <cstring>

#include "switchyard/kernels/cpu/parallel.h"
#include "switchyard/kernels/cpu/product.h"
#include "switchyard/kernels/cpu/tiles.h"

#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math")

namespace switchyard::kernels::cpu {
namespace {

constexpr int64_t kBlock = 64;    ///< rows of a weight matrix that one task writes
constexpr int64_t kWidth = 512;   ///< its columns at once

template <typename T>
void block_gradient(const WeightGradient<T>& p, const Padded& padded, int64_t expert, int64_t m0) {
  const int64_t rows = padded.count(expert), m = std::min(kBlock, p.m - m0);
  float* grad = p.grad + (expert * p.m + m0) * p.n;
  float* bias = p.bias ? p.bias + expert * p.m + m0 : nullptr;
  if (rows == 0) {
    std::memset(grad, 0, sizeof(float) * m * p.n);
    if (bias) std::memset(bias, 0, sizeof(float) * m);
    return;
  }
  const T* left = p.left + padded.begin[expert] * p.m + m0 * rows;
  const T* right = p.right + padded.begin[expert] * p.n;
  for (int64_t n0 = 0; n0 < p.n; n0 += kWidth) {
    const int64_t n = std::min(kWidth, p.n - n0);
    product(m, n, rows, left, rows, right + n0 * kPair<T>, p.n, grad + n0, p.n, false);
  }
  if (bias)
    for (int64_t i = 0; i < m; ++i) {
      float sum = 0;
      for (int64_t j = 0; j < rows; ++j) sum += to_float(left[i * rows + j]);
      bias[i] = sum;
    }
}

}  // namespace

Padded pad_experts(const int64_t* offset, int64_t experts, int64_t pair) {
  Padded padded;
  padded.begin.resize(experts + 1, 0);
  for (int64_t e = 0; e < experts; ++e) padded.begin[e + 1] = padded.begin[e] + round_up(offset[e + 1] - offset[e], pair);
  return padded;
}

template <typename T>
void weight_gradients(const std::vector<WeightGradient<T>>& products, const Padded& padded, int64_t experts) {
  struct Task { const WeightGradient<T>* product; int64_t expert, m0; };
  std::vector<Task> tasks;
  int64_t operations = 0;
  for (const WeightGradient<T>& p : products) {
    if (!p.grad) continue;
    operations += p.m * p.n * (padded.begin[experts] + experts);
    for (int64_t e = 0; e < experts; ++e)
      for (int64_t m0 = 0; m0 < p.m; m0 += kBlock) tasks.push_back({&p, e, m0});
  }
  parallel_tasks(static_cast<int64_t>(tasks.size()), operations,
                 [&](int64_t i) { block_gradient(*tasks[i].product, padded, tasks[i].expert, tasks[i].m0); });
}

template <typename T>
const T* pack_stack(const T* stack, const int64_t* offset, int64_t experts, int64_t k, int64_t n, T* dst) {
  const int64_t pieces = (k + kBlock - 1) / kBlock;
  parallel_tasks(experts * pieces, experts * k * n, [&](int64_t i) {
    const int64_t e = i / pieces, k0 = i % pieces * kBlock;
    if (offset[e] == offset[e + 1]) return;
    const int64_t rows = std::min(kBlock, k - k0), at = (e * k + k0) * n;
    pack_rows(stack + at, n, nullptr, rows, rows, n, dst + at);
  });
  return dst;
}

#define SWITCHYARD_GRADIENT(T)                                                                        \
  template void weight_gradients<T>(const std::vector<WeightGradient<T>>&, const Padded&, int64_t);   \
  template const T* pack_stack<T>(const T*, const int64_t*, int64_t, int64_t, int64_t, T*);
SWITCHYARD_GRADIENT(float)
SWITCHYARD_GRADIENT(c10::BFloat16)

}  // namespace switchyard::kernels::cpu
