// Experts of a published file stay where the file has them: stacks are maps of its pages, wherever their matrices lie.
#include <ATen/ATen.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <functional>

#include "switchyard/base/files.h"
#include "switchyard/base/mapped_pages.h"
#include "switchyard/convert/export.h"
#include "switchyard/formats/safetensors.h"
#include "switchyard/models/checkpoint.h"
#include "tests/files.h"
#include "tests/models/decoder_support.h"

namespace switchyard {
namespace {

using testing::make_decoder;
using testing::run_logits;
using testing::some_ids;
using testing::TemporaryFolder;

/// Matrices of 64 KiB, eleven experts: sorted by name, 10 lies between 1 and 2.
constexpr const char* kInPlaceModel = R"(
vocabulary: 40
width: 128
layers: 2
context: 64
norm_eps: 1e-6
attention: {type: gqa, heads: 4, kv_heads: 2}
tied_embeddings: false
mixtures: [{experts: 11, expert: {type: swiglu, hidden: 128}, router: {type: sparse-topk, k: 2}, losses: [router-z]}]
)";

class InPlace : public ::testing::Test {
 protected:
  void SetUp() override {
    decoder_ = make_decoder(kInPlaceModel, at::kFloat, 3);
    LoadedModel model;
    model.decoder = decoder_;
    export_model(model, folder_ / "model");
  }
  /// The file again with its tensors in another order, with a longer header before them.
  void reorder(const std::function<bool(const std::string&, const std::string&)>& before, int64_t odd = 0) {
    const Safetensors file(folder_ / "model");
    NamedTensors tensors;
    for (const TensorInfo& info : file.tensors()) tensors.emplace_back(info.name, file.get(info.name).clone());
    std::sort(tensors.begin(), tensors.end(), [&](const auto& a, const auto& b) { return before(a.first, b.first); });
    write_safetensors(folder_ / "model/model.safetensors", tensors, {{"padding", std::string(static_cast<size_t>(odd), 'x')}});
  }
  void expect_the_same(bool in_place) {
    const std::shared_ptr<Decoder> loaded = load_model(folder_ / "model").decoder;
    for (const char* name : {"up", "gate", "down"}) {
      const std::string full = std::string("layers.1.feed_forward.experts.") + name;
      const at::Tensor got = loaded->schema().find(full).tensor(), expected = decoder_->schema().find(full).tensor();
      EXPECT_EQ(mapped(got), in_place) << full;
      EXPECT_TRUE(got.is_contiguous() && got.equal(expected)) << full;
    }
    const at::Tensor ids = some_ids(20, 40);
    at::NoGradGuard guard;
    EXPECT_TRUE(run_logits(*loaded, ids, {13, 7}).equal(run_logits(*decoder_, ids, {13, 7})));
  }
  /// Whether the memory map of this process says that the middle of a tensor is the file.
  bool mapped(const at::Tensor& tensor) const {
    const auto middle = reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) + tensor.nbytes() / 2;
    std::ifstream lines("/proc/self/maps");
    for (std::string line; std::getline(lines, line);) {
      uintptr_t begin = 0, end = 0;
      if (std::sscanf(line.c_str(), "%lx-%lx", &begin, &end) == 2 && begin <= middle && middle < end)
        return line.find((folder_ / "model/model.safetensors").string()) != std::string::npos;
    }
    return false;
  }
  TemporaryFolder folder_;
  std::shared_ptr<Decoder> decoder_;
};

TEST_F(InPlace, ExpertsStayInTheFileWhateverTheirOrder) {
  expect_the_same(true);
  reorder(std::less<>());
  expect_the_same(true);
  reorder(std::less<>(), 100);
  expect_the_same(true);
  reorder(std::greater<>());
  expect_the_same(true);
}

TEST_F(InPlace, AnotherTypeIsConvertedAndGivesTheFileBack) {
  const std::shared_ptr<Decoder> loaded = load_model(folder_ / "model", at::kBFloat16).decoder;
  const std::string name = "layers.1.feed_forward.experts.down";
  EXPECT_TRUE(loaded->schema().find(name).tensor().equal(decoder_->schema().find(name).tensor().to(at::kBFloat16)));
}

