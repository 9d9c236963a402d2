#include "switchyard/kernels/packed_views.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "switchyard/base/error.h"

namespace switchyard {
namespace {

using Rows = std::shared_ptr<const PackedRows>;

Rows rows_of(const Packed& tensor) { return std::dynamic_pointer_cast<const PackedRows>(tensor); }

int64_t product(const std::vector<int64_t>& shape, size_t first, size_t last) {
  int64_t count = 1;
  for (size_t i = first; i < last; ++i) count *= shape[i];
  return count;
}

class Transposed : public PackedTensor {
 public:
  Transposed(Packed inner, std::vector<int64_t> shape) : PackedTensor(std::move(shape), inner->layout(), inner->bytes()), inner_(std::move(inner)) {}
  const Packed& inner() const { return inner_; }

 protected:
  at::Tensor rows(int64_t first, int64_t count) const override {
    if (shape().size() == 2) return inner_->dequantise().t().narrow(0, first, count).contiguous();
    return inner_->dequantise(first, count).transpose(-2, -1).contiguous();
  }

 private:
  Packed inner_;
};

/// Rows of a source at strides, as a plain tensor's elements are: entry (i, j, ..) is row offset + i · stride[0] + j · stride[1] + ...
class StridedRows : public PackedRows {
 public:
  /// One axis in the steps through the source's rows.
  struct Axis { int64_t extent, stride; };

  StridedRows(Rows source, std::vector<int64_t> shape, std::vector<Axis> axes, int64_t offset)
      : PackedRows(shape, source->layout(), bytes_of(*source, shape)), source_(std::move(source)), axes_(std::move(axes)), offset_(offset) {}

  const Rows& source() const { return source_; }
  const std::vector<Axis>& axes() const { return axes_; }
  int64_t offset() const { return offset_; }

  int64_t together() const override { return source_->together(); }
  const BlockCodec* block_form() const override { return source_->block_form(); }
  void unpack(int64_t first, int64_t count, float* values) const override {
    each_run(first, count, [&](int64_t row, int64_t here, int64_t at) { source_->unpack(row, here, values + at * row_values()); });
  }
  void write_blocks(int64_t first, int64_t count, uint8_t* blocks) const override {
    const int64_t bytes = row_values() / block_form()->length * block_form()->bytes;
    each_run(first, count, [&](int64_t row, int64_t here, int64_t at) { source_->write_blocks(row, here, blocks + at * bytes); });
  }
  std::vector<std::span<const uint8_t>> memory() const override { return source_->memory(); }

 private:
  static uint64_t bytes_of(const PackedRows& source, const std::vector<int64_t>& shape) {
    const int64_t all = product(source.shape(), 0, source.shape().size() - 1), ours = product(shape, 0, shape.size() - 1);
    return all == 0 ? 0 : static_cast<uint64_t>(static_cast<double>(source.bytes()) * static_cast<double>(ours) / static_cast<double>(all));
  }
  int64_t place(int64_t i) const {
    int64_t row = offset_;
    for (size_t a = axes_.size(); a-- > 0; i /= axes_[a].extent) row += i % axes_[a].extent * axes_[a].stride;
    return row;
  }
  /// Calls run(row of the source, rows, from our row `first` on) for what lies one after another there.
  template <typename Run>
  void each_run(int64_t first, int64_t count, const Run& run) const {
    for (int64_t i = 0; i < count;) {
      const int64_t row = place(first + i);
      int64_t here = 1;
      while (i + here < count && place(first + i + here) == row + here) ++here;
      run(row, here, i);
      i += here;
    }
  }

  Rows source_;
  std::vector<Axis> axes_;
  int64_t offset_;
};

/// Several tensors of one shape, taking turns along the axis before the last, one behind the other there, or as entries of a new
/// leading axis.
class Several : public PackedRows {
 public:
  enum class Order { turns, joined, stack };
  Several(std::vector<Rows> parts, Order order, std::vector<int64_t> shape)
      : PackedRows(std::move(shape), parts.front()->layout(), sum_of(parts)), parts_(std::move(parts)), order_(order) {
    const std::vector<int64_t>& one = parts_.front()->shape();
    each_ = order_ == Order::joined ? one[one.size() - 2] : product(one, 0, one.size() - 1);
    for (const Rows& part : parts_) {
      together_ = std::max(together_, part->together());
      one_form_ = one_form_ && part->block_form() == parts_.front()->block_form();
    }
  }
  const std::vector<Rows>& parts() const { return parts_; }
  Order order() const { return order_; }

