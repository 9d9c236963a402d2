#include "switchyard/kernels/cpu/workers.h"

#include <ATen/Parallel.h>

#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace switchyard::kernels::cpu {
namespace {

void set_threads([[maybe_unused]] int threads) {  // of this thread alone, which at::set_num_threads would not be
#if defined(_OPENMP)
  omp_set_num_threads(threads);
#endif
}

/// While it lives, this thread is inside a body: libtorch's operations and ours have it alone.
class Inside {
 public:
  Inside() : threads_(at::get_num_threads()) {
    here() = true;
    set_threads(1);
  }
  ~Inside() {
    here() = false;
    set_threads(threads_);
  }
  static bool& here() {
    static thread_local bool inside = false;
    return inside;
  }

 private:
  int threads_;
};

void rest() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

// How long a thread looks before it sleeps: for the next job, about as long as waking takes; for the last pieces of this one, longer.
constexpr int kLooksForWork = 200, kLooksForEnd = 4000;

class Workers {
 public:
  /// Never ends: its threads sleep when the process does.
  static Workers& all() {
    static Workers* const workers = new Workers;
    return *workers;
  }

  void call(int64_t threads, void (*body)(void*), void* data) {
    const std::unique_lock lock(busy_, std::try_to_lock);
    if (!lock || threads <= 1) return body(data);
    grow(threads - 1);
    body_ = body;
    data_ = data;
    failure_ = nullptr;
    places_.store(static_cast<int32_t>(threads - 1), std::memory_order_relaxed);
    uint32_t open = ((state_.load(std::memory_order_relaxed) | kOpen) + kNumber) & ~kInside;
    state_.store(open, std::memory_order_release);
    state_.notify_all();
    std::exception_ptr own = run();
    uint32_t now = state_.fetch_and(~kOpen, std::memory_order_acq_rel) & ~kOpen;
    for (int look = 0; now & kInside; now = state_.load(std::memory_order_acquire)) {
      if (++look < kLooksForEnd) rest();
      else state_.wait(now, std::memory_order_acquire);
    }
    if (!own) own = failure_;
    if (own) std::rethrow_exception(own);
  }

 private:
  // The state: how many workers are inside, whether more may enter, and the job's number.
  static constexpr uint32_t kInside = 0xffff, kOpen = 1 << 16, kNumber = 1 << 17;

  /// More threads, as far as the system gives them.
  void grow(int64_t wanted) {
    try {
      for (; count_ < wanted; ++count_) std::thread([this] { help(); }).detach();
    } catch (const std::system_error&) {  // those that are there do the work
    }
  }

  std::exception_ptr run() {
    const Inside inside;
    try {
      body_(data_);
    } catch (...) {
      return std::current_exception();
    }
    return nullptr;
  }

  void help() {
    uint32_t done = 0;  // the state's number when this thread last looked inside
    for (;;) {
      uint32_t state = state_.load(std::memory_order_acquire);
      for (int look = 0; !(state & kOpen) || state / kNumber == done; state = state_.load(std::memory_order_acquire)) {
        if (++look < kLooksForWork) rest();
        else state_.wait(state, std::memory_order_acquire);
      }
      if (!state_.compare_exchange_strong(state, state + 1, std::memory_order_acq_rel)) continue;
      done = state / kNumber;
      if (places_.fetch_sub(1, std::memory_order_relaxed) > 0) {
        if (const std::exception_ptr thrown = run()) {
          const std::lock_guard lock(failing_);
          if (!failure_) failure_ = thrown;
        }
      }
      if ((state_.fetch_sub(1, std::memory_order_acq_rel) & (kInside | kOpen)) == 1) state_.notify_all();
    }
  }

  std::mutex busy_, failing_;
  std::atomic<uint32_t> state_{0};
  std::atomic<int32_t> places_{0};
  void (*body_)(void*) = nullptr;
  void* data_ = nullptr;
  std::exception_ptr failure_;
  int64_t count_ = 0;
};

}  // namespace

void call_together(int64_t threads, void (*body)(void*), void* data) {
  if (Inside::here()) return body(data);
  Workers::all().call(threads, body, data);
}

}  // namespace switchyard::kernels::cpu
