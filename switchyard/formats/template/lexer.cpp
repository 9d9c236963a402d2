#include "switchyard/formats/template/lexer.h"

#include <unicode/uchar.h>

#include <array>
#include <charconv>

#include "switchyard/formats/template/budget.h"
#include "switchyard/formats/template/characters.h"

namespace switchyard::jinja {
namespace {

[[noreturn]] void syntax(int line, std::string reason) { throw Fault{"template.syntax", std::move(reason), line, {}}; }

class Lexer {
 public:
  explicit Lexer(const std::string& source) : source_(source) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) data();
    add(Token::Kind::end, at_, {});
    return std::move(tokens_);
  }

 private:
  using Kind = Token::Kind;

  bool stands(std::string_view what, size_t at) const { return source_.compare(at, what.size(), what) == 0; }
  char at(size_t i) const { return i < source_.size() ? source_[i] : '\0'; }

  void add(Kind kind, size_t begin, std::string text, Value value = {}) {
    tokens_.push_back({kind, line_, begin, at_, std::move(text), std::move(value)});
  }
  /// Moves on and counts lines.
  void advance(size_t to) {
    for (; at_ < to; ++at_) line_ += source_[at_] == '\n';
  }
  size_t spaces(size_t from) const {
    while (from < source_.size()) {
      size_t next = from;
      if (!is_space(next_character(source_, next))) break;
      from = next;
    }
    return from;
  }

  /// Behind "%}" (or "-%}", "+%}") with the white space it takes along; 0 when none stands here.
  size_t closing(size_t from, std::string_view mark, bool trims, bool plus) const {
    if (at(from) == '-' && stands(mark, from + 1)) return spaces(from + 1 + mark.size());
    if (plus && at(from) == '+' && stands(mark, from + 1)) return from + 1 + mark.size();
    if (!stands(mark, from)) return 0;
    const size_t behind = from + mark.size();
    return trims && at(behind) == '\n' ? behind + 1 : behind;
  }

  /// Behind the opening tag of a raw block at `from`; 0 when none stands here.
  size_t raw_opening(size_t from) const {
    size_t i = from + 2;
    if (at(i) == '-' || at(i) == '+') ++i;
    i = spaces(i);
    if (!stands("raw", i)) return 0;
    return closing(spaces(i + 3), "%}", /*trims=*/false, /*plus=*/false);
  }

  /// Text up to a tag, less what its sign or the rule for blocks takes away.
  void text_before(size_t end, char sign, bool block) {
    std::string_view text(source_.data() + at_, end - at_);
    if (sign == '-') {
      text = strip(text, nullptr, Ends::right);
    } else if (sign != '+' && block) {
      const size_t newline = text.rfind('\n');
      const size_t line = newline == std::string_view::npos ? 0 : newline + 1;
      if ((line > 0 || line_starting_) && strip(text.substr(line), nullptr, Ends::right).empty()) text = text.substr(0, line);
    }
    if (!text.empty()) {
      const size_t begin = at_;
      at_ += text.size();
      add(Kind::data, begin, std::string(text));
      at_ = begin;
    }
    advance(end);
  }

  void data() {
    size_t tag = at_;
    while (true) {
      tag = source_.find('{', tag);
      if (tag == std::string::npos) {
        const size_t begin = at_;
        std::string rest = source_.substr(at_);
        at_ = source_.size();
        add(Kind::data, begin, std::move(rest));
        return;
      }
      const char next = at(tag + 1);
      if (next == '%' || next == '{' || next == '#') break;
      ++tag;
    }
    const char kind = at(tag + 1), sign = at(tag + 2);
    text_before(tag, sign, kind != '{');
    const bool signed_tag = sign == '-' || sign == '+';
    if (kind == '%') {
      if (const size_t inside = raw_opening(tag)) {
        set_line_starting(inside);
        advance(inside);
        return raw();
      }
    }
    advance(tag + 2 + signed_tag);
    if (kind == '#') return comment();
    add(kind == '%' ? Kind::block_begin : Kind::print_begin, tag, {});
    tag_inside(kind == '%');
  }

  void set_line_starting(size_t end) { line_starting_ = end > 0 && source_[end - 1] == '\n'; }

  void comment() {
    for (size_t i = at_; i < source_.size(); ++i) {
      if (const size_t behind = closing(i, "#}", /*trims=*/true, /*plus=*/true)) {
        set_line_starting(behind);
        return advance(behind);
      }
    }
    syntax(line_, "a comment has no end: '#}' is missing");
  }

