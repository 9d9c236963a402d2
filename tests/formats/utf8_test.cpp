#include "switchyard/formats/utf8.h"

#include "tests/support.h"

namespace switchyard {
namespace {

using Kind = Utf8Step::Kind;

TEST(Utf8, TakesTheWellFormedAndNamesTheRest) {
  struct Case { std::string text; Kind kind; size_t bytes; };
  const Case cases[] = {
      {"a", Kind::character, 1},
      {"\xC3\xA9", Kind::character, 2},
      {"\xE6\xBC\xA2", Kind::character, 3},
      {"\xF0\x9F\x98\x80", Kind::character, 4},
      {"\xF4\x8F\xBF\xBF", Kind::character, 4},      // U+10FFFF
      {"\xF4\x90\x80\x80", Kind::broken, 1},         // past it
      {"\xC0\x80", Kind::broken, 1},                 // overlong
      {"\xE0\x80\x80", Kind::broken, 1},             // overlong
      {"\xED\xA0\x80", Kind::broken, 1},             // a surrogate
      {"\x80", Kind::broken, 1},                     // continuation alone
      {"\xFF", Kind::broken, 1},
      {"\xE6\xBC" "a", Kind::broken, 2},             // the maximal part of a character
      {"\xE6\xBC", Kind::unfinished, 2},
      {"\xF0", Kind::unfinished, 1},
  };
  for (const Case& c : cases) {
    const Utf8Step step = utf8_step(c.text);
    EXPECT_EQ(step.kind, c.kind) << c.text;
    EXPECT_EQ(step.bytes, c.bytes) << c.text;
  }
}

TEST(Utf8, RepairsByMaximalParts) {
  int64_t broken = 0;
  EXPECT_EQ(utf8_repair("a\xFF\xE6\xBC" "b\xE6", &broken), "a\xEF\xBF\xBD\xEF\xBF\xBD" "b\xEF\xBF\xBD");
  EXPECT_EQ(broken, 3);
  EXPECT_EQ(utf8_repair(""), "");
}

TEST(Utf8, CodePointsGoBothWays) {
  for (char32_t code = 1; code <= 0x10FFFF; code += code < 0x3000 ? 1 : 251) {
    if (code >= 0xD800 && code <= 0xDFFF) continue;
    std::string text;
    utf8_append(text, code);
    ASSERT_EQ(utf8_step(text).kind, Kind::character) << std::hex << static_cast<uint32_t>(code);
    ASSERT_EQ(utf8_step(text).bytes, text.size());
    ASSERT_EQ(utf8_code_point(text), code);
  }
  std::string none;
  utf8_append(none, 0xD800);
  utf8_append(none, 0x110000);
  EXPECT_EQ(none, "\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST(Utf8, FindsAnUnfinishedCharacterAtTheEnd) {
  const std::string text = "x\xC3\xA9\xE6\xBC\xA2\xF0\x9F\x98\x80";
  const size_t expected[] = {0, 0, 1, 0, 1, 2, 0, 1, 2, 3, 0};
  for (size_t length = 0; length <= text.size(); ++length)
    EXPECT_EQ(utf8_unfinished(std::string_view(text).substr(0, length)), expected[length]) << length;
  EXPECT_EQ(utf8_unfinished("\x80\x80"), 0u);
  EXPECT_EQ(utf8_unfinished("\xC0"), 0u);
}

}  // namespace
}  // namespace switchyard
