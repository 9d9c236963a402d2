#include "switchyard/models/families/gguf/hub_view.h"

#include <ATen/ATen.h>

#include <cmath>
#include <functional>

#include "switchyard/formats/safetensors.h"
#include "switchyard/formats/template/chat_template.h"
#include "switchyard/formats/tokenizer.h"
#include "switchyard/inspect/description.h"
#include "switchyard/models/checkpoint.h"
#include "tests/files.h"
#include "tests/models/decoder_support.h"
#include "tests/support.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using testing::difference;
using testing::expect_error;
using testing::golden;
using testing::run_logits;
using testing::TemporaryFolder;

/// A GGUF file and the recording of what the original model computes on its dequantised weights.
struct Recorded { const char *file, *logits, *key; };

TEST(GgufHub, FilesGiveTheRecordedLogits) {
  for (const Recorded& recorded : {Recorded{"split/mixtral-00002-of-00002.gguf", "mixtral", "logits"}, {"mixtral-mixed.gguf", "mixtral-mixed", "logits"},
                                   {"qwen3_moe.gguf", "qwen3_moe", "logits"}, {"qwen2_moe.gguf", "qwen2_moe", "logits"},
                                   {"deepseek_v2.gguf", "deepseek_v2", "logits"}, {"deepseek_v3.gguf", "deepseek_v3", "logits"},
                                   // the file cannot say that YaRN's range is not rounded
                                   {"gpt_oss-mxfp4.gguf", "gpt_oss-mxfp4", "logits_truncated"}}) {
    SCOPED_TRACE(recorded.file);
    const LoadedModel model = load_model(golden(std::string("gguf/") + recorded.file), at::kFloat);
    const Safetensors expected(golden(std::string("gguf/") + recorded.logits + ".logits.safetensors"));
    const at::Tensor ids = expected.get("input_ids");
    EXPECT_LT(difference(run_logits(*model.decoder, ids, {ids.size(0)}), expected.get(recorded.key)), 1e-4);
  }
}

TEST(GgufHub, AFolderStandsForItsOneFileOrSet) {
  TemporaryFolder folder;
  fs::copy(golden("gguf/split"), folder / "set");
  const LoadedModel of_folder = load_model(folder / "set"), of_file = load_model(golden("gguf/split/mixtral-00002-of-00002.gguf"));
  const at::Tensor ids = testing::some_ids(9, 90);
  EXPECT_TRUE(run_logits(*of_folder.decoder, ids, {9}).equal(run_logits(*of_file.decoder, ids, {9})));
  EXPECT_EQ(of_folder.folder.extension(), ".gguf");
  fs::copy(golden("gguf/qwen3_moe.gguf"), folder / "set");
  const std::vector<std::function<void()>> readers{[&] { load_model(folder / "set"); }, [&] { load_tokenizer(folder / "set"); },
                                                   [&] { ChatTemplates::load(folder / "set"); }, [&] { describe(folder / "set"); }};
  for (const auto& read : readers) EXPECT_EQ(expect_error(read).code(), "formats.gguf.several");
}

TEST(GgufHub, ExpertsStayPackedUntilTheyAreAsked) {
  const HubView view = hub_view(std::make_shared<Gguf>(golden("gguf/mixtral-mixed.gguf")));
  const std::string name = "model.layers.1.block_sparse_moe.experts.2.w1.weight";
  const auto packed = view.weights->packed(name);
  ASSERT_NE(packed, nullptr);
  EXPECT_EQ(packed->layout(), "Q4_0");
  EXPECT_EQ(packed->shape(), (std::vector<int64_t>{64, 32}));
  const Gguf file(golden("gguf/mixtral-mixed.gguf"));
  const at::Tensor expert = file.get("blk.1.ffn_gate_exps.weight").select(0, 2);
  EXPECT_TRUE(packed->dequantise().equal(expert));
  EXPECT_TRUE(view.weights->get(name).equal(expert));
  EXPECT_EQ(view.config.find("rms_norm_eps")->scalar(), "1e-05");  // as the config had it, not 9.99999974737e-06
}

