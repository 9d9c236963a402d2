// Stable counting sort of pairs by slot. Pairs are cut into chunks of consecutive ones, one warp each: count each chunk's pairs
// a slot, sum the counts over chunks and then over slots, and place each pair behind those before it. Only a warp writes its
// chunk's counts, in the order of its pairs, so no order depends on timing.
#include "switchyard/kernels/cuda/device.h"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kSortWarps = 4;
constexpr int kScanThreads = 256;

/// The slot of pair p, or -1 for a pair that is left out.
__device__ int64_t slot_of(const SortArguments& a, int64_t pair) {
  if (a.kept && !a.kept[pair]) return -1;
  const int64_t slot = a.slot[pair];
  return slot >= 0 && slot < a.slots ? slot : -1;
}

/// One step of a warp over up to 32 consecutive pairs: where among the earlier ones of its slot (this chunk's before it) the lane's
/// pair stands. `running` counts the chunk's pairs a slot, and moves on.
__device__ int32_t step_rank(int32_t* running, int64_t slot) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const unsigned same = __match_any_sync(kAllLanes, static_cast<unsigned long long>(slot));
  const int before = __popc(same & ((1u << lane) - 1u));
  int32_t base = 0;
  if (slot >= 0) base = running[slot];
  __syncwarp();  // all have read before one writes
  if (slot >= 0 && before == 0) running[slot] = base + __popc(same);
  __syncwarp();
  return base + before;
}

/// Calls step(pair, slot) for the chunk of this warp; lanes past its end call with slot -1.
template <typename Step>
__device__ void over_chunk(const SortArguments& a, int64_t chunk, const Step& step) {
  const int64_t size = ceil_div(ceil_div(a.pairs, a.chunks), kWarp) * kWarp, begin = chunk * size;
  const int64_t end = begin + size < a.pairs ? begin + size : a.pairs;
  for (int64_t first = begin; first < end; first += kWarp) {
    const int64_t pair = first + static_cast<int>(threadIdx.x) % kWarp;
    step(pair, pair < end ? slot_of(a, pair) : -1);
  }
}

__global__ void __launch_bounds__(kSortWarps* kWarp) count_slots(SortArguments a) {
  const int64_t chunk = static_cast<int64_t>(blockIdx.x) * kSortWarps + threadIdx.x / kWarp;
  if (chunk >= a.chunks) return;
  int32_t* counts = a.counts + chunk * a.slots;
  over_chunk(a, chunk, [&](int64_t pair, int64_t slot) {
    step_rank(counts, slot);
    if (pair >= a.pairs) return;
    const int64_t named = a.slot[pair];
    if (named >= a.slots || named < (a.skip_negative ? -1 : 0))
      atomicMin(reinterpret_cast<unsigned long long*>(a.report), static_cast<unsigned long long>(pair));
  });
}

/// Counts become the number of earlier pairs of the slot; the slot's total goes to offset[slot + 1].
__global__ void __launch_bounds__(kScanThreads) sum_over_chunks(SortArguments a) {
  const int64_t slot = static_cast<int64_t>(blockIdx.x) * kScanThreads + threadIdx.x;
  if (slot >= a.slots) return;
  int32_t sum = 0;
  for (int64_t chunk = 0; chunk < a.chunks; ++chunk) {
    int32_t& count = a.counts[chunk * a.slots + slot];
    const int32_t here = count;
    count = sum;
    sum += here;
  }
  a.offset[slot + 1] = sum;
}

/// Totals become offsets, by one block.
__global__ void __launch_bounds__(kScanThreads) sum_over_slots(SortArguments a) {
  __shared__ int64_t ends[kScanThreads];
  const int t = static_cast<int>(threadIdx.x);
  int64_t carry = 0;
  if (t == 0) a.offset[0] = 0;
  for (int64_t first = 0; first < a.slots; first += kScanThreads) {
    const int64_t slot = first + t;
    ends[t] = slot < a.slots ? a.offset[slot + 1] : 0;
    __syncthreads();
    for (int step = 1; step < kScanThreads; step *= 2) {
      const int64_t left = t >= step ? ends[t - step] : 0;
      __syncthreads();
      ends[t] += left;
      __syncthreads();
    }
    if (slot < a.slots) a.offset[slot + 1] = carry + ends[t];
    carry += ends[kScanThreads - 1];
    __syncthreads();
  }
  if (t == 0) a.report[1] = carry;
}

__global__ void __launch_bounds__(kSortWarps* kWarp) place_pairs(SortArguments a) {
  const int64_t chunk = static_cast<int64_t>(blockIdx.x) * kSortWarps + threadIdx.x / kWarp;
  if (chunk >= a.chunks) return;
  int32_t* counts = a.counts + chunk * a.slots;
  over_chunk(a, chunk, [&](int64_t pair, int64_t slot) {
    const int32_t rank = step_rank(counts, slot);
    if (slot >= 0) a.order[a.offset[slot] + rank] = pair;
  });
}

__global__ void __launch_bounds__(kScanThreads) invert(InverseArguments a) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kScanThreads + threadIdx.x;
  if (at < a.count) a.position[a.order[at]] = at;
}

void sort_pairs(const SortArguments& a, Stream stream) {
  const int64_t warps = ceil_div(a.chunks, kSortWarps);
  launch("sort", count_slots, warps, 1, kSortWarps * kWarp, stream, a);
  launch("sort", sum_over_chunks, ceil_div(a.slots, kScanThreads), 1, kScanThreads, stream, a);
  launch("sort", sum_over_slots, 1, 1, kScanThreads, stream, a);
  launch("sort", place_pairs, warps, 1, kSortWarps * kWarp, stream, a);
}

void invert_order(const InverseArguments& a, Stream stream) {
  launch("inverse_order", invert, ceil_div(a.count, kScanThreads), 1, kScanThreads, stream, a);
}

}  // namespace

void SWITCHYARD_CUDA_FILL(sort)(Launchers& table) {
  table.sort = sort_pairs;
  table.invert = invert_order;
}

}  // namespace switchyard::kernels::cuda
