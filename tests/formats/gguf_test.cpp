#include "switchyard/base/json.h"
#include "switchyard/formats/gguf.h"

#include <ATen/ATen.h>

#include <cmath>

#include "switchyard/base/files.h"
#include "switchyard/formats/gguf_header.h"
#include "switchyard/formats/safetensors.h"
#include "tests/files.h"
#include "tests/support.h"

namespace switchyard {
namespace {

using nlohmann::json;
using testing::expect_error;
using testing::golden;
using testing::run_python;
using testing::TemporaryFolder;
using testing::write_text;

/// A little-endian file, field by field.
struct Bytes {
  std::string text;
  template <typename T>
  Bytes& number(T value) { text.append(reinterpret_cast<const char*>(&value), sizeof value); return *this; }
  Bytes& string(std::string_view value) { number<uint64_t>(value.size()).text += value; return *this; }
  Bytes& raw(std::string_view value) { text += value; return *this; }
  Bytes& header(uint64_t tensors, uint64_t keys) { return raw("GGUF").number<uint32_t>(3).number(tensors).number(keys); }
  Bytes& tensor(std::string_view name, std::vector<uint64_t> extents, uint32_t type, uint64_t offset) {
    string(name).number(static_cast<uint32_t>(extents.size()));
    for (const uint64_t extent : extents) number(extent);
    return number(type).number(offset);
  }
  Bytes& data(size_t bytes) {
    text.resize((text.size() + 31) / 32 * 32 + bytes);
    return *this;
  }
};

gguf::Header parse(const std::string& bytes) {
  return gguf::read_header(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), "x.gguf");
}

std::string code_of(const std::string& bytes) {
  const Error error = expect_error([&] { (void)parse(bytes); });
  EXPECT_NE(error.message().find("x.gguf"), std::string::npos) << error.what();
  return error.code();
}

/// A value in the form of types.json.
json as_json(const GgufArray& array);
json as_json(GgufType type, uint64_t value) { return type == GgufType::boolean ? json(value != 0) : json(value); }
json as_json(GgufType, int64_t value) { return value; }
json as_json(GgufType, const std::string& value) { return value; }
json as_json(GgufType, const GgufArray& value) { return as_json(value); }
json as_json(GgufType, double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  return value;
}
json as_json(const GgufArray& array) {
  json items = json::array();
  std::visit([&](const auto& list) { for (const auto& item : list) items.push_back(as_json(array.element, item)); }, array.items);
  return {{"elem_type", static_cast<uint32_t>(array.element)}, {"items", items}};
}

TEST(Gguf, ReadsEveryTypeOfMetadataAndTensor) {
  const json expected = json_from(read_file(golden("gguf/types.json")));
  const Safetensors numbers(golden("gguf/types.safetensors"));
  for (const std::string name : {"align32", "align64", "align4096", "v2"}) {
    SCOPED_TRACE(name);
    const Gguf file(golden("gguf/types-" + name + ".gguf"));
    for (const json& entry : expected["keys"]) {
      const GgufValue* value = file.metadata().find(entry["key"].get<std::string>());
      ASSERT_NE(value, nullptr) << entry["key"];
      EXPECT_EQ(static_cast<int>(value->type), entry["type"].get<int>()) << entry["key"];
      const json found = std::visit([&](const auto& held) { return as_json(value->type, held); }, value->value);
      EXPECT_EQ(found, entry["value"]) << entry["key"];
    }
    EXPECT_EQ(file.tensors().size(), numbers.tensors().size());
    for (const TensorInfo& info : numbers.tensors()) {
      const at::Tensor tensor = file.get(info.name), wanted = numbers.get(info.name);
      EXPECT_EQ(tensor.sizes(), wanted.sizes()) << info.name;
      EXPECT_TRUE(tensor.to(wanted.scalar_type()).equal(wanted)) << info.name;
    }
    EXPECT_NE(file.packed("w.q8"), nullptr);
    EXPECT_EQ(file.packed("w.f32"), nullptr);
    EXPECT_EQ(file.get("w.f64").scalar_type(), at::kDouble);
    EXPECT_EQ(file.get("w.f16").scalar_type(), at::kHalf);
  }
  const Gguf empty(golden("gguf/empty.gguf"));
  EXPECT_TRUE(empty.tensors().empty());
}

TEST(Gguf, GettersConvertWhatIsExactAndNameWhatIsNot) {
  const Gguf file(golden("gguf/types-align32.gguf"));
  const GgufMetadata& metadata = file.metadata();
  EXPECT_EQ(metadata.integer("t.i8"), -128);
  EXPECT_EQ(metadata.integer("t.u32"), 4294967295);
  EXPECT_EQ(metadata.number("t.f32"), 1.5);
  EXPECT_EQ(metadata.number("t.u16"), 65535);
  EXPECT_TRUE(metadata.flag("t.bool"));
  EXPECT_EQ(metadata.text("general.architecture"), "llama");
  EXPECT_EQ(metadata.texts("a.str")[2], "ñ");
  EXPECT_EQ(metadata.integers("a.i32"), (std::vector<int64_t>{-1, 0, 7}));
  EXPECT_EQ(metadata.integers("a.u8"), (std::vector<int64_t>{1, 2, 255}));
  EXPECT_EQ(metadata.numbers("a.f32"), (std::vector<double>{0.5, -2}));
  EXPECT_EQ(metadata.integer("no.such", 7), 7);
  EXPECT_EQ(metadata.text("no.such", "x"), "x");
  const auto code = [&](auto&& ask) { return expect_error(ask).code(); };
  EXPECT_EQ(code([&] { (void)metadata.integer("t.u64"); }), "formats.gguf.key_type");  // beyond int64
  EXPECT_EQ(code([&] { (void)metadata.integers("a.u64"); }), "formats.gguf.key_type");
  EXPECT_EQ(code([&] { (void)metadata.integer("t.f32"); }), "formats.gguf.key_type");
  EXPECT_EQ(code([&] { (void)metadata.integer("t.bool"); }), "formats.gguf.key_type");
  EXPECT_EQ(code([&] { (void)metadata.flag("t.u8"); }), "formats.gguf.key_type");
  EXPECT_EQ(code([&] { (void)metadata.text("t.u8"); }), "formats.gguf.key_type");
  EXPECT_EQ(code([&] { (void)metadata.texts("a.u8"); }), "formats.gguf.key_type");
  EXPECT_EQ(code([&] { (void)metadata.numbers("a.str"); }), "formats.gguf.key_type");
  const Error missing = expect_error([&] { (void)metadata.text("general.architectur"); });
  EXPECT_EQ(missing.code(), "formats.gguf.missing_key");
  EXPECT_NE(missing.message().find("general.architecture"), std::string::npos) << missing.what();
  const Error tensor = expect_error([&] { (void)file.get("w.f3"); });
  EXPECT_EQ(tensor.code(), "formats.gguf.missing");
  EXPECT_NE(tensor.message().find("w.f32"), std::string::npos) << tensor.what();
}

TEST(Gguf, ASplitSetIsOneSourceWhicheverFileIsNamed) {
  const Gguf first(golden("gguf/split/mixtral-00001-of-00002.gguf")), second(golden("gguf/split/mixtral-00002-of-00002.gguf"));
  EXPECT_EQ(first.tensors().size(), 23u);
  EXPECT_EQ(second.tensors().size(), 23u);
  EXPECT_EQ(second.metadata().text("general.architecture"), "llama");
  EXPECT_TRUE(first.get("blk.1.attn_q.weight").equal(second.get("blk.1.attn_q.weight")));
}

TEST(Gguf, SetsThatDoNotFitAreRefused) {
  TemporaryFolder folder;
  const auto write = [&](const std::string& name, int number, int count, const std::string& tensor) {
    GgufMetadata metadata;
    metadata.set("split.no", GgufValue::u16(static_cast<uint16_t>(number)));
    metadata.set("split.count", GgufValue::u16(static_cast<uint16_t>(count)));
    Bytes file;
    file.header(1, 2).string("split.no").number<uint32_t>(2).number(static_cast<uint16_t>(number));
    file.string("split.count").number<uint32_t>(2).number(static_cast<uint16_t>(count));
    file.tensor(tensor, {1}, 0, 0).data(4);
    write_text(folder / name, file.text);
  };
  const auto code = [&](const std::string& name) { return expect_error([&] { Gguf{folder / name}; }).code(); };
  write("a-00001-of-00002.gguf", 0, 2, "x");
  EXPECT_EQ(code("a-00001-of-00002.gguf"), "formats.gguf.split");  // the second is not there
  write("a-00002-of-00002.gguf", 1, 2, "x");
  EXPECT_EQ(code("a-00001-of-00002.gguf"), "formats.gguf.duplicate");
  write("a-00002-of-00002.gguf", 0, 2, "y");
  EXPECT_EQ(code("a-00001-of-00002.gguf"), "formats.gguf.split");  // both say that they are the first
  write("a-00002-of-00002.gguf", 1, 3, "y");
  EXPECT_EQ(code("a-00001-of-00002.gguf"), "formats.gguf.split");
  write("b.gguf", 0, 2, "x");
  EXPECT_EQ(code("b.gguf"), "formats.gguf.split");  // its name says nothing of a set
  write("a-00002-of-00002.gguf", 1, 2, "y");
  EXPECT_EQ(Gguf(folder / "a-00002-of-00002.gguf").tensors().size(), 2u);
}

TEST(Gguf, MalformedFilesAreRefusedByCode) {
  const std::map<std::string, std::string> codes{
      {"bad-magic", "magic"}, {"version-99", "version"}, {"tensor-count", "size"}, {"string-overflow", "size"},
      {"align-zero", "alignment"}, {"align-odd", "alignment"}, {"unknown-type", "type"}, {"offset-outside", "offsets"},
      {"truncated-data", "offsets"}};
  for (const auto& [file, code] : codes) {
    const auto path = golden("malformed/gguf-" + file + ".gguf");
    const Error error = expect_error([&] { Gguf{path}; });
    EXPECT_EQ(error.code(), "formats.gguf." + code) << file << ": " << error.what();
    EXPECT_NE(error.message().find(path.filename().string()), std::string::npos) << error.what();
  }
  EXPECT_EQ(expect_error([&] { Gguf{golden("gguf/types-bigendian.gguf")}; }).code(), "formats.gguf.big_endian");
}

TEST(Gguf, HostileSizesAreRefusedBeforeAnythingIsAllocated) {
  constexpr uint64_t kHuge = uint64_t{1} << 63;
  const auto key = [](uint32_t type) { return Bytes().header(0, 1).string("k").number(type); };
  EXPECT_EQ(code_of(Bytes().header(0, 1).number(kHuge).raw("k").text), "formats.gguf.size");
  EXPECT_EQ(code_of(Bytes().header(0, kHuge).text), "formats.gguf.size");
  EXPECT_EQ(code_of(key(8).number(kHuge).raw("text").text), "formats.gguf.size");
  EXPECT_EQ(code_of(key(9).number<uint32_t>(9).number(uint64_t{1} << 60).raw("....").text), "formats.gguf.size");
  EXPECT_EQ(code_of(key(9).number<uint32_t>(10).number(uint64_t{1} << 61).raw("....").text), "formats.gguf.size");  // x 8 = 2^64
  EXPECT_EQ(code_of(key(9).number<uint32_t>(8).number(uint64_t{1} << 61).raw("....").text), "formats.gguf.size");
  EXPECT_EQ(code_of(key(13).number<uint32_t>(0).text), "formats.gguf.metadata");
  EXPECT_EQ(code_of(key(9).number<uint32_t>(13).number<uint64_t>(0).text), "formats.gguf.metadata");
  EXPECT_EQ(code_of(key(7).raw("\2").text), "formats.gguf.metadata");  // a truth value of 2
  Bytes deep = key(9);
  for (int i = 0; i < 1000000; ++i) deep.number<uint32_t>(9).number<uint64_t>(1);
  EXPECT_EQ(code_of(deep.text), "formats.gguf.metadata");
  EXPECT_EQ(code_of(Bytes().header(0, 2).string("k").number<uint32_t>(0).raw("1").string("k").number<uint32_t>(0).raw("1").text),
            "formats.gguf.duplicate");
  EXPECT_EQ(code_of(Bytes().header(0, 1).string("\xff").number<uint32_t>(0).raw("1").text), "formats.gguf.metadata");
  EXPECT_EQ(code_of(Bytes().header(0, 1).string("general.alignment").number<uint32_t>(10).number<uint64_t>(32).text),
            "formats.gguf.alignment");

  const auto tensor = [](std::vector<uint64_t> extents, uint32_t type, uint64_t offset, size_t bytes) {
    return code_of(Bytes().header(1, 0).tensor("t", std::move(extents), type, offset).data(bytes).text);
  };
  EXPECT_EQ(tensor({4}, 0, ~uint64_t{31}, 64), "formats.gguf.offsets");  // offset + size overflows
  EXPECT_EQ(tensor({4}, 0, 8, 64), "formats.gguf.offsets");              // unaligned
  EXPECT_EQ(tensor({uint64_t{1} << 32, uint64_t{1} << 32}, 0, 0, 64), "formats.gguf.shape");
  EXPECT_EQ(tensor({uint64_t{1} << 62, 4}, 0, 0, 64), "formats.gguf.shape");
  EXPECT_EQ(tensor({~uint64_t{0}}, 0, 0, 64), "formats.gguf.shape");
  EXPECT_EQ(tensor({0, uint64_t{1} << 62, 8}, 0, 0, 64), "formats.gguf.shape");
  EXPECT_EQ(tensor({1, 1, 1, 1, 1}, 0, 0, 64), "formats.gguf.shape");
  EXPECT_EQ(tensor({33}, 2, 0, 64), "formats.gguf.shape");  // no whole number of blocks
  EXPECT_EQ(tensor({4}, 4, 0, 64), "formats.gguf.type");    // a type that was removed
  EXPECT_EQ(code_of(Bytes().header(2, 0).tensor("t", {4}, 0, 0).tensor("t", {4}, 0, 32).data(64).text), "formats.gguf.duplicate");
  EXPECT_EQ(code_of(Bytes().header(2, 0).tensor("t", {16}, 0, 0).tensor("u", {4}, 0, 32).data(64).text), "formats.gguf.offsets");
  EXPECT_EQ(code_of(Bytes().raw("GGUF").number<uint32_t>(1).raw(std::string(64, '\0')).text), "formats.gguf.version");
  EXPECT_EQ(parse(Bytes().header(1, 0).tensor("t", {}, 0, 0).data(4).text).entries[0].bytes, 4u);  // a scalar
  EXPECT_EQ(parse(Bytes().header(1, 0).tensor("t", {4, 0}, 0, 0).text).entries[0].bytes, 0u);      // empty, at the very end
}

TEST(Gguf, AFileOfHolesAsksForNoMemory) {
  TemporaryFolder folder;
  const auto code = [&](const Bytes& start) {
    write_text(folder / "x.gguf", start.text);
    std::error_code failed;
    std::filesystem::resize_file(folder / "x.gguf", uint64_t{1} << 40, failed);
    if (failed) return std::string("formats.gguf.size");  // a file system without sparse files cannot be hurt so
    return expect_error([&] { Gguf{folder / "x.gguf"}; }).code();
  };
  constexpr uint64_t kMany = uint64_t{1} << 35;
  EXPECT_EQ(code(Bytes().header(kMany, 0)), "formats.gguf.size");
  EXPECT_EQ(code(Bytes().header(0, kMany)), "formats.gguf.size");
  EXPECT_EQ(code(Bytes().header(0, 1).number(kMany)), "formats.gguf.size");
  EXPECT_EQ(code(Bytes().header(0, 1).string("k").number<uint32_t>(8).number(kMany)), "formats.gguf.size");
  for (const uint32_t type : {0u, 8u, 9u}) EXPECT_EQ(code(Bytes().header(0, 1).string("k").number<uint32_t>(9).number(type).number(kMany)), "formats.gguf.size");
}

/// A file with a bit of everything, for damage.
std::string small_file(const std::filesystem::path& path) {
  GgufMetadata metadata;
  metadata.set("general.architecture", GgufValue::text("llama"));
  metadata.set("n", GgufValue::u32(7));
  metadata.set("texts", GgufValue::texts({"a", "", "ccc"}));
  metadata.set("nested", {GgufType::array, GgufArray{GgufType::array, std::vector<GgufArray>{{GgufType::i32, std::vector<int64_t>{1, -2}}}}});
  metadata.set("flags", {GgufType::array, GgufArray{GgufType::boolean, std::vector<uint64_t>{1, 0}}});
  write_gguf(path, metadata, {GgufTensor::plain("w", at::arange(6, at::kFloat).view({2, 3})),
                              GgufTensor::quantised("q", *block_codec_named("Q8_0"), at::arange(64, at::kFloat).view({2, 32})),
                              GgufTensor::plain("b", at::arange(3, at::kHalf))});
  return read_file(path);
}

TEST(Gguf, EveryTruncationIsAnError) {
  TemporaryFolder folder;
  const std::string whole = small_file(folder / "x.gguf");
  const size_t needed = whole.size() - 26;  // the padding after the last tensor, of 6 bytes, may be absent
  EXPECT_EQ(parse(whole.substr(0, needed)).entries.size(), 3u);
  for (size_t size = 0; size < needed; ++size) EXPECT_EQ(code_of(whole.substr(0, size)).substr(0, 13), "formats.gguf.") << size;
}

TEST(Gguf, DamagedBytesNeverCrash) {
  TemporaryFolder folder;
  const std::string whole = small_file(folder / "x.gguf");
  const Streams random(11);
  int refused = 0;
  constexpr int kRounds = 4000;
  for (int round = 0; round < kRounds; ++round) {
    std::string broken = whole;
    const uint64_t word = random.word({.purpose = "test.damage", .step = round});
    for (uint64_t k = 0; k <= word % 3; ++k) {
      const uint64_t draw = random.word({.purpose = "test.damage", .step = round, .micro = static_cast<int64_t>(k) + 1});
      // Mostly in the header; whole bytes, single bits, and the extremes that lengths and counts fear.
      const size_t place = draw % (draw >> 60 ? std::min<size_t>(whole.size(), 480) : whole.size());
      const uint8_t values[]{static_cast<uint8_t>(draw >> 32), static_cast<uint8_t>(broken[place] ^ 1 << (draw >> 40 & 7)), 0xff, 0x80, 0x7f, 0};
      broken[place] = static_cast<char>(values[(draw >> 48) % std::size(values)]);
    }
    if (word >> 62 == 0) broken.resize((word >> 8) % broken.size());
    try {
      (void)parse(broken);
      if (round % 16 != 0) continue;  // files are slow to make
      write_text(folder / "y.gguf", broken);
      const Gguf file(folder / "y.gguf");
      for (const TensorInfo& info : file.tensors()) (void)file.get(info.name).sizes();
    } catch (const Error& error) {
      EXPECT_EQ(error.code().substr(0, 13), "formats.gguf.") << error.what();
      ++refused;
    }
  }
  EXPECT_GT(refused, kRounds / 10);
  EXPECT_LT(refused, kRounds);
}

TEST(Gguf, RoundTripsWhatItReads) {
  TemporaryFolder folder;
  for (const std::string name : {"types-align32", "types-align64", "types-align4096", "empty"}) {
    const auto path = golden("gguf/" + name + ".gguf");
    const Gguf file(path);
    std::vector<GgufTensor> tensors;
    for (const TensorInfo& info : file.tensors()) {
      if (const auto packed = std::dynamic_pointer_cast<const BlockTensor>(file.packed(info.name)))
        tensors.push_back({info.name, &packed->codec(), info.shape, [packed] {
          return at::from_blob(const_cast<uint8_t*>(packed->row(0)), {static_cast<int64_t>(packed->bytes())}, at::kByte);
        }});
      else
        tensors.push_back(GgufTensor::plain(info.name, file.get(info.name)));
    }
    write_gguf(folder / "x.gguf", file.metadata(), tensors);
    EXPECT_TRUE(read_file(folder / "x.gguf") == read_file(path)) << name;
  }
}

TEST(Gguf, LargeFilesAreSplit) {
  TemporaryFolder folder;
  GgufMetadata metadata;
  metadata.set("general.architecture", GgufValue::text("llama"));
  metadata.set("general.alignment", GgufValue::u32(64));
  std::vector<GgufTensor> tensors;
  for (int i = 0; i < 5; ++i) tensors.push_back(GgufTensor::plain("t" + std::to_string(i), at::full({10}, i, at::kFloat)));
  const auto files = write_gguf(folder / "m.gguf", metadata, tensors, 80);
  ASSERT_EQ(files.size(), 3u);
  EXPECT_EQ(files[1].filename(), "m-00002-of-00003.gguf");
  const Gguf read(files[2]);
  EXPECT_EQ(read.metadata().text("general.architecture"), "llama");
  EXPECT_EQ(read.metadata().integer("split.tensors.count"), 5);
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(read.get("t" + std::to_string(i)).equal(at::full({10}, i, at::kFloat)));
  EXPECT_EQ(write_gguf(folder / "n.gguf", read.metadata(), tensors), std::vector{folder / "n.gguf"});
  EXPECT_FALSE(Gguf(folder / "n.gguf").metadata().has("split.count"));
}

TEST(Gguf, WriterRefusesWhatTheFormatCannotHold) {
  TemporaryFolder folder;
  const GgufTensor good = GgufTensor::plain("a", at::ones(1));
  const auto code = [&](const GgufMetadata& metadata, const std::vector<GgufTensor>& tensors) {
    const Error error = expect_error([&] { write_gguf(folder / "x.gguf", metadata, tensors); });
    EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
    return error.code();
  };
  const auto value = [&](GgufValue value) {
    GgufMetadata metadata;
    metadata.set("k", std::move(value));
    return code(metadata, {});
  };
  EXPECT_EQ(code({}, {good, good}), "formats.gguf.write");
  EXPECT_EQ(code({}, {GgufTensor::plain(std::string(64, 'n'), at::ones(1))}), "formats.gguf.write");
  EXPECT_EQ(code({}, {GgufTensor::plain("a", at::ones({1, 1, 1, 1, 1}))}), "formats.gguf.write");
  EXPECT_EQ(code({}, {{"a", block_codec_named("F32"), {2}, [] { return at::ones(1); }}}), "formats.gguf.write");
  EXPECT_EQ(value({GgufType::u8, uint64_t{256}}), "formats.gguf.write");
  EXPECT_EQ(value({GgufType::i16, int64_t{-32769}}), "formats.gguf.write");
  EXPECT_EQ(value({GgufType::text, uint64_t{1}}), "formats.gguf.write");
  EXPECT_EQ(value({GgufType::array, GgufArray{GgufType::boolean, std::vector<uint64_t>{2}}}), "formats.gguf.write");
  EXPECT_EQ(expect_error([] { GgufTensor::plain("a", at::ones(1, at::kComplexFloat)); }).code(), "formats.gguf.write");
  EXPECT_EQ(expect_error([] { GgufTensor::quantised("a", *block_codec_named("Q4_K"), at::ones({2, 255})); }).code(), "formats.quantise");
  EXPECT_EQ(expect_error([] { quantise_blocks(*block_codec_named("IQ1_S"), at::ones({1, 256})); }).code(), "formats.quantise");
  EXPECT_EQ(expect_error([] { quantise_blocks(*block_codec_named("Q4_0"), at::full({32}, INFINITY)); }).code(), "formats.quantise");
}

TEST(Gguf, ThePythonLibraryReadsOurs) {
  SWITCHYARD_NEED_PYTHON(python, "gguf,numpy");
  TemporaryFolder folder;
  small_file(folder / "x.gguf");
  const auto done = run_python(python, R"(
import sys, numpy as np
from gguf import GGUFReader, GGMLQuantizationType as T
from gguf.quants import dequantize
r = GGUFReader(sys.argv[1])
get = lambda k: r.fields[k].contents()
assert get('general.architecture') == 'llama' and get('n') == 7 and get('texts') == ['a', '', 'ccc']
assert [bool(x) for x in get('flags')] == [True, False]
t = {t.name: t for t in r.tensors}
assert t['w'].tensor_type == T.F32 and t['w'].data.tolist() == [[0, 1, 2], [3, 4, 5]]
assert t['b'].tensor_type == T.F16 and t['b'].data.tolist() == [0, 1, 2]
assert t['q'].tensor_type == T.Q8_0
assert np.abs(dequantize(t['q'].data, T.Q8_0) - np.arange(64).reshape(2, 32)).max() < 0.26
)", (folder / "x.gguf").string());
  EXPECT_EQ(done.status, 0) << done.output;
}

}  // namespace
}  // namespace switchyard
