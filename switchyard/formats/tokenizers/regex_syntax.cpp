// Translation of patterns to PCRE2's syntax. What differs: \s (White_Space, which PCRE2 widens), \w, \h and \b; scripts
// (PCRE2 reads \p{Han} as script extensions); nested classes and && inside [ ]; {n,m}+ and (?m) of Ruby.
#include <array>
#include <cctype>
#include <map>

#include "switchyard/base/error.h"
#include "switchyard/formats/tokenizers/regex.h"
#include "switchyard/formats/utf8.h"

namespace switchyard {
namespace {

// Contents of classes.
constexpr std::string_view kSpace =
    "\\x{09}-\\x{0D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}";
constexpr std::string_view kNotSpace =
    "\\x{00}-\\x{08}\\x{0E}-\\x{1F}\\x{21}-\\x{84}\\x{86}-\\x{9F}\\x{A1}-\\x{167F}\\x{1681}-\\x{1FFF}\\x{200B}-\\x{2027}"
    "\\x{202A}-\\x{202E}\\x{2030}-\\x{205E}\\x{2060}-\\x{2FFF}\\x{3001}-\\x{10FFFF}";
constexpr std::string_view kWord =
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24B6}-\\x{24E9}\\x{1F130}-\\x{1F149}\\x{1F150}-\\x{1F169}\\x{1F170}-\\x{1F189}";
constexpr std::string_view kJoiners = "\\x{200C}\\x{200D}";                 // also words in Rust
constexpr std::string_view kLatinNumbers = "\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}";  // also words in Oniguruma
constexpr std::string_view kHex = "0-9A-Fa-f";
constexpr size_t kDepth = 64;       // nested groups and classes
constexpr size_t kLongest = 1 << 16;

/// Properties that are no general category and no script.
const std::map<std::string, std::string, std::less<>> kProperties = {
    {"any", "\\x{00}-\\x{10FFFF}"}, {"ascii", "\\x{00}-\\x{7F}"}, {"space", std::string(kSpace)}, {"whitespace", std::string(kSpace)},
    {"word", std::string(kWord)}, {"digit", "\\p{Nd}"}, {"xdigit", std::string(kHex)}, {"alpha", "\\p{Alphabetic}"},
    {"alphabetic", "\\p{Alphabetic}"}, {"alnum", "\\p{Alphabetic}\\p{Nd}"}, {"lower", "\\p{Lowercase}"}, {"lowercase", "\\p{Lowercase}"},
    {"upper", "\\p{Uppercase}"}, {"uppercase", "\\p{Uppercase}"}, {"punct", "\\p{P}\\p{S}"},
    {"cntrl", "\\p{Cc}"}, {"blank", "\\x{09}\\p{Zs}"}};

const std::map<std::string, std::string, std::less<>> kCategories = {
    {"letter", "L"}, {"uppercaseletter", "Lu"}, {"lowercaseletter", "Ll"}, {"titlecaseletter", "Lt"}, {"modifierletter", "Lm"},
    {"otherletter", "Lo"}, {"mark", "M"}, {"combiningmark", "M"}, {"nonspacingmark", "Mn"}, {"spacingmark", "Mc"},
    {"enclosingmark", "Me"}, {"number", "N"}, {"decimalnumber", "Nd"}, {"letternumber", "Nl"}, {"othernumber", "No"},
    {"punctuation", "P"}, {"connectorpunctuation", "Pc"}, {"dashpunctuation", "Pd"}, {"openpunctuation", "Ps"},
    {"closepunctuation", "Pe"}, {"initialpunctuation", "Pi"}, {"finalpunctuation", "Pf"}, {"otherpunctuation", "Po"},
    {"symbol", "S"}, {"mathsymbol", "Sm"}, {"currencysymbol", "Sc"}, {"modifiersymbol", "Sk"}, {"othersymbol", "So"},
    {"separator", "Z"}, {"spaceseparator", "Zs"}, {"lineseparator", "Zl"}, {"paragraphseparator", "Zp"}, {"other", "C"},
    {"control", "Cc"}, {"format", "Cf"}, {"surrogate", "Cs"}, {"privateuse", "Co"}, {"unassigned", "Cn"}};

constexpr std::string_view kShortCategories =
    " L Lu Ll Lt Lm Lo M Mn Mc Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm Sc Sk So Z Zs Zl Zp C Cc Cf Cs Co Cn ";

std::string code_point(char32_t c) { return fmt::format("\\x{{{:X}}}", static_cast<uint32_t>(c)); }

class Translator {
 public:
  Translator(std::string_view pattern, RegexDialect dialect) : pattern_(pattern), dialect_(dialect) {}

