#include "switchyard/data/filters.h"

#include <zlib.h>

#include "switchyard/data/sources.h"
#include "tests/data/data_support.h"

namespace switchyard {
namespace {

using testing::expect_error;
using testing::TemporaryFolder;
using testing::write_text;

std::vector<std::string> run(const std::string& filter, const std::string& bytes, const std::string& path = "page") {
  std::vector<std::string> documents;
  find_filter(filter).run({path, bytes}, [&](std::string text) { documents.push_back(std::move(text)); });
  return documents;
}

std::string page(const std::string& body) {
  const auto documents = run("manual-page", ".TH T 1\n" + body);
  if (documents.empty()) return "";
  EXPECT_TRUE(documents[0].starts_with("T(1)\n\n")) << documents[0];
  return documents[0].substr(6);
}

TEST(Filters, AnUnknownNameGetsTheNearest) {
  const Error error = expect_error([] { (void)find_filter("getext"); });
  EXPECT_EQ(error.code(), "data.filter");
  EXPECT_EQ(error.message(), "there is no filter \"getext\", did you mean \"gettext\"?; there are copyright, gettext, manual-page, sword");
}

TEST(ManualPage, HeadingsParagraphsAndFonts) {
  EXPECT_EQ(page(".\\\" a comment\n.SH NAME\nopen \\- open a file\n.SH DESCRIPTION\nThe\n.BR open ()\ncall opens the\n\\fIpath\\fP.\n.PP\nA second "
                 "paragraph\n.RB ( read (2)).\n"),
            "NAME\nopen - open a file\n\nDESCRIPTION\nThe open() call opens the path.\n\nA second paragraph (read(2)).\n");
}

TEST(ManualPage, TagsListsAndLiteralText) {
  EXPECT_EQ(page(".SH O\n.TP\n.BI \\-n \" count\"\nPrint\ncount lines.\n.IP \\(bu 2\nitem\n.nf\n  int a;\n  int b;\n.fi\nend\n"),
            "O\n\n-n count\nPrint count lines.\n\n• item\n  int a;\n  int b;\nend\n");
}

TEST(ManualPage, EscapesPrintWhatTheyStandFor) {
  EXPECT_EQ(page(".SH E\na\\-b \\e \\(aq \\[em] \\[u00E9] \\*(lq\\*(rq \\s-1SMALL\\s0 x\\ y\\&.\\h'1i'z \\(co\\\"gone\n"),
            "E\na-b \\ ' — é “” SMALL x y.z ©\n");
  EXPECT_EQ(page(".SH Q\n.B \"two words\" and \"a \"\"quote\"\"\"\n"), "Q\ntwo words and a \"quote\"\n");
  EXPECT_EQ(page(".SH C\none \\\ntwo\n"), "C\none two\n");
}

TEST(ManualPage, WhatIsNoTextIsLeftOut) {
  EXPECT_EQ(page(".de XX\nmacro body\n..\n.if n \\{\\\n.ds X y\n.\\}\n.ie t .ds Y z\n.SH S\n.EQ\nx sup 2\n.EN\nkept\n"), "S\nkept\n");
  EXPECT_EQ(page(".SH T\n.TS\ntab(:);\nl l.\nA\tB\n_\nT{\nlong\nT}\tC\n.TE\nafter\n"), "T\n\nA  B\nlong\n  C\n\nafter\n");
  EXPECT_TRUE(run("manual-page", ".so man2/open.2\n").empty());
  EXPECT_TRUE(run("manual-page", ".Dd today\n.Dt X 1\n.Sh NAME\n").empty());
  EXPECT_TRUE(run("manual-page", "").empty());
  // Ends inside everything.
  for (const char* text : {".SH X\n\\", ".SH X\na\\(", ".SH X\na\\[u", ".SH X\na\\f", ".SH X\na\\h'", ".B \"open", ".TS\n", ".if \\{", ".de", ".TH", "\\s", "\\*["})
    (void)run("manual-page", std::string(".TH T 1\n") + text);
}

void put(std::string& bytes, uint32_t value, bool swapped = false, int width = 4) {
  for (int i = 0; i < width; ++i) bytes += static_cast<char>(value >> (8 * (swapped ? width - 1 - i : i)));
}

std::string catalogue(const std::vector<std::pair<std::string, std::string>>& messages, bool swapped = false) {
  std::string bytes, strings;
  const auto count = static_cast<uint32_t>(messages.size());
  for (const uint32_t value : {0x950412DEu, 0u, count, 28u, 28 + 8 * count, 0u, 0u}) put(bytes, value, swapped);
  const uint32_t base = 28 + 16 * count;
  for (int side = 0; side < 2; ++side)
    for (const auto& [original, translation] : messages) {
      const std::string& text = side == 0 ? original : translation;
      put(bytes, static_cast<uint32_t>(text.size()), swapped);
      put(bytes, base + static_cast<uint32_t>(strings.size()), swapped);
      strings += text + '\0';
    }
  return bytes + strings;
}

TEST(Gettext, TranslationsALineEach) {
  const std::vector<std::pair<std::string, std::string>> messages = {
      {"", "Content-Type: text/plain; charset=UTF-8\n"}, {"file", "Datei"}, {std::string("one\0many", 8), std::string("eine\0viele", 10)},
      {"untranslated", ""}, {"line\n", "Zeile\n"}};
  for (const bool swapped : {false, true})
    EXPECT_EQ(run("gettext", catalogue(messages, swapped)), (std::vector<std::string>{"Datei\neine\nviele\nZeile\n"}));
  EXPECT_TRUE(run("gettext", catalogue({})).empty());
}

TEST(Gettext, HostileFilesAreRefused) {
  Error error = expect_error([] { (void)run("gettext", "not a catalogue"); });
  EXPECT_EQ(error.code(), "data.filter");
  EXPECT_EQ(error.message(), "page is no message catalogue (.mo)");
  EXPECT_EQ(expect_error([] { (void)run("gettext", "x"); }).message(),
            "page ends at byte 1, inside a table; it is no whole message catalogue");
  const std::string whole = catalogue({{"a", "bcdefgh"}, {"i", "j"}});
  for (size_t length = 0; length + 2 < whole.size(); ++length)
    EXPECT_EQ(expect_error([&] { (void)run("gettext", whole.substr(0, length)); }).code(), "data.filter") << length;
  std::string many = whole;
  many[8] = many[9] = many[10] = many[11] = static_cast<char>(0xFF);  // four thousand million messages
  EXPECT_EQ(expect_error([&] { (void)run("gettext", many); }).code(), "data.filter");
}

/// Verse slots as (block, text); an empty text is an empty slot.
void write_module(const std::filesystem::path& folder, const std::vector<std::pair<uint32_t, std::string>>& slots) {
  std::map<uint32_t, std::string> blocks;
  std::string verses, table, packed;
  for (const auto& [block, text] : slots) {
    put(verses, block);
    put(verses, static_cast<uint32_t>(blocks[block].size()));
    put(verses, static_cast<uint32_t>(text.size()), false, 2);
    blocks[block] += text;
  }
  for (const auto& [block, text] : blocks) {
    uLongf size = ::compressBound(text.size());
    std::string bytes(size, '\0');
    ::compress(reinterpret_cast<Bytef*>(bytes.data()), &size, reinterpret_cast<const Bytef*>(text.data()), text.size());
    put(table, static_cast<uint32_t>(packed.size()));
    put(table, static_cast<uint32_t>(size));
    put(table, static_cast<uint32_t>(text.size()));
    packed += bytes.substr(0, size);
  }
  write_text(folder / "ot.bzs", table);
  write_text(folder / "ot.bzv", verses);
  write_text(folder / "ot.bzz", packed);
}

std::vector<std::string> read_module(const std::filesystem::path& folder) {
  return run("sword", read_file(folder / "ot.bzz"), (folder / "ot.bzz").string());
}

TEST(Sword, ADocumentAChapter) {
  TemporaryFolder folder;
  write_module(folder.path(), {{0, ""},
                               {0, "<div type=\"book\" osisID=\"Gen\"/>"},
                               {0, "<chapter osisID=\"Gen.1\" sID=\"Gen.1\"/>"},
                               {0, "<w lemma=\"x\">In</w> the beginning<note>a <b>note</b></note> &amp; <q>so</q> on."},
                               {0, "And  the\nearth."},
                               {1, "<chapter sID=\"Gen.2\" osisID=\"Gen.2\"/>"},
                               {1, "<l>first line</l> <l>second line</l>"}});
  EXPECT_EQ(read_module(folder.path()),
            (std::vector<std::string>{"Gen 1\nIn the beginning & so on. And the earth.\n", "Gen 2\nfirst line\nsecond line\n"}));
}

TEST(Sword, HostileFilesAreRefused) {
  TemporaryFolder folder;
  write_module(folder.path(), {{0, "<chapter osisID=\"A.1\"/>"}, {0, "text"}});
  const std::string table = read_file(folder / "ot.bzs"), verses = read_file(folder / "ot.bzv");
  const auto refused = [&](const char* file, size_t at, char value) {
    std::string bytes = read_file(folder / file);
    bytes[at] = value;
    write_text(folder / file, bytes);
    const Error error = expect_error([&] { (void)read_module(folder.path()); });
    EXPECT_EQ(error.code(), "data.filter") << file << " " << at;
    write_text(folder / "ot.bzs", table);
    write_text(folder / "ot.bzv", verses);
    return error.message();
  };
  const std::string name = (folder / "ot.bzz").string();
  EXPECT_EQ(refused("ot.bzv", 0, 9), name + ": block 9 is not in the .bzs file");
  EXPECT_EQ(refused("ot.bzv", 14, 99), name + ": verse slot 1 lies outside its block");
  EXPECT_EQ(refused("ot.bzs", 0, 99), name + ": block 0 lies outside the file");
  EXPECT_EQ(refused("ot.bzs", 11, 99), name + ": block 0 lies outside the file");  // a size of gigabytes
  EXPECT_EQ(refused("ot.bzs", 8, 99), name + ": block 0 is damaged, or not packed with zlib");
  write_text(folder / "ot.bzs", table + "x");
  EXPECT_EQ(expect_error([&] { (void)read_module(folder.path()); }).message(),
            name + ": its .bzs and .bzv files are no block and verse tables");
  std::filesystem::remove(folder / "ot.bzv");
  EXPECT_EQ(expect_error([&] { (void)read_module(folder.path()); }).code(), "file.missing");
}

TEST(Copyright, LicenceTextsAlone) {
  EXPECT_EQ(run("copyright", "Format: https://x\nFiles: *\nCopyright: 2001 A\n 2002 B\nLicense: MIT\n Permission is\n  granted.\n .\n THE END\n\n"
                             "Files: b\nLicense: GPL-2\n\nLicense:\n odd text\n"),
            (std::vector<std::string>{"MIT\n\nPermission is\n granted.\n\nTHE END\n", "odd text\n"}));
  EXPECT_EQ(run("copyright", "Plain text\n of a licence\n"), (std::vector<std::string>{"Plain text\n of a licence\n"}));
}

}  // namespace
}  // namespace switchyard
