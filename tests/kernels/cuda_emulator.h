// CUDA's words for the host, so that the text of the kernels is compiled and run where no GPU is. A block's threads are fibres
// that run until they meet a barrier or speak to their warp; blocks run one after another. The order in which fibres are taken can
// be changed: what differs then is a race. A barrier that some threads never reach, and a launch beyond the limits of a device, are errors.
// Include it first, and no header of the standard library after it.
#pragma once

#include <csetjmp>
#include <ucontext.h>

#include <algorithm>
#include <bit>
#include <climits>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "switchyard/kernels/cuda/launchers.h"
#include "tests/kernels/cuda_emulated.h"

#if defined(__SANITIZE_THREAD__)  // each fibre is a thread to it, so that it finds what no barrier orders
#include <sanitizer/tsan_interface.h>
#endif

namespace switchyard::testing::emulator {

struct Index {
  unsigned x = 0, y = 0, z = 0;
};
inline Index thread, block;

constexpr int kWarp = 32;

/// One block of threads.
class Block {
 public:
  static Block& current() {
    static Block block;
    return block;
  }

  void run(const std::function<void()>& body, int threads, Order order) {
    body_ = &body;
    count_ = threads;
    for (int i = 0; i < threads; ++i) {
      if (i == static_cast<int>(fibres_.size())) fibres_.push_back(std::make_unique<Fibre>());
      fibres_[i]->state = State::ready;
      fibres_[i]->exchanges = 0;
    }
    std::vector<int> turn(threads);
    for (int i = 0; i < threads; ++i) turn[i] = order == Order::descending ? threads - 1 - i : i;
    for (;;) {
      if (order == Order::shuffled)
        for (int i = threads - 1; i > 0; --i) std::swap(turn[i], turn[draw(i + 1)]);
      for (const int i : turn)
        if (fibres_[i]->state == State::ready) resume(i);
      if (all([](const Fibre& f) { return f.state == State::done; })) return;
      if (!release())
        throw std::logic_error(std::string("kernel ") + name + ": a barrier is waited at that some threads of the block or warp never reach");
    }
  }

  void barrier() { wait(State::at_block_barrier, 0); }

  /// Gives `bytes` of this lane to its warp; returns where those of lane l lie, at l · 64.
  const unsigned char* exchange(const void* mine, size_t bytes, int kind) {
    Fibre& fibre = *fibres_[now_];
    // Two sets in turn: a lane is at most one exchange ahead of those that still read.
    unsigned char* set = warps_[now_ / kWarp][fibre.exchanges++ % 2];
    std::memcpy(set + now_ % kWarp * 64, mine, bytes);
    wait(State::at_warp, kind);
    return set;
  }

  const char* name = "";

  /// A number in [0, below), the same sequence at every run.
  int draw(int below) {
    seed_ = seed_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<int>((seed_ >> 33) % static_cast<unsigned>(below));
  }

 private:
  enum class State { ready, at_block_barrier, at_warp, done };
  struct Fibre {
    ucontext_t context;
    std::jmp_buf place;
    std::unique_ptr<char[]> stack;  ///< none: not begun
    State state = State::ready;
    int kind = 0;
    unsigned exchanges = 0;
#if defined(__SANITIZE_THREAD__)
    void* shadow = __tsan_create_fiber(0);
#endif
  };
  static constexpr size_t kStack = 1 << 16;

  template <typename Test>
  bool all(const Test& test) const {
    return std::all_of(fibres_.begin(), fibres_.begin() + count_, [&](const auto& f) { return test(*f); });
  }

  /// A fibre lives as long as the process, and runs one thread after another.
  static void enter() {
    Block& self = current();
    for (;;) {
      self.acquire();
      (*self.body_)();
      self.wait(State::done, 0);
    }
  }

  void resume(int i) {
    now_ = i;
    thread.x = static_cast<unsigned>(i);
    Fibre& fibre = *fibres_[i];
#if defined(__SANITIZE_THREAD__)
    home_ = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(fibre.shadow, __tsan_switch_to_fiber_no_sync);
#endif
    if (!fibre.stack) {
      fibre.stack = std::make_unique<char[]>(kStack);
      getcontext(&fibre.context);
      fibre.context.uc_stack.ss_sp = fibre.stack.get();
      fibre.context.uc_stack.ss_size = kStack;
      fibre.context.uc_link = nullptr;
      makecontext(&fibre.context, &Block::enter, 0);
      leave(scheduler_, scheduler_place_, [&] { setcontext(&fibre.context); });
      return;
    }
    leave(scheduler_, scheduler_place_, [&] { enter_again(fibre.context, fibre.place); });
  }

  void wait(State state, int kind) {
    Fibre& fibre = *fibres_[now_];
    fibre.state = state;
    fibre.kind = kind;
    publish();
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(home_, __tsan_switch_to_fiber_no_sync);
#endif
    leave(fibre.context, fibre.place, [&] { enter_again(scheduler_, scheduler_place_); });
    acquire();
  }

