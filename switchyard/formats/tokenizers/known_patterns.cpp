#include "switchyard/formats/tokenizers/known_patterns.h"

#include <algorithm>
#include <map>

#include "switchyard/formats/tokenizers/published_patterns.h"
#include "switchyard/formats/tokenizers/unicode.h"
#include "switchyard/formats/utf8.h"

namespace switchyard {
namespace {

using namespace unicode;  // the classes

/// A text with the class of the character at a place.
class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text), classes_(classes()) {}
  size_t size() const { return text_.size(); }
  char byte(size_t at) const { return at < text_.size() ? text_[at] : '\0'; }
  bool newline(size_t at) const { return byte(at) == '\r' || byte(at) == '\n'; }
  size_t after(size_t at) const { return at + utf8_length(text_[at]); }
  char32_t code(size_t at) const { return utf8_code_point(text_.substr(at, utf8_length(text_[at]))); }
  uint8_t kind(size_t at) const {
    const auto lead = static_cast<unsigned char>(text_[at]);
    return classes_[lead < 0x80 ? lead : code(at)];
  }
  bool is(size_t at, int mask) const { return at < text_.size() && (kind(at) & mask) != 0; }
  /// The end of the run of characters that `wanted` likes.
  template <typename F>
  size_t run_where(size_t at, F&& wanted, size_t most = ~size_t{0}) const {
    for (size_t n = 0; n < most && at < text_.size() && wanted(kind(at)); ++n) at = after(at);
    return at;
  }
  size_t run(size_t at, int mask, size_t most = ~size_t{0}) const {
    return run_where(at, [mask](uint8_t kind) { return (kind & mask) != 0; }, most);
  }
  size_t before(size_t at) const {
    --at;
    while (utf8_continues(text_[at])) --at;
    return at;
  }
  std::string_view text() const { return text_; }

 private:
  std::string_view text_;
  const uint8_t* classes_;
};

/// 's 't 're 've 'm 'll 'd; `fold`: in either case (also the long s). The end, or `at`.
size_t contraction(const Reader& text, size_t at, bool fold) {
  if (text.byte(at) != '\'') return at;
  const auto letter = [&](size_t i) { return fold && text.byte(i) >= 'A' && text.byte(i) <= 'Z' ? static_cast<char>(text.byte(i) + 32) : text.byte(i); };
  const char first = letter(at + 1), second = letter(at + 2);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return at + 2;
  if ((first == 'r' && second == 'e') || (first == 'v' && second == 'e') || (first == 'l' && second == 'l')) return at + 3;
  if (fold && text.text().substr(at + 1).starts_with("\xC5\xBF")) return at + 3;
  return at;
}

/// \s+(?!\S)|\s+ : a run of blanks, but the last one when something follows it.
size_t blanks(const Reader& text, size_t at) {
  const size_t end = text.run(at, kSpace);
  if (end == at || end == text.size()) return end;
  const size_t last = text.before(end);
  return last > at ? last : end;
}

/// \s*[\r\n]+|\s+(?!\S)|\s+ : up to the last line break of a run of blanks.
size_t line_breaks_or_blanks(const Reader& text, size_t at) {
  size_t end = text.run(at, kSpace);
  for (size_t i = end; i > at; --i)
    if (text.newline(i - 1)) return i;
  return end == at ? at : blanks(text, at);
}

bool other(uint8_t kind) { return (kind & (kSpace | kLetter | kNumber)) == 0; }

/// ` ?[^\s\p{L}\p{N}]+`, or `at`.
size_t others(const Reader& text, size_t at) {
  const size_t begin = text.byte(at) == ' ' ? at + 1 : at;
  const size_t end = text.run_where(begin, other);
  return end > begin ? end : at;
}

size_t skip_line_breaks(const Reader& text, size_t at, bool slash) {
  while (at < text.size() && (text.newline(at) || (slash && text.byte(at) == '/'))) ++at;
  return at;
}

/// Whether the character may stand before a word: [^\r\n\p{L}\p{N}].
bool lead(const Reader& text, size_t at) { return !text.newline(at) && !text.is(at, kLetter | kNumber); }

