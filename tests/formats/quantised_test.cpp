#include "switchyard/formats/quantised.h"

#include <ATen/ATen.h>

#include <nlohmann/json.hpp>

#include "switchyard/base/files.h"
#include "switchyard/formats/gguf.h"
#include "switchyard/formats/quantised_layouts.h"
#include "tests/files.h"
#include "tests/support.h"

namespace switchyard {
namespace {

using testing::expect_error;
using testing::golden;
using testing::randn;
using testing::TemporaryFolder;
using testing::write_text;

bool same_floats(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() && a.scalar_type() == b.scalar_type() && (a.eq(b) | (a.isnan() & b.isnan())).all().item<bool>();
}

Node config_of(const std::string& text) { return parse_json(text, "config.json"); }

TEST(Quantised, AgreesWithTheRecordedFloats) {
  for (const std::string name : {"fp8-block128", "mxfp4", "gptq-int4", "gptq-int4-actorder", "gptq-int4-v2", "gptq-int8", "awq-int4",
                                 "awq-int4-g128", "fp8-other"}) {
    SCOPED_TRACE(name);
    const Safetensors expected(golden("quant/" + name + ".expected.safetensors"));
    const Node config = name == "fp8-other" ? config_of(R"({"quant_method": "fp8", "weight_block_size": [64, 32]})")
                                            : *parse_json(read_file(golden("quant/" + name + ".config.json")), name).find("quantization_config");
    const QuantisedWeights weights(Safetensors(golden("quant/" + name + ".safetensors")), config);
    EXPECT_TRUE(weights.any());
    size_t compared = 0;
    for (const TensorInfo& info : expected.tensors()) {
      if (info.name.ends_with(".bf16")) {
        const std::string plain = info.name.substr(0, info.name.size() - 5);
        EXPECT_TRUE(same_floats(weights.packed(plain)->dequantise(at::kBFloat16), expected.get(info.name))) << info.name;
        continue;
      }
      ++compared;
      const at::Tensor wanted = expected.get(info.name);
      ASSERT_TRUE(weights.has(info.name)) << info.name;
      EXPECT_TRUE(same_floats(weights.get(info.name).to(at::kFloat), wanted)) << info.name;
      if (const auto packed = weights.packed(info.name)) {
        EXPECT_EQ(packed->shape(), info.shape);
        const int64_t first = info.shape[0] / 3, count = std::max<int64_t>(info.shape[0] / 2, 1);
        EXPECT_TRUE(same_floats(packed->dequantise(first, count), wanted.narrow(0, first, count))) << info.name;
        EXPECT_LT(packed->bytes(), wanted.nbytes()) << info.name;
      }
    }
    EXPECT_GT(compared, 0u);
    for (const TensorInfo& info : weights.tensors()) EXPECT_TRUE(weights.has(info.name)) << info.name;
  }
}

TEST(Quantised, StacksOfEightBitFloatsHaveScalesOfTheirOwn) {
  const at::Tensor codes = (randn({3, 5, 7}, 1, at::kFloat) * 20).to(at::kFloat8_e4m3fn), plain = codes.to(at::kFloat);
  const at::Tensor each = randn({3}, 2, at::kFloat), rows = randn({3, 5, 1}, 3, at::kFloat), blocks = randn({3, 3, 2}, 4, at::kFloat);
  EXPECT_TRUE(same_floats(packed_fp8("w", codes, each)->dequantise(), plain * each.view({3, 1, 1})));
  EXPECT_TRUE(same_floats(packed_fp8("w", codes, each.view({3, 1, 1}))->dequantise(1, 2), (plain * each.view({3, 1, 1})).narrow(0, 1, 2)));
  EXPECT_TRUE(same_floats(packed_fp8("w", codes, rows)->dequantise(), plain * rows));
  EXPECT_TRUE(same_floats(packed_fp8("w", codes, rows.view({3, 5}))->dequantise(), plain * rows));
  const at::Tensor spread = blocks.repeat_interleave(2, 1).narrow(1, 0, 5).repeat_interleave(4, 2).narrow(2, 0, 7);
  EXPECT_TRUE(same_floats(packed_fp8("w", codes, blocks, 2, 4)->dequantise(), plain * spread));
  EXPECT_TRUE(same_floats(packed_fp8("w", codes, at::Tensor())->dequantise(), plain));
  EXPECT_TRUE(same_floats(packed_fp8("w", codes[0][0], each[0])->dequantise(), plain[0][0] * each[0]));
  const at::Tensor powers = at::tensor({127, 128, 120}, at::kByte).view(at::kFloat8_e8m0fnu);
  EXPECT_TRUE(same_floats(packed_fp8("w", codes, powers)->dequantise(), plain * at::tensor({1.0f, 2.0f, 0.0078125f}).view({3, 1, 1})));
  const at::Tensor wide = randn({4, 6}, 5, at::kFloat).to(at::kFloat8_e5m2);
  EXPECT_TRUE(same_floats(packed_fp8("w", wide, at::scalar_tensor(3.0f))->dequantise(), wide.to(at::kFloat) * 3));
}

/// Packs integers [in, out] as GPTQ does, by the bit.
at::Tensor streams(const at::Tensor& values, int bits) {
  const int64_t in = values.size(0), out = values.size(1);
  at::Tensor words = at::zeros({(in * bits + 31) / 32, out}, at::kInt);
  for (int64_t o = 0; o < out; ++o)
    for (int64_t i = 0; i < in * bits; ++i) {
      const int bit = values[i / bits][o].item<int>() >> (i % bits) & 1;
      words[i / 32][o] = words[i / 32][o].item<int>() | static_cast<int>(static_cast<uint32_t>(bit) << (i % 32));
    }
  return words;
}

TEST(Quantised, GptqOfEveryWidthUnpacksWhatWasPacked) {
  const Streams random(9);
  for (const int bits : {2, 3, 4, 8}) {
    SCOPED_TRACE(bits);
    const int64_t in = 64, out = 32, groups = 4;
    const at::Tensor q = random.integers(1 << bits, {in, out}, {.purpose = "q"}), zeros = random.integers(1 << bits, {groups, out}, {.purpose = "z"});
    const at::Tensor order = random.integers(groups, {in}, {.purpose = "g"}), scales = randn({groups, out}, 6, at::kFloat).to(at::kHalf);
    GptqParts parts{.qweight = streams(q, bits), .qzeros = streams(zeros.t(), bits).t().contiguous(), .scales = scales,
                    .g_idx = order.to(at::kInt), .bits = bits};
    const auto wanted = [&](const at::Tensor& group_of, int64_t more) {
      return (scales.to(at::kFloat).index_select(0, group_of) * (q - zeros.index_select(0, group_of) - more).to(at::kFloat)).t();
    };
    EXPECT_TRUE(same_floats(packed_gptq("w", parts)->dequantise(), wanted(order, 1)));
    EXPECT_TRUE(same_floats(packed_gptq("w", parts)->dequantise(5, 20), wanted(order, 1).narrow(0, 5, 20)));
    parts.zeros_less_one = false;
    EXPECT_TRUE(same_floats(packed_gptq("w", parts)->dequantise(), wanted(order, 0)));
    parts.g_idx = at::Tensor();
    EXPECT_TRUE(same_floats(packed_gptq("w", parts)->dequantise(), wanted(at::arange(in).div(16, "floor"), 0)));
  }
}

TEST(Quantised, PartsThatDoNotFitAreRefusedByCode) {
  const auto code = [](const NamedTensors& tensors, const std::string& config) {
    TemporaryFolder folder;
    write_safetensors(folder / "x.safetensors", tensors);
    const Error error = expect_error([&] {
      const QuantisedWeights weights(Safetensors(folder / "x.safetensors"), config.empty() ? Node() : config_of(config));
      for (const TensorInfo& info : weights.tensors()) (void)weights.get(info.name);
    });
    return error.code();
  };
  const std::string gptq = R"({"quant_method": "gptq", "bits": 4})", awq = R"({"quant_method": "awq", "bits": 4})", fp8 = R"({"quant_method": "fp8"})";
  const at::Tensor words = at::zeros({4, 16}, at::kInt), zeros = at::zeros({2, 2}, at::kInt), scales = at::ones({2, 16}, at::kHalf);
  const auto layer = [&](const at::Tensor& w, const at::Tensor& z, const at::Tensor& s) {
    return NamedTensors{{"l.qweight", w}, {"l.qzeros", z}, {"l.scales", s}};
  };
  EXPECT_EQ(code({{"l.qweight", words}}, gptq), "formats.quantised.missing");
  EXPECT_EQ(code(layer(words, zeros, scales), ""), "formats.quantised.config");
  EXPECT_EQ(code(layer(words, zeros, scales), R"({"quant_method": "gptq"})"), "formats.quantised.shape");  // how many bits?
  EXPECT_EQ(code(layer(words, zeros, at::ones({2, 17}, at::kHalf)), gptq), "formats.quantised.shape");
  EXPECT_EQ(code(layer(words, at::zeros({3, 2}, at::kInt), scales), gptq), "formats.quantised.shape");
  EXPECT_EQ(code(layer(words, at::zeros({2, 2}), scales), gptq), "formats.quantised.dtype");
  EXPECT_EQ(code(layer(words, zeros, at::ones({2, 16}, at::kInt)), gptq), "formats.quantised.dtype");
  EXPECT_EQ(code(layer(words, zeros, at::ones({0, 16}, at::kHalf)), gptq), "formats.quantised.shape");
  NamedTensors indexed = layer(words, zeros, scales);
  indexed.emplace_back("l.g_idx", at::full({32}, 2, at::kInt));
  EXPECT_EQ(code(indexed, gptq), "formats.quantised.shape");  // a group that is not there
  indexed.back().second = at::zeros({31}, at::kInt);
  EXPECT_EQ(code(indexed, gptq), "formats.quantised.shape");
  NamedTensors twice = layer(words, zeros, scales);
  twice.emplace_back("l.weight", at::ones({16, 32}));
  EXPECT_EQ(code(twice, gptq), "formats.quantised.shape");
  EXPECT_EQ(code(layer(words, zeros, scales), awq), "formats.quantised.shape");
  EXPECT_EQ(code(layer(words, zeros, scales), fp8), "formats.quantised.method");
  EXPECT_EQ(code({}, R"({"quant_method": "bitsandbytes"})"), "formats.quantised.method");
  EXPECT_EQ(code({}, R"({"quant_method": "compressed-tensors", "format": "pack-quantized"})"), "formats.quantised.method");
  EXPECT_EQ(code({}, R"({"quant_method": "gptq", "checkpoint_format": "marlin"})"), "formats.quantised.method");
  EXPECT_EQ(code({}, R"({"quant_method": "awq", "version": "gemv"})"), "formats.quantised.method");
  EXPECT_EQ(code({}, R"({"quant_method": "gptq", "bits": -4})"), "formats.quantised.config");
  EXPECT_EQ(code({}, R"({"quant_method": "gptq", "bits": 9999999999})"), "formats.quantised.config");
  EXPECT_EQ(code({}, R"({"quant_method": "fp8", "weight_block_size": [0, 128]})"), "formats.quantised.config");
  EXPECT_EQ(code({}, R"({"quant_method": "fp8", "weight_block_size": 128})"), "formats.quantised.config");
  EXPECT_EQ(code({}, "[1]"), "formats.quantised.config");
  const at::Tensor eight = at::ones({4, 6}).to(at::kFloat8_e4m3fn);
  EXPECT_EQ(code({{"w", eight}}, fp8), "formats.quantised.missing");
  EXPECT_EQ(code({{"w", eight}, {"w_scale", at::ones({4, 2})}}, fp8), "formats.quantised.shape");
  EXPECT_EQ(code({{"w", eight}, {"w_scale", at::ones({4, 1}, at::kInt)}}, fp8), "formats.quantised.dtype");
  const at::Tensor blocks = at::zeros({2, 4, 3, 16}, at::kByte);
  EXPECT_EQ(code({{"w_blocks", blocks}, {"w_scales", at::zeros({2, 4, 2}, at::kByte)}}, ""), "formats.quantised.shape");
  EXPECT_EQ(code({{"w_blocks", blocks}, {"w_scales", at::zeros({2, 4, 3})}}, ""), "formats.quantised.dtype");
  EXPECT_EQ(code({{"w_blocks", blocks}}, R"({"quant_method": "mxfp4"})"), "formats.quantised.missing");
}

TEST(Quantised, PathsOfEveryKindOpen) {
  TemporaryFolder folder;
  const at::Tensor eight = at::ones({4, 6}).to(at::kFloat8_e4m3fn);
  write_safetensors(folder / "model.safetensors", {{"a.weight", eight}, {"a.weight_scale", at::scalar_tensor(0.5f)},
                                                   {"a.input_scale", at::scalar_tensor(1.0f)}, {"b.q_scale", at::ones({3})}, {"b.q", at::ones({3})}});
  EXPECT_EQ(open_weights(folder.path())->tensors().size(), 4u);  // no method, so the scale of inputs is a tensor like others
  write_text(folder / "config.json", R"({"text_config": {"quantization_config": {"quant_method": "fp8"}}})");
  const auto weights = open_weights(folder.path());
  EXPECT_EQ(weights->tensors().size(), 3u);
  EXPECT_TRUE(same_floats(weights->get("a.weight"), at::full({4, 6}, 0.5f)));
  EXPECT_EQ(weights->packed("b.q"), nullptr);
  EXPECT_FALSE(weights->has("a.weight_scale"));
  EXPECT_EQ(expect_error([&] { (void)weights->get("a.weigth"); }).code(), "formats.quantised.missing");
  write_text(folder / "config.json", "{}");
  write_text(folder / "quantize_config.json", R"({"bits": 4.5, "group_size": 32})");  // the older place of GPTQ's settings
  EXPECT_EQ(expect_error([&] { (void)open_weights(folder.path()); }).code(), "formats.quantised.config");

  TemporaryFolder other;
  write_gguf(other / "m.gguf", {}, {GgufTensor::plain("w", at::ones({2}))});
  EXPECT_TRUE(open_weights(other / "m.gguf")->has("w"));
  EXPECT_TRUE(open_weights(other.path())->has("w"));
  write_gguf(other / "n.gguf", {}, {GgufTensor::plain("w", at::ones({2}))});
  EXPECT_EQ(expect_error([&] { (void)open_weights(other.path()); }).code(), "formats.gguf.several");
  EXPECT_EQ(open_weights(golden("gguf/split"))->tensors().size(), 23u);
  EXPECT_EQ(expect_error([&] { (void)open_weights(other / "none"); }).code(), "file.missing");
}

}  // namespace
}  // namespace switchyard
