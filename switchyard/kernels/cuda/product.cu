// Grouped products in tiles (tile.h): rows through the matrices of their experts, with gather before and activation behind, and
// the gradients of the matrices. Blocks find their expert themselves, so no size of a group has to be known when they are queued.
#include "switchyard/kernels/cuda/activation.h"
#include "switchyard/kernels/cuda/tile.h"

namespace switchyard::kernels::cuda {
namespace {

/// Two buffers of a slice of A and of B; afterwards the tile of sums, through which threads hand each other their numbers, so
/// that rows are written side by side.
union Shared {
  struct {
    alignas(16) unsigned char left[2][kTileRows * kSliceStride];
    alignas(16) unsigned char right[2][kTileColumns * kSliceStride];
  } slices;
  float tile[kTileRows][kTileColumns + 8];
};

/// Leaves the sums over `count` slices in shared.tile, for every thread; `read` stages slice s of A and B.
template <typename T, typename Read>
__device__ void multiply_slices(Shared& shared, const Operand& left, const Operand& right, int64_t count, const Read& read) {
  float sums[kSums];
#pragma unroll
  for (int i = 0; i < kSums; ++i) sums[i] = 0;
  Staged<T, kTileRows> a;
  Staged<T, kTileColumns> b;
  for (int64_t s = 0; s <= count; ++s) {  // slice s is read while slice s - 1 is multiplied
    const int next = static_cast<int>(s % 2), now = 1 - next;
    if (s < count) read(s, a, b);
    if (s > 0) multiply(shared.slices.left[now], shared.slices.right[now], sums, T{});
    if (s < count) {  // the last to read this buffer did so before the barrier
      unstage(left, a, shared.slices.left[next]);
      unstage(right, b, shared.slices.right[next]);
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < kSums; ++i) shared.tile[row_of(i, T{})][column_of(i, T{})] = sums[i];
  __syncthreads();
}

template <typename T>
__device__ float bias_at(const void* bias, int64_t index) {
  return bias ? to_float(static_cast<const T*>(bias)[index]) : 0.0f;
}

/// The matrix of expert e as B of a product with `out` rows and depth `in`.
__device__ Operand matrix_of(const MapArguments& m, const Matrices& stack, int64_t expert, int64_t number_bytes) {
  const int64_t bytes = stack.wide ? 4 : number_bytes;
  return {.data = static_cast<const unsigned char*>(stack.data) + expert * m.out * m.in * bytes, .wide = stack.wide,
          .along_depth = !m.in_out, .step = m.in_out ? m.out : m.in, .pick = nullptr, .rows = m.out, .depth = m.in};
}

// Experts begin a new tile of rows. Expert e has tiles offset[e] / 64 + e up to offset[e + 1] / 64 + e, which are enough for its
// rows; a tile past its last row has nothing to do. So the tile alone says the expert, and tiles are few more than rows / 64.
__device__ int64_t first_tile(const int64_t* offset, int64_t expert) { return offset[expert] / kTileRows + expert; }
__device__ int64_t expert_of_tile(const int64_t* offset, int64_t experts, int64_t tile) {
  int64_t low = 0, high = experts;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (first_tile(offset, middle) <= tile) low = middle;
    else high = middle;
  }
  return low;
}

template <typename T, bool gated>
__global__ void __launch_bounds__(kTileThreads) map_tile(MapArguments m) {
  __shared__ Shared shared;
  const int64_t tile = blockIdx.x, expert = expert_of_tile(m.offset, m.experts, tile);
  const int64_t first = m.offset[expert] + (tile - first_tile(m.offset, expert)) * kTileRows, end = m.offset[expert + 1];
  if (first >= end) return;
  // A gated tile has 64 columns: its left half is gate, its right half up.
  constexpr int kHalf = kTileColumns / 2, kColumns = gated ? kHalf : kTileColumns;
  const int64_t column = static_cast<int64_t>(blockIdx.y) * kColumns;
  const Operand x{.data = m.part[0].x, .wide = false, .along_depth = true, .step = m.in, .pick = m.row, .rows = end, .depth = m.in};
  const Operand w = matrix_of(m, m.part[0].stack, expert, sizeof(T));
  const Operand other = gated || m.parts == 2 ? matrix_of(m, m.part[1].stack, expert, sizeof(T)) : w;
  const int64_t slices_each = ceil_div(m.in, kSlice<T>), slices = gated ? slices_each : slices_each * m.parts;
  multiply_slices<T>(shared, x, w, slices, [&](int64_t s, Staged<T, kTileRows>& a, Staged<T, kTileColumns>& b) {
    if (gated) {
      stage(x, first, s * kSlice<T>, a);
      stage(w, column, s * kSlice<T>, b, 0, kHalf);
      stage(other, column, s * kSlice<T>, b, kHalf, kHalf);
      return;
    }
    Operand rows = x, matrix = w;
    if (s >= slices_each) {
      s -= slices_each;
      rows.data = m.part[1].x;
      matrix = other;
    }
    stage(rows, first, s * kSlice<T>, a);
    stage(matrix, column, s * kSlice<T>, b);
  });
  T *y = static_cast<T*>(m.y), *keep = static_cast<T*>(m.keep), *keep_gate = static_cast<T*>(m.keep_gate);
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < kTileRows * kColumns; i += kTileThreads) {
    const int r = i / kColumns, c = i % kColumns;
    if (first + r >= end || column + c >= m.out) continue;
    const int64_t at = (first + r) * m.out + column + c, bias = expert * m.out + column + c;
    const float up = shared.tile[r][gated ? c + kHalf : c] + bias_at<T>(m.bias, bias);
    if (keep) keep[at] = from_float<T>(up);
    float value;
    if (gated) {
      const float gate = shared.tile[r][c] + bias_at<T>(m.gate_bias, bias);
      if (keep_gate) keep_gate[at] = from_float<T>(gate);
      value = activate(m.activation, gate, up);
    } else {
      value = activate(m.activation, up);
    }
    if (y) y[at] = from_float<T>(value);
  }
}

/// Blocks: tiles of [m, n] by experts; the depth of the product is the expert's positions.
template <typename T>
__global__ void __launch_bounds__(kTileThreads) outer_tile(OuterArguments o) {
  __shared__ Shared shared;
  const int64_t across = ceil_div(o.n, kTileColumns), expert = blockIdx.y;
  const int64_t row = blockIdx.x / across * kTileRows, column = blockIdx.x % across * kTileColumns;
  const int64_t begin = o.offset[expert], count = o.offset[expert + 1] - begin;
  if (count == 0 && o.accumulate) return;
  const auto side = [&](const void* data, const int64_t* pick, int64_t width) {
    return Operand{.data = static_cast<const T*>(data) + (pick ? 0 : begin * width), .wide = false, .along_depth = false, .step = width,
                   .pick = pick ? pick + begin : nullptr, .rows = width, .depth = count};
  };
  const Operand left = side(o.left, o.left_row, o.m), right = side(o.right, o.right_row, o.n);
  multiply_slices<T>(shared, left, right, ceil_div(count, kSlice<T>), [&](int64_t s, Staged<T, kTileRows>& a, Staged<T, kTileColumns>& b) {
    stage(left, row, s * kSlice<T>, a);
    stage(right, column, s * kSlice<T>, b);
  });
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < kTileRows * kTileColumns; i += kTileThreads) {
    const int r = i / kTileColumns, c = i % kTileColumns;
    if (row + r >= o.m || column + c >= o.n) continue;
    const int64_t at = (expert * o.m + row + r) * o.n + column + c;
    const float sum = shared.tile[r][c];
    if (o.wide) {
      float* to = static_cast<float*>(o.gradient) + at;
      *to = o.accumulate ? *to + sum : sum;
    } else {
      T* to = static_cast<T*>(o.gradient) + at;
      *to = from_float<T>(o.accumulate ? to_float(*to) + sum : sum);
    }
  }
}

