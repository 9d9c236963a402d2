#include "switchyard/kernels/packed_tensor.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "switchyard/base/error.h"
#include "switchyard/kernels/cpu/turned_blocks.h"

namespace switchyard {
namespace {

constexpr int64_t kChunkValues = int64_t{1} << 20;  ///< floats that are made at a time on the way to another type
constexpr int64_t kPieceValues = int64_t{1} << 15;  ///< floats a task unpacks at least

}  // namespace

at::Tensor PackedTensor::dequantise(int64_t first, int64_t count, at::ScalarType type) const {
  check(first >= 0 && count >= 0 && first <= shape_.front() - count, "formats.packed_range",
        "{} rows from row {} on are asked of a tensor with {}", count, first, shape_.front());
  check(c10::isFloatingType(type), "formats.packed_range", "packed weights become floats, not {}", c10::toString(type));
  at::NoGradGuard guard;
  std::vector<int64_t> shape = shape_;
  shape.front() = count;
  int64_t each = 1;
  for (size_t i = 1; i < shape.size(); ++i) each *= shape[i];
  if (count == 0 || each == 0) return at::empty(shape, type);
  if (type == at::kFloat) return rows(first, count);
  at::Tensor whole = at::empty(shape, type);
  const int64_t step = std::max<int64_t>(1, kChunkValues / each);
  for (int64_t at = 0; at < count; at += step) {
    const int64_t here = std::min(step, count - at);
    whole.narrow(0, at, here).copy_(rows(first + at, here));
  }
  return whole;
}

at::Tensor PackedRows::rows(int64_t first, int64_t count) const {
  std::vector<int64_t> shape = this->shape();
  const bool flat = shape.size() == 1;  // its entries are values, of which no row is made
  if (!flat) shape.front() = count;
  int64_t each = 1;  // rows of one entry of the leading axis
  for (size_t i = 1; i + 1 < shape.size(); ++i) each *= shape[i];
  at::Tensor values = at::empty(shape, at::kFloat);
  float* out = values.mutable_data_ptr<float>();
  const int64_t begin = flat ? 0 : first * each, rows = flat ? 1 : count * each, width = row_values();
  const int64_t piece = std::max<int64_t>(1, kPieceValues / width / together()) * together(), pieces = (rows + piece - 1) / piece;
  at::parallel_for(0, pieces, 1, [&](int64_t from, int64_t to) {
    for (int64_t row = from * piece; row < std::min(to * piece, rows); row += piece)
      unpack(begin + row, std::min(piece, rows - row), out + row * width);
  });
  return flat ? values.narrow(0, first, count) : values;
}

void PackedRows::write_blocks(int64_t, int64_t, uint8_t*) const { TORCH_INTERNAL_ASSERT(false, layout(), " has no blocks"); }

BlockTensor::BlockTensor(const BlockCodec& codec, std::vector<int64_t> shape, const uint8_t* data, std::shared_ptr<const void> owner, In in)
    : PackedRows(shape, std::string(codec.name), [&] {
        int64_t values = 1;
        for (const int64_t extent : shape) values *= extent;
        return static_cast<uint64_t>(values / codec.length * codec.bytes);
      }()),
      codec_(codec), data_(data), owner_(std::move(owner)), in_(in) {
  TORCH_INTERNAL_ASSERT(row_values() % codec.length == 0 && codec.dequantise != nullptr);
}

BlockTensor::BlockTensor(const PackedRows& rows) : BlockTensor(*rows.block_form(), rows.shape(), nullptr, nullptr) {
  const int64_t count = static_cast<int64_t>(bytes()) / row_bytes();
  std::call_once(asked_, [&] { turned_ = kernels::cpu::TurnedBlocks::instead(rows, *this); });
  if (turned_) return;
  const std::shared_ptr<uint8_t[]> copy(new uint8_t[static_cast<size_t>(bytes())]);
  at::parallel_for(0, count, 64, [&](int64_t begin, int64_t end) { rows.write_blocks(begin, end - begin, copy.get() + begin * row_bytes()); });
  data_ = copy.get();
  owner_ = copy;
}

kernels::cpu::TurnedBlocks* BlockTensor::turned() const {
  std::call_once(asked_, [this] { turned_ = kernels::cpu::TurnedBlocks::beside(*this); });
  return turned_.get();
}

const uint8_t* BlockTensor::lying(int64_t first, int64_t count, std::vector<uint8_t>& space) const {
  if (lies()) return row(first);
  space.resize(static_cast<size_t>(count * row_bytes()));
  turned_->lay(first, count, space.data());
  return space.data();
}

void BlockTensor::unpack(int64_t first, int64_t count, float* values) const {
  std::vector<uint8_t> space;
  codec_.dequantise(lying(first, count, space), values, count * (row_values() / codec_.length));
}

void BlockTensor::write_blocks(int64_t first, int64_t count, uint8_t* blocks) const {
  if (lies()) std::memcpy(blocks, row(first), static_cast<size_t>(count * row_bytes()));
  else turned_->lay(first, count, blocks);
}

std::vector<std::span<const uint8_t>> BlockTensor::memory() const {
  if (!lies()) return {};
  return {{data_, static_cast<size_t>(bytes())}};
}

at::Tensor quantise_blocks(const BlockCodec& codec, const at::Tensor& values, const at::Tensor& importance) {
  at::NoGradGuard guard;
  check(codec.quantise != nullptr, "formats.quantise", "{} is only read; it can be quantised to Q4_K and its like", codec.name);
  check(values.defined() && values.dim() > 0 && values.size(-1) % codec.length == 0, "formats.quantise",
        "rows of {} values are no whole number of {} blocks of {}", values.defined() && values.dim() > 0 ? values.size(-1) : 1,
        codec.name, codec.length);
  const at::Tensor plain = values.to(at::kCPU, at::kFloat).contiguous();
  check(at::isfinite(plain).all().item<bool>(), "formats.quantise", "values that are infinite or no numbers cannot be quantised");
  std::vector<float> weights;  // at most 1, so that squares of large ones stay in range
  if (importance.defined()) {
    check(importance.dim() == 1 && importance.size(0) == plain.size(-1), "formats.quantise",
          "importance has {} weights for rows of {} values", importance.numel(), plain.size(-1));
    const at::Tensor given = importance.to(at::kCPU, at::kFloat).contiguous();
    weights.assign(given.const_data_ptr<float>(), given.const_data_ptr<float>() + given.numel());
    float most = 0;
    for (const float weight : weights) {
      check(weight >= 0 && std::isfinite(weight), "formats.quantise", "importance must be finite and not negative, not {}", weight);
      most = std::max(most, weight);
    }
    for (float& weight : weights) weight = most > 0 ? weight / most : 1;
  }
  std::vector<int64_t> shape = plain.sizes().vec();
  const int64_t row_values = shape.back(), blocks = row_values / codec.length;
  shape.back() = blocks * codec.bytes;
  at::Tensor packed = at::empty(shape, at::kByte);
  if (plain.numel() == 0) return packed;
  const float* in = plain.const_data_ptr<float>();
  const float* column_weights = weights.empty() ? nullptr : weights.data();
  auto* out = packed.mutable_data_ptr<uint8_t>();
  at::parallel_for(0, plain.numel() / row_values, std::max<int64_t>(1, 4096 / row_values), [&](int64_t from, int64_t to) {
    for (int64_t row = from; row < to; ++row)
      codec.quantise(in + row * row_values, column_weights, out + row * blocks * codec.bytes, blocks);
  });
  return packed;
}

}  // namespace switchyard
