// Packed rows that are read again and again, kept in the order in which the products read them (row_groups.h): one stream a group, which
// memory delivers while the last of it is still multiplied. Rows turn, group by group, when they have been read often enough for it to pay:
// by few columns for the second time, by many for the twelfth. What is read once costs nothing; a file's pages are given back as they turn,
// and the memory in use stays what the weights take. Internal to kernels/.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "switchyard/kernels/cpu/blocks.h"
#include "switchyard/kernels/cpu/row_groups.h"
#include "switchyard/kernels/packed_tensor.h"

namespace switchyard::kernels::cpu {

class TurnedBlocks {
 public:
  /// For rows that lie, while `tensor` lives. Null where its products do not go by groups, where it is too small to matter, where half of
  /// the memory that was free when the process began is taken by such copies, and where SWITCHYARD_REPACK=never is set.
  /// Throws kernels.repack when that variable is neither "never" nor "auto".
  static std::shared_ptr<TurnedBlocks> beside(const BlockTensor& tensor);
  /// The same, whatever its size and the memory.
  static std::shared_ptr<TurnedBlocks> always(const BlockTensor& tensor);
  /// All rows turned now, instead of a copy that lies: for `tensor`, which has none. Null as above, but for the memory.
  static std::shared_ptr<TurnedBlocks> instead(const PackedRows& rows, const BlockTensor& tensor);
  ~TurnedBlocks();
  TurnedBlocks(const TurnedBlocks&) = delete;
  TurnedBlocks& operator=(const TurnedBlocks&) = delete;

  /// out[j * ld + r] = <row first + r, x[j]> for r < rows, j < n; first and rows are multiples of sixteen. Any number of threads may call
  /// it at once, and the bits are those of BlockPath::int_dots whatever has turned.
  void dots(int64_t first, int64_t rows, int64_t n, const IntColumns& x, float* out, int64_t ld);
  /// Rows first to first + count - 1, which have turned, as they lay before.
  void lay(int64_t first, int64_t count, uint8_t* packed) const;
  int64_t turned_groups() const;

 private:
  TurnedBlocks(const BlockTensor& tensor, int64_t charged);
  static std::shared_ptr<TurnedBlocks> made(const BlockTensor& tensor, int64_t charged);
  /// Of a group: what it has lost so far because it lies, in twelfths of what turning costs, below kTurning.
  using State = uint8_t;
  static constexpr State kTurning = 12, kTurned = 13;
  State prepare(int64_t group, int64_t n);
  void settle(int64_t g);
  uint8_t* group(int64_t g) const { return memory_ + g * group_bytes_; }

  const GroupPath& path_;
  const uint8_t* lying_;  ///< null: none
  bool in_file_;
  int64_t blocks_, groups_, group_bytes_, charged_;
  uint8_t *map_ = nullptr, *memory_ = nullptr;
  size_t mapped_ = 0;
  std::unique_ptr<std::atomic<State>[]> state_;
  std::unique_ptr<std::atomic<int32_t>[]> settled_;  ///< bytes that have turned of each huge page
};

}  // namespace switchyard::kernels::cpu
