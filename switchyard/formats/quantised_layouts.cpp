#include "switchyard/formats/quantised_layouts.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <mutex>

#include "switchyard/base/error.h"
#include "switchyard/kernels/codecs/float8.h"
#include "switchyard/kernels/packed_views.h"

namespace switchyard {
namespace {

int64_t ceil_divide(int64_t a, int64_t b) { return a / b + (a % b != 0); }

[[noreturn]] void fail_shape(const std::string& name, const char* part, const at::Tensor& found, const std::string& wanted) {
  fail("formats.quantised.shape", "{}: {} has shape [{}], but {} is needed", name, part, fmt::join(found.sizes(), ", "), wanted);
}

void check_type(const std::string& name, const char* part, const at::Tensor& tensor, at::ScalarType type) {
  check(tensor.scalar_type() == type, "formats.quantised.dtype", "{}: {} is {}, but {} is needed", name, part,
        c10::toString(tensor.scalar_type()), c10::toString(type));
}

/// Scales as plain float32, made when they are first needed: opening a folder touches no data.
class Scales {
 public:
  Scales(const std::string& name, at::Tensor raw) : raw_(std::move(raw)) {
    check(raw_.scalar_type() == at::kFloat8_e8m0fnu || c10::isFloatingType(raw_.scalar_type()), "formats.quantised.dtype",
          "{}: scales are {}, but floats are needed", name, c10::toString(raw_.scalar_type()));
  }
  const float* values() const {
    std::call_once(made_, [this] {
      if (raw_.scalar_type() != at::kFloat8_e8m0fnu) {
        values_ = raw_.to(at::kFloat).contiguous();
        return;
      }
      const at::Tensor codes = raw_.contiguous();
      values_ = at::empty(raw_.sizes(), at::kFloat);
      const auto* from = static_cast<const uint8_t*>(codes.const_data_ptr());
      std::transform(from, from + codes.numel(), values_.mutable_data_ptr<float>(), [](uint8_t e) { return e8m0_values()[e]; });
    });
    return values_.const_data_ptr<float>();
  }

 private:
  at::Tensor raw_;
  mutable at::Tensor values_;
  mutable std::once_flag made_;
};

const uint8_t* bytes_of(const at::Tensor& tensor) { return static_cast<const uint8_t*>(tensor.const_data_ptr()); }

// ---- fp8

/// Where the scale of an element stands.
struct ScaleGrid {
  int64_t block_rows = 1, block_columns = 1;
  bool each_matrix = true;  ///< or the same for all matrices of a stack
};

class ScaledFloat8 : public PackedRows {
 public:
  ScaledFloat8(const std::string& name, const at::Tensor& weight, const std::array<float, 256>& values, const at::Tensor& scale, ScaleGrid grid)
      : PackedRows(weight.sizes().vec(), "fp8", weight.nbytes() + scale.nbytes()),
        weight_(weight.contiguous()), scale_(name, scale), values_(values), grid_(grid), out_(weight.dim() > 1 ? weight.size(-2) : 1),
        in_(weight.size(-1)) {}

  void unpack(int64_t first, int64_t count, float* to) const override {
    const float* scale = scale_.values();
    const uint8_t* from = bytes_of(weight_) + first * in_;
    const int64_t down = ceil_divide(out_, grid_.block_rows), across = ceil_divide(in_, grid_.block_columns);
    for (int64_t row = first; row < first + count; ++row, from += in_, to += in_) {
      const int64_t matrix = grid_.each_matrix ? row / out_ : 0;
      const float* scales = scale + (matrix * down + row % out_ / grid_.block_rows) * across;
      for (int64_t column = 0; column < in_; column += grid_.block_columns, ++scales)
        for (int64_t i = column; i < std::min(column + grid_.block_columns, in_); ++i) to[i] = values_[from[i]] * *scales;
    }
  }

