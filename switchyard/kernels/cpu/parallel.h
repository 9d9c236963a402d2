// What the CPU kernels share: tasks taken in small pieces by whichever thread is free, scratch memory
// that is allocated once a thread. Internal to kernels/.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "switchyard/kernels/cpu/levels.h"
#include "switchyard/kernels/cpu/workers.h"

namespace switchyard::kernels::cpu {

/// Below this many operations in all, waking a second thread costs more than it brings.
constexpr int64_t kWorthThreads = 200'000;

/// Calls task(i) for 0 <= i < count; `operations` is what all of them cost together. Tasks write disjoint memory, so
/// results do not depend on who runs them.
template <typename Task>
void parallel_tasks(int64_t count, int64_t operations, Task&& task) {
  const int64_t threads = operations < kWorthThreads ? 1 : std::min<int64_t>(at::get_num_threads(), count);
  if (threads <= 1 || at::in_parallel_region()) {
    for (int64_t i = 0; i < count; ++i) task(i);
    return;
  }
  std::atomic<int64_t> next{0};
  call_together(threads, [&] {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) task(i);
  });
}

/// What Scratch::take<T>(count) uses.
template <typename T>
size_t bytes_of(int64_t count) {
  return (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64;
}

/// What a piece of scratch memory lives for.
enum class For { task, operation };

/// Memory of the calling thread, kept for the next use. Pieces are 64-byte aligned and uninitialised; they are
/// valid until the next Scratch of the same kind is made on this thread.
template <For use>
class Scratch {
 public:
  explicit Scratch(size_t bytes) {
    if (bytes > held().bytes) {
      const size_t size = (bytes + 4095) / 4096 * 4096;
      held().memory.reset(static_cast<std::byte*>(std::aligned_alloc(64, size)));
      held().bytes = held().memory ? size : 0;
      if (!held().memory) throw std::bad_alloc();
    }
    next_ = held().memory.get();
  }
  template <typename T>
  T* take(int64_t count) {
    T* piece = reinterpret_cast<T*>(next_);
    next_ += bytes_of<T>(count);
    return piece;
  }

 private:
  struct Free { void operator()(std::byte* p) const { std::free(p); } };
  struct Held { std::unique_ptr<std::byte, Free> memory; size_t bytes = 0; };
  static Held& held() {
    static thread_local Held h;
    return h;
  }
  std::byte* next_;
};

/// A tile of rows of one expert: sorted positions begin ... begin + count.
struct RowTile { int64_t expert, begin, count; };

inline int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

/// All rows cut into tiles of at most `rows`, experts in order.
inline std::vector<RowTile> row_tiles(const int64_t* offset, int64_t experts, int64_t rows) {
  std::vector<RowTile> tiles;
  for (int64_t e = 0; e < experts; ++e)
    for (int64_t a = offset[e]; a < offset[e + 1]; a += rows) tiles.push_back({e, a, std::min(rows, offset[e + 1] - a)});
  return tiles;
}


/// The same with an expert's tiles of nearly equal size, a multiple of `step` but for its last.
inline std::vector<RowTile> equal_tiles(const int64_t* offset, int64_t experts, int64_t rows, int64_t step) {
  std::vector<RowTile> tiles;
  for (int64_t e = 0; e < experts; ++e) {
    const int64_t count = offset[e + 1] - offset[e], pieces = (count + rows - 1) / rows;
    if (count == 0) continue;
    const int64_t each = round_up((count + pieces - 1) / pieces, step);
    for (int64_t a = offset[e]; a < offset[e + 1]; a += each) tiles.push_back({e, a, std::min(each, offset[e + 1] - a)});
  }
  return tiles;
}

/// Takes the tiles of experts that have at most `few` rows out of `tiles`.
inline std::vector<RowTile> take_few(std::vector<RowTile>& tiles, const int64_t* offset, int64_t few) {
  std::vector<RowTile> taken, left;
  for (const RowTile& tile : tiles) (offset[tile.expert + 1] - offset[tile.expert] <= few ? taken : left).push_back(tile);
  tiles = std::move(left);
  return taken;
}

}  // namespace switchyard::kernels::cpu
