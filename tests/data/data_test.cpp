#include "switchyard/data/data.h"

#include <filesystem>
#include <fstream>

#include "switchyard/base/files.h"
#include "tests/support.h"

namespace switchyard {
namespace {

TEST(Data, ResumesExactly) {
  const std::filesystem::path folder = std::filesystem::path(::testing::TempDir()) / "data-thin";
  std::filesystem::remove_all(folder);
  const std::filesystem::path source(SWITCHYARD_SOURCE_DIR);
  DataOptions options;
  options.domains = {{.name = "code", .paths = {(source / "switchyard/base").string()}},
                     {.name = "docs", .paths = {(source / "docs").string()}}};
  options.document_bytes = 2048;
  options.held_out = 0.1;
  options.sequence = 64;
  options.cache = (folder / "cache").string();
  auto stream = document_stream(options, 1 << 20);
  auto tokenizer = train_tokenizer({.vocabulary = 600}, stream);
  Data data(options, tokenizer, 3);
  for (int i = 0; i < 50; ++i) data.next(8);
  const DataPosition position = DataPosition::read(data.position().write());
  const Batch a = data.next(8);
  Data again(options, tokenizer, 3);
  again.seek(position);
  const Batch b = again.next(8);
  EXPECT_TRUE(a.ids.equal(b.ids));
  EXPECT_EQ(a.ids.size(0), 512);
}

}  // namespace
}  // namespace switchyard
