#include "switchyard/data/sources.h"

#include <set>

#include "tests/data/data_support.h"

namespace switchyard {
namespace {

using testing::expect_error;
using testing::gzip;
using testing::Messages;
using testing::TemporaryFolder;
using testing::write_text;

std::vector<std::string> documents(const DomainOptions& domain, int64_t document_bytes = 1000, ReadingCounts* counts = nullptr) {
  DocumentReader reader(domain, find_sources(domain, false), document_bytes);
  std::vector<std::string> all;
  for (std::string document; reader.next(document);) all.push_back(document);
  EXPECT_EQ(reader.bytes_read() == reader.total_bytes() || domain.limit_bytes > 0, true);
  if (counts) *counts = reader.counts();
  return all;
}

DomainOptions domain_at(const std::filesystem::path& path) { return {.name = "d", .paths = {path.string()}}; }

TEST(Sources, FilesFoldersAndGlobsInAFixedOrder) {
  TemporaryFolder folder;
  std::filesystem::create_directories(folder / "deep/deeper");
  for (const char* name : {"a.txt", "b.txt", "c.md", "deep/d.txt", "deep/deeper/e.txt"}) write_text(folder / name, name);
  std::filesystem::create_symlink(folder / "a.txt", folder / "link.txt");
  const auto names = [&](std::vector<std::string> paths) {
    std::multiset<std::string> found;
    DomainOptions domain{.name = "d"};
    for (const std::string& path : paths) domain.paths.push_back((folder / path).string());
    for (const SourceFile& file : find_sources(domain, false)) found.insert(file.path.filename().string());
    return found;
  };
  using Names = std::multiset<std::string>;
  EXPECT_EQ(names({"a.txt"}), (Names{"a.txt"}));
  EXPECT_EQ(names({""}), (Names{"a.txt", "b.txt", "c.md", "d.txt", "e.txt"}));
  EXPECT_EQ(names({"*.txt"}), (Names{"a.txt", "b.txt"}));
  EXPECT_EQ(names({"*.txt", "a.txt", "link.txt"}), (Names{"a.txt", "b.txt"}));
  EXPECT_EQ(names({"d??p", "c.[m]d"}), (Names{"c.md", "d.txt", "e.txt"}));
  const auto once = find_sources(domain_at(folder.path()), false), twice = find_sources(domain_at(folder.path()), false);
  for (size_t i = 0; i < once.size(); ++i) EXPECT_EQ(once[i].path, twice[i].path);
  EXPECT_EQ(once[0].bytes, static_cast<int64_t>(std::filesystem::file_size(once[0].path)));
}

TEST(Sources, AMissingPathNamesItsPackage) {
  TemporaryFolder folder;
  write_text(folder / "here.txt", "x");
  DomainOptions domain = domain_at("/nowhere/*.txt");
  domain.package = "manpages manpages-dev";
  Error error = expect_error([&] { (void)find_sources(domain, false); });
  EXPECT_EQ(error.code(), "data.missing");
  EXPECT_EQ(error.message(), "domain \"d\": there is no file at /nowhere/*.txt; install it with \"apt-get install manpages manpages-dev\", or "
                             "set data.missing_ok to leave it out");
  domain.package.clear();
  error = expect_error([&] { (void)find_sources(domain, false); });
  EXPECT_EQ(error.message(), "domain \"d\": there is no file at /nowhere/*.txt; check the path, or set data.missing_ok to leave it out");
  domain.paths.push_back((folder / "here.txt").string());
  Messages messages;
  EXPECT_EQ(find_sources(domain, true).size(), 1u);
  ASSERT_EQ(messages.warnings().size(), 1u);
  EXPECT_EQ(messages.warnings()[0], error.message());
  EXPECT_EQ(expect_error([] { (void)find_sources({.name = "d"}, true); }).message(), "domain \"d\" lists no paths");
}

TEST(DocumentCut, TakesTheBestBorderInTheSecondHalf) {
  EXPECT_EQ(document_cut("short", 10), 5u);
  EXPECT_EQ(document_cut("one two\n\nthree four", 15), 9u);     // the blank line
  EXPECT_EQ(document_cut("one two three\nfour five", 18), 14u);  // the line
  EXPECT_EQ(document_cut("one two three", 10), 8u);             // the word
  EXPECT_EQ(document_cut("a\n\nbcdefghijklmnop", 10), 10u);      // a border in the first half is none
  EXPECT_EQ(document_cut("éééé", 3), 2u);                        // a character stays whole
  EXPECT_EQ(document_cut("漢字", 1), 3u);                         // never nothing
}

TEST(DocumentReader, PiecesMakeUpTheFile) {
  // Longer than the reading buffer, with characters of every length over its borders.
  std::string text;
  for (int i = 0; text.size() < 2500000; ++i) text += i % 97 == 0 ? "\n\n" : i % 13 == 0 ? "\n" : i % 3 == 0 ? " é漢😀x" : "word";
  TemporaryFolder folder;
  write_text(folder / "plain.txt", text);
  write_text(folder / "packed.txt.gz", gzip(text));
  for (const char* name : {"plain.txt", "packed.txt.gz"})
    for (const int64_t bytes : {100, 4096, 3000000}) {
      std::string all;
      for (const std::string& document : documents(domain_at(folder / name), bytes)) {
        EXPECT_LE(static_cast<int64_t>(document.size()), bytes);
        all += document;
      }
      EXPECT_TRUE(all == text) << name << " " << bytes;
    }
}

TEST(DocumentReader, JsonLines) {
  TemporaryFolder folder;
  const std::string lines = "{\"text\": \"one\\nline\"}\n\n  \n{\"id\": 3, \"text\": \"two \\u00e9\", \"body\": \"B\"}\r\n{\"text\": \"three\"}";
  write_text(folder / "a.jsonl", lines);
  write_text(folder / "b.jsonl.gz", gzip(lines));
  write_text(folder / "c.data", lines);
  const std::vector<std::string> expected = {"one\nline", "two é", "three"};
  EXPECT_EQ(documents(domain_at(folder / "a.jsonl")), expected);
  EXPECT_EQ(documents(domain_at(folder / "b.jsonl.gz")), expected);
  DomainOptions domain = domain_at(folder / "c.data");
  domain.format = TextFormat::jsonl;
  EXPECT_EQ(documents(domain), expected);
  domain.format = TextFormat::text;
  EXPECT_EQ(documents(domain), (std::vector<std::string>{lines}));
}

TEST(DocumentReader, BadJsonLinesAreNamed) {
  TemporaryFolder folder;
  const std::string file = (folder / "a.jsonl").string();
  write_text(file, "{\"text\": \"fine\"}\n{\"text\": \"cut");
  Error error = expect_error([&] { (void)documents(domain_at(file)); });
  EXPECT_EQ(error.code(), "data.json");
  EXPECT_EQ(error.message(), file + ":2 is no JSON: {\"text\": \"cut");
  for (const char* line : {"{\"body\": \"x\"}", "[1]", "{\"text\": 3}"}) {
    write_text(file, line);
    error = expect_error([&] { (void)documents(domain_at(file)); });
    EXPECT_EQ(error.code(), "data.field");
    EXPECT_EQ(error.message(), file + ":1 has no text under \"text\"; name the key that holds it as the domain's \"field\"");
  }
  write_text(file, "{\"body\": \"x\"}");
  DomainOptions domain = domain_at(file);
  domain.field = "body";
  EXPECT_EQ(documents(domain), (std::vector<std::string>{"x"}));
}

TEST(DocumentReader, RepairsDamageAndLeavesOutWhatIsNoText) {
  TemporaryFolder folder;
  const std::string clean(300, 'a');
  write_text(folder / "bom.txt", "\xEF\xBB\xBF" "text");
  write_text(folder / "damaged.txt", clean + "\xFF" + clean);
  write_text(folder / "latin1.txt", "d\xE9j\xE0 vu, \xE9t\xE9");
  write_text(folder / "binary.bin", std::string("\x7F" "ELF\0\0\1", 7));
  write_text(folder / "empty.txt", "");
  write_text(folder / "blank.txt", " \n\t\n");
  write_text(folder / "line.jsonl", "{\"text\": \"bad \xFF byte " + clean + "\"}");
  ReadingCounts counts;
  auto all = documents(domain_at(folder.path()), 1000, &counts);
  std::sort(all.begin(), all.end());
  EXPECT_EQ(all, (std::vector<std::string>{clean + "\xEF\xBF\xBD" + clean, "bad \xEF\xBF\xBD byte " + clean, "text"}));
  EXPECT_EQ(counts.documents, 3);
  EXPECT_EQ(counts.repaired, 2);
  EXPECT_EQ(counts.not_text, 2);
  EXPECT_GE(counts.empty, 1);
  EXPECT_TRUE(counts.example.ends_with("latin1.txt") || counts.example.ends_with("binary.bin"));
}

TEST(DocumentReader, StopsAtItsLimit) {
  TemporaryFolder folder;
  for (int i = 0; i < 9; ++i) write_text(folder / fmt::format("{}.txt", i), "some words of a document\n");
  DomainOptions domain = domain_at(folder.path());
  domain.limit_bytes = 60;
  const auto all = documents(domain);
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0].size() + all[1].size(), 50u);
  EXPECT_LE(all[2].size(), 10u);
}