size_t match_gpt2(const Reader& text, size_t at) {
  if (const size_t end = contraction(text, at, false); end > at) return end;
  const size_t begin = text.byte(at) == ' ' ? at + 1 : at;
  for (const int mask : {int{kLetter}, int{kNumber}})
    if (text.is(begin, mask)) return text.run(begin, mask);
  if (const size_t end = others(text, at); end > at) return end;
  return blanks(text, at);
}

size_t match_llama3(const Reader& text, size_t at, size_t digits) {
  if (const size_t end = contraction(text, at, true); end > at) return end;
  if (text.is(at, kLetter)) return text.run(at, kLetter);
  if (lead(text, at) && text.is(text.after(at), kLetter)) return text.run(text.after(at), kLetter);
  if (text.is(at, kNumber)) return text.run(at, kNumber, digits);
  if (const size_t end = others(text, at); end > at) return skip_line_breaks(text, end, false);
  return line_breaks_or_blanks(text, at);
}

// The classes of the o200k rule: letters that are not lower case, letters that are not upper case, both with marks.
bool not_lower(uint8_t kind) { return (kind & (kLetter | kMark)) != 0 && (kind & kLower) == 0; }
bool not_upper(uint8_t kind) { return (kind & (kLetter | kMark)) != 0 && (kind & kUpper) == 0; }

/// [not lower]*[not upper]+ from `at`, or `at`.
size_t capitalised(const Reader& text, size_t at) {
  const size_t upper = text.run_where(at, not_lower);
  if (upper < text.size() && not_upper(text.kind(upper))) return text.run_where(upper, not_upper);
  for (size_t end = upper; end > at;) {  // gives back until something fits the second class
    const size_t last = text.before(end);
    if (not_upper(text.kind(last))) return end;
    end = last;
  }
  return at;
}

struct O200k {
  size_t digits = 3;
  bool contractions = true, slash = true;
};

size_t match_o200k(const Reader& text, size_t at, const O200k& rule) {
  const bool leads = lead(text, at);
  const size_t next = text.after(at);
  size_t end = leads ? capitalised(text, next) : next;
  bool word = leads && end > next;
  if (!word) word = (end = capitalised(text, at)) > at;
  if (!word && leads) word = (end = text.run_where(next, not_lower)) > next;
  if (!word) word = (end = text.run_where(at, not_lower)) > at;
  if (word) return rule.contractions ? contraction(text, end, true) : end;
  if (text.is(at, kNumber)) return text.run(at, kNumber, rule.digits);
  if (end = others(text, at); end > at) return skip_line_breaks(text, end, rule.slash);
  return line_breaks_or_blanks(text, at);
}

bool ascii_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

size_t match_deepseek(const Reader& text, size_t at) {
  const char c = text.byte(at);
  const bool ascii_mark = (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
  if (ascii_mark && ascii_letter(text.byte(at + 1))) {
    size_t end = at + 1;
    while (ascii_letter(text.byte(end))) ++end;
    return end;
  }
  constexpr int kWord = kLetter | kMark, kMarks = kPunctuation | kSymbol;
  const size_t next = text.after(at);
  if (!text.newline(at) && !text.is(at, kLetter | kMarks) && text.is(next, kWord)) return text.run(next, kWord);
  if (text.is(at, kWord)) return text.run(at, kWord);
  const size_t begin = c == ' ' ? at + 1 : at;
  if (text.is(begin, kMarks)) return skip_line_breaks(text, text.run(begin, kMarks), false);
  return line_breaks_or_blanks(text, at);
}

bool in_deepseek_ideographs(char32_t c) { return (c >= 0x4E00 && c <= 0x9FA5) || (c >= 0x3040 && c <= 0x30FF); }

/// \s+$ : blanks up to a line's end.
size_t match_blanks_at_end(const Reader& text, size_t at) {
  const size_t end = text.run(at, kSpace);
  if (end == text.size()) return end;
  for (size_t i = end; i > at + 1; --i)
    if (text.byte(i - 1) == '\n') return i - 1;
  return at;
}

/// Matches at every place in turn; match(text, at) gives the end of a match, or `at`. `skip` gives where to go on without one.
template <typename Match>
Finder each_match(Match match) {
  return [match](std::string_view word, std::vector<Span>& matches) {
    const Reader text(word);
    for (size_t at = 0; at < word.size();) {
      const size_t end = match(text, at);
      if (end > at) matches.push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(end)});
      at = end > at ? end : text.after(at);
    }
  };
}

