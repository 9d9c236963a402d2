#include "switchyard/formats/template/characters.h"

#include <unicode/uchar.h>
#include <unicode/ucasemap.h>
#include <unicode/ustring.h>

#include <algorithm>
#include <cstring>

#include "switchyard/formats/utf8.h"

namespace switchyard::jinja {
namespace {

std::u16string to_utf16(std::string_view text) {
  std::u16string wide;
  wide.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const char32_t c = next_character(text, at);
    if (c >= 0x10000) {
      wide.push_back(static_cast<char16_t>(0xD7C0 + (c >> 10)));
      wide.push_back(static_cast<char16_t>(0xDC00 + (c & 0x3FF)));
    } else {
      wide.push_back(static_cast<char16_t>(c));
    }
  }
  return wide;
}

std::string to_utf8(const std::u16string& wide) {
  std::string text;
  text.reserve(wide.size());
  for (size_t i = 0; i < wide.size(); ++i) {
    char32_t c = wide[i];
    if (c >= 0xD800 && c < 0xDC00 && i + 1 < wide.size()) c = ((c - 0xD7C0) << 10) + (wide[++i] - 0xDC00);
    append_character(text, c);
  }
  return text;
}

/// A mapping of ICU over UTF-16, whose result may be longer.
template <typename Map>
std::string mapped(std::string_view text, Map map) {
  const std::u16string wide = to_utf16(text);
  std::u16string out(wide.size() * 3 + 8, u'\0');
  UErrorCode status = U_ZERO_ERROR;
  const int32_t length = map(out.data(), static_cast<int32_t>(out.size()), wide.data(), static_cast<int32_t>(wide.size()), &status);
  if (U_FAILURE(status)) return std::string(text);
  out.resize(static_cast<size_t>(length));
  return to_utf8(out);
}

bool all_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 128; });
}

/// The title form of one character: "ß" becomes "Ss".
std::string titled(std::string_view character) {
  return mapped(character, [](char16_t* out, int32_t room, const char16_t* in, int32_t size, UErrorCode* status) {
    return u_strToTitle(out, room, in, size, nullptr, "", status);
  });
}

}  // namespace

int64_t count_characters(std::string_view text) {
  int64_t count = 0;
  for (char c : text) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return count;
}

char32_t next_character(std::string_view text, size_t& position) {
  const auto first = static_cast<unsigned char>(text[position]);
  if (first < 0x80) return text[position++];
  const size_t bytes = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  char32_t code = first & (0x7F >> bytes);
  size_t end = std::min(position + bytes, text.size());
  for (size_t i = position + 1; i < end; ++i) code = code << 6 | (static_cast<unsigned char>(text[i]) & 0x3F);
  position = end;
  return code;
}

size_t previous_character(std::string_view text, size_t position) {
  do --position;
  while (position > 0 && (static_cast<unsigned char>(text[position]) & 0xC0) == 0x80);
  return position;
}

size_t byte_of(std::string_view text, int64_t character, bool ascii) {
  if (ascii) return std::min(static_cast<size_t>(character), text.size());
  size_t at = 0;
  for (; at < text.size(); ++at)
    if ((static_cast<unsigned char>(text[at]) & 0xC0) != 0x80 && character-- == 0) break;
  return at;
}

void append_character(std::string& text, char32_t code) { utf8_append(text, code); }

bool is_space(char32_t c) {
  return (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
         c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_printable(char32_t c) {
  if (c < 0x7F) return c >= 0x20;
  switch (u_charType(static_cast<UChar32>(c))) {
    case U_UNASSIGNED:
    case U_CONTROL_CHAR:
    case U_FORMAT_CHAR:
    case U_SURROGATE:
    case U_PRIVATE_USE_CHAR:
    case U_SPACE_SEPARATOR:
    case U_LINE_SEPARATOR:
    case U_PARAGRAPH_SEPARATOR: return false;
    default: return true;
  }
}

bool is_alpha(char32_t c) { return (U_MASK(u_charType(static_cast<UChar32>(c))) & U_GC_L_MASK) != 0; }
bool is_decimal(char32_t c) { return u_charType(static_cast<UChar32>(c)) == U_DECIMAL_DIGIT_NUMBER; }
bool is_digit(char32_t c) {
  const int type = u_getIntPropertyValue(static_cast<UChar32>(c), UCHAR_NUMERIC_TYPE);
  return type == U_NT_DECIMAL || type == U_NT_DIGIT;
}
bool is_numeric(char32_t c) { return u_getIntPropertyValue(static_cast<UChar32>(c), UCHAR_NUMERIC_TYPE) != U_NT_NONE; }
bool is_word(char32_t c) { return c == '_' || is_alpha(c) || is_numeric(c); }
bool is_lower(char32_t c) { return u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_LOWERCASE); }
bool is_upper(char32_t c) { return u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_UPPERCASE); }
bool is_title(char32_t c) { return u_charType(static_cast<UChar32>(c)) == U_TITLECASE_LETTER; }
bool is_cased(char32_t c) { return is_lower(c) || is_upper(c) || is_title(c); }
int decimal_value(char32_t c) { return u_charDigitValue(static_cast<UChar32>(c)); }
bool is_name_start(char32_t c) { return c == '_' || u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_XID_START); }
bool is_name_part(char32_t c) { return u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_XID_CONTINUE); }