constexpr int kColumnLanes = 8;  ///< threads that share a column of a sum

/// Blocks: 32 columns by experts; each column is summed by 8 threads over every 8th position, then over the threads.
template <typename T>
__global__ void __launch_bounds__(kWarp* kColumnLanes) sum_columns(ColumnSumArguments a) {
  __shared__ float part[kColumnLanes][kWarp];
  const int x = static_cast<int>(threadIdx.x) % kWarp, y = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kWarp + x, expert = blockIdx.y;
  float sum = 0;
  if (column < a.width)
    for (int64_t p = a.offset[expert] + y; p < a.offset[expert + 1]; p += kColumnLanes) {
      const float value = to_float(static_cast<const T*>(a.y)[(a.row ? a.row[p] : p) * a.width + column]);
      sum += a.weight ? a.weight[p] * value : value;
    }
  part[y][x] = sum;
  __syncthreads();
  if (y > 0 || column >= a.width) return;
  for (int i = 1; i < kColumnLanes; ++i) sum += part[i][x];
  a.sum[expert * a.width + column] = sum;
}

template <typename T>
void map_typed(const MapArguments& m, Stream stream) {
  const int64_t rows = m.positions / kTileRows + m.experts;
  if (m.positions == 0) return;
  if (m.gated) launch("grouped_map", map_tile<T, true>, rows, ceil_div(m.out, kTileColumns / 2), kTileThreads, stream, m);
  else launch("grouped_map", map_tile<T, false>, rows, ceil_div(m.out, kTileColumns), kTileThreads, stream, m);
}

void map(const MapArguments& m, Stream stream) {
  if (m.number == Number::float32) map_typed<float>(m, stream);
  else map_typed<Bf16>(m, stream);
}

void outer_products(const OuterArguments& o, Stream stream) {
  const auto kernel = o.number == Number::float32 ? outer_tile<float> : outer_tile<Bf16>;
  launch("grouped_gradient", kernel, ceil_div(o.m, kTileRows) * ceil_div(o.n, kTileColumns), o.experts, kTileThreads, stream, o);
}

void column_sums(const ColumnSumArguments& a, Stream stream) {
  const auto kernel = a.number == Number::float32 ? sum_columns<float> : sum_columns<Bf16>;
  launch("column_sums", kernel, ceil_div(a.width, kWarp), a.experts, kWarp * kColumnLanes, stream, a);
}

}  // namespace

void SWITCHYARD_CUDA_FILL(product)(Launchers& table) {
  table.map = map;
  table.outer_products = outer_products;
  table.column_sums = column_sums;
}

}  // namespace switchyard::kernels::cuda
