#include "switchyard/base/json.h"
#include "switchyard/formats/safetensors.h"

#include <ATen/ATen.h>
#include <sys/resource.h>


#include "switchyard/base/files.h"
#include "tests/files.h"
#include "tests/support.h"

namespace switchyard {
namespace {

using testing::difference;
using testing::expect_error;
using testing::golden;
using testing::run_python;
using testing::TemporaryFolder;
using testing::write_text;

/// A file from a header text and data.
std::string file_of(const std::string& header, const std::string& data) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(static_cast<uint64_t>(header.size()) >> (8 * i)));
  return bytes + header + data;
}

std::string hex(const at::Tensor& tensor) {
  std::string text;
  const at::Tensor plain = tensor.contiguous();
  const auto* bytes = static_cast<const uint8_t*>(plain.const_data_ptr());
  for (size_t i = 0; i < plain.nbytes(); ++i) text += fmt::format("{:02x}", bytes[i]);
  return text;
}

std::string refusal_of(const std::string& bytes) {
  TemporaryFolder folder;
  write_text(folder / "x.safetensors", bytes);
  return expect_error([&] { Safetensors(folder / "x.safetensors"); }).code();
}

TEST(Safetensors, ReadsEveryDtypeBitForBit) {
  const Safetensors file(golden("safetensors/all-dtypes.safetensors"));
  const auto expected = json_from(read_file(golden("safetensors/all-dtypes.json")));
  EXPECT_EQ(file.tensors().size(), expected.size());
  for (const auto& [name, entry] : expected.items()) {
    const at::Tensor tensor = file.get(name);
    EXPECT_EQ(tensor.sizes().vec(), entry["shape"].get<std::vector<int64_t>>()) << name;
    EXPECT_EQ(hex(tensor), entry["bytes_hex"].get<std::string>()) << name;
  }
  EXPECT_EQ(file.get("t.F8_E8M0").scalar_type(), at::kFloat8_e8m0fnu);
  EXPECT_EQ(file.get("t.U16").scalar_type(), at::kUInt16);
  EXPECT_EQ(file.get("t.BOOL").scalar_type(), at::kBool);
  EXPECT_EQ(file.metadata().at("format"), "pt");
}

TEST(Safetensors, ReadsHandMadeFiles) {
  for (const std::string name : {"two-tensors", "odd-header", "unaligned"}) {
    const Safetensors file(golden("safetensors/" + name + ".safetensors"));
    EXPECT_EQ(difference(file.get("a"), at::tensor({1.0f, -2.0f})), 0) << name;
    EXPECT_TRUE(file.get("b").equal(at::tensor({1, 2, 3}, at::kByte))) << name;
  }
  const Safetensors escaped(golden("safetensors/escaped-name.safetensors"));
  EXPECT_EQ(difference(escaped.get("xé\"\n"), at::tensor({1.0f, -2.0f}).view({2, 1, 1})), 0);
  EXPECT_TRUE(Safetensors(golden("safetensors/no-tensors.safetensors")).tensors().empty());
}

TEST(Safetensors, ReadsShardsThroughTheirIndex) {
  const Safetensors folder(golden("safetensors/sharded"));
  ASSERT_EQ(folder.tensors().size(), 4u);
  EXPECT_TRUE(folder.has("layer.1.w"));
  EXPECT_EQ(folder.get("layer.0.b").dim(), 1);
}

TEST(Safetensors, ATensorOutlivesItsFileAndWritingToItIsPrivate) {
  TemporaryFolder folder;
  write_safetensors(folder / "x.safetensors", {{"a", at::arange(4, at::kFloat)}});
  at::Tensor tensor;
  {
    const Safetensors file(folder / "x.safetensors");
    tensor = file.get("a");
  }
  tensor.add_(1);
  EXPECT_EQ(difference(tensor, at::arange(1, 5, at::kFloat)), 0);
  EXPECT_EQ(difference(Safetensors(folder / "x.safetensors").get("a"), at::arange(4, at::kFloat)), 0);
}