 private:
  at::Tensor weight_;
  Scales scale_;
  const std::array<float, 256>& values_;
  ScaleGrid grid_;
  int64_t out_, in_;
};

const std::array<float, 256>* table_of(at::ScalarType type) {
  switch (type) {
    case at::kFloat8_e4m3fn: return &e4m3fn_values();
    case at::kFloat8_e5m2: return &e5m2_values();
    case at::kFloat8_e4m3fnuz: return &e4m3fnuz_values();
    case at::kFloat8_e5m2fnuz: return &e5m2fnuz_values();
    default: return nullptr;
  }
}

// ---- mxfp4

/// As the blocks lie, outputs before inputs.
class Mxfp4Experts : public PackedRows {
 public:
  Mxfp4Experts(const at::Tensor& blocks, const at::Tensor& scales)
      : PackedRows({blocks.size(0), blocks.size(1), blocks.size(2) * kGroup}, "mxfp4", blocks.nbytes() + scales.nbytes()),
        blocks_(blocks.contiguous()), scales_(scales.contiguous()), groups_(blocks.size(2)) {}

  void unpack(int64_t first, int64_t count, float* to) const override {
    for (int64_t group = first * groups_; group < (first + count) * groups_; ++group, to += kGroup) {
      const float scale = e8m0_values()[bytes_of(scales_)[group]];
      const uint8_t* codes = bytes_of(blocks_) + kBytes * group;
      for (int i = 0; i < kBytes; ++i) {  // neighbours share a byte, unlike in GGUF's blocks
        to[2 * i] = scale * codecs::kFloat4[codes[i] & 15];
        to[2 * i + 1] = scale * codecs::kFloat4[codes[i] >> 4];
      }
    }
  }
  const BlockCodec* block_form() const override {  // there the code that means no number is a power of two
    const uint8_t* scales = bytes_of(scales_);
    const bool numbers = std::find(scales, scales + scales_.numel(), uint8_t{255}) == scales + scales_.numel();
    return numbers ? block_codec_named("MXFP4") : nullptr;
  }
  void write_blocks(int64_t first, int64_t count, uint8_t* to) const override {
    for (int64_t group = first * groups_; group < (first + count) * groups_; ++group, to += 1 + kBytes) {
      const uint8_t* codes = bytes_of(blocks_) + kBytes * group;
      const auto code = [&](int i) { return codes[i / 2] >> (i % 2 * 4) & 15; };
      to[0] = bytes_of(scales_)[group];
      for (int i = 0; i < kBytes; ++i) to[1 + i] = static_cast<uint8_t>(code(i) | code(kBytes + i) << 4);
    }
  }
  std::vector<std::span<const uint8_t>> memory() const override {
    return {{bytes_of(blocks_), blocks_.nbytes()}, {bytes_of(scales_), scales_.nbytes()}};
  }

 private:
  static constexpr int kGroup = 32, kBytes = 16;
  at::Tensor blocks_, scales_;
  int64_t groups_;
};

// ---- gptq and awq

constexpr int64_t kTile = 16;  ///< outputs unpacked at a time: their words lie in one cache line

/// The values at `place` of streams of `bits`, lowest bits first; stream k has word i at words[k + i · stride].
void from_streams(const int32_t* words, int64_t stride, int64_t place, int bits, int64_t count, float* values) {
  const int64_t bit = place * bits;
  const int shift = static_cast<int>(bit % 32);
  const uint32_t mask = (1u << bits) - 1;
  const int32_t* first = words + bit / 32 * stride;
  for (int64_t k = 0; k < count; ++k) {
    uint64_t window = static_cast<uint32_t>(first[k]);
    if (shift + bits > 32) window |= uint64_t{static_cast<uint32_t>(first[k + stride])} << 32;
    values[k] = static_cast<float>(static_cast<uint32_t>(window >> shift) & mask);
  }
}

/// [out, in] from integers that lie with inputs before outputs, in whatever packing.
class PackedIntegers : public PackedRows {
 public:
  PackedIntegers(const std::string& name, std::string layout, int64_t out, int64_t in, uint64_t bytes, const at::Tensor& scales,
                 at::Tensor group_of)
      : PackedRows({out, in}, std::move(layout), bytes), name_(name), scales_(name, scales), groups_(scales.size(0)),
        group_of_(std::move(group_of)) {}