  void raw() {
    for (size_t i = source_.find("{%", at_); i != std::string::npos; i = source_.find("{%", i + 1)) {
      size_t inside = i + 2;
      const char sign = at(inside);
      if (sign == '-' || sign == '+') ++inside;
      inside = spaces(inside);
      if (!stands("endraw", inside)) continue;
      const size_t behind = closing(spaces(inside + 6), "%}", /*trims=*/true, /*plus=*/true);
      if (!behind) continue;
      text_before(i, sign, /*block=*/true);
      set_line_starting(behind);
      return advance(behind);
    }
    syntax(line_, "a raw block has no end: '{% endraw %}' is missing");
  }

  /// What stands between {% and %}, or {{ and }}.
  void tag_inside(bool block) {
    std::string open;  // brackets that wait for their partner
    while (at_ < source_.size()) {
      const size_t begin = at_;
      if (open.empty()) {
        const size_t behind = block ? closing(begin, "%}", true, true) : closing(begin, "}}", false, false);
        if (behind) {
          set_line_starting(behind);
          const size_t sign = at(begin) == '-' || at(begin) == '+';
          at_ = begin + sign + 2;
          add(block ? Kind::block_end : Kind::print_end, begin, {});
          at_ = begin;
          return advance(behind);
        }
      }
      if (const size_t behind = spaces(begin); behind > begin) {
        advance(behind);
        continue;
      }
      const char c = source_[begin];
      if (c >= '0' && c <= '9') {
        number();
      } else if (c == '\'' || c == '"') {
        literal(c);
      } else if (const size_t behind = name_end(begin); behind > begin) {
        at_ = behind;
        add(Kind::name, begin, source_.substr(begin, behind - begin));
      } else {
        operation(open);
      }
    }
    // The parser finds the end where it expected more.
  }

  size_t name_end(size_t from) const {
    size_t next = from;
    if (!is_name_start(next_character(source_, next))) return from;
    while (next < source_.size()) {
      size_t behind = next;
      if (!is_name_part(next_character(source_, behind))) break;
      next = behind;
    }
    return next;
  }

  /// Digits with single underscores between; the byte behind them, `from` when there are none.
  size_t digits(size_t from, int base) const {
    const auto digit = [&](char c) {
      const int value = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : 99;
      return value < base;
    };
    if (!digit(at(from))) return from;
    while (digit(at(from)) || (at(from) == '_' && digit(at(from + 1)))) ++from;
    return from;
  }

  void number() {
    const size_t begin = at_;
    const size_t whole = digits(begin, 10);
    const bool behind_dot = begin > 0 && source_[begin - 1] == '.';
    size_t end = whole;
    if (!behind_dot) {
      if (at(end) == '.' && digits(end + 1, 10) > end + 1) end = digits(end + 1, 10);
      if ((at(end) | 32) == 'e') {
        const size_t sign = end + 1 + (at(end + 1) == '+' || at(end + 1) == '-');
        if (digits(sign, 10) > sign) end = digits(sign, 10);
      }
    }
    if (end > whole) {
      at_ = end;
      const std::string text = plain(begin, end);
      double value = 0;
      const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), value);
      if (error == std::errc::result_out_of_range) value = std::strtod(text.c_str(), nullptr);
      return add(Kind::real, begin, text, Value::real(value));
    }
    int base = 10;
    size_t from = begin;
    if (at(begin) == '0') {
      const char mark = static_cast<char>(at(begin + 1) | 32);
      const int named = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
      const size_t first = begin + 2 + (at(begin + 2) == '_');
      if (named && digits(first, named) > first) {
        base = named;
        from = first;
        end = digits(first, named);
      } else {  // 0, 00, 0_0; digits after it are another number
        end = begin + 1;
        while (at(end) == '0' || (at(end) == '_' && at(end + 1) == '0')) ++end;
      }
    }
    at_ = end;
    Integer value = 0;
    for (char c : plain(from, end)) {
      const int digit = c <= '9' ? c - '0' : (c | 32) - 'a' + 10;
      if (__builtin_mul_overflow(value, static_cast<Integer>(base), &value) || __builtin_add_overflow(value, static_cast<Integer>(digit), &value))
        syntax(line_, "a number has more than 128 bits");
    }
    add(Kind::integer, begin, source_.substr(begin, end - begin), Value::integer(value));
  }

  std::string plain(size_t begin, size_t end) const {
    std::string text;
    for (size_t i = begin; i < end; ++i)
      if (source_[i] != '_') text.push_back(source_[i]);
    return text;
  }

  void literal(char quote) {
    const size_t begin = at_;
    size_t i = begin + 1;
    while (i < source_.size() && source_[i] != quote) i += source_[i] == '\\' ? 2 : 1;
    if (i >= source_.size()) syntax(line_, fmt::format("a text that begins with {} has no end", quote));
    const int line = line_;
    std::string text = unescape(std::string_view(source_).substr(begin + 1, i - begin - 1), line);
    advance(i + 1);
    tokens_.push_back({Kind::text, line, begin, at_, std::move(text), {}});
  }

  void operation(std::string& open) {
    static constexpr std::array<std::string_view, 6> kDouble{"//", "**", "==", "!=", ">=", "<="};
    const size_t begin = at_;
    for (std::string_view two : kDouble) {
      if (stands(two, begin)) {
        at_ += 2;
        return add(Kind::op, begin, std::string(two));
      }
    }
    const char c = source_[begin];
    if (std::string_view("+-/*%~[](){}><=.:|,;").find(c) == std::string_view::npos) {
      size_t behind = begin;
      next_character(source_, behind);
      syntax(line_, fmt::format("'{}' is not expected inside a tag", source_.substr(begin, behind - begin)));
    }
    if (c == '{' || c == '(' || c == '[') {
      open.push_back(c == '{' ? '}' : c == '(' ? ')' : ']');
    } else if (c == '}' || c == ')' || c == ']') {
      if (open.empty()) syntax(line_, fmt::format("'{}' closes nothing", c));
      if (open.back() != c) syntax(line_, fmt::format("'{}' stands where '{}' is expected", c, open.back()));
      open.pop_back();
    }
    ++at_;
    add(Kind::op, begin, std::string(1, c));
  }

  const std::string& source_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::string normalise_lines(std::string_view source) {
  std::string text;
  text.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      text.push_back('\n');
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      text.push_back(source[i]);
    }
  }
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

