#include "switchyard/data/packing.h"

#include <numeric>
#include <set>

#include "tests/data/data_support.h"

namespace switchyard {
namespace {

using testing::expect_error;
using testing::TemporaryFolder;
using testing::values;
using testing::write_text;

TEST(Shuffle, EveryNumberOnce) {
  for (const int64_t n : {1, 2, 3, 4, 5, 16, 17, 100, 1000, 4097}) {
    for (const uint64_t key : {0ULL, 1ULL, 0xDEADBEEFULL}) {
      const Shuffle shuffle(key, n);
      std::set<int64_t> seen;
      for (int64_t i = 0; i < n; ++i) seen.insert(shuffle(i));
      EXPECT_EQ(static_cast<int64_t>(seen.size()), n);
      EXPECT_EQ(*seen.begin(), 0);
      EXPECT_EQ(*seen.rbegin(), n - 1);
    }
  }
}

TEST(Shuffle, PlacesAreUniformOverKeys) {
  // Each of 5 numbers lands on each of 5 places about 1000 times in 5000 keys; standard deviation 28.
  std::vector<std::vector<int>> count(5, std::vector<int>(5));
  for (uint64_t key = 0; key < 5000; ++key) {
    const Shuffle shuffle(key * 0x9E3779B97F4A7C15ULL, 5);
    for (int64_t i = 0; i < 5; ++i) ++count[static_cast<size_t>(i)][static_cast<size_t>(shuffle(i))];
  }
  for (const auto& row : count)
    for (const int n : row) EXPECT_NEAR(n, 1000, 150);
  // Neighbours do not stay neighbours: of 10 000 about 2 pairs.
  const Shuffle shuffle(7, 10000);
  int together = 0;
  for (int64_t i = 0; i + 1 < 10000; ++i) together += std::abs(shuffle(i) - shuffle(i + 1)) == 1;
  EXPECT_LT(together, 12);
}

TEST(DrawDomains, ProportionsAreExactToOneRun) {
  const std::vector<double> weights = {1, 0, 2.5, 0.5, 0};
  for (double start : {0.0, 0.1, 0.5, 0.999999}) {
    const std::vector<int64_t> drawn = draw_domains(weights, 16, start);
    ASSERT_EQ(drawn.size(), 16u);
    const double expected[] = {4, 0, 10, 2, 0};
    for (int64_t d = 0; d < 5; ++d)
      EXPECT_NEAR(static_cast<double>(std::count(drawn.begin(), drawn.end(), d)), expected[d], d == 1 || d == 4 ? 0 : 1.0);
  }
  EXPECT_EQ(draw_domains({0, 0, 3}, 2, 0), (std::vector<int64_t>{2, 2}));
  // One run a batch: over evenly spread starts each domain has its share.
  int64_t first = 0;
  for (int i = 0; i < 100; ++i) first += draw_domains({1, 3}, 1, i / 100.0)[0] == 0;
  EXPECT_EQ(first, 25);
}

TEST(TokenFiles, BothWidthsComeBack) {
  for (const int64_t width : {2, 4}) {
    TemporaryFolder folder;
    const int64_t largest = width == 2 ? 65535 : 1000000;
    TokenFileWriter writer(folder.path(), "training", width);
    writer.add({1, 2, largest});
    writer.add({7, 8});
    EXPECT_EQ(writer.tokens(), 5);
    EXPECT_FALSE(std::filesystem::exists(folder / "training.tokens"));
    writer.commit();
    const TokenFile file(folder.path(), "training", width, largest + 1);
    EXPECT_EQ(file.documents(), 2);
    EXPECT_EQ(file.tokens(), 5);
    EXPECT_EQ(file.length(1), 2);
    int64_t out[3];
    file.read(0, 0, 3, out);
    EXPECT_EQ(std::vector<int64_t>(out, out + 3), (std::vector<int64_t>{1, 2, largest}));
    file.read(1, 1, 1, out);
    EXPECT_EQ(out[0], 8);
    const TokenFile narrow(folder.path(), "training", width, 5);
    const Error error = expect_error([&] { narrow.read(0, 0, 3, out); });
    EXPECT_EQ(error.code(), "data.cache");
    EXPECT_EQ(error.message(), fmt::format("{} holds token {}, but the vocabulary has 5; delete it",
                                           (folder / "training.tokens").string(), largest));
  }
}

TEST(TokenFiles, NoDocumentIsAFileToo) {
  TemporaryFolder folder;
  TokenFileWriter(folder.path(), "held_out", 2).commit();
  EXPECT_EQ(TokenFile(folder.path(), "held_out", 2, 10).tokens(), 0);
}

TEST(TokenFiles, DamageIsSeenAtOnce) {
  TemporaryFolder folder;
  TokenFileWriter writer(folder.path(), "t", 2);
  writer.add({1, 2, 3});
  writer.add({4, 5});
  writer.commit();
  const std::string tokens = read_file(folder / "t.tokens"), places = read_file(folder / "t.places");
  const auto refused = [&](const std::string& t, const std::string& p) {
    write_text(folder / "t.tokens", t);
    write_text(folder / "t.places", p);
    const Error error = expect_error([&] { TokenFile(folder.path(), "t", 2, 10); });
    EXPECT_EQ(error.code(), "data.cache");
    EXPECT_TRUE(error.message().starts_with(folder.path().string() + " is damaged (t ")) << error.message();
  };
  refused(tokens.substr(0, 8), places);
  refused(tokens, places.substr(0, 16));
  refused(tokens, places.substr(0, 20));
  refused(tokens, "");
  refused("", places);
  std::string wrong = places;
  std::swap(wrong[8], wrong[16]);  // places that fall
  refused(tokens, wrong);
  wrong = places;
  wrong[23] = '\x80';  // far outside
  refused(tokens, wrong);
}

TokenFile three_documents(const TemporaryFolder& folder) {
  TokenFileWriter writer(folder.path(), "t", 2);
  writer.add({1, 10, 11, 12, 2});  // 4 rows
  writer.add({1, 20, 2});          // 2 rows
  writer.add({1, 30, 31, 2});      // 3 rows
  writer.commit();
  return TokenFile(folder.path(), "t", 2, 100);
}

TEST(Packing, DocumentsFollowOneAnother) {
  TemporaryFolder folder;
  const TokenFile file = three_documents(folder);
  RunRows rows;
  DocumentCursor cursor;
  const auto same = [](int64_t i) { return i; };
  const auto no = [] { return false; };
  append_run(rows, file, 7, 5, same, cursor, no);
  EXPECT_EQ(rows.ids, (std::vector<int64_t>{1, 10, 11, 12, 1}));
  EXPECT_EQ(rows.targets, (std::vector<int64_t>{10, 11, 12, 2, 20}));  // the cut document's true next token
  EXPECT_EQ(rows.begin, (std::vector<int64_t>{0, 4, 5}));
  EXPECT_EQ(cursor.document, 1);
  EXPECT_EQ(cursor.token, 1);
  append_run(rows, file, 8, 5, same, cursor, no);  // goes on as a new segment; ends with the last document
  EXPECT_EQ(rows.ids, (std::vector<int64_t>{1, 10, 11, 12, 1, 20, 1, 30, 31}));
  EXPECT_EQ(rows.targets, (std::vector<int64_t>{10, 11, 12, 2, 20, 2, 30, 31, 2}));
  EXPECT_EQ(rows.begin, (std::vector<int64_t>{0, 4, 5, 6, 9}));
  append_run(rows, file, 8, 5, same, cursor, no);
  EXPECT_EQ(rows.rows(), 9);
  const Batch batch = rows.batch();
  EXPECT_EQ(batch.predicted, 9);
  EXPECT_EQ(values(batch.facts.segment("domain", "test")), (std::vector<int64_t>{7, 7, 8, 8}));
  EXPECT_EQ(values(batch.facts.row("position", "test")), (std::vector<int64_t>{0, 1, 2, 3, 0, 0, 0, 1, 2}));
  EXPECT_EQ(values(batch.ids), rows.ids);
  EXPECT_EQ(values(batch.targets), rows.targets);
}

TEST(Packing, BeginsANewPassWhenAsked) {
  TemporaryFolder folder;
  const TokenFile file = three_documents(folder);
  RunRows rows;
  DocumentCursor cursor;
  int passes = 0;
  append_run(rows, file, 0, 20, [&](int64_t i) { return passes % 2 ? 2 - i : i; }, cursor, [&] { return ++passes, true; });
  EXPECT_EQ(passes, 2);
  EXPECT_EQ(rows.rows(), 20);
  EXPECT_EQ((std::vector<int64_t>{rows.ids.begin() + 9, rows.ids.begin() + 14}), (std::vector<int64_t>{1, 30, 31, 1, 20}));
}

}  // namespace
}  // namespace switchyard
