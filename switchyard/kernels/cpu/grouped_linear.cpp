#include "switchyard/kernels/cpu/grouped_linear.h"

#include <algorithm>

#include "switchyard/kernels/cpu/parallel.h"
#include "switchyard/kernels/cpu/product.h"
#include "switchyard/kernels/cpu/tiles.h"
#include "switchyard/kernels/cpu/weight_gradient.h"

#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math")

namespace switchyard::kernels::cpu {
namespace {

constexpr int64_t kRows = 64;    ///< rows a tile
constexpr int64_t kWidth = 512;  ///< outputs worked on at once
constexpr int64_t kLane = 16;    ///< columns are padded to it

}  // namespace

template <typename T>
void map_columns(const T* stack, int64_t experts, int64_t m, int64_t k, const T* x, const int64_t* offset, const T* bias, T* y) {
  const std::vector<RowTile> tiles = row_tiles(offset, experts, kRows);
  parallel_tasks(static_cast<int64_t>(tiles.size()), offset[experts] * m * k, [&](int64_t i) {
    const RowTile& tile = tiles[i];
    const int64_t columns = round_up(tile.count, kLane), width = std::min(kWidth, m);
    Scratch<For::task> scratch(bytes_of<T>(k * columns) + bytes_of<float>(width * columns));
    T* packed = scratch.template take<T>(k * columns);
    float* out = scratch.template take<float>(width * columns);
    pack_columns(x + tile.begin * k, k, nullptr, tile.count, columns, packed);
    for (int64_t m0 = 0; m0 < m; m0 += width) {
      const int64_t mc = std::min(width, m - m0);
      product(mc, columns, k, stack + (tile.expert * m + m0) * k, k, packed, columns, out, columns, false);
      if (bias)
        for (int64_t o = 0; o < mc; ++o)
          for (int64_t j = 0; j < columns; ++j) out[o * columns + j] += to_float(bias[tile.expert * m + m0 + o]);
      store_transposed(out, mc, columns, tile.count, y + tile.begin * m + m0, m);
    }
  });
}

template <typename T>
void map_rows(const T* stack, int64_t experts, int64_t k, int64_t n, const T* x, const int64_t* offset, const T* bias, T* y) {
  Scratch<For::operation> operation(kPair<T> > 1 ? bytes_of<T>(experts * k * n) : 0);
  const T* packed = stack;
  if (kPair<T> > 1) packed = pack_stack(stack, offset, experts, k, n, operation.template take<T>(experts * k * n));
  const std::vector<RowTile> tiles = row_tiles(offset, experts, kRows);
  parallel_tasks(static_cast<int64_t>(tiles.size()), offset[experts] * k * n, [&](int64_t i) {
    const RowTile& tile = tiles[i];
    Scratch<For::task> scratch(bytes_of<float>(tile.count * n));
    float* out = scratch.template take<float>(tile.count * n);
    product(tile.count, n, k, x + tile.begin * k, k, packed + tile.expert * k * n, n, out, n, false);
    T* target = y + tile.begin * n;
    const T* b = bias ? bias + tile.expert * n : nullptr;
    at_level([=] {
      for (int64_t j = 0; j < tile.count; ++j)
        for (int64_t o = 0; o < n; ++o) target[j * n + o] = from_float<T>(out[j * n + o] + (b ? to_float(b[o]) : 0.0f));
    });
  });
}

template <typename T>
void outer_products(const T* left, int64_t m, const T* right, int64_t n, const int64_t* offset, int64_t experts, float* grad,
                    float* bias) {
  const Padded padded = pad_experts(offset, experts, kPair<T>);
  const int64_t total = padded.begin[experts];
  const bool pack = kPair<T> > 1;  // float rows already lie as B
  Scratch<For::operation> scratch(bytes_of<T>(total * m) + (pack ? bytes_of<T>(total * n) : 0));
  T* left_t = scratch.template take<T>(total * m);
  T* right_b = pack ? scratch.template take<T>(total * n) : nullptr;
  const std::vector<RowTile> tiles = row_tiles(offset, experts, kRows);
  parallel_tasks(static_cast<int64_t>(tiles.size()), total * (m + n), [&](int64_t i) {
    const RowTile& tile = tiles[i];
    const int64_t first = padded.begin[tile.expert], ld = padded.count(tile.expert), at = tile.begin - offset[tile.expert];
    const int64_t depth = std::min(round_up(tile.count, kPair<T>), ld - at);
    transpose(left + tile.begin * m, m, tile.count, m, left_t + first * m + at, ld);
    if (depth > tile.count)
      for (int64_t o = 0; o < m; ++o) left_t[first * m + o * ld + at + tile.count] = T(0);
    if (pack) pack_rows(right + tile.begin * n, n, nullptr, tile.count, depth, n, right_b + (first + at) * n);
  });
  weight_gradients<T>({{left_t, pack ? right_b : right, m, n, grad, bias}}, padded, experts);
}

#define SWITCHYARD_LINEAR(T)                                                                                            \
  template void map_columns<T>(const T*, int64_t, int64_t, int64_t, const T*, const int64_t*, const T*, T*);            \
  template void map_rows<T>(const T*, int64_t, int64_t, int64_t, const T*, const int64_t*, const T*, T*);               \
  template void outer_products<T>(const T*, int64_t, const T*, int64_t, const int64_t*, int64_t, float*, float*);
SWITCHYARD_LINEAR(float)
SWITCHYARD_LINEAR(c10::BFloat16)

}  // namespace switchyard::kernels::cpu