TEST(Safetensors, RoundTripsWhatItWrites) {
  TemporaryFolder folder;
  const NamedTensors tensors{
      {"bytes", at::tensor({1, 2, 3}, at::kByte)},
      {"half", at::randn({3, 2}).to(at::kHalf)},
      {"brain", at::randn({5}).to(at::kBFloat16)},
      {"double \"quoted\" é", at::randn({2, 2}, at::kDouble)},
      {"long", at::tensor({int64_t{-1}, int64_t{1} << 40})},
      {"scalar", at::scalar_tensor(3.5f)},
      {"empty", at::empty({0, 7})},
      {"transposed", at::arange(6, at::kFloat).view({2, 3}).t()},
      {"truth", at::tensor({1, 0, 1}, at::kByte).to(at::kBool)},
      {"pairs", at::randn({2, 2}, at::kComplexFloat)},
      {"fp8", at::randn({4}).to(at::kFloat8_e4m3fn)},
      {"fp4", at::tensor({0x12, 0x34}, at::kByte).view(at::kFloat4_e2m1fn_x2)},
  };
  write_safetensors(folder / "x.safetensors", tensors, {{"note", "line\nbreak"}});
  const Safetensors file(folder / "x.safetensors");
  ASSERT_EQ(file.tensors().size(), tensors.size());
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor back = file.get(name);
    EXPECT_EQ(back.scalar_type(), tensor.scalar_type()) << name;
    EXPECT_EQ(back.sizes(), tensor.sizes()) << name;
    EXPECT_EQ(hex(back), hex(tensor)) << name;
  }
  EXPECT_EQ(file.metadata().at("note"), "line\nbreak");
  EXPECT_EQ(file.metadata().at("format"), "pt");
  const auto fp4 = std::find_if(file.tensors().begin(), file.tensors().end(),
                                [](const TensorInfo& info) { return info.name == "fp4"; });
  EXPECT_EQ(fp4->shape, std::vector<int64_t>{4});  // two values a byte
}

TEST(Safetensors, ShardsSplitAtTheirSize) {
  TemporaryFolder folder;
  NamedTensors tensors;
  for (int i = 0; i < 5; ++i) tensors.emplace_back("t" + std::to_string(i), at::full({10}, i, at::kFloat));
  write_safetensors_folder(folder.path(), tensors, 80, {{"note", "x"}});
  EXPECT_TRUE(std::filesystem::exists(folder / "model-00003-of-00003.safetensors"));
  const Safetensors read(folder.path());
  for (const auto& [name, tensor] : tensors) EXPECT_TRUE(read.get(name).equal(tensor)) << name;
  EXPECT_EQ(read.metadata().at("note"), "x");
  EXPECT_EQ(Safetensors(folder / "model-00002-of-00003.safetensors").metadata().at("note"), "x");

  TemporaryFolder single;
  write_safetensors_folder(single.path(), tensors);
  EXPECT_TRUE(std::filesystem::exists(single / "model.safetensors"));
  EXPECT_EQ(Safetensors(single.path()).tensors().size(), 5u);
}

TEST(Safetensors, WriterRefusesWhatTheFormatCannotHold) {
  TemporaryFolder folder;
  const auto code = [&](const NamedTensors& tensors) {
    const Error error = expect_error([&] { write_safetensors(folder / "x.safetensors", tensors); });
    EXPECT_FALSE(std::filesystem::exists(folder / "x.safetensors"));
    return error.code();
  };
  EXPECT_EQ(code({{"a", at::ones(1)}, {"a", at::ones(1)}}), "formats.safetensors.write");
  EXPECT_EQ(code({{"a", at::Tensor()}}), "formats.safetensors.write");
  EXPECT_EQ(code({{"a", at::ones({1}, at::kComplexDouble)}}), "formats.safetensors.write");
  EXPECT_EQ(code({{"__metadata__", at::ones(1)}}), "formats.safetensors.write");
  EXPECT_EQ(code({{"\xff", at::ones(1)}}), "formats.safetensors.write");
}

