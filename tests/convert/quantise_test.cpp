#include "switchyard/convert/quantise.h"

#include <ATen/ATen.h>

#include "switchyard/formats/gguf.h"
#include "switchyard/models/checkpoint.h"
#include "tests/files.h"
#include "tests/models/decoder_support.h"
#include "tests/support.h"

namespace switchyard {
namespace {

using testing::expect_error;
using testing::golden;
using testing::randn;
using testing::run_command;
using testing::run_logits;
using testing::TemporaryFolder;

/// A file of every role, rows of 256.
void write_model(const std::filesystem::path& path) {
  GgufMetadata metadata;
  metadata.set("general.architecture", GgufValue::text("none"));
  metadata.set("general.file_type", GgufValue::u32(0));
  std::vector<GgufTensor> tensors;
  int seed = 0;
  for (const char* name : {"token_embd.weight", "output.weight", "blk.0.attn_q.weight", "blk.0.ffn_gate_inp.weight", "blk.0.ffn_up.weight", "blk.0.ffn_up_shexp.weight"})
    tensors.push_back(GgufTensor::plain(name, randn({4, 256}, static_cast<uint64_t>(++seed), at::kFloat)));
  tensors.push_back(GgufTensor::plain("blk.0.ffn_up_exps.weight", randn({3, 4, 256}, 9, at::kFloat)));
  tensors.push_back(GgufTensor::plain("blk.0.attn_k.weight", randn({4, 96}, 10, at::kFloat)));
  tensors.push_back(GgufTensor::plain("blk.0.attn_v.weight", randn({4, 20}, 11, at::kFloat)));
  tensors.push_back(GgufTensor::plain("blk.0.attn_norm.weight", randn({256}, 12, at::kFloat)));
  tensors.push_back(GgufTensor::plain("blk.0.table.weight", at::ones({4, 256}, at::kInt)));
  write_gguf(path, metadata, tensors);
}

TEST(QuantiseGguf, EachRoleGetsItsType) {
  TemporaryFolder folder;
  write_model(folder / "m.gguf");
  const QuantiseReport report =
      quantise_gguf(folder / "m.gguf", folder / "q.gguf", {.type = "q4_k", .keep = parse_keep("head=Q6_K,experts=mxfp4,blk.0.ffn_up.weight=bf16")});
  const Gguf before(folder / "m.gguf"), after(folder / "q.gguf");
  const std::map<std::string, std::string> types{
      {"token_embd.weight", "Q4_K"}, {"output.weight", "Q6_K"}, {"blk.0.attn_q.weight", "Q4_K"}, {"blk.0.ffn_gate_inp.weight", "F32"},
      {"blk.0.ffn_up.weight", "BF16"}, {"blk.0.ffn_up_shexp.weight", "Q4_K"}, {"blk.0.ffn_up_exps.weight", "MXFP4"},
      {"blk.0.attn_k.weight", "Q8_0"}, {"blk.0.attn_v.weight", "F16"}, {"blk.0.attn_norm.weight", "F32"}, {"blk.0.table.weight", "I32"}};
  ASSERT_EQ(after.tensors().size(), types.size());
  uint64_t bytes = 0;
  for (const TensorInfo& info : after.tensors()) {
    EXPECT_EQ(info.dtype, types.at(info.name)) << info.name;
    bytes += info.bytes;
    const at::Tensor was = before.get(info.name), is = after.get(info.name);
    EXPECT_EQ(was.sizes(), is.sizes());
    const double off = ((is - was).to(at::kFloat).norm() / was.to(at::kFloat).norm()).item<double>();
    EXPECT_LT(off, info.dtype == "MXFP4" ? 0.15 : 0.09) << info.name;
    EXPECT_TRUE(is.equal(was) || (info.dtype != "F32" && info.dtype != "I32")) << info.name;
  }
  EXPECT_EQ(report.bytes_after, bytes);
  EXPECT_EQ(report.packed, 6);
  EXPECT_EQ(report.packed_again, 0);
  EXPECT_EQ(report.fallbacks, (std::vector<std::string>{"blk.0.attn_k.weight: Q8_0", "blk.0.attn_v.weight: F16"}));
  EXPECT_EQ(after.metadata().integer("general.file_type"), 14);
  // What has the type already is copied byte for byte, and what was packed otherwise is counted.
  const QuantiseReport again = quantise_gguf(folder / "q.gguf", folder / "r.gguf", {.type = "Q4_K", .keep = parse_keep("head=Q6_K,experts=Q4_0")});
  EXPECT_EQ(again.packed_again, 1);
  const auto one = std::dynamic_pointer_cast<const BlockTensor>(after.packed("token_embd.weight"));
  const Gguf third(folder / "r.gguf");
  const auto two = std::dynamic_pointer_cast<const BlockTensor>(third.packed("token_embd.weight"));
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(one->row(0)), one->bytes()), std::string(reinterpret_cast<const char*>(two->row(0)), two->bytes()));
}

TEST(QuantiseGguf, APackedModelStillRuns) {
  TemporaryFolder folder;
  const auto program = std::string(SWITCHYARD_BINARY_DIR) + "/bin/switchyard";
  const auto done = run_command("'" + program + "' convert quantize '" + golden("gguf/qwen3_moe.gguf").string() + "' '" +
                                (folder / "q.gguf").string() + "' --type Q8_0 --keep router=f32");
  ASSERT_EQ(done.status, 0) << done.output;
  const LoadedModel whole = load_model(golden("gguf/qwen3_moe.gguf"), at::kFloat), packed = load_model(folder / "q.gguf", at::kFloat);
  const at::Tensor ids = testing::some_ids(12, 400), a = run_logits(*whole.decoder, ids, {12}), b = run_logits(*packed.decoder, ids, {12});
  EXPECT_GT((a - b).abs().max().item<double>(), 0);
  EXPECT_LT(((a - b).norm() / a.norm()).item<double>(), 0.05);
}

TEST(QuantiseGguf, WrongArgumentsAreRefusedByCode) {
  TemporaryFolder folder;
  write_model(folder / "m.gguf");
  const auto code = [&](const QuantiseOptions& options) {
    const Error error = expect_error([&] { quantise_gguf(folder / "m.gguf", folder / "q.gguf", options); });
    EXPECT_FALSE(std::filesystem::exists(folder / "q.gguf"));
    return error.code();
  };
  EXPECT_EQ(code({.type = "Q9_K"}), "convert.quantise.type");
  EXPECT_EQ(code({.type = "IQ1_S"}), "convert.quantise.type");  // is only read
  EXPECT_EQ(code({.keep = {{"router", "Q9"}}}), "convert.quantise.type");
  EXPECT_EQ(code({.keep = {{"rooter", "F32"}}}), "convert.quantise.keep");
  for (const char* text : {"router", "=f32", "router=", "a=b,,"}) EXPECT_EQ(expect_error([&] { parse_keep(text); }).code(), "convert.quantise.keep") << text;
  EXPECT_TRUE(parse_keep("").empty());
  EXPECT_EQ(expect_error([&] { quantise_gguf(folder.path(), folder / "q.gguf", {}); }).code(), "convert.quantise.input");
  EXPECT_EQ(expect_error([&] { quantise_gguf(folder / "m.gguf", folder / "m.gguf", {}); }).code(), "convert.quantise.exists");
}

}  // namespace
}  // namespace switchyard
