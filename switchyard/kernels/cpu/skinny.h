// The feed-forward of experts with few rows each, as in decoding: every weight is read once and meets all rows of its
// expert on the way. Bounded by memory, so work is cut over rows of weights, not over rows of x. Rows that are quantised to int8
// for packed weights go this way however many they are. Internal to kernels/.
#pragma once

#include <vector>

#include "switchyard/kernels/cpu/blocks.h"
#include "switchyard/kernels/cpu/grouped_ffn.h"
#include "switchyard/kernels/cpu/parallel.h"
#include "switchyard/kernels/cpu/row_dots.h"
#include "switchyard/kernels/cpu/strip_dots.h"

namespace switchyard::kernels::cpu {

/// Rows an expert up to which this path is taken, whatever its weights are.
constexpr int64_t kSkinnyRows = 8;
/// The same for this stack: more where meeting weights as they lie is faster than tiles.
template <typename T>
int64_t few_rows(const Stack<T>& w);

/// int8 columns that stand for a row of x before this stack: one where that may lose precision, for a bf16 row and where float32 rows are
/// rounded; its digits for any other float32 row.
template <typename T>
int64_t int_columns(const Stack<T>& w) { return sizeof(T) < sizeof(float) || (w.blocks && w.blocks->rounds_rows()) ? 1 : kDigits; }

/// Rows of x that weights meet: in float32; in the type of a stack that is not packed; as int8 where packed weights can take them.
template <typename T>
struct FewRows {
  const float* x = nullptr;  ///< [n, k]
  const T* plain = nullptr;  ///< [n, plain_stride(k)]; null: not made
  const float* strips = nullptr;  ///< of all n rows (strip_dots.h), in that order; null: not made
  StripOrder order = StripOrder::floats;
  IntColumns ints;           ///< q null: not made
  int64_t columns = 1;       ///< of ints, a row

  /// Rows 4 KB apart would fall into the same set of the first-level cache, where eight lines have room.
  static int64_t plain_stride(int64_t k) { return k + 64 / static_cast<int64_t>(sizeof(T)); }
  /// The rows from `at` on, of width k.
  FewRows from(int64_t at, int64_t k) const {
    FewRows rest{x ? x + at * k : nullptr, plain ? plain + at * plain_stride(k) : nullptr, nullptr, {}, {}, columns};
    if (ints.q) rest.ints = ints.from(columns * at, k);
    return rest;
  }
};

/// Whether rows for this stack are worth quantising.
template <typename T>
bool takes_ints(const Stack<T>& w);
/// Whether this path is also the fastest for many rows an expert: they are taken kIntRows at a time.
template <typename T>
bool takes_many_ints(const Stack<T>& w);
constexpr int64_t kIntRows = 64;

/// out[j * ld + r] = <w[r], x[j]> (+ bias[r]) for r < rows, j < n: w rows first ... first + rows of expert e of the
/// stack; space [together, k] floats, for packed ones. n <= few_rows(w), or what takes_many_ints allows.
template <typename T, typename B>
void dots(const Stack<T>& w, int64_t e, int64_t first, int64_t rows, int64_t n, const FewRows<T>& x, const B* bias, float* space,
          float* out, int64_t ld);

/// y[a] = W[e] x[a] (+ bias[e]) for the rows of `tiles`: at most few_rows(stack) each, or kIntRows where takes_many_ints.
template <typename T, typename B>
void map_few(const Stack<T>& stack, const std::vector<RowTile>& tiles, const T* x, const B* bias, T* y);

/// As ffn_forward for the rows of `tiles`: at most the fewest few_rows of a stack each, or kIntRows where all stacks take many ints.
template <typename T>
void ffn_forward_skinny(const FfnWeights<T>& w, const FfnRows<T>& rows, const std::vector<RowTile>& tiles, T* y, T* keep_gate,
                        T* keep_up);

}  // namespace switchyard::kernels::cpu
