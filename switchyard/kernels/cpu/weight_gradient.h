// The part of backward that grouped kernels share: per-expert outer products, and stacks packed as B. Internal to kernels/.
#pragma once

#include <cstdint>
#include <vector>

namespace switchyard::kernels::cpu {

/// Where each expert's rows begin when every expert is padded to whole pairs.
struct Padded {
  std::vector<int64_t> begin;  ///< [E+1]
  int64_t count(int64_t expert) const { return begin[expert + 1] - begin[expert]; }
};
Padded pad_experts(const int64_t* offset, int64_t experts, int64_t pair);

/// One stack's gradient: for each expert grad[e] = left[e] · right[e], [M, N] float32.
template <typename T>
struct WeightGradient {
  const T* left;    ///< an expert's [M, rows] lies at padded begin · M
  const T* right;   ///< an expert's [rows, N] as B lies at padded begin · N
  int64_t m, n;
  float* grad;      ///< [E, M, N], every element written
  float* bias;      ///< [E, M], the sums of left's rows, or null
};
template <typename T>
void weight_gradients(const std::vector<WeightGradient<T>>& products, const Padded& padded, int64_t experts);

/// Matrices [K, N] of the experts that have rows, in product's layout for B; returns dst.
template <typename T>
const T* pack_stack(const T* stack, const int64_t* offset, int64_t experts, int64_t k, int64_t n, T* dst);

}  // namespace switchyard::kernels::cpu