/// Calls found(text, places, matches) for every run of digits; places: where its digits begin, then its end.
template <typename Found>
Finder each_number(bool (*digit)(char32_t), Found found) {
  return [digit, found](std::string_view word, std::vector<Span>& matches) {
    const Reader text(word);
    std::vector<uint32_t> places;
    for (size_t at = 0; at < word.size();) {
      places.clear();
      size_t end = at;
      for (; end < word.size() && digit(text.code(end)); end = text.after(end)) places.push_back(static_cast<uint32_t>(end));
      places.push_back(static_cast<uint32_t>(end));
      if (end > at) found(text, places, matches);
      at = end > at ? end : text.after(at);
    }
  };
}

/// \w of Oniguruma: with Latin-1's small numbers and fractions, without joiners.
bool ruby_word(char32_t c) {
  if (c == 0xB2 || c == 0xB3 || c == 0xB9 || (c >= 0xBC && c <= 0xBE)) return true;
  return c != 0x200C && c != 0x200D && is_word(c);
}

void groups_of_three(const std::vector<uint32_t>& places, std::vector<Span>& matches) {
  const size_t count = places.size() - 1;
  for (size_t i = 0, next = (count - 1) % 3 + 1; i < count; i = next, next += 3) matches.push_back({places[i], places[next]});
}

std::map<std::string, Finder> make_finders() {
  std::map<std::string, Finder> finders;
  finders[patterns::kGpt2] = each_match(match_gpt2);
  finders[patterns::kLlama3] = each_match([](const Reader& text, size_t at) { return match_llama3(text, at, 3); });
  finders[patterns::kQwen2] = each_match([](const Reader& text, size_t at) { return match_llama3(text, at, 1); });
  finders[patterns::kO200k] = each_match([](const Reader& text, size_t at) { return match_o200k(text, at, {}); });
  finders[patterns::kTekken] =
      each_match([](const Reader& text, size_t at) { return match_o200k(text, at, {.digits = 1, .contractions = false, .slash = true}); });
  finders[patterns::kDeepSeekV3] = each_match(match_deepseek);
  finders[patterns::kThreeDigits] = each_match([](const Reader& text, size_t at) { return text.run(at, kNumber, 3); });
  finders[patterns::kDeepSeekIdeographs] = each_match([](const Reader& text, size_t at) {
    size_t end = at;
    while (end < text.size() && in_deepseek_ideographs(text.code(end))) end = text.after(end);
    return end;
  });
  finders[patterns::kGroupsOfThree] = each_number(is_digit, [](const Reader& text, const std::vector<uint32_t>& places, std::vector<Span>& matches) {
    if (places.back() == text.size() || !ruby_word(text.code(places.back()))) groups_of_three(places, matches);
  });
  finders[patterns::kNumbersInThrees] =
      each_number([](char32_t c) { return is(c, kNumber); },
                  [](const Reader&, const std::vector<uint32_t>& places, std::vector<Span>& matches) { groups_of_three(places, matches); });
  finders[patterns::kBeforeThrees] = each_number(is_digit, [](const Reader&, const std::vector<uint32_t>& places, std::vector<Span>& matches) {
    const size_t count = places.size() - 1;
    for (size_t i = count % 3; i < count; i += 3) matches.push_back({places[i], places[i]});
  });
  finders[patterns::kBlanksAtEnd] = [](std::string_view word, std::vector<Span>& matches) {
    const Reader text(word);
    for (size_t at = 0; at < word.size();) {
      const size_t blank = text.run(at, kSpace), end = blank > at ? match_blanks_at_end(text, at) : at;
      if (end > at) matches.push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(end)});
      // What is left of the run of blanks ends at no line's end.
      at = end > at ? end : blank > at ? blank : text.after(at);
    }
  };
  return finders;
}

}  // namespace

Finder known_pattern(const std::string& pattern) {
  static const std::map<std::string, Finder> finders = make_finders();
  const auto found = finders.find(pattern);
  return found == finders.end() ? Finder() : found->second;
}

}  // namespace switchyard