  /// Remembers where we are and goes elsewhere; returns when somebody comes back here. Jumps cost no system call, as changes of
  /// contexts do; the thread sanitizer follows only those.
  template <typename Go>
  [[gnu::noinline]] static void leave(ucontext_t& context, std::jmp_buf& place, const Go& go) {
#if defined(__SANITIZE_THREAD__)
    volatile bool back = false;
    getcontext(&context);
    if (back) return;
    back = true;
    go();
#else
    if (_setjmp(place) == 0) go();
#endif
  }
  static void enter_again(ucontext_t& context, std::jmp_buf& place) {
#if defined(__SANITIZE_THREAD__)
    setcontext(&context);
#else
    _longjmp(place, 1);
#endif
  }

  // What the thread sanitizer is told: a barrier orders the block's threads, an exchange those of the warp.
  void publish() {
#if defined(__SANITIZE_THREAD__)
    __tsan_release(order_of(*fibres_[now_]));
#endif
  }
  void acquire() {
#if defined(__SANITIZE_THREAD__)
    __tsan_acquire(order_of(*fibres_[now_]));
#endif
  }
  void* order_of(const Fibre& fibre) { return fibre.kind ? static_cast<void*>(&warps_[now_ / kWarp]) : this; }

  /// Lets those go on whose barrier is complete.
  bool release() {
    bool any = false;
    for (int w = 0; w < count_; w += kWarp) {
      const int kind = fibres_[w]->kind;
      bool complete = true;
      for (int i = w; i < w + kWarp; ++i) complete = complete && fibres_[i]->state == State::at_warp && fibres_[i]->kind == kind;
      for (int i = w; complete && i < w + kWarp; ++i) fibres_[i]->state = State::ready;
      any = any || complete;
    }
    if (all([](const Fibre& f) { return f.state == State::at_block_barrier; })) {
      for (int i = 0; i < count_; ++i) fibres_[i]->state = State::ready;
      any = true;
    }
    return any;
  }

  std::vector<std::unique_ptr<Fibre>> fibres_;
  ucontext_t scheduler_;
  std::jmp_buf scheduler_place_;
  const std::function<void()>* body_ = nullptr;
  unsigned char warps_[32][2][kWarp * 64];
  int count_ = 0, now_ = 0;
  uint64_t seed_ = 1;
#if defined(__SANITIZE_THREAD__)
  void* home_ = nullptr;
#endif
};

template <typename V>
V from_lane(V mine, int lane, int kind) {
  V result;
  std::memcpy(&result, Block::current().exchange(&mine, sizeof(V), kind) + lane * 64, sizeof(V));
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

inline void __syncthreads() { ::switchyard::testing::emulator::Block::current().barrier(); }
inline void __syncwarp() { ::switchyard::testing::emulator::from_lane(0, 0, 1); }
template <typename V>
V __shfl_xor_sync(unsigned, V value, int mask) {
  using namespace ::switchyard::testing::emulator;
  return from_lane(value, own_lane() ^ mask, 2);
}
inline unsigned __ballot_sync(unsigned, bool flag) {
  const unsigned char* set = ::switchyard::testing::emulator::Block::current().exchange(&flag, sizeof(flag), 3);
  unsigned mask = 0;
  for (int l = 0; l < 32; ++l) mask |= static_cast<unsigned>(set[l * 64] != 0) << l;
  return mask;
}
inline unsigned __match_any_sync(unsigned, unsigned long long value) {
  const unsigned char* set = ::switchyard::testing::emulator::Block::current().exchange(&value, sizeof(value), 4);
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
  Block& runner = Block::current();
  runner.name = name;
  const Order order = switchyard::testing::emulated_order();
  const int64_t blocks = blocks_x * blocks_y, turn = order == Order::shuffled ? runner.draw(static_cast<int>(std::min<int64_t>(blocks, INT_MAX))) : 0;
  const std::function<void()> body = [&] { kernel(static_cast<Parameters>(values)...); };
  for (int64_t i = 0; i < blocks; ++i) {
    const int64_t b = order == Order::descending ? blocks - 1 - i : (i + turn) % blocks;
    block = {static_cast<unsigned>(b % blocks_x), static_cast<unsigned>(b / blocks_x), 0};
    runner.run(body, threads, order);
  }
}

/// mma.sync m16n8k16 of bfloat16 as PTX defines it: rows of A and columns of B by groups of four lanes.
inline void tensor_product(float* c, const unsigned (&a)[4], const unsigned (&b)[2]) {
  using namespace ::switchyard::testing::emulator;
  unsigned mine[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
  const unsigned char* set = Block::current().exchange(mine, sizeof(mine), 5);
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