TEST(Safetensors, MalformedFilesAreRefusedByCode) {
  const std::map<std::string, std::string> codes{
      {"empty", "size"}, {"short-length", "size"}, {"truncated-header", "size"}, {"length-overflow", "size"},
      {"overlap", "offsets"}, {"out-of-range", "offsets"}, {"duplicate-name", "duplicate"}, {"wrong-bytes", "shape"},
      {"shape-overflow", "shape"}, {"non-utf8", "header"}, {"deep-json", "header"}, {"bool-shape", "header"}};
  for (const auto& [file, code] : codes) {
    const auto path = golden("malformed/st-" + file + ".safetensors");
    const Error error = expect_error([&] { Safetensors{path}; });
    EXPECT_EQ(error.code(), "formats.safetensors." + code) << file << ": " << error.what();
    EXPECT_NE(error.message().find(path.filename().string()), std::string::npos) << error.what();
  }
}

TEST(Safetensors, OddHeadersAreRefusedByCode) {
  const std::string data(8, '\0');
  const auto tensor = [&](const std::string& fields) { return refusal_of(file_of("{\"a\":{" + fields + "}}", data)); };
  EXPECT_EQ(tensor(R"("dtype":"F32","shape":[2])"), "formats.safetensors.header");
  EXPECT_EQ(tensor(R"("dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8])"), "formats.safetensors.duplicate");
  EXPECT_EQ(tensor(R"("dtype":"F33","shape":[2],"data_offsets":[0,8])"), "formats.safetensors.dtype");
  EXPECT_EQ(tensor(R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])"), "formats.safetensors.header");
  EXPECT_EQ(tensor(R"("dtype":"F32","shape":[2.5],"data_offsets":[0,8])"), "formats.safetensors.header");
  EXPECT_EQ(tensor(R"("dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,8])"), "formats.safetensors.header");
  EXPECT_EQ(tensor(R"("dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8])"), "formats.safetensors.shape");
  EXPECT_EQ(tensor(R"("dtype":"F32","shape":[0,4611686018427387904,8],"data_offsets":[0,0])"), "formats.safetensors.shape");
  EXPECT_EQ(tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,8,9])"), "formats.safetensors.header");
  EXPECT_EQ(tensor(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])"), "formats.safetensors.offsets");
  EXPECT_EQ(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0,4])"), "formats.safetensors.offsets");  // bytes at the end
  EXPECT_EQ(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[4,8])"), "formats.safetensors.offsets");  // a hole
  EXPECT_EQ(tensor(R"("dtype":"F4","shape":[15],"data_offsets":[0,8])"), "formats.safetensors.shape");   // half a byte
  EXPECT_EQ(refusal_of(file_of("[1]", "")), "formats.safetensors.header");
  EXPECT_EQ(refusal_of(file_of("", "")), "formats.safetensors.header");
  EXPECT_EQ(refusal_of(file_of("{\"a\":1}", "")), "formats.safetensors.header");
  EXPECT_EQ(refusal_of(file_of("{} {}", "")), "formats.safetensors.header");
  EXPECT_EQ(refusal_of(file_of(R"({"__metadata__":{"a":1}})", "")), "formats.safetensors.header");
  EXPECT_EQ(refusal_of(file_of(R"({"__metadata__":{"a":"b","a":"c"}})", "")), "formats.safetensors.duplicate");
  std::string dimensions = "1";
  for (int i = 0; i < 100; ++i) dimensions += ",1";
  EXPECT_EQ(tensor(R"("dtype":"F64","data_offsets":[0,8],"shape":[)" + dimensions + "]"), "formats.safetensors.shape");
}

TEST(Safetensors, FieldsOfLaterVersionsArePassedOver) {
  TemporaryFolder folder;
  write_text(folder / "x.safetensors", file_of(R"({"a":{"more":{"x":[1,{"y":null}]},"dtype":"U8","shape":[2],)"
                                               R"("data_offsets":[0,2],"scale":1.5}})", "\1\2"));
  EXPECT_TRUE(Safetensors(folder / "x.safetensors").get("a").equal(at::tensor({1, 2}, at::kByte)));
  std::string deep = R"({"a":{"more":)" + std::string(100000, '[');
  EXPECT_EQ(refusal_of(file_of(deep, "")), "formats.safetensors.header");
}

