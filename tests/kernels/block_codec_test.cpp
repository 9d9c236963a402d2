#include "switchyard/base/json.h"
#include "switchyard/kernels/codecs/block_codec.h"

#include <ATen/ATen.h>


#include "switchyard/base/files.h"
#include "switchyard/formats/safetensors.h"
#include "switchyard/kernels/codecs/float8.h"
#include "switchyard/kernels/codecs/half.h"
#include "switchyard/kernels/packed_tensor.h"
#include "tests/files.h"
#include "tests/support.h"

namespace switchyard {
namespace {

using testing::expect_error;
using testing::golden;
using testing::randn;

at::Tensor dequantised(const BlockCodec& codec, const at::Tensor& packed) {
  const at::Tensor bytes = packed.contiguous();
  const auto blocks = static_cast<int64_t>(bytes.nbytes()) / codec.bytes;
  at::Tensor values = at::empty(blocks * codec.length, at::kFloat);
  codec.dequantise(static_cast<const uint8_t*>(bytes.const_data_ptr()), values.mutable_data_ptr<float>(), blocks);
  return values;
}

/// Bit for bit, except that any NaN is any other.
bool same_floats(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.flatten(), y = b.flatten();
  return x.numel() == y.numel() && (x.view(at::kInt).eq(y.view(at::kInt)) | (x.isnan() & y.isnan())).all().item<bool>();
}

/// Relative root mean square error of packing and unpacking, weighted by column.
double error_of(const BlockCodec& codec, const at::Tensor& values, const at::Tensor& importance = {}, const at::Tensor& weights = {}) {
  const at::Tensor back = dequantised(codec, quantise_blocks(codec, values, importance)).view(values.sizes());
  const at::Tensor w = weights.defined() ? weights : at::ones(values.size(-1));
  return std::sqrt((((back - values).square() * w).sum() / (values.square() * w).sum()).item<double>());
}

TEST(BlockCodec, AgreesWithTheRecordedBytesAndFloats) {
  const Safetensors file(golden("gguf/blocks.safetensors"));
  const auto table = json_from(read_file(golden("gguf/blocks.json")));
  for (const auto& [name, entry] : table.items()) {
    SCOPED_TRACE(name);
    const BlockCodec* codec = block_codec_named(name);
    ASSERT_NE(codec, nullptr);
    EXPECT_EQ(block_codec_numbered(entry["type"].get<uint32_t>()), codec);
    EXPECT_EQ(codec->length, entry["values_per_block"].get<int64_t>());
    EXPECT_EQ(codec->bytes, entry["bytes_per_block"].get<int64_t>());
    EXPECT_TRUE(same_floats(dequantised(*codec, file.get(name + ".dequant.bytes")), file.get(name + ".dequant.float")));
    if (!entry["quantise"].get<bool>()) continue;
    const at::Tensor wanted = file.get(name + ".quantise.bytes").view(at::kByte).flatten();
    const at::Tensor input = file.get("quantise.input").contiguous();
    at::Tensor bytes = at::empty(wanted.numel(), at::kByte);
    codec->quantise(input.const_data_ptr<float>(), nullptr, bytes.mutable_data_ptr<uint8_t>(), input.numel() / codec->length);
    EXPECT_TRUE(bytes.equal(wanted));
    EXPECT_TRUE(same_floats(dequantised(*codec, bytes), file.get(name + ".quantise.back")));
  }
}

TEST(BlockCodec, TheTableHasEachNameAndNumberOnce) {
  std::set<std::string_view> names;
  std::set<uint32_t> numbers;
  for (const BlockCodec& codec : block_codecs()) {
    EXPECT_TRUE(names.insert(codec.name).second) << codec.name;
    EXPECT_TRUE(numbers.insert(codec.number).second) << codec.name;
    EXPECT_EQ(block_codec_named(codec.name), &codec);
  }
  EXPECT_EQ(block_codec_named("Q9_K"), nullptr);
  EXPECT_EQ(block_codec_numbered(4), nullptr);
}

TEST(BlockCodec, QuantisersKeepNormalWeightsAsWellAsTheirBitsAllow) {
  // Bounds of the K and IQ formats: what ggml's quantisers reach on such weights without importance.
  const std::map<std::string_view, double> bounds{
      {"Q2_K", 0.296}, {"Q3_K", 0.1515}, {"Q4_K", 0.0714}, {"Q5_K", 0.0362}, {"Q6_K", 0.0178}, {"IQ4_NL", 0.0765},
      {"IQ4_XS", 0.0770}, {"Q4_0", 0.087}, {"Q4_1", 0.080}, {"Q5_0", 0.0435}, {"Q5_1", 0.0385}, {"Q8_0", 0.0058},
      {"Q8_K", 0.009}, {"MXFP4", 0.13}, {"NVFP4", 0.1}, {"F16", 3e-4}, {"BF16", 2e-3}};
  const at::Tensor values = randn({32, 512}, 3, at::kFloat);
  for (const auto& [name, bound] : bounds) {
    const double error = error_of(*block_codec_named(name), values);
    EXPECT_LT(error, bound) << name;
    EXPECT_GT(error, bound / 10) << name;
  }
}

TEST(BlockCodec, ImportanceMovesTheErrorToWhereItMattersLess) {
  const at::Tensor values = randn({16, 512}, 4, at::kFloat);
  const at::Tensor importance = at::ones(512);
  importance.slice(0, 0, 512, 4).fill_(50);
  for (const std::string_view name :
       {"Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "Q4_0", "Q4_1", "Q5_0", "Q5_1"}) {
    const BlockCodec& codec = *block_codec_named(name);
    EXPECT_LT(error_of(codec, values, importance, importance), 0.97 * error_of(codec, values, {}, importance)) << name;
    EXPECT_LT(error_of(codec, values), error_of(codec, values, importance)) << name;
  }
}

TEST(BlockCodec, WhatABlockCanSayIsKeptExactly) {
  // Dequantised blocks quantised again: the grid that they lie on is found, up to the rounding of its halves and scales.
  for (const std::string_view name : {"Q4_0", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "MXFP4", "TQ1_0", "TQ2_0"}) {
    const BlockCodec& codec = *block_codec_named(name);
    const at::Tensor raw = randn({8, 256}, 5, at::kFloat);
    const at::Tensor once = dequantised(codec, quantise_blocks(codec, raw)).view({8, 256});
    EXPECT_LT(error_of(codec, once), 0.2 * error_of(codec, raw) + 1e-6) << name;
  }
  for (const BlockCodec& codec : block_codecs()) {
    if (codec.quantise == nullptr) continue;
    const at::Tensor zeros = dequantised(codec, quantise_blocks(codec, at::zeros({2, 256})));
    EXPECT_TRUE(zeros.eq(0).all().item<bool>()) << codec.name;
    // A constant, tiny values, a lone spike and zero importance are blocks like others.
    const at::Tensor spike = at::zeros(256);
    spike[7] = -3;
    for (const at::Tensor& odd : {at::full({256}, 0.75), at::full({256}, -1e-30f), spike, at::full({256}, 1e-42f)}) {
      EXPECT_TRUE(dequantised(codec, quantise_blocks(codec, odd)).isfinite().all().item<bool>()) << codec.name;
      EXPECT_TRUE(dequantised(codec, quantise_blocks(codec, odd, at::zeros(256))).isfinite().all().item<bool>()) << codec.name;
    }
  }
}

TEST(BlockCodec, SmallFloatsFollowTheRecordedTables) {
  const Safetensors file(golden("quant/fp8-codes.safetensors"));
  const auto values = [](const std::array<float, 256>& table) { return at::tensor(at::ArrayRef<float>(table.data(), table.size())); };
  EXPECT_TRUE(same_floats(values(e4m3fn_values()), file.get("float8_e4m3fn")));
  EXPECT_TRUE(same_floats(values(e5m2_values()), file.get("float8_e5m2")));
  EXPECT_TRUE(same_floats(values(e4m3fnuz_values()), file.get("float8_e4m3fnuz")));
  EXPECT_TRUE(same_floats(values(e5m2fnuz_values()), file.get("float8_e5m2fnuz")));
  EXPECT_TRUE(same_floats(values(e8m0_values()), file.get("float8_e8m0fnu")));
  const at::Tensor input = file.get("round.input").contiguous();
  const at::Tensor e4m3 = file.get("round.float8_e4m3fn"), e5m2 = file.get("round.float8_e5m2");
  for (int64_t i = 0; i < input.numel(); ++i) {
    const float x = input.const_data_ptr<float>()[i];
    EXPECT_EQ(float_to_e4m3fn(x), e4m3[i].item<int>()) << x;
    EXPECT_EQ(float_to_e5m2(x), e5m2[i].item<int>()) << x;
  }
  for (int code = 0; code < 256; ++code) {  // every value is its own nearest
    const auto byte = static_cast<uint8_t>(code);
    const float e4m3 = e4m3fn_values()[byte], e5m2 = e5m2_values()[byte];
    EXPECT_TRUE(float_to_e4m3fn(e4m3) == byte || std::isnan(e4m3)) << code;
    EXPECT_TRUE(float_to_e5m2(e5m2) == byte || std::isnan(e5m2)) << code;
  }
}

TEST(BlockCodec, HalvesAreLibtorchs) {
  const at::Tensor codes = at::arange(65536, at::kInt);
  const at::Tensor halves = codes.to(at::kShort).view(at::kHalf).to(at::kFloat);
  for (int code = 0; code < 65536; ++code) {
    const float value = codecs::half_to_float(static_cast<uint16_t>(code)), wanted = halves.const_data_ptr<float>()[code];
    EXPECT_TRUE(std::bit_cast<uint32_t>(value) == std::bit_cast<uint32_t>(wanted) || std::isnan(wanted)) << code;
    EXPECT_TRUE(codecs::float_to_half(value) == code || std::isnan(value)) << code;
  }
  // Between two halves, at the middle and to both sides of it.
  const at::Tensor odd = at::cat({randn({20000}, 6, at::kFloat) * 1e-6, randn({20000}, 7, at::kFloat) * 3e4, halves.slice(0, 0, 31743) * 1.00048828125});
  const at::Tensor wanted = odd.to(at::kHalf).view(at::kShort), brain = odd.to(at::kBFloat16).view(at::kShort);
  for (int64_t i = 0; i < odd.numel(); ++i) {
    const float x = odd.const_data_ptr<float>()[i];
    EXPECT_EQ(static_cast<int16_t>(codecs::float_to_half(x)), wanted.const_data_ptr<int16_t>()[i]) << x;
    EXPECT_EQ(static_cast<int16_t>(codecs::float_to_bfloat(x)), brain.const_data_ptr<int16_t>()[i]) << x;
  }
}

TEST(PackedTensor, RangesAreThePartsOfTheWhole) {
  const BlockCodec& codec = *block_codec_named("Q4_K");
  const at::Tensor packed = quantise_blocks(codec, randn({6, 4, 512}, 8, at::kFloat));
  const BlockTensor tensor(codec, {6, 4, 512}, packed.const_data_ptr<uint8_t>(), std::make_shared<at::Tensor>(packed));
  const at::Tensor whole = tensor.dequantise();
  EXPECT_EQ(whole.sizes(), (std::vector<int64_t>{6, 4, 512}));
  EXPECT_TRUE(same_floats(whole, dequantised(codec, packed)));
  EXPECT_TRUE(tensor.dequantise(2, 3).equal(whole.narrow(0, 2, 3)));
  EXPECT_TRUE(tensor.dequantise(5, 1, at::kBFloat16).equal(whole.narrow(0, 5, 1).to(at::kBFloat16)));
  EXPECT_EQ(tensor.dequantise(6, 0).size(0), 0);
  EXPECT_EQ(tensor.bytes(), packed.nbytes());
  EXPECT_EQ(expect_error([&] { tensor.dequantise(4, 3); }).code(), "formats.packed_range");
  EXPECT_EQ(expect_error([&] { tensor.dequantise(-1, 1); }).code(), "formats.packed_range");
  EXPECT_EQ(expect_error([&] { tensor.dequantise(INT64_MAX, 2); }).code(), "formats.packed_range");
  EXPECT_EQ(expect_error([&] { tensor.dequantise(0, 1, at::kInt); }).code(), "formats.packed_range");
  const BlockTensor flat(codec, {512}, packed.const_data_ptr<uint8_t>(), nullptr);
  EXPECT_TRUE(flat.dequantise(100, 300).equal(whole.flatten().narrow(0, 100, 300)));
}

}  // namespace
}  // namespace switchyard