TEST(GgufHub, DivisorsOfFrequenciesAreReadBackAsLlamas) {
  struct Scheme { double factor, high, original, theta; int64_t dimensions; };
  TemporaryFolder folder;
  for (const Scheme& scheme : {Scheme{8, 4, 8192, 500000, 128}, {32, 4, 8192, 500000, 64}, {8, 4, 1024, 10000, 32}, {4, 2, 64, 10000, 64}}) {
    at::Tensor divisors = at::empty(scheme.dimensions / 2);
    for (int64_t j = 0; j < divisors.numel(); ++j) {
      // As the scheme's own code has it: by wavelengths.
      const double length = 2 * M_PI * std::pow(scheme.theta, 2.0 * static_cast<double>(j) / static_cast<double>(scheme.dimensions));
      const double smooth = (scheme.original / length - 1) / (scheme.high - 1);
      divisors[j] = length < scheme.original / scheme.high ? 1 : length > scheme.original ? scheme.factor : 1 / ((1 - smooth) / scheme.factor + smooth);
    }
    GgufMetadata metadata;
    metadata.set("general.architecture", GgufValue::text("llama"));
    for (const auto& [key, value] : {std::pair{"block_count", 0}, {"embedding_length", 8}, {"attention.head_count", 1}, {"feed_forward_length", 8}})
      metadata.set(std::string("llama.") + key, GgufValue::u32(static_cast<uint32_t>(value)));
    metadata.set("llama.rope.freq_base", GgufValue::f32(static_cast<float>(scheme.theta)));
    const std::vector<GgufTensor> tensors{GgufTensor::plain("token_embd.weight", at::ones({4, 8})), GgufTensor::plain("rope_freqs.weight", divisors)};
    write_gguf(folder / "x.gguf", metadata, tensors);
    const HubView view = hub_view(std::make_shared<Gguf>(folder / "x.gguf"));
    const Node& scaling = *view.config.find("rope_scaling");
    EXPECT_EQ(scaling.find("rope_type")->scalar(), "llama3");
    EXPECT_EQ(std::stod(scaling.find("factor")->scalar()), scheme.factor);
    EXPECT_EQ(std::stod(scaling.find("high_freq_factor")->scalar()), scheme.high);
    EXPECT_EQ(std::stod(scaling.find("original_max_position_embeddings")->scalar()), scheme.original);
    EXPECT_FALSE(view.weights->has("rope_freqs.weight"));

    divisors[0] = 1.5;  // a scheme that is not Llama's
    write_gguf(folder / "y.gguf", metadata, tensors);
    EXPECT_EQ(expect_error([&] { (void)hub_view(std::make_shared<Gguf>(folder / "y.gguf")); }).code(), "model.gguf");
  }
}

/// The smallest file of an architecture, to be changed.
std::pair<GgufMetadata, std::vector<GgufTensor>> parts_of(const Gguf& file) {
  std::vector<GgufTensor> tensors;
  for (const TensorInfo& info : file.tensors()) tensors.push_back(GgufTensor::plain(info.name, file.get(info.name)));
  return {file.metadata(), std::move(tensors)};
}

TEST(GgufHub, WhatIsNotUnderstoodIsRefusedByName) {
  TemporaryFolder folder;
  const Gguf file(golden("gguf/qwen3_moe.gguf"));
  const auto error = [&](auto&& change) {
    auto [metadata, tensors] = parts_of(file);
    change(metadata, tensors);
    write_gguf(folder / "x.gguf", metadata, tensors);
    return expect_error([&] { (void)load_model(folder / "x.gguf"); });
  };
  const Error other = error([](GgufMetadata& metadata, auto&) { metadata.set("general.architecture", GgufValue::text("rwkv7")); });
  EXPECT_EQ(other.code(), "model.gguf");
  EXPECT_NE(other.message().find("qwen3moe"), std::string::npos) << other.what();
  EXPECT_EQ(error([](GgufMetadata& metadata, auto&) { metadata.erase("qwen3moe.attention.head_count"); }).code(), "formats.gguf.missing_key");
  EXPECT_EQ(error([](GgufMetadata& metadata, auto&) { metadata.set("qwen3moe.block_count", GgufValue::u32(4000000000u)); }).code(), "model.gguf");
  EXPECT_EQ(error([](GgufMetadata&, auto& tensors) { tensors.erase(tensors.begin() + 5); }).code(), "model.missing_tensor");
  const Error more = error([](GgufMetadata&, auto& tensors) { tensors.push_back(GgufTensor::plain("blk.0.ffn_side.weight", at::ones({2}))); });
  EXPECT_EQ(more.code(), "model.unexpected_tensor");
  EXPECT_NE(more.message().find("blk.0.ffn_side.weight"), std::string::npos) << more.what();
}

}  // namespace
}  // namespace switchyard