TEST(Safetensors, OpeningALargeFileReadsItsHeaderOnly) {
  // A file of 1 TiB that is all hole behind its header: reading it, or keeping it in memory, would end the test another way.
  TemporaryFolder folder;
  const uint64_t bytes = uint64_t{1} << 40;
  std::string start = file_of(R"({"a":{"dtype":"BF16","shape":[)" + std::to_string(bytes / 4) + R"(,2],"data_offsets":[0,)" +
                                  std::to_string(bytes) + "]}}", "");
  write_text(folder / "x.safetensors", start);
  std::error_code failed;
  std::filesystem::resize_file(folder / "x.safetensors", start.size() + bytes, failed);
  if (failed) GTEST_SKIP() << "this file system makes no sparse file of 1 TiB: " << failed.message();
  const Safetensors file(folder / "x.safetensors");
  EXPECT_EQ(file.get("a")[12345][1].item<float>(), 0);

  // The same as a header: refused by its length.
  std::string length(8, '\xff');
  length[5] = length[6] = length[7] = '\0';
  write_text(folder / "y.safetensors", length + "{");
  std::filesystem::resize_file(folder / "y.safetensors", (uint64_t{1} << 40) + 8);
  EXPECT_EQ(expect_error([&] { Safetensors{folder / "y.safetensors"}; }).code(), "formats.safetensors.size");
}

TEST(Safetensors, EveryTruncationIsAnError) {
  TemporaryFolder folder;
  write_safetensors(folder / "x.safetensors", {{"a", at::ones({2, 3})}, {"b", at::ones({3}, at::kByte)}});
  const std::string whole = read_file(folder / "x.safetensors");
  for (size_t size = 0; size < whole.size(); ++size)
    EXPECT_EQ(refusal_of(whole.substr(0, size)).substr(0, 20), "formats.safetensors.") << size;
}

TEST(Safetensors, FlippedBytesNeverCrash) {
  TemporaryFolder folder;
  write_safetensors(folder / "x.safetensors", {{"a", at::ones({2, 3})}, {"b", at::ones({3}, at::kByte)}}, {{"k", "v"}});
  const std::string whole = read_file(folder / "x.safetensors");
  for (size_t at = 0; at < whole.size() - 27; ++at)  // the length and the header
    for (const int flip : {0x01, 0x20, 0x80}) {
      std::string broken = whole;
      broken[at] = static_cast<char>(broken[at] ^ flip);
      write_text(folder / "y.safetensors", broken);
      try {
        const Safetensors file(folder / "y.safetensors");
        for (const TensorInfo& info : file.tensors()) (void)file.get(info.name).sizes();
      } catch (const Error& error) {
        EXPECT_EQ(error.code().substr(0, 20), "formats.safetensors.") << error.what();
      }
    }
}

TEST(Safetensors, AnIndexReachesOnlyFilesBesideIt) {
  const auto code = [](const std::string& index) {
    TemporaryFolder folder;
    write_safetensors(folder / "a.safetensors", {{"w", at::ones(1)}});
    write_text(folder / "model.safetensors.index.json", index);
    const Error error = expect_error([&] { Safetensors{folder.path()}; });
    EXPECT_NE(error.message().find("index.json"), std::string::npos) << error.what();
    return error.code();
  };
  for (const std::string where : {"../a.safetensors", "/etc/passwd", "..", "", "x/../a.safetensors", "a\\\\b", "b.safetensors"})
    EXPECT_EQ(code("{\"weight_map\":{\"w\":\"" + where + "\"}}"), "formats.safetensors.index") << where;
  EXPECT_EQ(code(R"({"weight_map":{"v":"a.safetensors"}})"), "formats.safetensors.index");
  EXPECT_EQ(code(R"({"weight_map":{"w":1}})"), "formats.safetensors.index");
  EXPECT_EQ(code(R"({"weight_map":[]})"), "formats.safetensors.index");
  EXPECT_EQ(code("{}"), "formats.safetensors.index");
  EXPECT_EQ(code("not JSON"), "formats.safetensors.index");
  EXPECT_EQ(code(std::string(100000, '[')), "formats.safetensors.index");
  EXPECT_EQ(code("{\"weight_map\":{\"\xff\":\"a.safetensors\"}}"), "formats.safetensors.index");
  EXPECT_EQ(code(read_file(golden("malformed/idx-missing-shard.model.safetensors.index.json"))), "formats.safetensors.index");
  EXPECT_EQ(code(read_file(golden("malformed/idx-not-json.model.safetensors.index.json"))), "formats.safetensors.index");
}

