#include "switchyard/formats/tokenizers/unicode.h"

#include <unicode/ubrk.h>
#include <unicode/uchar.h>
#include <unicode/unorm2.h>
#include <unicode/utext.h>

#include <algorithm>
#include <array>
#include <memory>

#include "switchyard/base/error.h"
#include "switchyard/formats/utf8.h"

namespace switchyard::unicode {
namespace {

constexpr char32_t kCodes = 0x110000;

bool white_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
         c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

uint8_t class_of(char32_t c) {
  const uint8_t blank = white_space(c) ? kSpace : 0;
  const uint32_t category = U_GET_GC_MASK(static_cast<UChar32>(older_alike(c)));
  if (category & (U_GC_LU_MASK | U_GC_LT_MASK)) return blank | kLetter | kUpper;
  if (category & U_GC_LL_MASK) return blank | kLetter | kLower;
  if (category & U_GC_L_MASK) return blank | kLetter;
  if (category & U_GC_M_MASK) return blank | kMark;
  if (category & U_GC_N_MASK) return blank | kNumber;
  if (category & U_GC_P_MASK) return blank | kPunctuation;
  if (category & U_GC_S_MASK) return blank | kSymbol;
  return blank;
}

int combining_class(char32_t c) {
  const int order = u_getCombiningClass(static_cast<UChar32>(c));
  return order != 0 && has_known_order(c) ? order : 0;
}

const UNormalizer2* normaliser(bool compatible) {
  UErrorCode error = U_ZERO_ERROR;
  const UNormalizer2* found = compatible ? unorm2_getNFKDInstance(&error) : unorm2_getNFDInstance(&error);
  check(U_SUCCESS(error) != 0, "tokenizer.unicode", "the ICU library has no data for normalisation: {}", u_errorName(error));
  return found;
}

/// Calls f(part, first) for the full decomposition of a character.
template <typename F>
void decompose(const UNormalizer2* by, char32_t c, F&& f) {
  if (c < 0x80) return f(c, true);
  std::array<UChar, 32> parts{};  // the longest has 18
  UErrorCode error = U_ZERO_ERROR;
  const int32_t count = unorm2_getDecomposition(by, static_cast<UChar32>(c), parts.data(), parts.size(), &error);
  if (count <= 0 || U_FAILURE(error) || !has_known_decomposition(c)) return f(c, true);
  for (int32_t i = 0; i < count;) {
    const bool first = i == 0;
    UChar32 part = 0;
    U16_NEXT(parts.data(), i, count, part);
    f(static_cast<char32_t>(part), first);
  }
}

/// The canonical composition of two characters, or 0.
char32_t compose(const UNormalizer2* by, char32_t a, char32_t b) {
  if (b < 0x300) return 0;  // nothing composes with these
  const UChar32 whole = unorm2_composePair(by, static_cast<UChar32>(a), static_cast<UChar32>(b));
  return whole < 0 || !has_known_decomposition(static_cast<char32_t>(whole)) ? 0 : static_cast<char32_t>(whole);
}

constexpr char32_t kFirstMark = 0x300;  ///< what is below begins a character, and composes with nothing before it

/// Decomposed characters with their changes, in canonical order. ASCII is its own decomposition; what is below `whole` and has nothing
/// after it that it could come together with is left as it is, for composition would give it back.
std::vector<Edit> decomposed(std::string_view text, bool compatible, char32_t whole) {
  struct Part { Edit edit; int order; };
  const UNormalizer2* by = normaliser(compatible);
  std::vector<Edit> edits;
  edits.reserve(text.size());
  std::vector<Part> marks;  // since the last starter
  const auto settle = [&] {
    std::stable_sort(marks.begin(), marks.end(), [](const Part& a, const Part& b) { return a.order < b.order; });
    for (const Part& mark : marks) edits.push_back(mark.edit);
    marks.clear();
  };
  for (size_t at = 0; at < text.size();) {
    const size_t length = utf8_length(text[at]);
    const char32_t code = utf8_code_point(text.substr(at, length));
    at += length;
    const bool alone = at == text.size() || static_cast<unsigned char>(text[at]) < 0xCC;  // where kFirstMark begins
    if (code < 0x80 || (code < whole && alone)) {
      if (!marks.empty()) settle();
      edits.push_back({code, 0});
      continue;
    }
    decompose(by, code, [&](char32_t c, bool first) {
      const int order = combining_class(c);
      if (order == 0) settle();
      if (order == 0) edits.push_back({c, first ? 0 : 1});
      else marks.push_back({{c, first ? 0 : 1}, order});
    });
  }
  settle();
  return edits;
}

/// Canonical composition of a decomposed text.
std::vector<Edit> composed(const std::vector<Edit>& parts) {
  UErrorCode error = U_ZERO_ERROR;
  const UNormalizer2* by = unorm2_getNFCInstance(&error);
  check(U_SUCCESS(error) != 0, "tokenizer.unicode", "the ICU library has no data for normalisation: {}", u_errorName(error));
  std::vector<Edit> edits, marks;  // marks: those after the starter that did not compose
  edits.reserve(parts.size());
  Edit starter;
  bool has_starter = false;
  int last = -1;  // class of the last of `marks`
  const auto settle = [&] {
    if (has_starter) edits.push_back(starter);
    edits.insert(edits.end(), marks.begin(), marks.end());
    marks.clear();
    last = -1;
  };
  for (const Edit& part : parts) {
    const int order = part.character < kFirstMark ? 0 : combining_class(part.character);
    if (has_starter && last < order) {
      if (const char32_t whole = compose(by, starter.character, part.character)) {
        starter = {whole, starter.change + part.change - 1};
        continue;
      }
    }
    if (order == 0) {
      settle();
      starter = part;
      has_starter = true;
    } else if (has_starter) {
      marks.push_back(part);
      last = order;
    } else {
      edits.push_back(part);
    }
  }
  settle();
  return edits;
}

}  // namespace

const uint8_t* classes() {
  static const auto table = [] {
    auto made = std::make_unique<uint8_t[]>(kCodes);
    for (char32_t c = 0; c < kCodes; ++c) made[c] = class_of(c);
    return made;
  }();
  return table.get();
}

bool is_word(char32_t c) {
  if (is(c, kLetter | kMark) || c == 0x200C || c == 0x200D) return true;
  if ((c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189))
    return true;  // circled and squared letters are alphabetic
  return (U_GET_GC_MASK(static_cast<UChar32>(older_alike(c))) & (U_GC_ND_MASK | U_GC_NL_MASK | U_GC_PC_MASK)) != 0;
}

bool is_digit(char32_t c) { return c < 0x80 ? c >= '0' && c <= '9' : u_isdigit(static_cast<UChar32>(older_alike(c))) != 0; }

void append_lower(std::vector<Edit>& edits, char32_t c) {
  if (c == 0x130) {  // the only character whose lower case is two
    edits.push_back({'i', 0});
    edits.push_back({0x307, 1});
    return;
  }
  struct Pairs { char32_t first, last, lower; };
  static constexpr Pairs kNewerPairs[] = {{0x1C89, 0x1C89, 0x1C8A}, {0xA7CB, 0xA7CB, 0x264},    {0xA7CC, 0xA7CC, 0xA7CD},
                                          {0xA7CE, 0xA7CE, 0xA7CF}, {0xA7D2, 0xA7D2, 0xA7D3},   {0xA7D4, 0xA7D4, 0xA7D5},
                                          {0xA7DA, 0xA7DA, 0xA7DB}, {0xA7DC, 0xA7DC, 0x19B},    {0x10D50, 0x10D65, 0x10D70},
                                          {0x16EA0, 0x16EB8, 0x16EBB}};
  char32_t lower = static_cast<char32_t>(u_tolower(static_cast<UChar32>(c)));
  if (lower == c && c >= kNewerPairs[0].first)
    for (const Pairs& pairs : kNewerPairs)
      if (c >= pairs.first && c <= pairs.last) lower = pairs.lower + (c - pairs.first);
  edits.push_back({lower, 0});
}

void normalise(AlignedText& text, Form form) {
  // Composed, nothing below the marks changes; else nothing that is ASCII. The latter's bytes, and those that begin the former, tell.
  const char32_t whole = form == Form::nfc ? kFirstMark : 0x80;
  const unsigned char least = form == Form::nfc ? 0xCC : 0x80;
  if (std::all_of(text.text.begin(), text.text.end(), [least](char c) { return static_cast<unsigned char>(c) < least; })) return;
  std::vector<Edit> edits = decomposed(text.text, form == Form::nfkc || form == Form::nfkd, whole);
  if (form == Form::nfc || form == Form::nfkc) edits = composed(edits);
  transform(text, edits);
}

std::vector<size_t> grapheme_ends(std::string_view text) {
  UErrorCode error = U_ZERO_ERROR;
  UText* source = utext_openUTF8(nullptr, text.data(), static_cast<int64_t>(text.size()), &error);
  UBreakIterator* breaks = ubrk_open(UBRK_CHARACTER, "", nullptr, 0, &error);
  ubrk_setUText(breaks, source, &error);
  std::vector<size_t> ends;
  if (U_SUCCESS(error))
    for (int32_t end; (end = ubrk_next(breaks)) != UBRK_DONE;) ends.push_back(static_cast<size_t>(end));
  ubrk_close(breaks);
  utext_close(source);
  check(U_SUCCESS(error) != 0, "tokenizer.unicode", "the ICU library cannot find grapheme clusters: {}", u_errorName(error));
  return ends;
}

}  // namespace switchyard::unicode