std::vector<Token> tokenize(const std::string& source) { return Lexer(source).run(); }

std::string unescape(std::string_view inside, int line) {
  std::string text;
  const auto digits = [&](size_t& i, int most, int base) {
    char32_t code = 0;
    int count = 0;
    for (; count < most && i < inside.size(); ++i, ++count) {
      const char c = inside[i];
      const int digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : 99;
      if (digit >= base) break;
      code = code * static_cast<char32_t>(base) + static_cast<char32_t>(digit);
    }
    if (base == 16 && count < most) syntax(line, "an escape \\x, \\u or \\U has too few digits");
    return code;
  };
  const auto append = [&](char32_t code) {
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) syntax(line, fmt::format("an escape names U+{:X}, which is no character", static_cast<uint32_t>(code)));
    append_character(text, code);
  };
  for (size_t i = 0; i < inside.size();) {
    const char c = inside[i++];
    if (c != '\\') {
      text.push_back(c);
      continue;
    }
    if (i == inside.size()) syntax(line, "a text ends with a single backslash");
    const char escape = inside[i++];
    switch (escape) {
      case '\n': break;
      case '\\': case '\'': case '"': text.push_back(escape); break;
      case 'a': text.push_back('\a'); break;
      case 'b': text.push_back('\b'); break;
      case 'f': text.push_back('\f'); break;
      case 'n': text.push_back('\n'); break;
      case 'r': text.push_back('\r'); break;
      case 't': text.push_back('\t'); break;
      case 'v': text.push_back('\v'); break;
      case 'x': append(digits(i, 2, 16)); break;
      case 'u': append(digits(i, 4, 16)); break;
      case 'U': append(digits(i, 8, 16)); break;
      case 'N': {
        const size_t end = inside.find('}', i);
        if (i >= inside.size() || inside[i] != '{' || end == std::string_view::npos) syntax(line, "an escape \\N has no {name}");
        UErrorCode status = U_ZERO_ERROR;
        const UChar32 code = u_charFromName(U_EXTENDED_CHAR_NAME, std::string(inside.substr(i + 1, end - i - 1)).c_str(), &status);
        if (U_FAILURE(status)) syntax(line, "an escape \\N names no known character");
        append(static_cast<char32_t>(code));
        i = end + 1;
        break;
      }
      default:
        if (escape >= '0' && escape <= '7') {
          --i;
          append(digits(i, 3, 8));
        } else if (static_cast<unsigned char>(escape) >= 128) {
          // The reference writes such a character as an escape of its own first, whose backslash this one then takes.
          --i;
          const char32_t code = next_character(inside, i);
          text += code < 0x100 ? fmt::format("\\x{:02x}", static_cast<uint32_t>(code))
                  : code < 0x10000 ? fmt::format("\\u{:04x}", static_cast<uint32_t>(code))
                                   : fmt::format("\\U{:08x}", static_cast<uint32_t>(code));
        } else {
          text.push_back('\\');
          text.push_back(escape);
        }
    }
  }
  return text;
}

}  // namespace switchyard::jinja