TEST(Safetensors, ATensorInTwoShardsIsRefused) {
  TemporaryFolder folder;
  write_safetensors(folder / "a.safetensors", {{"w", at::ones(1)}});
  write_safetensors(folder / "b.safetensors", {{"w", at::ones(1)}, {"v", at::ones(1)}});
  write_text(folder / "model.safetensors.index.json", R"({"weight_map":{"w":"a.safetensors","v":"b.safetensors"}})");
  EXPECT_EQ(expect_error([&] { Safetensors{folder.path()}; }).code(), "formats.safetensors.duplicate");
}

TEST(Safetensors, AbsentThingsAreNamed) {
  TemporaryFolder folder;
  EXPECT_EQ(expect_error([&] { Safetensors{folder / "no.safetensors"}; }).code(), "file.missing");
  EXPECT_EQ(expect_error([&] { Safetensors{folder.path()}; }).code(), "formats.safetensors.folder");
  write_safetensors(folder / "x.safetensors", {{"layers.0.up", at::ones(1)}});
  const Error error = expect_error([&] { Safetensors(folder / "x.safetensors").get("layers.0.upp"); });
  EXPECT_EQ(error.code(), "formats.safetensors.missing");
  EXPECT_NE(error.message().find("layers.0.up\""), std::string::npos) << error.what();
}

TEST(Safetensors, WhatLibtorchHasNoTensorForIsBytesAndIsWrittenBack) {
  TemporaryFolder folder;
  const std::string bytes = file_of(R"({"a":{"dtype":"F6_E2M3","shape":[2,4],"data_offsets":[0,6]},)"
                                    R"("b":{"dtype":"F6_E3M2","shape":[4],"data_offsets":[6,9]},)"
                                    R"("c":{"dtype":"F4","shape":[2,3],"data_offsets":[9,12]},)"
                                    R"("d":{"dtype":"F4","shape":[3,2],"data_offsets":[12,15]},)"
                                    R"("e":{"dtype":"F6_E2M3","shape":[0,3],"data_offsets":[15,15]}})",
                                    "abcdefghijklmno");
  write_text(folder / "x.safetensors", bytes);
  const Safetensors file(folder / "x.safetensors");
  EXPECT_EQ(file.tensors()[0].shape, (std::vector<int64_t>{2, 4}));
  NamedTensors tensors;
  for (const TensorInfo& info : file.tensors()) tensors.emplace_back(info.name, file.get(info.name));
  EXPECT_TRUE(tensors[0].second.equal(at::tensor({'a', 'b', 'c', 'd', 'e', 'f'}, at::kByte)));
  EXPECT_TRUE(tensors[2].second.equal(at::tensor({'j', 'k', 'l'}, at::kByte)));
  EXPECT_EQ(tensors[3].second.scalar_type(), at::kFloat4_e2m1fn_x2);
  EXPECT_EQ(tensors[4].second.numel(), 0);
  write_safetensors_folder(folder.path(), tensors, 8, {}, file.tensors());  // in two shards
  const Safetensors back(folder.path());
  ASSERT_EQ(back.tensors().size(), tensors.size());
  for (const TensorInfo& info : file.tensors()) {
    const auto same = std::find_if(back.tensors().begin(), back.tensors().end(), [&](const TensorInfo& other) { return other.name == info.name; });
    ASSERT_NE(same, back.tensors().end()) << info.name;
    EXPECT_EQ(same->dtype, info.dtype) << info.name;
    EXPECT_EQ(same->shape, info.shape) << info.name;
    EXPECT_EQ(hex(back.get(info.name)), hex(file.get(info.name))) << info.name;
  }
  tensors[0].second = at::zeros({5}, at::kByte);
  const Error error = expect_error([&] { write_safetensors(folder / "y.safetensors", tensors, {}, file.tensors()); });
  EXPECT_EQ(error.code(), "formats.safetensors.write");
  EXPECT_NE(error.message().find("F6_E2M3 [2, 4]"), std::string::npos) << error.what();
  EXPECT_EQ(refusal_of(file_of(R"({"a":{"dtype":"F6_E2M3","shape":[3],"data_offsets":[0,3]}})", "abc")), "formats.safetensors.shape");
}

