// Places of each bin to its pairs of the highest priority, one block a bin. The priority of the last pair that gets one is found
// digit by digit, eight bits a pass, from counts of the pairs that share the digits found so far (radix selection): the time is
// linear in the pairs, however many meet in a bin. Those that tie with it are admitted from the lowest pair on.
#include "switchyard/kernels/cuda/device.h"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kAdmitThreads = 256;

/// Unsigned integers in the order of the floats: zeros of both signs equal, what is no number above all.
__device__ unsigned ordered(float x) {
  if (x != x) return 0xffffffffu;
  const unsigned bits = x == 0 ? 0u : __float_as_uint(x);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/// The key of the `places`-th highest of `count` priorities (0 < places < count), and how many of those with that key get in.
struct Bar {
  unsigned key;
  int64_t ties;
};
__device__ Bar find_bar(const float* priority, const int64_t* order, int64_t count, int64_t places) {
  __shared__ int counts[256];
  __shared__ unsigned found;
  __shared__ int64_t left;
  const int t = static_cast<int>(threadIdx.x);
  unsigned key = 0, known = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    counts[t] = 0;
    __syncthreads();
    for (int64_t i = t; i < count; i += kAdmitThreads) {
      const unsigned here = ordered(priority[order[i]]);
      if ((here & known) == key) atomicAdd(&counts[(here >> shift) & 255u], 1);
    }
    __syncthreads();
    if (t == 0) {
      int digit = 255;
      for (; digit > 0 && counts[digit] < places; --digit) places -= counts[digit];
      found = static_cast<unsigned>(digit) << shift;
      left = places;
    }
    __syncthreads();
    key |= found;
    places = left;
    known |= 255u << shift;
    __syncthreads();
  }
  return {key, places};
}

__global__ void __launch_bounds__(kAdmitThreads) admit_bin(AdmitArguments a) {
  __shared__ int warps[kAdmitThreads / kWarp];
  const int64_t bin = blockIdx.x, begin = a.offset[bin], count = a.offset[bin + 1] - begin;
  const int64_t places = a.capacity[bin] > 0 ? a.capacity[bin] : 0;
  const int64_t* order = a.order + begin;
  const int t = static_cast<int>(threadIdx.x), warp = t / kWarp, lane = t % kWarp;
  if (!a.priority || places == 0 || places >= count) {
    for (int64_t i = t; i < count; i += kAdmitThreads) a.kept[order[i]] = i < places;
    return;
  }
  const Bar bar = find_bar(a.priority, order, count, places);
  int64_t ties = 0;  // among the pairs before these 256
  for (int64_t first = 0; first < count; first += kAdmitThreads) {
    const int64_t i = first + t;
    const unsigned key = i < count ? ordered(a.priority[order[i]]) : 0u;
    const bool tie = i < count && key == bar.key;
    const unsigned mask = __ballot_sync(kAllLanes, tie);
    if (lane == 0) warps[warp] = __popc(mask);
    __syncthreads();
    int64_t rank = ties + __popc(mask & ((1u << lane) - 1u));
    for (int w = 0; w < kAdmitThreads / kWarp; ++w) {
      if (w < warp) rank += warps[w];
      ties += warps[w];
    }
    if (i < count) a.kept[order[i]] = key > bar.key || (tie && rank < bar.ties);
    __syncthreads();
  }
}

void admit(const AdmitArguments& a, Stream stream) { launch("admit", admit_bin, a.bins, 1, kAdmitThreads, stream, a); }

}  // namespace

void SWITCHYARD_CUDA_FILL(admit)(Launchers& table) { table.admit = admit; }

}  // namespace switchyard::kernels::cuda
