#include "switchyard/kernels/cpu/grouped_packed.h"

#include "switchyard/kernels/cpu/parallel.h"
#include "switchyard/kernels/cpu/product.h"
#include "switchyard/kernels/cpu/skinny.h"
#include "switchyard/kernels/cpu/stack.h"
#include "switchyard/kernels/cpu/tiles.h"

#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math")

namespace switchyard::kernels::cpu {
namespace {

constexpr int64_t kRows = 64;   ///< rows of x a tile
constexpr int64_t kSlab = 64;   ///< rows of weights unpacked at once
constexpr int64_t kLane = 16;   ///< columns are padded to it

/// Rows of one expert, as columns that `product` takes.
template <typename T>
struct Columns {
  RowTile tile;
  int64_t count;  ///< with padding
  T* packed;
};

/// A slab of weights to unpack, and the tiles that meet it.
struct Slab {
  int64_t first_tile, tiles;  ///< all of one expert
  int64_t row, rows;          ///< of that expert's matrix
};

void add_bias(float* out, const float* bias, int64_t rows, int64_t columns) {
  for (int64_t o = 0; o < rows; ++o)
    for (int64_t j = 0; j < columns; ++j) out[o * columns + j] += bias[o];
}

std::vector<Slab> slabs(const std::vector<RowTile>& tiles, int64_t m) {
  std::vector<Slab> list;
  const auto count = static_cast<int64_t>(tiles.size());
  for (int64_t begin = 0, end; begin < count; begin = end) {
    end = begin;
    while (end < count && tiles[end].expert == tiles[begin].expert) ++end;
    for (int64_t row = 0; row < m; row += kSlab) list.push_back({begin, end - begin, row, std::min(kSlab, m - row)});
  }
  return list;
}

}  // namespace

template <typename T>
void map_packed(const PackedRows& stack, int64_t experts, int64_t m, int64_t k, const T* x, const int64_t* offset, const float* bias,
                T* y, bool many_ints) {
  const Stack<T> matrices = packed_stack<T>(stack, m, k);
  if (many_ints && takes_many_ints(matrices)) {
    const std::vector<RowTile> all = equal_tiles(offset, experts, kIntRows, 4);
    if (!all.empty()) map_few(matrices, all, x, bias, y);
    return;
  }
  std::vector<RowTile> tiles = row_tiles(offset, experts, kRows);
  const std::vector<RowTile> few = take_few(tiles, offset, kSkinnyRows);
  if (!few.empty()) map_few(matrices, few, x, bias, y);
  if (tiles.empty()) return;

  int64_t total = 0;
  for (const RowTile& tile : tiles) total += round_up(tile.count, kLane);
  Scratch<For::operation> scratch(bytes_of<T>(total * k));
  T* next = scratch.template take<T>(total * k);
  std::vector<Columns<T>> columns;
  for (const RowTile& tile : tiles) {
    columns.push_back({tile, round_up(tile.count, kLane), next});
    next += columns.back().count * k;
  }
  parallel_tasks(static_cast<int64_t>(columns.size()), total * k, [&](int64_t i) {
    const Columns<T>& c = columns[i];
    pack_columns(x + c.tile.begin * k, k, nullptr, c.tile.count, c.count, c.packed);
  });

  const std::vector<Slab> work = slabs(tiles, m);
  const int64_t stride = Stack<T>::panel_stride(k);
  parallel_tasks(static_cast<int64_t>(work.size()), total * m * k, [&](int64_t i) {
    const Slab& slab = work[i];
    Scratch<For::task> task(bytes_of<T>(kSlab * stride) + bytes_of<float>(kSlab * round_up(kRows, kLane)));
    T* space = task.template take<T>(kSlab * stride);
    float* out = task.template take<float>(kSlab * round_up(kRows, kLane));
    const int64_t row = columns[slab.first_tile].tile.expert * m + slab.row;
    const auto weights = matrices.rows(0, row, slab.rows, kRows, space);
    for (int64_t t = slab.first_tile; t < slab.first_tile + slab.tiles; ++t) {
      const Columns<T>& c = columns[t];
      product(slab.rows, c.count, k, weights.data, weights.ld, c.packed, c.count, out, c.count, false);
      if (bias) add_bias(out, bias + row, slab.rows, c.count);
      store_transposed(out, slab.rows, c.count, c.tile.count, y + c.tile.begin * m + slab.row, m);
    }
  });
}

template void map_packed<float>(const PackedRows&, int64_t, int64_t, int64_t, const float*, const int64_t*, const float*, float*, bool);
template void map_packed<c10::BFloat16>(const PackedRows&, int64_t, int64_t, int64_t, const c10::BFloat16*, const int64_t*,
                                        const float*, c10::BFloat16*, bool);

}  // namespace switchyard::kernels::cpu