TEST(Safetensors, ThePythonLibraryReadsOursAndTheReverse) {
  SWITCHYARD_NEED_PYTHON(python, "torch,safetensors");
  TemporaryFolder folder;
  write_safetensors(folder / "ours.safetensors",
                    {{"half", at::arange(3, at::kFloat).to(at::kHalf)}, {"b", at::tensor({1, 2, 3}, at::kByte)},
                     {"w", at::arange(6, at::kFloat).view({2, 3}).t()}, {"f8", at::arange(4, at::kFloat).to(at::kFloat8_e5m2)},
                     {"f4", at::tensor({0x12, 0x34}, at::kByte).view(at::kFloat4_e2m1fn_x2)},
                     {"scalar", at::scalar_tensor(2.5, at::kDouble)}, {"empty", at::empty({0, 3}, at::kLong)}},
                    {{"note", "é"}});
  const auto done = run_python(python, R"(
import sys, torch
from safetensors import safe_open
from safetensors.torch import save_file
folder = sys.argv[1]
with safe_open(folder + '/ours.safetensors', 'pt') as f:
    assert f.metadata() == {'format': 'pt', 'note': 'é'}, f.metadata()
    t = {k: f.get_tensor(k) for k in f.keys()}
assert t['half'].dtype == torch.float16 and t['half'].tolist() == [0, 1, 2]
assert t['b'].dtype == torch.uint8 and t['b'].tolist() == [1, 2, 3]
assert t['w'].tolist() == [[0, 3], [1, 4], [2, 5]]
assert t['f8'].dtype == torch.float8_e5m2 and t['f8'].float().tolist() == [0, 1, 2, 3]
assert t['f4'].dtype == torch.float4_e2m1fn_x2 and t['f4'].view(torch.uint8).tolist() == [0x12, 0x34], t['f4'].shape
assert t['scalar'].item() == 2.5 and t['scalar'].dtype == torch.float64
assert t['empty'].shape == (0, 3) and t['empty'].dtype == torch.int64
save_file(t, folder + '/theirs.safetensors', {'from': 'python'})
)", folder.path().string());
  ASSERT_EQ(done.status, 0) << done.output;
  const Safetensors ours(folder / "ours.safetensors"), theirs(folder / "theirs.safetensors");
  ASSERT_EQ(theirs.tensors().size(), ours.tensors().size());
  for (const TensorInfo& info : ours.tensors()) {
    EXPECT_EQ(theirs.get(info.name).sizes(), ours.get(info.name).sizes()) << info.name;
    EXPECT_EQ(theirs.get(info.name).scalar_type(), ours.get(info.name).scalar_type()) << info.name;
    EXPECT_EQ(hex(theirs.get(info.name)), hex(ours.get(info.name))) << info.name;
  }
  EXPECT_EQ(theirs.metadata().at("from"), "python");
}

TEST(Safetensors, AFullDiskLeavesNothingBehind) {
  TemporaryFolder folder;
  struct rlimit old {};
  ::getrlimit(RLIMIT_FSIZE, &old);
  struct rlimit small = old;
  small.rlim_cur = 4096;
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);  // the write then fails with an error, like a full disk
  ::setrlimit(RLIMIT_FSIZE, &small);
  const Error error = expect_error([&] { write_safetensors(folder / "x.safetensors", {{"a", at::ones({4096})}}); });
  ::setrlimit(RLIMIT_FSIZE, &old);
  ::signal(SIGXFSZ, handler);
  EXPECT_EQ(error.code(), "file.write");
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace switchyard
