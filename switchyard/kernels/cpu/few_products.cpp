#include "switchyard/kernels/cpu/few_products.h"

#include <algorithm>

#include "switchyard/kernels/cpu/parallel.h"
#include "switchyard/kernels/cpu/rows_apart.h"
#include "switchyard/kernels/cpu/stack.h"
#include "switchyard/kernels/cpu/tiles.h"
#include "switchyard/kernels/cpu/write_through.h"

#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math")

namespace switchyard::kernels::cpu {
namespace {

constexpr int64_t kTogether = kFewInBackward;  ///< rows of the matrix that are met at once
constexpr int64_t kColumns = 256;              ///< columns of them: they and one row of sums are a third of the first-level cache

/// So many columns of eight rows as floats, which displace one another in the first-level cache where they lie.
struct alignas(64) Eight { float row[kTogether][kColumns]; };

/// sum[c] (+)= Σ_i by[i] eight.row[i][c].
void add_eight(const float* by, const Eight& eight, int64_t columns, bool add, float* sum) {
  at_level([=, &eight] {
    const float a0 = by[0], a1 = by[1], a2 = by[2], a3 = by[3], a4 = by[4], a5 = by[5], a6 = by[6], a7 = by[7];
    float* __restrict to = sum;
    for (int64_t c = 0; c < columns; ++c) {
      const float low = (add ? to[c] : 0.0f) + a0 * eight.row[0][c] + a1 * eight.row[1][c] + a2 * eight.row[2][c] + a3 * eight.row[3][c];
      to[c] = low + a4 * eight.row[4][c] + a5 * eight.row[5][c] + a6 * eight.row[6][c] + a7 * eight.row[7][c];
    }
  });
}

template <typename B>
void ask_for(const B* from, int64_t columns) {
  for (int64_t c = 0; c < columns; c += 64 / static_cast<int64_t>(sizeof(B))) __builtin_prefetch(from + c, 0, 2);
}

/// out[j, c] (+)= Σ_r a[j, r] b[r, c]: a [n, depth] with row stride lda, b [depth, width] with ldb, out [n, width] with ldo.
template <typename B>
void times(int64_t n, int64_t depth, int64_t width, const float* a, int64_t lda, const B* b, int64_t ldb, float* out, int64_t ldo, bool add) {
  Eight eight;
  float by[kFewInBackward][kTogether];
  // Rows `apart`, each the beginning of a stream; of the last ones there may be fewer than eight. The next ones are asked for meanwhile.
  const auto meet = [&](int64_t first, int64_t apart, int64_t count, bool more, bool next) {
    for (int64_t j = 0; j < n; ++j)
      for (int64_t i = 0; i < kTogether; ++i) by[j][i] = i < count ? a[j * lda + first + i * apart] : 0.0f;
    for (int64_t c0 = 0; c0 < width; c0 += kColumns) {
      const int64_t columns = std::min(kColumns, width - c0);
      for (int64_t i = 0; i < count; ++i) {
        const B* row = b + (first + i * apart) * ldb;
        const bool last = c0 + kColumns >= width;
        if (!last || next) ask_for(last ? row + ldb : row + c0 + kColumns, std::min(kColumns, last ? width : width - c0 - kColumns));
        widen(row + c0, columns, eight.row[i]);
      }
      for (int64_t i = count; i < kTogether; ++i) std::fill_n(eight.row[i], columns, 0.0f);
      for (int64_t j = 0; j < n; ++j) add_eight(by[j], eight, columns, more, out + j * ldo + c0);
    }
  };
  int64_t r = 0;
  for (int64_t apart; (apart = rows_apart(depth - r, kTogether, ldb * static_cast<int64_t>(sizeof(B)))) > 0; r += (kTogether - 1) * apart)
    for (const int64_t end = r + apart; r < end; ++r) meet(r, apart, kTogether, add || r > 0, r + 1 < end);
  if (r < depth || depth == 0) meet(r, 1, depth - r, add || r > 0, false);
}

}  // namespace

template <typename T>
void few_times(const Stack<T>& stack, int64_t e, int64_t first, int64_t width, int64_t n, const T* a, float* floats, float* out, bool add) {
  const int64_t depth = stack.m, at = e * depth * stack.k + first, ldo = few_stride(width);
  widen(a, n * depth, floats);
  if (stack.wide) times(n, depth, width, floats, depth, stack.wide + at, stack.k, out, ldo, add);
  else times(n, depth, width, floats, depth, stack.same + at, stack.k, out, ldo, add);
}

template <typename T>
void few_outer(int64_t rows, int64_t n, int64_t width, const T* left, const T* right, const GradientStack<T>& grad, int64_t at) {
  Eight eight;
  float sum[kColumns];
  for (int64_t c0 = 0; c0 < width; c0 += kColumns) {
    const int64_t columns = std::min(kColumns, width - c0);
    for (int64_t j = 0; j < kTogether; ++j) {
      const T* from = right + (j / kPair<T> * width + c0) * kPair<T> + j % kPair<T>;
      for (int64_t c = 0; c < columns; ++c) eight.row[j][c] = j < n ? to_float(from[c * kPair<T>]) : 0.0f;
    }
    for (int64_t r = 0; r < rows; ++r) {
      float by[kTogether] = {};
      for (int64_t j = 0; j < n; ++j) by[j] = to_float(left[r * n + j]);
      add_eight(by, eight, columns, false, sum);
      const int64_t to = at + r * width + c0;
      if (grad.wide) write_through(sum, columns, grad.wide + to);
      else write_through(sum, columns, grad.same + to);
    }
  }
}

#define SWITCHYARD_FEW(T)                                                                                                             \
  template void few_times<T>(const Stack<T>&, int64_t, int64_t, int64_t, int64_t, const T*, float*, float*, bool);                     \
  template void few_outer<T>(int64_t, int64_t, int64_t, const T*, const T*, const GradientStack<T>&, int64_t);
SWITCHYARD_FEW(float)
SWITCHYARD_FEW(c10::BFloat16)

}  // namespace switchyard::kernels::cpu
