#include "switchyard/kernels/cpu/turned_blocks.h"

#include <ATen/Parallel.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "switchyard/base/error.h"
#include "switchyard/base/mapped_pages.h"
#include "switchyard/base/memory.h"
#include "switchyard/kernels/cpu/skinny.h"

#if defined(__linux__) && !defined(MADV_COLLAPSE)
#define MADV_COLLAPSE 25  // since Linux 6.1, in headers later; other systems refuse it, and nothing is lost
#endif

namespace switchyard::kernels::cpu {
namespace {

constexpr int64_t kWorthTurning = int64_t{1} << 16;  ///< bytes
constexpr int64_t kHugePage = int64_t{1} << 21;

/// What is left of half of the memory that was free when this was first asked.
std::atomic<int64_t>& left() {
  static std::atomic<int64_t> bytes{static_cast<int64_t>(available_memory() / 2)};
  return bytes;
}

bool wanted() {
  static const std::string_view said = [] {
    const char* value = std::getenv("SWITCHYARD_REPACK");
    return std::string_view(value && *value ? value : "auto");
  }();
  check(said == "auto" || said == "never", "kernels.repack", "SWITCHYARD_REPACK is \"{}\"; it may be auto or never", said);
  return said == "auto";
}

bool goes_by_groups(const BlockTensor& tensor) {
  const BlockPath* path = block_path(tensor.codec());
  const int64_t k = tensor.row_values(), rows = tensor.shape().size() < 2 ? 1 : tensor.shape()[tensor.shape().size() - 2];
  return path && path->always_groups && k % path->group_step == 0 && rows % kGroupRows == 0 && tensor.bytes() > 0;
}

bool worth_turning(const BlockTensor& tensor) {
  return wanted() && static_cast<int64_t>(tensor.bytes()) >= kWorthTurning && goes_by_groups(tensor);
}

}  // namespace

std::shared_ptr<TurnedBlocks> TurnedBlocks::beside(const BlockTensor& tensor) {
  const auto bytes = static_cast<int64_t>(tensor.bytes());
  if (!worth_turning(tensor)) return nullptr;
  if (left().fetch_sub(bytes) < bytes) {
    left() += bytes;
    return nullptr;
  }
  return made(tensor, bytes);
}

/// Null when the system has no addresses to give: then rows stay as they lie.
std::shared_ptr<TurnedBlocks> TurnedBlocks::made(const BlockTensor& tensor, int64_t charged) {
  std::shared_ptr<TurnedBlocks> blocks(new TurnedBlocks(tensor, charged));
  return blocks->memory_ ? blocks : nullptr;
}

std::shared_ptr<TurnedBlocks> TurnedBlocks::always(const BlockTensor& tensor) {
  return goes_by_groups(tensor) ? made(tensor, 0) : nullptr;
}

std::shared_ptr<TurnedBlocks> TurnedBlocks::instead(const PackedRows& rows, const BlockTensor& tensor) {
  if (!worth_turning(tensor)) return nullptr;
  std::shared_ptr<TurnedBlocks> all = made(tensor, 0);
  if (!all) return nullptr;
  at::parallel_for(0, all->groups_, 4, [&](int64_t begin, int64_t end) {
    std::vector<uint8_t> lying(static_cast<size_t>(all->group_bytes_));
    for (int64_t g = begin; g < end; ++g) {
      rows.write_blocks(g * kGroupRows, kGroupRows, lying.data());
      all->path_.turn(lying.data(), kGroupRows, all->blocks_, all->group(g));
      all->state_[g] = kTurned;
      all->settle(g);
    }
  });
  return all;
}

TurnedBlocks::TurnedBlocks(const BlockTensor& tensor, int64_t charged)
    : path_(*group_path(tensor.codec().name)), lying_(tensor.lies() ? tensor.row(0) : nullptr), in_file_(tensor.in_file()),
      blocks_(tensor.row_values() / tensor.codec().length), groups_(static_cast<int64_t>(tensor.bytes()) / (kGroupRows * tensor.row_bytes())),
      group_bytes_(kGroupRows * tensor.row_bytes()), charged_(charged), state_(new std::atomic<State>[static_cast<size_t>(groups_)]()) {
  const auto bytes = static_cast<size_t>(tensor.bytes());
  mapped_ = bytes + kHugePage;  // so that it can begin where a huge page does
  void* memory = ::mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return;
  map_ = static_cast<uint8_t*>(memory);
  memory_ = map_ + (kHugePage - static_cast<int64_t>(reinterpret_cast<uintptr_t>(map_) % kHugePage)) % kHugePage;
  settled_.reset(new std::atomic<int32_t>[bytes / kHugePage + 1]());
}

TurnedBlocks::~TurnedBlocks() {
  if (map_) ::munmap(map_, mapped_);
  left() += charged_;
}

int64_t TurnedBlocks::turned_groups() const {
  return std::count_if(state_.get(), state_.get() + groups_, [](const std::atomic<State>& state) { return state == kTurned; });
}

void TurnedBlocks::lay(int64_t first, int64_t count, uint8_t* packed) const {
  for (int64_t row = first; row < first + count; ++row, packed += group_bytes_ / kGroupRows)
    path_.lay(group(row / kGroupRows), row % kGroupRows, blocks_, packed);
}

/// A group has turned. Small pages that have become full become a huge one: reading is faster so, and memory that nobody needs is not
/// taken.
void TurnedBlocks::settle(int64_t g) {
#ifdef MADV_COLLAPSE
  for (int64_t at = g * group_bytes_, end = at + group_bytes_; at < end;) {
    const int64_t page = at / kHugePage, here = std::min(end, (page + 1) * kHugePage) - at;
    if (settled_[page].fetch_add(static_cast<int32_t>(here)) + here == kHugePage) ::madvise(memory_ + page * kHugePage, kHugePage, MADV_COLLAPSE);
    at += here;
  }
#endif
}

/// The state of a group that n columns are about to meet. Of several threads one turns it; the others read it as it lies meanwhile.
TurnedBlocks::State TurnedBlocks::prepare(int64_t g, int64_t n) {
  State state = state_[g].load(std::memory_order_acquire);
  const bool few = n <= kDigits * kSkinnyRows;
  if (state >= kTurning || !(few || path_.many_lose)) return state;
  const State next = std::min<int>(state + (few ? kTurning / 2 : 1), kTurning);
  if (!state_[g].compare_exchange_strong(state, next, std::memory_order_relaxed)) return kTurning;
  if (next != kTurning) return next;
  path_.turn(lying_ + g * group_bytes_, kGroupRows, blocks_, group(g));
  state_[g].store(kTurned, std::memory_order_release);
  settle(g);
  return kTurned;
}

void TurnedBlocks::dots(int64_t first, int64_t rows, int64_t n, const IntColumns& x, float* out, int64_t ld) {
  const int64_t begin = first / kGroupRows, end = begin + rows / kGroupRows;
  bool any = false;
  int64_t alike = begin;  // groups from here to the one at hand are of one kind, and not multiplied yet
  bool kind = false;
  const auto multiply = [&](int64_t until) {
    if (alike == until) return;
    const int64_t count = (until - alike) * kGroupRows;
    float* to = out + (alike - begin) * kGroupRows;
    if (kind) path_.turned_dots(group(alike), count, blocks_, n, x, to, ld);
    else path_.dots(lying_ + alike * group_bytes_, count, blocks_, n, x, to, ld);
    alike = until;
  };
  for (int64_t g = begin; g < end; ++g) {
    const bool was = state_[g].load(std::memory_order_relaxed) == kTurned, is = prepare(g, n) == kTurned;
    if (is != kind) multiply(g);
    kind = is;
    any = any || is > was;
  }
  multiply(end);
  if (any && in_file_) give_back_file_pages(lying_ + begin * group_bytes_, static_cast<size_t>((end - begin) * group_bytes_));
}

}  // namespace switchyard::kernels::cpu
