// The part of backward that grouped kernels share: per-expert outer products. Internal to kernels/.
#pragma once

#include <cstdint>
#include <vector>

namespace switchyard::kernels::cpu {

/// Where each expert's rows begin when every expert is padded to a multiple of `step` rows: pairs for bf16, and few depths of
/// products, as each costs a compilation once.
struct Padded {
  std::vector<int64_t> begin;  ///< [E+1]
  int64_t count(int64_t expert) const { return begin[expert + 1] - begin[expert]; }
};
Padded pad_experts(const int64_t* offset, int64_t experts, int64_t step);

/// Where a stack's gradient goes: in float32, or in the products' type as the parameter has it. None: it is not wanted.
template <typename T>
struct GradientStack {
  float* wide = nullptr;
  T* same = nullptr;
  explicit operator bool() const { return wide || same; }
};

/// One stack's gradient: for each expert grad[e] = left[e] · right[e], [M, N], summed in float32.
template <typename T>
struct WeightGradient {
  const T* left;    ///< an expert's [M, rows] lies at padded begin · M; null: the tasks turn what they need of `rows`
  const T* right;   ///< an expert's [rows, N] as B lies at padded begin · N
  int64_t m, n;
  GradientStack<T> grad;  ///< [E, M, N], every element written
  float* bias;      ///< [E, M], the sums of left's rows, or null
  const T* rows = nullptr;          ///< where left is null: [A, M], sorted by expert,
  const int64_t* offset = nullptr;  ///< [E+1], where each expert's begin
};
template <typename T>
void weight_gradients(const std::vector<WeightGradient<T>>& products, const Padded& padded, int64_t experts);

}  // namespace switchyard::kernels::cpu