  int64_t together() const override { return order_ == Order::turns ? 1 : together_; }
  const BlockCodec* block_form() const override { return one_form_ ? parts_.front()->block_form() : nullptr; }
  void unpack(int64_t first, int64_t count, float* values) const override {
    each_run(first, count, [&](const PackedRows& part, int64_t row, int64_t here, int64_t at) { part.unpack(row, here, values + at * row_values()); });
  }
  void write_blocks(int64_t first, int64_t count, uint8_t* blocks) const override {
    const int64_t bytes = row_values() / block_form()->length * block_form()->bytes;
    each_run(first, count, [&](const PackedRows& part, int64_t row, int64_t here, int64_t at) { part.write_blocks(row, here, blocks + at * bytes); });
  }
  std::vector<std::span<const uint8_t>> memory() const override {
    std::vector<std::span<const uint8_t>> all;
    for (const Rows& part : parts_)
      for (const std::span<const uint8_t> piece : part->memory()) all.push_back(piece);
    return all;
  }

 private:
  static uint64_t sum_of(const std::vector<Rows>& parts) {
    uint64_t bytes = 0;
    for (const Rows& part : parts) bytes += part->bytes();
    return bytes;
  }
  template <typename Run>
  void each_run(int64_t first, int64_t count, const Run& run) const {
    const auto parts = static_cast<int64_t>(parts_.size());
    for (int64_t i = 0; i < count;) {
      const int64_t row = first + i;
      if (order_ == Order::turns) {
        run(*parts_[static_cast<size_t>(row % parts)], row / parts, 1, i++);
        continue;
      }
      const int64_t here = std::min(count - i, each_ - row % each_), piece = row / each_;
      run(*parts_[static_cast<size_t>(piece % parts)], piece / parts * each_ + row % each_, here, i);
      i += here;
    }
  }

