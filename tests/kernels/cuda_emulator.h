// CUDA's words for the host, so that the text of the kernels is compiled and run where no GPU is: threads are fibres
// (cuda_fibres.h), blocks run one after another, and a launch beyond the limits of a device is an error.
// Include it first, and no header of the standard library after it.
#pragma once

#include <algorithm>
#include <bit>
#include <climits>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>

#include "switchyard/kernels/cuda/launchers.h"
#include "tests/kernels/cuda_fibres.h"

namespace switchyard::testing::emulator {

template <typename V>
V from_lane(V mine, int lane, int kind) {
  V result;
  std::memcpy(&result, exchange(&mine, sizeof(V), kind) + lane * 64, sizeof(V));
  return result;
}
inline int own_lane() { return static_cast<int>(thread.x) % kWarp; }

}  // namespace switchyard::testing::emulator

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __noinline__
#define __launch_bounds__(...)
#define threadIdx (::switchyard::testing::emulator::thread)
#define blockIdx (::switchyard::testing::emulator::block)
#define SWITCHYARD_CUDA_FILL(name) emulate_##name

inline void __syncthreads() { ::switchyard::testing::emulator::barrier(); }
inline void __syncwarp() { ::switchyard::testing::emulator::from_lane(0, 0, 1); }
template <typename V>
V __shfl_xor_sync(unsigned, V value, int mask) {
  using namespace ::switchyard::testing::emulator;
  return from_lane(value, own_lane() ^ mask, 2);
}
inline unsigned __ballot_sync(unsigned, bool flag) {
  const unsigned char* set = ::switchyard::testing::emulator::exchange(&flag, sizeof(flag), 3);
  unsigned mask = 0;
  for (int l = 0; l < 32; ++l) mask |= static_cast<unsigned>(set[l * 64] != 0) << l;
  return mask;
}
inline unsigned __match_any_sync(unsigned, unsigned long long value) {
  const unsigned char* set = ::switchyard::testing::emulator::exchange(&value, sizeof(value), 4);
  unsigned mask = 0;
  for (int l = 0; l < 32; ++l) mask |= static_cast<unsigned>(std::memcmp(set + l * 64, &value, sizeof(value)) == 0) << l;
  return mask;
}
inline int __popc(unsigned x) { return std::popcount(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline int atomicAdd(int* at, int x) { return __atomic_fetch_add(at, x, __ATOMIC_RELAXED); }
inline void atomicMin(unsigned long long* at, unsigned long long x) {
  unsigned long long now = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (x < now && !__atomic_compare_exchange_n(at, &now, x, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
}

namespace switchyard::kernels::cuda {

template <typename... Parameters, typename... Values>
void launch(const char* name, void (*kernel)(Parameters...), int64_t blocks_x, int64_t blocks_y, int threads, Stream, Values... values) {
  using namespace ::switchyard::testing::emulator;
  using switchyard::testing::Order;
  if (blocks_x == 0 || blocks_y == 0) return;
  if (blocks_x < 0 || blocks_x > INT_MAX || blocks_y < 0 || blocks_y > 65535 || threads <= 0 || threads > 1024 || threads % kWarp != 0)
    throw std::logic_error(std::string("kernel ") + name + ": no device has such a launch");
  const Order order = switchyard::testing::emulated_order();
  const int64_t blocks = blocks_x * blocks_y, turn = order == Order::shuffled ? draw(static_cast<int>(std::min<int64_t>(blocks, INT_MAX))) : 0;
  const std::function<void()> body = [&] { kernel(static_cast<Parameters>(values)...); };
  for (int64_t i = 0; i < blocks; ++i) {
    const int64_t b = order == Order::descending ? blocks - 1 - i : (i + turn) % blocks;
    block = {static_cast<unsigned>(b % blocks_x), static_cast<unsigned>(b / blocks_x), 0};
    run_block(name, body, threads, order);
  }
}

/// mma.sync m16n8k16 of bfloat16 as PTX defines it: rows of A and columns of B by groups of four lanes.
inline void tensor_product(float* c, const unsigned (&a)[4], const unsigned (&b)[2]) {
  using namespace ::switchyard::testing::emulator;
  unsigned mine[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
  const unsigned char* set = exchange(mine, sizeof(mine), 5);
  // The numbers at depths 0 ... 15 of a row of A or a column of B: pairs in words, depths from 8 on `later` words further.
  struct Line {
    float value[16];
    Line(const unsigned char* set, int group, int word, int later) {
      for (int k = 0; k < 16; k += 2) {
        unsigned bits;
        std::memcpy(&bits, set + (group * 4 + k % 8 / 2) * 64 + (word + k / 8 * later) * 4, 4);
        value[k] = std::bit_cast<float>(bits << 16);
        value[k + 1] = std::bit_cast<float>(bits & 0xffff0000u);
      }
    }
  };
  const int group = own_lane() / 4, pair = own_lane() % 4;
  const Line rows[2] = {{set, group, 0, 2}, {set, group, 1, 2}}, columns[2] = {{set, pair * 2, 4, 1}, {set, pair * 2 + 1, 4, 1}};
  for (int i = 0; i < 4; ++i)
    for (int k = 0; k < 16; ++k) c[i] += rows[i / 2].value[k] * columns[i % 2].value[k];
}

}  // namespace switchyard::kernels::cuda
