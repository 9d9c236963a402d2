// Rows to their positions and back: gather, weighted combine, products of pairs of rows. Sums are float32, each by one thread
// over ascending positions, or by one warp in a fixed order.
#include "switchyard/kernels/cuda/device.h"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kRowThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kRowThreads) gather_rows(GatherArguments a) {
  const int64_t position = blockIdx.x;
  const T* from = static_cast<const T*>(a.x) + a.row[position] * a.width;
  T* to = static_cast<T*>(a.out) + position * a.width;
  if (!a.weight) {
    for (int64_t d = threadIdx.x; d < a.width; d += kRowThreads) to[d] = from[d];
    return;
  }
  const float weight = a.weight[position];
  for (int64_t d = threadIdx.x; d < a.width; d += kRowThreads) to[d] = from_float<T>(to_float(from[d]) * weight);
}

/// One block a row. Its positions are listed, or looked for among few.
template <typename T>
__global__ void __launch_bounds__(kRowThreads) combine_rows(CombineArguments a) {
  const int64_t row = blockIdx.x;
  const T* y = static_cast<const T*>(a.y);
  T* out = static_cast<T*>(a.out) + row * a.width;
  const int64_t first = a.begin ? a.begin[row] : 0, last = a.begin ? a.begin[row + 1] : a.count;
  for (int64_t d = threadIdx.x; d < a.width; d += kRowThreads) {
    float sum = 0;
    for (int64_t i = first; i < last; ++i) {
      const int64_t position = a.begin ? a.order[i] : i;
      if (!a.begin && a.row[position] != row) continue;
      const float value = to_float(y[position * a.width + d]);
      sum += a.weight ? a.weight[position] * value : value;
    }
    out[d] = from_float<T>(sum);
  }
}

template <typename T>
__global__ void __launch_bounds__(kRowThreads) multiply_rows(RowProductArguments a) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t position = static_cast<int64_t>(blockIdx.x) * (kRowThreads / kWarp) + threadIdx.x / kWarp;
  if (position >= a.count) return;
  const T* y = static_cast<const T*>(a.y) + position * a.width;
  const T* x = static_cast<const T*>(a.x) + a.row[position] * a.width;
  float sum = 0;
  for (int64_t d = lane; d < a.width; d += kWarp) sum += to_float(y[d]) * to_float(x[d]);
  sum = warp_sum(sum);
  if (lane == 0) a.out[position] = sum;
}

void gather(const GatherArguments& a, Stream stream) {
  const auto kernel = a.number == Number::float32 ? gather_rows<float> : gather_rows<Bf16>;
  launch("gather_rows", kernel, a.count, 1, kRowThreads, stream, a);
}

void combine(const CombineArguments& a, Stream stream) {
  const auto kernel = a.number == Number::float32 ? combine_rows<float> : combine_rows<Bf16>;
  launch("combine_rows", kernel, a.rows, 1, kRowThreads, stream, a);
}

void row_products(const RowProductArguments& a, Stream stream) {
  const auto kernel = a.number == Number::float32 ? multiply_rows<float> : multiply_rows<Bf16>;
  launch("row_products", kernel, ceil_div(a.count, kRowThreads / kWarp), 1, kRowThreads, stream, a);
}

}  // namespace

void SWITCHYARD_CUDA_FILL(rows)(Launchers& table) {
  table.gather = gather;
  table.combine = combine;
  table.row_products = row_products;
}

}  // namespace switchyard::kernels::cuda