  int64_t together() const override { return kTile; }
  void unpack(int64_t first, int64_t count, float* to) const override {
    const int64_t in = shape()[1], out = shape()[0], groups = groups_;
    const std::vector<int32_t>& group_of = this->group_of();
    const float* scales = scales_.values();
    std::vector<float> zero(static_cast<size_t>(groups * kTile));
    for (int64_t row = 0; row < count; row += kTile) {
      const int64_t output = first + row, here = std::min(kTile, count - row);
      for (int64_t g = 0; g < groups; ++g) zeros(g, output, here, zero.data() + g * kTile);
      for (int64_t i = 0; i < in; ++i) {
        float q[kTile];
        integers(i, output, here, q);
        const int64_t g = group_of[static_cast<size_t>(i)];
        for (int64_t k = 0; k < here; ++k)
          to[(row + k) * in + i] = scales[g * out + output + k] * (q[k] - zero[static_cast<size_t>(g * kTile + k)]);
      }
    }
  }

 protected:
  /// The integers of one input, and the zeros of one group, for outputs first to first + count - 1.
  virtual void integers(int64_t input, int64_t first, int64_t count, float* values) const = 0;
  virtual void zeros(int64_t group, int64_t first, int64_t count, float* values) const = 0;

 private:
  /// The group of each input, read and checked once.
  const std::vector<int32_t>& group_of() const {
    std::call_once(read_, [this] {
      std::vector<int32_t> list(static_cast<size_t>(shape()[1]));
      const int64_t length = std::max<int64_t>(1, ceil_divide(shape()[1], groups_));
      for (size_t i = 0; i < list.size(); ++i) list[i] = static_cast<int32_t>(static_cast<int64_t>(i) / length);
      if (group_of_.defined()) {
        const at::Tensor plain = group_of_.contiguous();
        std::copy_n(plain.const_data_ptr<int32_t>(), list.size(), list.begin());
      }
      for (const int32_t group : list)
        check(group >= 0 && group < groups_, "formats.quantised.shape", "{}: g_idx names group {} of {}", name_, group, groups_);
      groups_of_inputs_ = std::move(list);
    });
    return groups_of_inputs_;
  }

  std::string name_;
  Scales scales_;  ///< [groups, out]
  int64_t groups_;
  at::Tensor group_of_;
  mutable std::vector<int32_t> groups_of_inputs_;
  mutable std::once_flag read_;
};

class Gptq final : public PackedIntegers {
 public:
  Gptq(const std::string& name, const GptqParts& parts, int64_t out, int64_t in, uint64_t bytes)
      : PackedIntegers(name, "gptq", out, in, bytes, parts.scales, parts.g_idx),
        words_(parts.qweight.contiguous()), zeros_(parts.qzeros.contiguous()), bits_(parts.bits), more_(parts.zeros_less_one), out_(out) {}

 protected:
  void integers(int64_t input, int64_t first, int64_t count, float* values) const override {
    from_streams(words_.const_data_ptr<int32_t>() + first, out_, input, bits_, count, values);
  }
  void zeros(int64_t group, int64_t first, int64_t count, float* values) const override {
    const int32_t* words = zeros_.const_data_ptr<int32_t>() + group * zeros_.size(1);
    for (int64_t k = 0; k < count; ++k) {
      from_streams(words, 1, first + k, bits_, 1, values + k);
      values[k] += more_ ? 1 : 0;
    }
  }

 private:
  at::Tensor words_, zeros_;
  int bits_;
  bool more_;
  int64_t out_;
};

class Awq final : public PackedIntegers {
 public:
  Awq(const std::string& name, const at::Tensor& qweight, const at::Tensor& qzeros, const at::Tensor& scales, uint64_t bytes)
      : PackedIntegers(name, "awq", qweight.size(1) * 8, qweight.size(0), bytes, scales, {}),
        words_(qweight.contiguous()), zeros_(qzeros.contiguous()), across_(qweight.size(1)) {}

 protected:
  void integers(int64_t input, int64_t first, int64_t count, float* values) const override { nibbles(words_, input, first, count, values); }
  void zeros(int64_t group, int64_t first, int64_t count, float* values) const override { nibbles(zeros_, group, first, count, values); }