TEST(DocumentReader, DamagedAndVanishedFilesAreNamed) {
  TemporaryFolder folder;
  std::string text;
  for (int i = 0; i < 20000; ++i) text += std::to_string(i * 7919);
  const std::string packed = gzip(text);
  const std::string file = (folder / "cut.txt.gz").string();
  write_text(file, packed.substr(0, packed.size() / 2));
  Error error = expect_error([&] { (void)documents(domain_at(file)); });
  EXPECT_EQ(error.code(), "data.read");
  EXPECT_TRUE(error.message().starts_with("cannot read " + file + ": ")) << error.message();
  EXPECT_TRUE(error.message().ends_with("; a packed file may be damaged or cut short, fetch it again")) << error.message();
  std::string flipped = packed;
  flipped[packed.size() / 2] = static_cast<char>(flipped[packed.size() / 2] ^ 0x55);
  write_text(file, flipped);
  EXPECT_EQ(expect_error([&] { (void)documents(domain_at(file)); }).code(), "data.read");

  const auto sources = find_sources(domain_at(file), false);
  std::filesystem::remove(file);
  error = expect_error([&] {
    DocumentReader reader(domain_at(file), sources, 100);
    std::string document;
    (void)reader.next(document);
  });
  EXPECT_EQ(error.code(), "data.read");
  EXPECT_EQ(error.message(), "cannot open " + file + ": No such file or directory");
}

}  // namespace
}  // namespace switchyard