  std::vector<Rows> parts_;
  Order order_;
  int64_t each_ = 0, together_ = 1;
  bool one_form_ = true;
};

std::vector<StridedRows::Axis> axes_of(const std::vector<int64_t>& shape) {
  std::vector<StridedRows::Axis> axes(shape.size() - 1);
  int64_t stride = 1;
  for (size_t i = axes.size(); i-- > 0; stride *= shape[i]) axes[i] = {shape[i], stride};
  return axes;
}

/// A view of a view looks at the source at once.
std::shared_ptr<const StridedRows> strided(const Rows& rows) {
  if (auto already = std::dynamic_pointer_cast<const StridedRows>(rows); already && already->axes().size() + 1 == already->shape().size()) return already;
  return std::make_shared<StridedRows>(rows, rows->shape(), axes_of(rows->shape()), 0);
}

std::vector<Rows> all_rows(const std::vector<Packed>& tensors) {
  std::vector<Rows> rows;
  for (const Packed& tensor : tensors) {
    rows.push_back(rows_of(tensor));
    if (!rows.back() || rows.back()->shape() != rows.front()->shape()) return {};
  }
  return rows;
}

Packed permuted(const Packed& tensor, int64_t pieces, bool to_halves) {
  const Rows rows = rows_of(tensor);
  if (!rows || rows->shape().size() != 2 || pieces <= 0 || rows->shape()[0] % (2 * pieces) != 0) return nullptr;
  const int64_t half = rows->shape()[0] / pieces / 2;
  std::vector<StridedRows::Axis> axes{{pieces, 2 * half}};
  if (to_halves) axes.insert(axes.end(), {{2, 1}, {half, 2}});
  else axes.insert(axes.end(), {{half, 1}, {2, half}});
  return std::make_shared<StridedRows>(rows, rows->shape(), std::move(axes), 0);
}

}  // namespace

Packed packed_transposed(Packed tensor) {
  if (!tensor) return nullptr;
  if (const auto already = std::dynamic_pointer_cast<const Transposed>(tensor)) return already->inner();
  std::vector<int64_t> shape = tensor->shape();
  if (shape.size() < 2) return nullptr;
  std::swap(shape[shape.size() - 1], shape[shape.size() - 2]);
  return std::make_shared<Transposed>(std::move(tensor), std::move(shape));
}

Packed packed_slice(const Packed& tensor, int64_t dim, int64_t first, int64_t length, int64_t step) {
  if (!tensor || length == 0) return nullptr;
  const auto axes = static_cast<int64_t>(tensor->shape().size());
  if (const auto swapped = std::dynamic_pointer_cast<const Transposed>(tensor))
    return packed_transposed(packed_slice(swapped->inner(), dim == axes - 1 ? dim - 1 : dim == axes - 2 ? dim + 1 : dim, first, length, step));
  const Rows rows = rows_of(tensor);
  if (!rows || dim >= axes - 1) return nullptr;
  check(first >= 0 && length > 0 && first + (length - 1) * step < tensor->shape()[static_cast<size_t>(dim)], "formats.packed_range",
        "rows {} to {} are asked of {}", first, first + (length - 1) * step, tensor->shape()[static_cast<size_t>(dim)]);
  if (const auto several = std::dynamic_pointer_cast<const Several>(rows); several && several->order() == Several::Order::turns && dim == axes - 2 &&
      step == static_cast<int64_t>(several->parts().size()) && length == several->parts().front()->shape()[static_cast<size_t>(dim)])
    return several->parts()[static_cast<size_t>(first)];  // taken apart as it was put together
  if (const auto several = std::dynamic_pointer_cast<const Several>(rows); several && several->order() == Several::Order::joined && dim == axes - 2 &&
      step == 1 && length == several->parts().front()->shape()[static_cast<size_t>(dim)] && first % length == 0)
    return several->parts()[static_cast<size_t>(first / length)];
  const auto from = strided(rows);
  std::vector<int64_t> shape = rows->shape();
  std::vector<StridedRows::Axis> through = from->axes();
  StridedRows::Axis& axis = through[static_cast<size_t>(dim)];
  const int64_t offset = from->offset() + first * axis.stride;
  axis = {length, axis.stride * step};
  shape[static_cast<size_t>(dim)] = length;
  return std::make_shared<StridedRows>(from->source(), std::move(shape), std::move(through), offset);
}

Packed packed_select(const Packed& tensor, int64_t dim, int64_t index) {
  if (!tensor || tensor->shape().size() < 3 || dim != 0) return nullptr;
  if (const auto swapped = std::dynamic_pointer_cast<const Transposed>(tensor)) return packed_transposed(packed_select(swapped->inner(), dim, index));
  const auto one = std::dynamic_pointer_cast<const StridedRows>(packed_slice(tensor, dim, index, 1, 1));
  if (!one) return nullptr;
  const std::vector<int64_t> shape(one->shape().begin() + 1, one->shape().end());
  return std::make_shared<StridedRows>(one->source(), shape, std::vector<StridedRows::Axis>(one->axes().begin() + 1, one->axes().end()), one->offset());
}

namespace {

Packed along_rows(const std::vector<Packed>& tensors, Several::Order order) {
  std::vector<Rows> parts = all_rows(tensors);
  if (parts.empty() || parts.front()->shape().size() < 2) return nullptr;
  std::vector<int64_t> shape = parts.front()->shape();
  shape[shape.size() - 2] *= static_cast<int64_t>(parts.size());
  return std::make_shared<Several>(std::move(parts), order, std::move(shape));
}

}  // namespace

Packed packed_interleaved(const std::vector<Packed>& tensors) { return along_rows(tensors, Several::Order::turns); }
Packed packed_joined(const std::vector<Packed>& tensors) { return along_rows(tensors, Several::Order::joined); }

Packed packed_halves(const Packed& tensor, int64_t pieces) { return permuted(tensor, pieces, true); }
Packed packed_pairs(const Packed& tensor, int64_t pieces) { return permuted(tensor, pieces, false); }

Packed packed_stack(const std::vector<Packed>& entries) {
  std::vector<Rows> parts = all_rows(entries);
  if (parts.empty()) return nullptr;
  std::vector<int64_t> shape = parts.front()->shape();
  shape.insert(shape.begin(), static_cast<int64_t>(parts.size()));
  // Blocks that lie one behind the other, as in a file that has them stacked, are one piece already.
  const auto* first = dynamic_cast<const BlockTensor*>(parts.front().get());
  bool in_one_piece = first != nullptr && first->lies();
  for (size_t e = 0; in_one_piece && e < parts.size(); ++e) {
    const auto* here = dynamic_cast<const BlockTensor*>(parts[e].get());
    in_one_piece = here && here->lies() && &here->codec() == &first->codec() && here->in_file() == first->in_file() &&
                   reinterpret_cast<uintptr_t>(here->row(0)) == reinterpret_cast<uintptr_t>(first->row(0)) + e * first->bytes();
  }
  if (in_one_piece) {
    const uint8_t* data = first->row(0);
    const BlockCodec& codec = first->codec();
    const auto in = first->in_file() ? BlockTensor::In::file : BlockTensor::In::memory;
    return std::make_shared<BlockTensor>(codec, std::move(shape), data, std::make_shared<std::vector<Rows>>(std::move(parts)), in);
  }
  return std::make_shared<Several>(std::move(parts), Several::Order::stack, std::move(shape));
}

Packed packed_for_products(const Packed& tensor) {
  const Rows rows = rows_of(tensor);
  if (!rows || rows->block_form() == nullptr || dynamic_cast<const BlockTensor*>(rows.get())) return rows;
  return std::make_shared<BlockTensor>(*rows);
}

}  // namespace switchyard
