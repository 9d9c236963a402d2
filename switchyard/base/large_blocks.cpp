#include "switchyard/base/large_blocks.h"

#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
#include <c10/core/CPUAllocator.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <set>
#include <unordered_map>
#include <utility>

namespace switchyard {
namespace {

constexpr size_t kLarge = size_t{1} << 20, kGrowth = size_t{32} << 20;
constexpr size_t kReserved = size_t{1} << 40;  // addresses only
/// Tensors whose sizes are powers of two would all begin at the same place of their page, and their rows evict each other.
constexpr size_t kLine = 64, kApart = 5 * kLine;

bool heap_in_huge_pages() {
  const char* tunables = std::getenv("GLIBC_TUNABLES");
  return tunables != nullptr && std::strstr(tunables, "glibc.malloc.hugetlb=1") != nullptr;
}

class LargeBlocks final : public c10::Allocator {
 public:
  LargeBlocks(char* begin, c10::Allocator* others) : begin_(begin), end_(begin + kReserved), top_(begin), committed_(begin), others_(others) {}

  c10::DataPtr allocate(size_t bytes) override {
    char* block = bytes < kLarge ? nullptr : take((bytes + kLine - 1) / kLine * kLine + kApart);
    if (block == nullptr) return others_->allocate(bytes);  // small, or its error for memory that is exhausted
    return {block, block, &LargeBlocks::release, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &LargeBlocks::release; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }

  static LargeBlocks* the;

 private:
  using Hole = std::pair<size_t, char*>;

  static void release(void* memory) {
    auto* block = static_cast<char*>(memory);
    if (block >= the->begin_ && block < the->end_)
      the->give(block);
    else
      the->others_->raw_deallocate(memory);
  }

  void open(char* at, size_t size) {
    holes_.emplace(at, size);
    by_size_.emplace(size, at);
  }
  size_t close(std::map<char*, size_t>::iterator hole) {
    const size_t size = hole->second;
    by_size_.erase({size, hole->first});
    holes_.erase(hole);
    return size;
  }

  char* take(size_t size) {
    const std::lock_guard lock(mutex_);
    char* block = nullptr;
    if (const auto fit = by_size_.lower_bound({size, nullptr}); fit != by_size_.end()) {
      block = fit->second;
      const size_t rest = close(holes_.find(block)) - size;
      if (rest > 0) open(block + size, rest);
    } else {
      // The hole that ends where the memory in use ends grows.
      const auto last = holes_.empty() ? holes_.end() : std::prev(holes_.end());
      const bool grows = last != holes_.end() && last->first + last->second == top_;
      block = grows ? last->first : top_;
      if (size > static_cast<size_t>(end_ - block) || !commit(block + size)) return nullptr;
      if (grows) close(last);
      top_ = block + size;
    }
    sizes_.emplace(block, size);
    return block;
  }

  void give(char* block) {
    const std::lock_guard lock(mutex_);
    const auto used = sizes_.find(block);
    size_t size = used->second;
    sizes_.erase(used);
    auto next = holes_.lower_bound(block);
    if (next != holes_.begin()) {
      const auto before = std::prev(next);
      if (before->first + before->second == block) {
        block = before->first;
        size += close(before);
      }
    }
    next = holes_.lower_bound(block + size);
    if (next != holes_.end() && next->first == block + size) size += close(next);
    open(block, size);
  }

  /// Makes the addresses below `end` usable.
  bool commit(const char* end) {
    if (end <= committed_) return true;
    const size_t bytes = (static_cast<size_t>(end - committed_) + kGrowth - 1) / kGrowth * kGrowth;
    if (bytes > static_cast<size_t>(end_ - committed_) || ::mprotect(committed_, bytes, PROT_READ | PROT_WRITE) != 0) return false;
    committed_ += bytes;
    return true;
  }

  std::mutex mutex_;
  char *begin_, *end_, *top_, *committed_;
  c10::Allocator* others_;
  std::unordered_map<char*, size_t> sizes_;  // of the blocks in use
  std::map<char*, size_t> holes_;
  std::set<Hole> by_size_;
};

LargeBlocks* LargeBlocks::the = nullptr;

}  // namespace

bool keep_large_blocks() {
  if (LargeBlocks::the != nullptr) return true;
  void* range = ::mmap(nullptr, kReserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (range == MAP_FAILED) return false;  // the heap serves as before
  if (heap_in_huge_pages()) (void)::madvise(range, kReserved, MADV_HUGEPAGE);
  LargeBlocks::the = new LargeBlocks(static_cast<char*>(range), c10::GetCPUAllocator());  // as long as the process
  c10::SetCPUAllocator(LargeBlocks::the);
  return true;
}

}  // namespace switchyard
#else
namespace switchyard {
bool keep_large_blocks() { return false; }
}  // namespace switchyard
#endif
