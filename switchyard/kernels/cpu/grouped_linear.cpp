#include "switchyard/kernels/cpu/grouped_linear.h"

#include <algorithm>
#include <cstring>

#include "switchyard/kernels/cpu/few_products.h"
#include "switchyard/kernels/cpu/fma_product.h"
#include "switchyard/kernels/cpu/parallel.h"
#include "switchyard/kernels/cpu/product.h"
#include "switchyard/kernels/cpu/skinny.h"
#include "switchyard/kernels/cpu/tiles.h"
#include "switchyard/kernels/cpu/weight_gradient.h"

#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math")

namespace switchyard::kernels::cpu {
namespace {

constexpr int64_t kRows = 192;   ///< rows a tile, at most
constexpr int64_t kWidth = 64;   ///< outputs worked on at once
constexpr int64_t kFew = 32;     ///< so many rows meet more outputs at once, if weights lie as the products take them:
constexpr int64_t kWide = 256;   ///< a product makes the rows its own each time
constexpr int64_t kTasks = 16;   ///< tasks that there should be
constexpr int64_t kLane = 16;    ///< columns are padded to it
constexpr int64_t kStep = 8;     ///< rows are padded to it: few shapes of products, as each costs a compilation once
constexpr int64_t kLong = 768;   ///< rows a tile, at most, where they are many

/// Outputs a task takes of tiles that are so many: few tiles, as of one matrix that many rows meet, are cut over its outputs too.
int64_t outputs_of(int64_t tiles, int64_t outputs) {
  const int64_t most = std::max<int64_t>(1, (outputs + kWide - 1) / kWide), parts = std::clamp<int64_t>(kTasks / std::max<int64_t>(1, tiles), 1, most);
  return std::max(kWide, round_up((outputs + parts - 1) / parts, kWide));
}

/// y[a] = W[e] x[a], or x[a] W[e] where kTurned is not set, for tiles of many rows: those are read and results written where they lie.
template <bool kTurned, typename T>
void map_many(const Stack<T>& stack, const std::vector<RowTile>& tiles, const T* x, const T* bias, T* y) {
  constexpr bool kPlain = std::is_same_v<T, float>;
  const int64_t k = kTurned ? stack.k : stack.m, m = kTurned ? stack.m : stack.k, count = static_cast<int64_t>(tiles.size());
  const int64_t cuts = std::clamp<int64_t>(kTasks / count, 1, std::max<int64_t>(1, m / kWidth));
  const int64_t part = round_up((m + cuts - 1) / cuts, kLane), parts = (m + part - 1) / part, most = std::min(stack.same ? kWide : kWidth, part);
  const int64_t panel = kTurned ? (stack.same ? 0 : most * Stack<T>::panel_stride(k)) : kPlain ? 0 : most * k;
  int64_t rows = 0;
  for (const RowTile& tile : tiles) rows += tile.count;
  parallel_tasks(count * parts, rows * m * k, [&](int64_t i) {
    const RowTile& tile = tiles[i / parts];
    const int64_t begin = i % parts * part, end = std::min(m, begin + part);
    Scratch<For::task> scratch(bytes_of<T>(panel) + bytes_of<float>(kPlain ? 0 : most * tile.count));
    T* space = scratch.template take<T>(panel);
    float* out = scratch.template take<float>(kPlain ? 0 : most * tile.count);
    const T* from = x + tile.begin * k;
    for (int64_t m0 = begin; m0 < end; m0 += most) {
      const int64_t mc = std::min(most, end - m0), ld = kPlain ? m : mc;
      T* to = y + tile.begin * m + m0;
      float* sums = out;
      if constexpr (kPlain) sums = to;
      if constexpr (kTurned) {
        const auto w = stack.rows(tile.expert, m0, mc, kWide, space);
        fma_product_of_rows(tile.count, mc, k, from, k, w.data, w.ld, sums, ld);
      } else {
        const auto w = stack.panel(tile.expert, 0, k, m0, mc, space);
        product(tile.count, mc, k, from, k, w.data, w.ld, sums, ld, false);
      }
      for (int64_t j = 0; j < tile.count; ++j) {
        for (int64_t o = 0; bias && o < mc; ++o) sums[j * ld + o] += to_float(bias[tile.expert * m + m0 + o]);
        if constexpr (!kPlain) narrow(sums + j * ld, mc, to + j * m);
      }
    }
  });
}

/// Takes the experts of many rows out of `tiles`, and cuts their rows into longer ones, where products move rows as they need them.
template <typename T>
std::vector<RowTile> take_many(std::vector<RowTile>& tiles, const int64_t* offset) {
  std::vector<RowTile> left, taken;
  if (!product_is_fma(sizeof(T) == 2)) return taken;
  for (const RowTile& tile : tiles) {
    const int64_t begin = offset[tile.expert], rows = offset[tile.expert + 1] - begin;
    if (rows < kManyRows) left.push_back(tile);
    else if (tile.begin == begin)
      for (const RowTile& piece : equal_tiles(offset + tile.expert, 1, kLong, 96)) taken.push_back({tile.expert, piece.begin, piece.count});
  }
  tiles = std::move(left);
  return taken;
}

}  // namespace

template <typename T>
void map_columns(const Stack<T>& stack, int64_t experts, const T* x, const int64_t* offset, const T* bias, T* y) {
  const int64_t m = stack.m, k = stack.k, stride = Stack<T>::panel_stride(k);
  std::vector<RowTile> tiles = equal_tiles(offset, experts, kRows, kLane);
  const std::vector<RowTile> few = take_few(tiles, offset, few_rows(stack));
  if (!few.empty()) map_few(stack, few, x, bias, y);
  const std::vector<RowTile> many = take_many<T>(tiles, offset);
  if (!many.empty()) map_many<true>(stack, many, x, bias, y);
  if (tiles.empty()) return;
  const int64_t part = outputs_of(static_cast<int64_t>(tiles.size()), m), parts = (m + part - 1) / part;
  parallel_tasks(static_cast<int64_t>(tiles.size()) * parts, offset[experts] * m * k, [&](int64_t i) {
    const RowTile& tile = tiles[i / parts];
    const int64_t begin = i % parts * part, end = std::min(m, begin + part);
    const bool wide = stack.same && tile.count <= kFew;
    const bool turned = wide && kPair<T> == 1 && product_is_fma(false);  // by the product, into the strips that it would copy them to anyway
    const int64_t columns = turned ? tile.count : round_up(tile.count, kLane), width = std::min(wide ? kWide : kWidth, m);
    Scratch<For::task> scratch(bytes_of<T>(turned ? 0 : k * columns) + bytes_of<T>(width * stride) + bytes_of<float>(width * columns));
    T* packed = turned ? nullptr : scratch.template take<T>(k * columns);
    T* space = scratch.template take<T>(width * stride);
    float* out = scratch.template take<float>(width * columns);
    const T* from = x + tile.begin * k;
    if (!turned) pack_columns(from, k, nullptr, tile.count, columns, packed);
    for (int64_t m0 = begin; m0 < end; m0 += width) {
      const int64_t mc = std::min(width, end - m0);
      const auto panel = stack.rows(tile.expert, m0, mc, columns, space);
      if (turned) fma_product_of_rows(mc, columns, k, panel.data, panel.ld, from, k, out, columns);
      else product(mc, columns, k, panel.data, panel.ld, packed, columns, out, columns, false);
      if (bias)
        for (int64_t o = 0; o < mc; ++o)
          for (int64_t j = 0; j < columns; ++j) out[o * columns + j] += to_float(bias[tile.expert * m + m0 + o]);
      store_transposed(out, mc, columns, tile.count, y + tile.begin * m + m0, m);
    }
  });
}

namespace {

/// y[a] = x[a] W[e] for tiles of few rows: the weights are read as they lie.
template <typename T>
void map_few_rows(const Stack<T>& stack, const std::vector<RowTile>& tiles, const T* x, const T* bias, T* y) {
  const int64_t k = stack.m, n = stack.k, count = static_cast<int64_t>(tiles.size());
  const int64_t part = outputs_of(count, n), parts = (n + part - 1) / part;
  int64_t rows = 0;
  for (const RowTile& tile : tiles) rows += tile.count;
  parallel_tasks(count * parts, rows * k * n, [&](int64_t i) {
    const RowTile& tile = tiles[i / parts];
    const int64_t first = i % parts * part, width = std::min(part, n - first);
    const int64_t ld = few_stride(width);
    Scratch<For::task> scratch(bytes_of<float>(tile.count * k) + bytes_of<float>(tile.count * ld));
    float* left = scratch.template take<float>(tile.count * k);
    float* out = scratch.template take<float>(tile.count * ld);
    few_times(stack, tile.expert, first, width, tile.count, x + tile.begin * k, left, out, false);
    for (int64_t j = 0; j < tile.count; ++j) {
      float* row = out + j * ld;
      for (int64_t c = 0; bias && c < width; ++c) row[c] += to_float(bias[tile.expert * n + first + c]);
      narrow(row, width, y + (tile.begin + j) * n + first);
    }
  });
}

}  // namespace

template <typename T>
void map_rows(const Stack<T>& stack, int64_t experts, const T* x, const int64_t* offset, const T* bias, T* y) {
  const int64_t k = stack.m, n = stack.k;
  std::vector<RowTile> tiles = equal_tiles(offset, experts, kRows, kLane);
  const std::vector<RowTile> few = take_few(tiles, offset, kFewInBackward);
  if (!few.empty()) map_few_rows(stack, few, x, bias, y);
  const std::vector<RowTile> many = take_many<T>(tiles, offset);
  if (!many.empty()) map_many<false>(stack, many, x, bias, y);
  parallel_tasks(static_cast<int64_t>(tiles.size()), offset[experts] * k * n, [&](int64_t i) {
    const RowTile& tile = tiles[i];
    const int64_t padded = round_up(tile.count, kStep), width = std::min(kWidth, n);
    Scratch<For::task> scratch(bytes_of<T>(padded * k) + bytes_of<T>(k * width) + bytes_of<float>(padded * width));
    T* rows = scratch.template take<T>(padded * k);
    T* space = scratch.template take<T>(k * width);
    float* out = scratch.template take<float>(padded * width);
    const T* from = x + tile.begin * k;
    if (padded > tile.count) {
      std::memcpy(static_cast<void*>(rows), from, sizeof(T) * tile.count * k);
      std::memset(static_cast<void*>(rows + tile.count * k), 0, sizeof(T) * (padded - tile.count) * k);
      from = rows;
    }
    for (int64_t n0 = 0; n0 < n; n0 += width) {
      const int64_t nc = std::min(width, n - n0), count = tile.count;
      const auto panel = stack.panel(tile.expert, 0, k, n0, nc, space);
      product(padded, nc, k, from, k, panel.data, panel.ld, out, nc, false);
      T* target = y + tile.begin * n + n0;
      const T* b = bias ? bias + tile.expert * n + n0 : nullptr;
      at_level([=] {
        for (int64_t j = 0; j < count; ++j)
          for (int64_t o = 0; o < nc; ++o) target[j * n + o] = from_float<T>(out[j * nc + o] + (b ? to_float(b[o]) : 0.0f));
      });
    }
  });
}

template <typename T>
void outer_products(const T* left, int64_t m, const T* right, int64_t n, const int64_t* offset, int64_t experts,
                    const GradientStack<T>& grad, float* bias) {
  const Padded padded = pad_experts(offset, experts, kStep);
  const int64_t total = padded.begin[experts];
  WeightGradient<T> product{nullptr, right, m, n, grad, bias, left, offset};
  const bool as_it_lies = kPair<T> == 1 && std::equal(padded.begin.begin(), padded.begin.end(), offset);  // that is how products take it
  Scratch<For::operation> scratch(bytes_of<T>(as_it_lies ? 0 : total * n));
  if (!as_it_lies) {
    T* packed = scratch.template take<T>(total * n);
    const std::vector<RowTile> tiles = equal_tiles(offset, experts, kRows, kLane);
    parallel_tasks(static_cast<int64_t>(tiles.size()), total * n, [&](int64_t i) {
      const RowTile& tile = tiles[i];
      const int64_t at = tile.begin - offset[tile.expert], depth = std::min(round_up(tile.count, kStep), padded.count(tile.expert) - at);
      pack_rows(right + tile.begin * n, n, nullptr, tile.count, depth, n, packed + (padded.begin[tile.expert] + at) * n);
    });
    product.right = packed;
  }
  weight_gradients<T>({product}, padded, experts);
}

#define SWITCHYARD_LINEAR(T)                                                                            \
  template void map_columns<T>(const Stack<T>&, int64_t, const T*, const int64_t*, const T*, T*);       \
  template void map_rows<T>(const Stack<T>&, int64_t, const T*, const int64_t*, const T*, T*);          \
  template void outer_products<T>(const T*, int64_t, const T*, int64_t, const int64_t*, int64_t, const GradientStack<T>&, float*);
SWITCHYARD_LINEAR(float)
SWITCHYARD_LINEAR(c10::BFloat16)

}  // namespace switchyard::kernels::cpu
