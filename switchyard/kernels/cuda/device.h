// Words that the kernels of this folder share: numbers, reads of 16 bytes, reductions over a warp, launches. For sources that
// nvcc compiles; the tests compile them for the host, with CUDA's own words defined by tests/kernels/cuda_emulator.h.
#pragma once

#include <cstdint>

#include "switchyard/kernels/cuda/launchers.h"

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#define SWITCHYARD_CUDA_FILL(name) fill_##name
#elif !defined(SWITCHYARD_CUDA_FILL)
#error "compile with nvcc, or include tests/kernels/cuda_emulator.h first"
#endif

namespace switchyard::kernels::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

/// bfloat16 as its bits.
struct Bf16 {
  uint16_t bits;
};

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(Bf16 x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }

/// Rounds to nearest, ties to even; a NaN stays one.
template <typename T>
__device__ inline T from_float(float x);
template <>
__device__ inline float from_float<float>(float x) {
  return x;
}
template <>
__device__ inline Bf16 from_float<Bf16>(float x) {
#if defined(__CUDA_ARCH__)
  Bf16 result;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
  return result;
#else
  const unsigned bits = __float_as_uint(x);
  return {static_cast<uint16_t>(x == x ? (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16 : 0x7fffu)};
#endif
}

/// 16 bytes, read and written at once.
template <typename T>
struct alignas(16) Vector {
  static constexpr int kCount = 16 / sizeof(T);
  T value[kCount];
};

__device__ inline bool is_aligned(const void* at) { return (reinterpret_cast<uintptr_t>(at) & 15u) == 0; }

/// The same numbers one by one: for ends of rows, and rows that do not begin on 16 bytes. Kept out of line, since it is rare.
template <typename T>
__device__ __noinline__ Vector<T> load_slowly(const void* at, int64_t index, int64_t count, bool wide) {
  Vector<T> result;
#pragma unroll 1
  for (int i = 0; i < Vector<T>::kCount; ++i) {
    if (i >= count) result.value[i] = T{};
    else if (wide) result.value[i] = from_float<T>(static_cast<const float*>(at)[index + i]);
    else result.value[i] = static_cast<const T*>(at)[index + i];
  }
  return result;
}

/// Up to a vector of the numbers from at[index] on, of which `count` exist (none when count <= 0); the others are zeros. Where
/// `wide`, they are floats that become T.
template <typename T>
__device__ inline Vector<T> load_vector(const void* at, int64_t index, int64_t count, bool wide) {
  if (sizeof(T) == sizeof(float) || !wide) {
    const T* from = static_cast<const T*>(at) + index;
    if (count >= Vector<T>::kCount && is_aligned(from)) return *reinterpret_cast<const Vector<T>*>(from);
  } else {
    const float* from = static_cast<const float*>(at) + index;
    if (count >= Vector<T>::kCount && is_aligned(from)) {
      Vector<T> result;
#pragma unroll
      for (int part = 0; part < Vector<T>::kCount / 4; ++part) {
        const Vector<float> four = reinterpret_cast<const Vector<float>*>(from)[part];
#pragma unroll
        for (int i = 0; i < 4; ++i) result.value[part * 4 + i] = from_float<T>(four.value[i]);
      }
      return result;
    }
  }
  return load_slowly<T>(at, index, count, wide);
}

/// The sum over the warp, in every lane; the order is fixed.
template <typename S>
__device__ inline S warp_sum(S x) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}

/// The sum over a block of `Threads` threads, in thread 0 alone. Every thread of the block must call.
template <int Threads, typename S>
__device__ inline S block_sum(S x) {
  __shared__ S part[Threads / kWarp];
  x = warp_sum(x);
  __syncthreads();  // an earlier sum may still be read
  if (threadIdx.x % kWarp == 0) part[threadIdx.x / kWarp] = x;
  __syncthreads();
  S sum = 0;
  if (threadIdx.x == 0)
    for (int i = 0; i < Threads / kWarp; ++i) sum += part[i];
  return sum;
}

/// The last e with offset[e] <= at, for 0 <= at < offset[count]: the one that owns position `at`, past those without any.
__device__ inline int64_t owner(const int64_t* offset, int64_t count, int64_t at) {
  int64_t low = 0, high = count;  // offset[low] <= at < offset[high]
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (offset[middle] <= at) low = middle;
    else high = middle;
  }
  return low;
}

__host__ __device__ inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

#if defined(__CUDACC__)
/// Queues kernel(arguments...) on the stream; nothing to do for a grid without blocks.
template <typename... Parameters, typename... Values>
void launch(const char* name, void (*kernel)(Parameters...), int64_t blocks_x, int64_t blocks_y, int threads, Stream stream,
            Values... values) {
  if (blocks_x == 0 || blocks_y == 0) return;
  if (blocks_x > 0x7fffffff || blocks_y > 65535) refuse_launch(name, "more blocks than a launch may have");
  const dim3 grid(static_cast<unsigned>(blocks_x), static_cast<unsigned>(blocks_y));
  kernel<<<grid, threads, 0, stream>>>(static_cast<Parameters>(values)...);
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) refuse_launch(name, cudaGetErrorString(error));
}
#endif

}  // namespace switchyard::kernels::cuda