  std::string run() {
    while (!done()) step();
    return std::move(out_);
  }

 private:
  /// A set of characters: the contents of a positive class, and what cannot stand inside one.
  struct Set {
    std::string items;                ///< inside [ ]
    std::vector<std::string> others;  ///< expressions of one character each
  };

  std::string word() const { return std::string(kWord) + std::string(dialect_ == RegexDialect::perl ? kJoiners : kLatinNumbers); }
  bool done() const { return at_ >= pattern_.size(); }
  char peek(size_t ahead = 0) const { return at_ + ahead < pattern_.size() ? pattern_[at_ + ahead] : '\0'; }
  [[noreturn]] void broken(std::string_view what) const {
    fail("tokenizer.regex", "the regular expression {} cannot be used: {} at byte {}", pattern_, what, at_);
  }
  std::string_view character() {
    const Utf8Step one = utf8_step(pattern_.substr(at_));
    if (one.kind != Utf8Step::Kind::character) broken("it is not UTF-8");
    const std::string_view text = pattern_.substr(at_, one.bytes);
    at_ += one.bytes;
    return text;
  }

  void atom(std::string_view text) {
    atom_ = out_.size();
    out_ += text;
  }

  void step() {
    const char c = peek();
    if (c == '\\') return escape();
    if (c == '[') return atom(char_class(0));
    if (c == '(') return open();
    if (c == ')') {
      ++at_;
      out_ += ')';
      if (!groups_.empty()) {
        atom_ = groups_.back();
        groups_.pop_back();
      }
      return;
    }
    if (c == '{') return repeat();
    if (c == '*' || c == '+' || c == '?' || c == '|' || c == '^' || c == '$' || c == '.') {
      ++at_;
      if (c == '.' || c == '^' || c == '$') return atom(std::string_view(&c, 1));
      out_ += c;
      return;
    }
    atom(character());
  }

  void open() {
    if (groups_.size() >= kDepth) broken(fmt::format("groups are nested more than {} deep", kDepth));
    groups_.push_back(out_.size());
    out_ += '(';
    ++at_;
    if (peek() != '?') return;
    out_ += '?';
    ++at_;
    if (peek() == '#') {  // a comment
      while (!done() && peek() != ')') out_ += character();
      return;
    }
    // Options; Ruby's m lets the dot match line breaks.
    while (!done() && (std::isalpha(static_cast<unsigned char>(peek())) || peek() == '-') && peek() != 'P') {
      const char option = peek();
      out_ += option == 'm' && dialect_ == RegexDialect::ruby ? 's' : option;
      ++at_;
    }
    while (!done() && (peek() == ':' || peek() == '=' || peek() == '!' || peek() == '>' || peek() == '<' || peek() == 'P')) {
      const char kind = peek();
      out_ += kind;
      ++at_;
      if ((kind == '<' || kind == 'P') && peek() != '=' && peek() != '!') {  // a name
        while (!done() && peek() != '>') out_ += character();
        if (!done()) out_ += character();
        return;
      }
      if (kind != '<' && kind != 'P') return;
    }
  }

  void repeat() {
    const size_t end = pattern_.find('}', at_);
    size_t digits = 0;
    bool numeric = end != std::string_view::npos && end > at_ + 1;
    for (size_t i = at_ + 1; numeric && i < end; ++i) {
      digits += pattern_[i] != ',';
      numeric = pattern_[i] == ',' || std::isdigit(static_cast<unsigned char>(pattern_[i]));
    }
    if (!numeric || digits == 0) {
      ++at_;
      return atom("\\{");
    }
    std::string count(pattern_.substr(at_, end + 1 - at_));
    if (count[1] == ',') count.insert(1, "0");
    at_ = end + 1;
    if (peek() == '+' && dialect_ == RegexDialect::ruby) {  // there it repeats the repetition
      out_.insert(atom_, "(?:");
      out_ += count + ")";
      return;
    }
    out_ += count;
  }

  void escape() {
    if (at_ + 1 >= pattern_.size()) broken("it ends in a backslash");
    const char c = peek(1);
    if (c == 'b' || c == 'B') {
      at_ += 2;
      const bool in = c == 'b';
      return atom(fmt::format("(?:(?<={0})(?{1}{0})|(?<!{0})(?{2}{0}))", fmt::format("[{}]", word()), in ? '!' : '=', in ? '=' : '!'));
    }
    if (c == 'R' || c == 'X' || c == 'A' || c == 'z' || c == 'Z' || c == 'G' || c == 'K' || c == 'k' || (c >= '1' && c <= '9')) {
      atom(pattern_.substr(at_, 2));
      at_ += 2;
      if (c == 'k') while (!done() && out_.back() != '>') out_ += character();
      return;
    }
    if (c == 'S') {
      at_ += 2;
      return atom(fmt::format("[^{}]", kSpace));
    }
    Set set;
    escape_in(set);
    atom(one_of(set));
  }

