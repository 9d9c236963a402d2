// The feed-forward of experts with few rows each, as in decoding: every weight is read once and meets all rows of its
// expert on the way. Bounded by memory, so work is cut over rows of weights, not over rows of x. Internal to kernels/.
#pragma once

#include <vector>

#include "switchyard/kernels/cpu/blocks.h"
#include "switchyard/kernels/cpu/grouped_ffn.h"
#include "switchyard/kernels/cpu/parallel.h"

namespace switchyard::kernels::cpu {

/// Rows an expert up to which this path is taken.
constexpr int64_t kSkinnyRows = 8;

/// Rows of x that weights meet: in float32; in the type of a stack that is not packed; quantised to int8 where bf16 rows meet packed
/// weights that can take them.
template <typename T>
struct FewRows {
  const float* x = nullptr;  ///< [n, k]
  const T* plain = nullptr;  ///< [n, plain_stride(k)]; null: not made
  IntColumns ints;           ///< q null: not made

  /// Rows 4 KB apart would fall into the same set of the first-level cache, where eight lines have room.
  static int64_t plain_stride(int64_t k) { return k + 64 / static_cast<int64_t>(sizeof(T)); }
  /// The rows from `at` on, of width k.
  FewRows from(int64_t at, int64_t k) const {
    FewRows rest{x + at * k, plain ? plain + at * plain_stride(k) : nullptr, {}};
    if (ints.q) rest.ints = {ints.q + at * k, ints.scale + at * (k / 64), ints.sum + at * (k / 16)};
    return rest;
  }
};

/// Whether rows for this stack are worth quantising.
template <typename T>
bool takes_ints(const Stack<T>& w);

/// What quantised rows take of scratch memory, and quantising them into it.
inline size_t int_bytes(int64_t n, int64_t k) {
  return bytes_of<int8_t>(n * k) + bytes_of<float>(n * (k / 64)) + bytes_of<float>(n * (k / 16));
}
template <For use>
IntColumns quantised(const float* x, int64_t n, int64_t k, Scratch<use>& scratch) {
  int8_t* q = scratch.template take<int8_t>(n * k);
  float* scale = scratch.template take<float>(n * (k / 64));
  float* sum = scratch.template take<float>(n * (k / 16));
  quantise_columns(x, n, k, q, scale, sum);
  return {q, scale, sum};
}

/// out[j * ld + r] = <w[r], x[j]> (+ bias[r]) for r < rows, j < n <= kSkinnyRows: w rows first ... first + rows of expert e of the
/// stack; space [together, k] floats, for packed ones.
template <typename T, typename B>
void dots(const Stack<T>& w, int64_t e, int64_t first, int64_t rows, int64_t n, const FewRows<T>& x, const B* bias, float* space,
          float* out, int64_t ld);

/// y[a] = W[e] x[a] (+ bias[e]) for the experts of `tiles`: each has at most kSkinnyRows rows, one tile an expert.
template <typename T, typename B>
void map_few(const Stack<T>& stack, const std::vector<RowTile>& tiles, const T* x, const B* bias, T* y);

/// As ffn_forward for the experts of `tiles`: each has at most kSkinnyRows rows, one tile an expert.
template <typename T>
void ffn_forward_skinny(const FfnWeights<T>& w, const FfnRows<T>& rows, const std::vector<RowTile>& tiles, T* y, T* keep_gate,
                        T* keep_up);

}  // namespace switchyard::kernels::cpu
