// To look for races with gcc's thread sanitizer: compile cuda_emulated.cpp with -fsanitize=thread, this file without it but with
// -DSWITCHYARD_TELL_TSAN, and link whatever calls the launchers with -fsanitize=thread. Each fibre is a thread to it then, and only
// barriers and exchanges order them.
#include "tests/kernels/cuda_fibres.h"

#include <csetjmp>
#include <ucontext.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(SWITCHYARD_TELL_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

namespace switchyard::testing::emulator {

Index thread, block;

namespace {

/// One block of threads.
class Block {
 public:
  static Block& current() {
    static Block block;
    return block;
  }

  void run(const char* name, const std::function<void()>& body, int threads, Order order) {
    body_ = &body;
    count_ = threads;
    publish(&start_);
    for (int i = 0; i < threads; ++i) {
      if (i == static_cast<int>(fibres_.size())) fibres_.push_back(std::make_unique<Fibre>());
      fibres_[i]->state = State::ready;
      fibres_[i]->exchanges = fibres_[i]->barriers = 0;
    }
    std::vector<int> turn(threads);
    for (int i = 0; i < threads; ++i) turn[i] = order == Order::descending ? threads - 1 - i : i;
    for (;;) {
      if (order == Order::shuffled)
        for (int i = threads - 1; i > 0; --i) std::swap(turn[i], turn[draw(i + 1)]);
      for (const int i : turn)
        if (fibres_[i]->state == State::ready) resume(i);
      if (all([](const Fibre& f) { return f.state == State::done; })) return acquire(&done_);
      if (!release())
        throw std::logic_error(std::string("kernel ") + name + ": a barrier is waited at that some threads of the block or warp never reach");
    }
  }

  void barrier() {
    // Two in turn, or who comes late to one barrier would be ordered behind those who wait at the next.
    void* order = &barriers_[fibres_[now_]->barriers++ % 2];
    wait(State::at_block_barrier, 0, order, order);
  }

  /// Gives `bytes` of this lane to its warp; returns where those of lane l lie, at l · 64.
  const unsigned char* exchange(const void* mine, size_t bytes, int kind) {
    Fibre& fibre = *fibres_[now_];
    // Two sets in turn: a lane is at most one exchange ahead of those that still read.
    unsigned char* set = warps_[now_ / kWarp][fibre.exchanges++ % 2];
    std::memcpy(set + now_ % kWarp * 64, mine, bytes);
    wait(State::at_warp, kind, set, set);
    return set;
  }

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
    unsigned exchanges = 0, barriers = 0;
#if defined(SWITCHYARD_TELL_TSAN)
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
    acquire(&self.start_);
    for (;;) {
      (*self.body_)();
      self.wait(State::done, 0, &self.done_, &self.start_);
    }
  }

  void resume(int i) {
    now_ = i;
    thread.x = static_cast<unsigned>(i);
    Fibre& fibre = *fibres_[i];
#if defined(SWITCHYARD_TELL_TSAN)
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

  /// What the fibre did before is published to one order of things, and what others published to another is known when it goes on.
  void wait(State state, int kind, void* before, void* after) {
    Fibre& fibre = *fibres_[now_];
    fibre.state = state;
    fibre.kind = kind;
    publish(before);
#if defined(SWITCHYARD_TELL_TSAN)
    __tsan_switch_to_fiber(home_, __tsan_switch_to_fiber_no_sync);
#endif
    leave(fibre.context, fibre.place, [&] { enter_again(scheduler_, scheduler_place_); });
    acquire(after);
  }

  /// Remembers where we are and goes elsewhere; returns when somebody comes back here. Jumps cost no system call, as changes of
  /// contexts do; the thread sanitizer follows only those.
  template <typename Go>
  [[gnu::noinline]] static void leave(ucontext_t& context, std::jmp_buf& place, const Go& go) {
#if defined(SWITCHYARD_TELL_TSAN)
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
#if defined(SWITCHYARD_TELL_TSAN)
    setcontext(&context);
#else
    _longjmp(place, 1);
#endif
  }

  // What the thread sanitizer is told: a barrier orders the block's threads and who runs the block, an exchange those of the warp.
  static void publish(void* order) {
#if defined(SWITCHYARD_TELL_TSAN)
    __tsan_release(order);
#endif
  }
  static void acquire(void* order) {
#if defined(SWITCHYARD_TELL_TSAN)
    __tsan_acquire(order);
#endif
  }

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
  uint64_t barriers_[2], start_, done_;  ///< addresses that stand for orders of things
#if defined(SWITCHYARD_TELL_TSAN)
  void* home_ = nullptr;
#endif
};

}  // namespace

void run_block(const char* kernel, const std::function<void()>& body, int threads, Order order) {
  Block::current().run(kernel, body, threads, order);
}
void barrier() { Block::current().barrier(); }
const unsigned char* exchange(const void* mine, size_t bytes, int kind) { return Block::current().exchange(mine, bytes, kind); }
int draw(int below) { return Block::current().draw(below); }

}  // namespace switchyard::testing::emulator
