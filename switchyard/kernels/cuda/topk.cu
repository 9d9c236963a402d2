// Top-k over the columns of each row, one warp a row. Each round finds the best column that stands after the last one chosen,
// in the order (score down, column up): no marks, no memory, and ties fall as the order says.
#include <climits>

#include "switchyard/kernels/cuda/device.h"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kTopKWarps = 8;

struct Place {
  float score;
  int column;
};

/// Whether a stands before b: the higher score, or the lower column at the same score.
__device__ bool before(Place a, Place b) { return a.score > b.score || (a.score == b.score && a.column < b.column); }

/// The first of the lanes' places, in every lane.
__device__ Place first_of_warp(Place best) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const Place other{__shfl_xor_sync(kAllLanes, best.score, step), __shfl_xor_sync(kAllLanes, best.column, step)};
    if (before(other, best)) best = other;
  }
  return best;
}

/// The first place after `last` among columns begin ... begin + count - 1, the same in every lane.
__device__ Place next_place(const float* scores, int begin, int count, Place last) {
  Place best{-INFINITY, INT_MAX};
  for (int i = static_cast<int>(threadIdx.x) % kWarp; i < count; i += kWarp) {
    const Place here{scores[begin + i], begin + i};
    if (before(last, here) && before(here, best)) best = here;
  }
  return first_of_warp(best);
}

/// Before every place.
__device__ Place first_place() { return {INFINITY, -1}; }

/// Reports the first NaN of the row; true when there is one.
__device__ bool has_nan(const float* scores, int64_t row, int columns, int64_t* first_nan) {
  int found = INT_MAX;
  for (int c = static_cast<int>(threadIdx.x) % kWarp; c < columns && found == INT_MAX; c += kWarp)
    if (scores[c] != scores[c]) found = c;
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const int other = __shfl_xor_sync(kAllLanes, found, step);
    if (other < found) found = other;
  }
  if (found == INT_MAX) return false;
  if (threadIdx.x % kWarp == 0)
    atomicMin(reinterpret_cast<unsigned long long*>(first_nan), static_cast<unsigned long long>(row * columns + found));
  return true;
}

__global__ void __launch_bounds__(kTopKWarps* kWarp) top_k_rows(TopKArguments a) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kTopKWarps + warp;
  if (row >= a.rows) return;
  const int columns = static_cast<int>(a.columns);
  const float* scores = a.scores + row * a.columns;
  if (has_nan(scores, row, columns, a.first_nan)) return;
  Place last = first_place();
  for (int64_t i = 0; i < a.k; ++i) {
    last = next_place(scores, 0, columns, last);
    if (lane == 0) a.ids[row * a.k + i] = last.column;
  }
}

/// The sum of the `best` highest scores of a group. What is no number (infinities of both signs) counts as the highest.
__device__ float group_score(const float* scores, int begin, int width, int64_t best) {
  float sum = 0;
  Place last = first_place();
  for (int64_t i = 0; i < best; ++i) {
    last = next_place(scores, begin, width, last);
    sum += last.score;
  }
  return sum == sum ? sum : INFINITY;
}

/// next_place among the columns of open groups: those that stand at or before `closing` in the order of groups.
__device__ Place next_open_place(const float* scores, const float* group_scores, int columns, int width, Place closing, Place last) {
  Place best{-INFINITY, INT_MAX};
  for (int c = static_cast<int>(threadIdx.x) % kWarp; c < columns; c += kWarp) {
    const Place here{scores[c], c}, group{group_scores[c / width], c / width};
    if (!before(closing, group) && before(last, here) && before(here, best)) best = here;
  }
  return first_of_warp(best);
}

__global__ void __launch_bounds__(kTopKWarps* kWarp) top_k_grouped_rows(TopKArguments a) {
  __shared__ float shared_scores[kTopKWarps][kMostGroups];
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kTopKWarps + warp;
  if (row >= a.rows) return;
  const int columns = static_cast<int>(a.columns), groups = static_cast<int>(a.groups), width = columns / groups;
  const float* scores = a.scores + row * a.columns;
  if (has_nan(scores, row, columns, a.first_nan)) return;
  float* group_scores = shared_scores[warp];
  for (int g = 0; g < groups; ++g) {
    const float score = group_score(scores, g * width, width, a.best);
    if (lane == 0) group_scores[g] = score;
  }
  __syncwarp();
  Place closing = first_place();
  for (int64_t i = 0; i < a.chosen; ++i) closing = next_place(group_scores, 0, groups, closing);
  Place last = first_place();
  for (int64_t i = 0; i < a.k; ++i) {
    last = next_open_place(scores, group_scores, columns, width, closing, last);
    if (lane == 0) a.ids[row * a.k + i] = last.column;
  }
}

void top_k(const TopKArguments& a, Stream stream) {
  const auto kernel = a.groups > 1 ? top_k_grouped_rows : top_k_rows;
  launch("top_k", kernel, ceil_div(a.rows, kTopKWarps), 1, kTopKWarps * kWarp, stream, a);
}

}  // namespace

void SWITCHYARD_CUDA_FILL(top_k)(Launchers& table) { table.top_k = top_k; }

}  // namespace switchyard::kernels::cuda