  /// Adds what an escape stands for to a set.
  void escape_in(Set& set) {
    if (at_ + 1 >= pattern_.size()) broken("it ends in a backslash");
    const char c = peek(1);
    if (c == 'p' || c == 'P') return property(set);
    at_ += 2;
    switch (c) {
      case 's': set.items += kSpace; return;
      case 'S': set.items += kNotSpace; return;
      case 'd': set.items += "\\p{Nd}"; return;
      case 'D': set.items += "\\P{Nd}"; return;
      case 'w': set.items += word(); return;
      case 'W': set.others.push_back(fmt::format("[^{}]", word())); return;
      case 'h':
        if (dialect_ == RegexDialect::ruby) set.items += kHex;
        else set.items += "\\x{09}\\p{Zs}";
        return;
      case 'H':
        set.others.push_back(dialect_ == RegexDialect::ruby ? fmt::format("[^{}]", kHex) : std::string("[^\\x{09}\\p{Zs}]"));
        return;
      default: break;
    }
    at_ -= 2;
    set.items += code_point(escaped_code());
  }

  /// The one character that an escape names.
  char32_t escaped_code() {
    at_ += 1;
    const char c = peek();
    if (c == 'x' || c == 'u') return hexadecimal(c == 'u' ? 4 : 2);
    if (static_cast<unsigned char>(c) >= 0x80) return utf8_code_point(character());
    ++at_;
    switch (c) {
      case 'n': return '\n';
      case 'r': return '\r';
      case 't': return '\t';
      case 'f': return '\f';
      case 'v': return '\v';
      case 'a': return '\a';
      case 'e': return 0x1B;
      case '0': return 0;
      default: break;
    }
    if (std::isalnum(static_cast<unsigned char>(c))) broken(fmt::format("\\{} is not known", c));
    return static_cast<unsigned char>(c);
  }

  char32_t hexadecimal(size_t digits) {
    ++at_;
    const bool braces = peek() == '{';
    if (braces) ++at_;
    uint32_t code = 0;
    size_t count = 0;
    while (!done() && std::isxdigit(static_cast<unsigned char>(peek())) && (braces ? count < 8 : count < digits)) {
      const char c = static_cast<char>(std::tolower(peek()));
      code = code * 16 + static_cast<uint32_t>(c <= '9' ? c - '0' : c - 'a' + 10);
      ++at_;
      ++count;
    }
    if (braces && peek() != '}') broken("a hexadecimal number has no end");
    if (braces) ++at_;
    if (count == 0 || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) broken("a hexadecimal number is no character");
    return code;
  }

  void property(Set& set) {
    bool negated = peek(1) == 'P';
    at_ += 2;
    std::string name;
    if (peek() == '{') {
      const size_t end = pattern_.find('}', at_);
      if (end == std::string_view::npos || end - at_ > 64) broken("a property has no end");
      name = std::string(pattern_.substr(at_ + 1, end - at_ - 1));
      at_ = end + 1;
    } else {
      name = std::string(1, peek());
      ++at_;
    }
    if (name.starts_with('^')) {
      negated = !negated;
      name.erase(0, 1);
    }
    add_property(set, name, negated);
  }

  void add_property(Set& set, const std::string& name, bool negated) {
    std::string key;
    for (const char c : name)
      if (std::isalnum(static_cast<unsigned char>(c))) key += static_cast<char>(std::tolower(c));
      else if (c != '_' && c != ' ' && c != '-' && c != '=' && c != '&') broken("a property has a strange name");
    if (const size_t sign = name.find('='); sign != std::string::npos) {  // General_Category=L, Script=Han, sc=Han
      const std::string of = name.substr(0, sign), value = name.substr(sign + 1);
      if (of == "gc" || of == "General_Category") return add_property(set, value, negated);
      if (of == "sc" || of == "Script" || of == "script") {
        set.items += fmt::format("\\{}{{sc:{}}}", negated ? 'P' : 'p', value);
        return;
      }
      broken(fmt::format("\\p{{{}}} is not known", name));
    }
    if (const auto found = kProperties.find(key); found != kProperties.end()) {
      if (negated) set.others.push_back(fmt::format("[^{}]", found->second));
      else set.items += found->second;
      return;
    }
    const auto category = kCategories.find(key);
    std::string short_name = category != kCategories.end() ? category->second : name;
    if (short_name.size() <= 2 && !short_name.empty()) {
      short_name[0] = static_cast<char>(std::toupper(short_name[0]));
      if (short_name.size() == 2 && short_name != "L&") short_name[1] = static_cast<char>(std::tolower(short_name[1]));
    }
    const bool known = short_name == "L&" || kShortCategories.find(" " + short_name + " ") != std::string_view::npos;
    set.items += fmt::format("\\{}{{{}{}}}", negated ? 'P' : 'p', known ? "" : "sc:", short_name);
  }