 private:
  void nibbles(const at::Tensor& words, int64_t row, int64_t first, int64_t count, float* values) const {
    static constexpr std::array<int, 8> kPlace{0, 4, 1, 5, 2, 6, 3, 7};  // of outputs 0 to 7
    for (int64_t k = 0; k < count; ++k) {
      const int64_t output = first + k;
      const auto word = static_cast<uint32_t>(words.const_data_ptr<int32_t>()[row * across_ + output / 8]);
      values[k] = static_cast<float>(word >> (4 * kPlace[static_cast<size_t>(output % 8)]) & 15);
    }
  }

  at::Tensor words_, zeros_;
  int64_t across_;
};

}  // namespace

std::shared_ptr<const PackedTensor> packed_fp8(const std::string& name, const at::Tensor& weight, const at::Tensor& scale,
                                               int64_t block_rows, int64_t block_columns) {
  const std::array<float, 256>* values = table_of(weight.scalar_type());
  check(values != nullptr, "formats.quantised.dtype", "{}: weight is {}, no eight-bit float", name, c10::toString(weight.scalar_type()));
  const bool flat = weight.dim() == 1 && (!scale.defined() || scale.numel() == 1);
  if (weight.dim() < 2 && !flat) fail_shape(name, "weight", weight, "[.., outputs, inputs]");
  check(block_rows >= 0 && block_columns >= 0, "formats.quantised.shape", "{}: blocks of {} × {}", name, block_rows, block_columns);
  const int64_t out = flat ? 1 : weight.size(-2), in = weight.size(-1), matrices = weight.numel() == 0 ? 0 : weight.numel() / (out * in);
  const auto make = [&](const at::Tensor& numbers, ScaleGrid grid) -> std::shared_ptr<const PackedTensor> {
    grid.block_rows = std::max<int64_t>(grid.block_rows, 1), grid.block_columns = std::max<int64_t>(grid.block_columns, 1);
    return std::make_shared<ScaledFloat8>(name, weight, *values, numbers, grid);
  };
  if (!scale.defined()) return make(at::ones({1}, at::kFloat), {out, in, false});
  if (scale.numel() == 1) return make(scale, {out, in, false});
  const int64_t rows = block_rows > 0 ? block_rows : 128, columns = block_columns > 0 ? block_columns : 128;
  const int64_t down = ceil_divide(out, rows), across = ceil_divide(in, columns);
  const auto leading = [](const at::Tensor& tensor, int64_t last) { return tensor.sizes().slice(0, static_cast<size_t>(tensor.dim() - last)); };
  if (scale.dim() == weight.dim() && leading(scale, 2) == leading(weight, 2)) {
    if (scale.size(-2) == down && scale.size(-1) == across) return make(scale, {rows, columns});
    if (scale.size(-2) == out && scale.size(-1) == 1) return make(scale, {1, in});
    if (scale.size(-2) == 1 && scale.size(-1) == 1) return make(scale, {out, in});
  }
  if (scale.sizes() == leading(weight, 1)) return make(scale, {1, in});                          // [.., out]
  if (weight.dim() > 2 && scale.numel() == matrices && scale.size(0) == weight.size(0)) return make(scale, {out, in});  // one a matrix
  fail_shape(name, "scale", scale,
             fmt::format("one number, [{}, 1] or [{}, {}] (blocks of {} × {}) for a weight of [{}]", out, down, across, rows, columns,
                         fmt::join(weight.sizes(), ", ")));
}

std::shared_ptr<const PackedTensor> packed_mxfp4(const std::string& name, const at::Tensor& blocks, const at::Tensor& scales) {
  check_type(name, "blocks", blocks, at::kByte);
  check_type(name, "scales", scales, at::kByte);
  if (blocks.dim() != 4 || blocks.size(3) != 16) fail_shape(name, "blocks", blocks, "[experts, outputs, inputs / 32, 16]");
  if (scales.sizes() != blocks.sizes().slice(0, 3))
    fail_shape(name, "scales", scales, fmt::format("[{}]", fmt::join(blocks.sizes().slice(0, 3), ", ")));
  return packed_transposed(std::make_shared<Mxfp4Experts>(blocks, scales));
}

Mxfp4Parts mxfp4_parts(const PackedRows& rows) {
  TORCH_INTERNAL_ASSERT(rows.block_form() == block_codec_named("MXFP4"), "rows without blocks of MXFP4");
  constexpr int64_t kGroup = 32, kBytes = 16;
  std::vector<int64_t> shape = rows.shape();
  shape.back() /= kGroup;
  Mxfp4Parts parts{.blocks = {}, .scales = at::empty(shape, at::kByte)};
  shape.push_back(kBytes);
  parts.blocks = at::empty(shape, at::kByte);
  auto *blocks = parts.blocks.mutable_data_ptr<uint8_t>(), *scales = parts.scales.mutable_data_ptr<uint8_t>();
  const int64_t groups = rows.row_values() / kGroup, count = parts.scales.numel() / std::max<int64_t>(1, groups);
  std::vector<uint8_t> row(static_cast<size_t>(groups * (1 + kBytes)));
  for (int64_t r = 0; r < count; ++r) {
    rows.write_blocks(r, 1, row.data());
    const uint8_t* from = row.data();
    for (int64_t g = 0; g < groups; ++g, from += 1 + kBytes, blocks += kBytes) {
      *scales++ = from[0];
      const auto code = [&](int64_t i) { return i < kBytes ? from[1 + i] & 15 : from[1 + i - kBytes] >> 4; };
      for (int64_t i = 0; i < kBytes; ++i) blocks[i] = static_cast<uint8_t>(code(2 * i) | code(2 * i + 1) << 4);
    }
  }
  return parts;
}

std::shared_ptr<const PackedTensor> packed_gptq(const std::string& name, const GptqParts& parts) {
  check_type(name, "qweight", parts.qweight, at::kInt);
  check_type(name, "qzeros", parts.qzeros, at::kInt);
  const int bits = parts.bits;
  check(bits == 2 || bits == 3 || bits == 4 || bits == 8, "formats.quantised.shape", "{}: {} bits a value; 2, 3, 4 and 8 are read", name, bits);
  if (parts.qweight.dim() != 2 || parts.qweight.size(0) * 32 % bits != 0) fail_shape(name, "qweight", parts.qweight, "[inputs · bits / 32, outputs]");
  const int64_t in = parts.qweight.size(0) * 32 / bits, out = parts.qweight.size(1);
  if (parts.scales.dim() != 2 || parts.scales.size(1) != out || parts.scales.size(0) < 1)
    fail_shape(name, "scales", parts.scales, fmt::format("[groups, {}]", out));
  const int64_t groups = parts.scales.size(0);
  if (parts.qzeros.dim() != 2 || parts.qzeros.size(0) != groups || parts.qzeros.size(1) != ceil_divide(out * bits, 32))
    fail_shape(name, "qzeros", parts.qzeros, fmt::format("[{}, {}]", groups, ceil_divide(out * bits, 32)));
  if (parts.g_idx.defined()) {
    check_type(name, "g_idx", parts.g_idx, at::kInt);
    if (parts.g_idx.dim() != 1 || parts.g_idx.size(0) != in) fail_shape(name, "g_idx", parts.g_idx, fmt::format("[{}]", in));
  }
  const uint64_t bytes = parts.qweight.nbytes() + parts.qzeros.nbytes() + parts.scales.nbytes();
  return std::make_shared<Gptq>(name, parts, out, in, bytes);
}

std::shared_ptr<const PackedTensor> packed_awq(const std::string& name, const at::Tensor& qweight, const at::Tensor& qzeros,
                                               const at::Tensor& scales) {
  check_type(name, "qweight", qweight, at::kInt);
  check_type(name, "qzeros", qzeros, at::kInt);
  if (qweight.dim() != 2) fail_shape(name, "qweight", qweight, "[inputs, outputs / 8]");
  const int64_t out = qweight.size(1) * 8;
  if (scales.dim() != 2 || scales.size(1) != out || scales.size(0) < 1) fail_shape(name, "scales", scales, fmt::format("[groups, {}]", out));
  if (qzeros.dim() != 2 || qzeros.size(0) != scales.size(0) || qzeros.size(1) != qweight.size(1))
    fail_shape(name, "qzeros", qzeros, fmt::format("[{}, {}]", scales.size(0), qweight.size(1)));
  const uint64_t bytes = qweight.nbytes() + qzeros.nbytes() + scales.nbytes();
  return std::make_shared<Awq>(name, qweight, qzeros, scales, bytes);
}

}  // namespace switchyard