TEST(InPlaceFiles, WhatIsReadThroughAViewGivesItsPagesBack) {
  // Experts that lie transposed and interleaved are copied; the file's pages must not stay beside the copy.
  TemporaryFolder folder;
  LoadedModel model;
  model.decoder = make_decoder(R"(
vocabulary: 1024
width: 128
layers: 2
context: 64
attention: {type: gqa, heads: 4, bias: true, output_bias: true, sinks: true}
tied_embeddings: false
mixtures: [{experts: 8, expert: {type: clamped-swiglu, hidden: 128, bias: true}, router: {type: sparse-topk, k: 2, scorer: {type: linear, bias: true}}}]
)", at::kFloat, 3);
  ASSERT_EQ(export_model(model, folder / "model"), "gpt_oss");
  const LoadedModel loaded = load_model(folder / "model");
  const std::string file = (folder / "model/model.safetensors").string();
  std::ifstream lines("/proc/self/smaps");
  size_t resident = 0, kilobytes = 0;
  bool ours = false;
  for (std::string line; std::getline(lines, line);) {
    if (line.find(" r-") != std::string::npos || line.find(" rw") != std::string::npos) ours = line.find(file) != std::string::npos;
    if (ours && std::sscanf(line.c_str(), "Rss: %zu", &kilobytes) == 1) resident += kilobytes * 1024;
  }
  EXPECT_LT(resident, std::filesystem::file_size(file) / 2);
}

TEST(MappedPages, PiecesAreShownBehindEachOther) {
  TemporaryFolder folder;
  std::string text;
  for (int i = 0; i < 60000; ++i) text += static_cast<char>('a' + i % 23);
  testing::write_text(folder / "file", text);
  for (const size_t within : {size_t{0}, size_t{20}, size_t{4095}}) {
    auto file = std::make_unique<MappedFile>(folder / "file");
    const size_t places[] = {within + 16384, within, within + 32768};
    const uint8_t* begin = file->data();
    const std::shared_ptr<uint8_t> stack = FileMaps().stack({begin + places[0], begin + places[1], begin + places[2]}, 8192);
    ASSERT_NE(stack, nullptr);
    file.reset();  // what is shown does not need the first map
    std::string expected;
    for (const size_t place : places) expected += text.substr(place, 8192);
    EXPECT_EQ(std::string_view(reinterpret_cast<char*>(stack.get()), 3 * 8192), expected);
    stack.get()[7] = '!';  // a private copy
  }
  EXPECT_EQ(read_file(folder / "file"), text);
}

TEST(MappedPages, WhatCannotBeShownIsNot) {
  TemporaryFolder folder;
  testing::write_text(folder / "file", std::string(40000, 'x'));
  const MappedFile file(folder / "file");
  const FileMaps maps;
  const uint8_t* begin = file.data();
  EXPECT_EQ(maps.stack({begin, begin + 4097}, 4096), nullptr);   // another place in the page
  EXPECT_EQ(maps.stack({begin, begin + 8192}, 4000), nullptr);   // no whole pages
  EXPECT_EQ(maps.stack({begin, begin + 36864}, 8192), nullptr);  // beyond the end
  const std::vector<uint8_t> memory(8192);
  EXPECT_EQ(maps.stack({memory.data()}, 4096), nullptr);         // no file
  EXPECT_EQ(maps.stack({}, 4096), nullptr);
  std::filesystem::rename(folder / "file", folder / "away");
  testing::write_text(folder / "file", std::string(40000, 'y'));
  EXPECT_EQ(maps.stack({begin}, 4096), nullptr);                 // another file has its name
  maps.give_back(begin, file.size());
  maps.give_back(memory.data(), memory.size());
  EXPECT_EQ(begin[20000], 'x');
}

}  // namespace
}  // namespace switchyard