  /// One character of a set.
  static std::string one_of(const Set& set) {
    if (set.others.empty()) return set.items.empty() ? "(?!)" : fmt::format("[{}]", set.items);
    std::string result = "(?:";
    if (!set.items.empty()) result += fmt::format("[{}]", set.items);
    for (const std::string& other : set.others) result += (result == "(?:" ? "" : "|") + other;
    return result + ")";
  }

  /// A class from its [ to its ], as an expression of one character.
  std::string char_class(size_t depth) {
    if (depth >= kDepth) broken(fmt::format("classes are nested more than {} deep", kDepth));
    ++at_;
    const bool negated = peek() == '^';
    if (negated) ++at_;
    std::vector<Set> sides(1);  // of &&
    bool first = true;
    for (;; first = false) {
      if (done()) broken("a class has no ]");
      Set& set = sides.back();
      const char c = peek();
      if (c == ']' && !first) {
        ++at_;
        break;
      }
      if (c == '&' && peek(1) == '&') {
        at_ += 2;
        sides.emplace_back();
        continue;
      }
      if (c == '[' && peek(1) == ':') {
        posix(set);
        continue;
      }
      if (c == '[') {
        set.others.push_back(char_class(depth + 1));
        continue;
      }
      const bool many = c == '\\' && std::string_view("sSdDwWhHpP").find(peek(1)) != std::string_view::npos;
      if (many) {
        escape_in(set);
        continue;
      }
      const char32_t low = one_code();
      if (peek() == '-' && peek(1) != ']' && at_ + 1 < pattern_.size() && !(peek(1) == '\\' && many_next(2)) && peek(1) != '[') {
        ++at_;
        const char32_t high = one_code();
        if (high < low) broken("a range of a class runs backwards");
        set.items += code_point(low) + "-" + code_point(high);
      } else {
        set.items += code_point(low);
      }
    }
    if (sides.size() == 1 && sides[0].others.empty()) {
      if (sides[0].items.empty()) return negated ? "(?s:.)" : "(?!)";
      return fmt::format("[{}{}]", negated ? "^" : "", sides[0].items);
    }
    std::string result = "(?:";
    for (size_t i = 0; i + 1 < sides.size(); ++i) result += fmt::format("(?={})", one_of(sides[i]));
    result += one_of(sides.back()) + ")";
    if (negated) result = fmt::format("(?:(?!{})(?s:.))", result);
    if (result.size() > kLongest) broken("it is too long");
    return result;
  }

  bool many_next(size_t ahead) const { return std::string_view("sSdDwWhHpP").find(peek(ahead)) != std::string_view::npos; }

  char32_t one_code() {
    if (peek() != '\\') return utf8_code_point(character());
    if (peek(1) == 'b') {
      at_ += 2;
      return '\b';
    }
    return escaped_code();
  }

  void posix(Set& set) {
    const size_t end = pattern_.find(":]", at_);
    if (end == std::string_view::npos || end - at_ > 32) broken("a POSIX class has no end");
    std::string name(pattern_.substr(at_ + 2, end - at_ - 2));
    at_ = end + 2;
    const bool negated = name.starts_with('^');
    if (negated) name.erase(0, 1);
    if (name == "graph" || name == "print") {
      set.others.push_back(fmt::format("[[:{}{}:]]", negated ? "^" : "", name));
      return;
    }
    if (kProperties.find(name) == kProperties.end()) broken(fmt::format("[:{}:] is not known", name));
    add_property(set, name, negated);
  }

  std::string_view pattern_;
  RegexDialect dialect_;
  size_t at_ = 0;
  std::string out_;
  size_t atom_ = 0;             ///< where the last atom begins in the output
  std::vector<size_t> groups_;  ///< where open groups begin in the output
};

}  // namespace

std::string translate_regex(std::string_view pattern, RegexDialect dialect) {
  check(pattern.size() <= kLongest, "tokenizer.regex", "a regular expression of {} bytes is too long", pattern.size());
  return Translator(pattern, dialect).run();
}

}  // namespace switchyard
