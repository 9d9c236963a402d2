// A weight that stays as its file has it until rows of it are needed: quantised blocks, eight-bit floats with scales, packed
// integers. What computes from it either asks for a range of rows as floats, or knows the layout and reads the blocks itself.
#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "switchyard/kernels/codecs/block_codec.h"

namespace switchyard {

namespace kernels::cpu { class TurnedBlocks; }

class PackedTensor {
 public:
  virtual ~PackedTensor() = default;
  /// Of the floats it stands for; the leading axis is that of output rows, or of experts in a stack.
  const std::vector<int64_t>& shape() const { return shape_; }
  /// "Q4_K", "fp8", "mxfp4", "gptq", "awq".
  const std::string& layout() const { return layout_; }
  uint64_t bytes() const { return bytes_; }  ///< as it lies packed

  /// Entries first to first + count - 1 of the leading axis: [count, shape[1:]] of `type`, a floating type, on the CPU; throws
  /// formats.packed_range. Equal bits whatever the range and the number of threads.
  at::Tensor dequantise(int64_t first, int64_t count, at::ScalarType type = at::kFloat) const;
  at::Tensor dequantise(at::ScalarType type = at::kFloat) const { return dequantise(0, shape_.front(), type); }
  /// Products may round the rows that meet it, where a faster way is won by it.
  virtual void round_rows() const {}

 protected:
  PackedTensor(std::vector<int64_t> shape, std::string layout, uint64_t bytes)
      : shape_(std::move(shape)), layout_(std::move(layout)), bytes_(bytes) {}
  /// The same in float32; the range is valid and not empty.
  virtual at::Tensor rows(int64_t first, int64_t count) const = 0;

 private:
  std::vector<int64_t> shape_;
  std::string layout_;
  uint64_t bytes_;
};

/// One whose rows can be had by themselves, a row being the last axis: what products take. Row i is that of the shape flattened to
/// [rows, row_values]; a shape with one axis is one row.
class PackedRows : public PackedTensor {
 public:
  int64_t row_values() const { return shape().back(); }
  /// Rows first to first + count - 1, which are there, as floats. Any number of threads may call it at once.
  virtual void unpack(int64_t first, int64_t count, float* values) const = 0;
  /// How many rows lie so that unpacking them together costs little more than one.
  virtual int64_t together() const { return 1; }
  /// The codec whose blocks say the same bit for bit, for fast products; null where there is none.
  virtual const BlockCodec* block_form() const { return nullptr; }
  /// The rows in those blocks. Only where block_form() is not null.
  virtual void write_blocks(int64_t first, int64_t count, uint8_t* blocks) const;
  /// Where its bytes lie, as far as a reader of all rows may give back what it has read of a file's pages.
  virtual std::vector<std::span<const uint8_t>> memory() const { return {}; }

 protected:
  using PackedTensor::PackedTensor;
  at::Tensor rows(int64_t first, int64_t count) const override;
};

/// Rows of blocks of one codec, one row after another: a tensor of a GGUF file.
class BlockTensor : public PackedRows {
 public:
  /// Where the rows lie: in a file's private map, whose pages can be read again, or in memory of their own.
  enum class In { file, memory };
  /// data: the packed rows; `owner` keeps them alive. shape.back() is a multiple of codec.length.
  BlockTensor(const BlockCodec& codec, std::vector<int64_t> shape, const uint8_t* data, std::shared_ptr<const void> owner, In in = In::memory);
  /// A copy of the blocks of `rows`, whose block_form() is not null: turned at once where products read them so.
  explicit BlockTensor(const PackedRows& rows);
  const BlockCodec& codec() const { return codec_; }
  int64_t row_bytes() const { return row_values() / codec_.length * codec_.bytes; }
  /// Whether the rows lie one behind the other in memory. If not, they have turned, and lying() makes copies.
  bool lies() const { return data_ != nullptr; }
  bool in_file() const { return in_ == In::file; }
  const uint8_t* row(int64_t i) const { return data_ + i * row_bytes(); }  ///< only where they lie
  /// Rows first to first + count - 1 one behind the other: where they lie, or in `space`.
  const uint8_t* lying(int64_t first, int64_t count, std::vector<uint8_t>& space) const;
  /// The rows in the order of fast products, or as many of them as were read often; null where there is no such order.
  kernels::cpu::TurnedBlocks* turned() const;
  /// From now on float32 rows that meet it are rounded to int8, as bf16 rows always are: less exact, and faster.
  void round_rows() const override { rounds_rows_ = true; }
  bool rounds_rows() const { return rounds_rows_; }

  void unpack(int64_t first, int64_t count, float* values) const override;
  const BlockCodec* block_form() const override { return &codec_; }
  void write_blocks(int64_t first, int64_t count, uint8_t* blocks) const override;
  std::vector<std::span<const uint8_t>> memory() const override;

 private:
  const BlockCodec& codec_;
  const uint8_t* data_;
  std::shared_ptr<const void> owner_;
  In in_;
  mutable std::once_flag asked_;
  mutable std::shared_ptr<kernels::cpu::TurnedBlocks> turned_;
  mutable std::atomic<bool> rounds_rows_ = false;
};

/// Packs floats: values [.., n · codec.length] of any floating type, importance undefined or [n · codec.length] float (one weight
/// a column) → uint8 [.., n · codec.bytes]. Throws formats.quantise when rows are no whole number of blocks, the codec has no
/// quantiser, or a value is not finite.
at::Tensor quantise_blocks(const BlockCodec& codec, const at::Tensor& values, const at::Tensor& importance = {});

}  // namespace switchyard