std::string upper(std::string_view text) {
  if (all_ascii(text)) {
    std::string out(text);
    for (char& c : out)
      if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 32);
    return out;
  }
  return mapped(text, [](char16_t* out, int32_t room, const char16_t* in, int32_t size, UErrorCode* status) {
    return u_strToUpper(out, room, in, size, "", status);
  });
}

std::string lower(std::string_view text) {
  if (all_ascii(text)) {
    std::string out(text);
    for (char& c : out)
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
    return out;
  }
  return mapped(text, [](char16_t* out, int32_t room, const char16_t* in, int32_t size, UErrorCode* status) {
    return u_strToLower(out, room, in, size, "", status);
  });
}

std::string fold(std::string_view text) {
  return mapped(text, [](char16_t* out, int32_t room, const char16_t* in, int32_t size, UErrorCode* status) {
    return u_strFoldCase(out, room, in, size, U_FOLD_CASE_DEFAULT, status);
  });
}

/// A capital sigma goes down to its final form at the end of a word: a letter stands before it and none after.
bool is_final_sigma(std::string_view text, size_t begin, size_t end) {
  const auto ignored = [](char32_t c) { return u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_CASE_IGNORABLE); };
  const auto letter = [](char32_t c) { return u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_CASED); };
  bool before = false, after = false;
  for (size_t at = begin; at > 0;) {
    at = previous_character(text, at);
    size_t i = at;
    const char32_t c = next_character(text, i);
    if (ignored(c)) continue;
    before = letter(c);
    break;
  }
  while (end < text.size()) {
    const char32_t c = next_character(text, end);
    if (ignored(c)) continue;
    after = letter(c);
    break;
  }
  return before && !after;
}

/// One character of a text in lower case.
std::string lowered(std::string_view text, size_t begin, size_t end) {
  constexpr std::string_view kSigma = "\u03A3";
  const std::string_view one = text.substr(begin, end - begin);
  if (one == kSigma) return is_final_sigma(text, begin, end) ? "\u03C2" : "\u03C3";
  return lower(one);
}

std::string title(std::string_view text) {
  // A letter after one that has case goes down, any other goes up.
  std::string out;
  bool inside = false;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const char32_t c = next_character(text, at);
    out += inside ? lowered(text, begin, at) : titled(text.substr(begin, at - begin));
    inside = is_cased(c);
  }
  return out;
}

std::string capitalize(std::string_view text) {
  if (text.empty()) return {};
  size_t at = 0;
  next_character(text, at);
  const std::string low = lower(text);
  size_t behind = 0;
  next_character(low, behind);
  return titled(text.substr(0, at)) + (at == behind ? low.substr(behind) : lower(text.substr(at)));
}

std::string swap_case(std::string_view text) {
  std::string out;
  size_t at = 0;
  while (at < text.size()) {
    const size_t begin = at;
    const char32_t c = next_character(text, at);
    const std::string_view one = text.substr(begin, at - begin);
    out += is_upper(c) ? lowered(text, begin, at) : is_lower(c) ? upper(one) : std::string(one);
  }
  return out;
}

std::string_view strip(std::string_view text, const std::string* characters, Ends ends) {
  std::u32string set;
  if (characters) {
    for (size_t at = 0; at < characters->size();) set.push_back(next_character(*characters, at));
    std::sort(set.begin(), set.end());
  }
  const auto goes = [&](char32_t c) { return characters ? std::binary_search(set.begin(), set.end(), c) : is_space(c); };
  size_t begin = 0, end = text.size();
  while (ends != Ends::right && begin < end) {
    size_t at = begin;
    if (!goes(next_character(text, at))) break;
    begin = at;
  }
  while (ends != Ends::left && end > begin) {
    const size_t before = previous_character(text, end);
    size_t at = before;
    if (!goes(next_character(text, at))) break;
    end = before;
  }
  return text.substr(begin, end - begin);
}

size_t find(std::string_view text, std::string_view what, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (what.empty()) return from;
  const void* at = ::memmem(text.data() + from, text.size() - from, what.data(), what.size());
  return at ? static_cast<size_t>(static_cast<const char*>(at) - text.data()) : std::string_view::npos;
}

size_t find_last(std::string_view text, std::string_view what) {
  if (what.size() > text.size()) return std::string_view::npos;
  const std::string backwards(text.rbegin(), text.rend()), sought(what.rbegin(), what.rend());
  const size_t at = find(backwards, sought);
  return at == std::string_view::npos ? at : text.size() - at - what.size();
}

}  // namespace switchyard::jinja
