#include "switchyard/formats/template/format.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "switchyard/formats/template/characters.h"
#include "switchyard/formats/template/operations.h"
#include "switchyard/formats/template/print.h"

namespace switchyard::jinja {
namespace {

using Kind = Value::Kind;

std::string printf_real(Runtime& runtime, const char* format, int precision, double value) {
  runtime.budget.text(static_cast<uint64_t>(precision) + 400);
  const int size = std::snprintf(nullptr, 0, format, precision, value);
  std::string text(static_cast<size_t>(std::max(size, 0)) + 1, '\0');
  std::snprintf(text.data(), text.size(), format, precision, value);
  text.pop_back();
  return text;
}

/// A real by one of e E f F g G; alternate keeps the point and zeros.
std::string real_by(Runtime& runtime, double value, char type, int precision, bool alternate) {
  if (!std::isfinite(value)) {
    std::string text = std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
    return type >= 'A' && type <= 'Z' ? upper(text) : text;
  }
  const char plain[] = {'%', '.', '*', type, 0}, alternative[] = {'%', '#', '.', '*', type, 0};
  return printf_real(runtime, alternate ? alternative : plain, precision, value);
}

std::string integer_by(Integer value, int base, bool capital) {
  if (base == 10) return integer_text(value);
  std::string digits;
  const bool negative = value < 0;
  do {
    const int digit = static_cast<int>(value % base);
    digits.push_back((capital ? "0123456789ABCDEF" : "0123456789abcdef")[digit < 0 ? -digit : digit]);
    value /= base;
  } while (value != 0);
  if (negative) digits.push_back('-');
  return {digits.rbegin(), digits.rend()};
}

Integer truncated(const Value& value) {
  const double real = value.as_real();
  if (std::isnan(real)) fault("template.value", "cannot convert float NaN to integer");
  if (!(std::abs(real) < 1.7e38)) fault("template.value", "cannot convert float infinity to integer");
  return static_cast<Integer>(real);
}

int64_t width_of(std::string_view text) { return count_characters(text); }

// "%".

class Percent {
 public:
  Percent(Runtime& runtime, const Value& format, const Value& values)
      : runtime_(runtime), format_(format.str()), markup_(format.string().markup), values_(values), tuple_(values.is(Kind::tuple)) {}

  std::string run() {
    std::string out;
    while (at_ < format_.size()) {
      const size_t percent = format_.find('%', at_);
      out += format_.substr(at_, percent == std::string::npos ? percent : percent - at_);
      if (percent == std::string::npos) break;
      at_ = percent + 1;
      out += conversion();
      runtime_.budget.room(out.size());
    }
    // What can be subscripted counts as a mapping, which may stay unused.
    const bool mapping = values_.is(Kind::dict) || values_.is(Kind::list) || values_.is(Kind::range) || values_.is_undefined();
    const bool left_over = tuple_ ? next_ < values_.items().size() : !used_ && !mapped_ && !mapping;
    if (left_over) fault("template.type", "not all arguments converted during string formatting");
    return out;
  }

 private:
  char take() {
    if (at_ >= format_.size()) fault("template.value", "incomplete format");
    return format_[at_++];
  }

  Value argument() {
    if (tuple_) {
      if (next_ >= values_.items().size()) fault("template.type", "not enough arguments for format string");
      return values_.items()[next_++];
    }
    if (used_) fault("template.type", "not enough arguments for format string");
    used_ = true;
    return values_;
  }

  int64_t number(char& c) {
    int64_t value = 0;
    if (c == '*') {
      const Value given = argument();
      if (!given.is_integer()) fault("template.type", "* wants int");
      c = take();
      return static_cast<int64_t>(std::clamp<Integer>(given.as_integer(), -(Integer{1} << 40), Integer{1} << 40));
    }
    while (c >= '0' && c <= '9') {
      value = std::min<int64_t>(value * 10 + (c - '0'), int64_t{1} << 40);
      c = take();
    }
    return value;
  }

  std::string conversion() {
    Value value;
    char c = take();
    if (c == '(') {
      const size_t begin = at_;
      int open = 1;
      while (open > 0) {
        c = take();
        open += c == '(' ? 1 : c == ')' ? -1 : 0;
      }
      if (!values_.is(Kind::dict)) fault("template.type", "format requires a mapping");
      mapped_ = true;
      const std::string key = format_.substr(begin, at_ - 1 - begin);
      const Value* found = values_.dict().find(key);
      if (!found) fault("template.key", "{}", quoted_text(key));
      value = *found;
      c = take();
    }
    bool left = false, zero = false, plus = false, blank = false, alternate = false;
    for (;; c = take()) {
      if (c == '-') left = true;
      else if (c == '0') zero = true;
      else if (c == '+') plus = true;
      else if (c == ' ') blank = true;
      else if (c == '#') alternate = true;
      else break;
    }
    int64_t width = number(c);
    if (width < 0) {
      left = true;
      width = -width;
    }
    int64_t precision = -1;
    if (c == '.') {
      c = take();
      precision = std::max<int64_t>(0, number(c));
    }
    if (c == 'l' || c == 'h' || c == 'L') c = take();
    if (c == '%') return "%";
    if (value.is_missing()) value = argument();
    runtime_.budget.text(static_cast<uint64_t>(width) + static_cast<uint64_t>(std::max<int64_t>(precision, 0)));
    std::string text = converted(c, value, static_cast<int>(precision), alternate);
    const bool numeric = std::string_view("diuoxXeEfFgG").find(c) != std::string_view::npos;
    std::string sign;
    if (numeric) {
      if (text[0] == '-') {
        sign = "-";
        text.erase(0, 1);
      } else if (plus || blank) {
        sign = plus ? "+" : " ";
      }
    }
    const int64_t room = width - width_of(text) - static_cast<int64_t>(sign.size());
    if (room <= 0) return sign + text;
    if (left) return sign + text + std::string(static_cast<size_t>(room), ' ');
    if (zero && numeric) {
      const size_t prefix = alternate && text.size() > 1 && text[0] == '0' && (text[1] == 'x' || text[1] == 'X' || text[1] == 'o') ? 2 : 0;
      return sign + text.substr(0, prefix) + std::string(static_cast<size_t>(room), '0') + text.substr(prefix);
    }
    return std::string(static_cast<size_t>(room), ' ') + sign + text;
  }

  std::string converted(char type, const Value& value, int precision, bool alternate) {
    switch (type) {
      case 's':
      case 'r':
      case 'a': {
        std::string text = type == 's' ? str(runtime_, value) : repr(runtime_, value);
        if (type == 'a') text = ascii(text);
        if (markup_) text = escaped(runtime_, type == 's' ? value : Value::text(text));
        if (precision >= 0) text.resize(byte_of(text, precision, false));
        return text;
      }
      case 'c':
        if (value.is_string() && value.string().length == 1) return value.str();
        if (value.is_integer()) {
          const Integer code = value.as_integer();
          if (code < 0 || code > 0x10FFFF) fault("template.value", "%c arg not in range(0x110000)");
          std::string text;
          append_character(text, static_cast<char32_t>(code));
          return text;
        }
        fault("template.type", "%c requires int or char");
      case 'd':
      case 'i':
      case 'u': {
        if (value.is(Kind::big)) return value.str();
        if (value.is_undefined()) use_undefined(value);
        if (!value.is_number()) fault("template.type", "%{} format: a real number is required, not {}", type, type_name(value));
        return padded_digits(integer_text(value.is(Kind::real) ? truncated(value) : value.as_integer()), precision);
      }
      case 'o':
      case 'x':
      case 'X': {
        if (!value.is_integer()) fault("template.type", "%{} format: an integer is required, not {}", type, type_name(value));
        std::string digits = padded_digits(integer_by(value.as_integer(), type == 'o' ? 8 : 16, type == 'X'), precision);
        if (alternate) digits.insert(digits[0] == '-' ? 1 : 0, type == 'o' ? "0o" : type == 'x' ? "0x" : "0X");
        return digits;
      }
      case 'e': case 'E': case 'f': case 'F': case 'g': case 'G': {
        if (value.is_undefined()) use_undefined(value);
        if (!value.is_integer() && !value.is(Kind::real)) fault("template.type", "must be real number, not {}", type_name(value));
        return real_by(runtime_, value.as_real(), type, precision < 0 ? 6 : precision, alternate);
      }
      default: fault("template.value", "unsupported format character '{}' (0x{:x}) at index {}", type, static_cast<unsigned char>(type), at_ - 1);
    }
  }

  static std::string padded_digits(std::string digits, int precision) {
    const size_t sign = digits[0] == '-';
    if (precision > static_cast<int>(digits.size() - sign)) digits.insert(sign, static_cast<size_t>(precision) - (digits.size() - sign), '0');
    return digits;
  }

  static std::string ascii(std::string_view text) {
    std::string out;
    for (size_t at = 0; at < text.size();) {
      const char32_t c = next_character(text, at);
      if (c < 0x80) out.push_back(static_cast<char>(c));
      else if (c < 0x100) out += fmt::format("\\x{:02x}", static_cast<uint32_t>(c));
      else if (c < 0x10000) out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
      else out += fmt::format("\\U{:08x}", static_cast<uint32_t>(c));
    }
    return out;
  }

  Runtime& runtime_;
  const std::string& format_;
  bool markup_;
  const Value& values_;
  bool tuple_, used_ = false, mapped_ = false;
  size_t at_ = 0, next_ = 0;
};

// "{}".

struct Spec {
  std::string fill = " ";
  char align = 0, sign = '-', grouping = 0, type = 0;
  bool alternate = false, zero = false;
  int64_t width = 0, precision = -1;
};

Spec read_spec(Runtime& runtime, std::string_view text) {
  Spec spec;
  size_t at = 0;
  const auto is_align = [](char c) { return c == '<' || c == '>' || c == '=' || c == '^'; };
  if (!text.empty()) {
    size_t behind = 0;
    next_character(text, behind);
    if (behind < text.size() && is_align(text[behind])) {
      spec.fill = text.substr(0, behind);
      spec.align = text[behind];
      at = behind + 1;
    } else if (is_align(text[0])) {
      spec.align = text[0];
      at = 1;
    }
  }
  const auto peek = [&] { return at < text.size() ? text[at] : '\0'; };
  const auto digits = [&] {
    int64_t value = 0;
    while (peek() >= '0' && peek() <= '9') value = std::min<int64_t>(value * 10 + (text[at++] - '0'), int64_t{1} << 40);
    return value;
  };
  if (peek() == '+' || peek() == '-' || peek() == ' ') spec.sign = text[at++];
  if (peek() == '#') spec.alternate = true, ++at;
  if (peek() == '0') {
    ++at;
    spec.zero = true;
    if (!spec.align) {
      spec.fill = "0";
      spec.align = '=';
    }
  }
  spec.width = digits();
  if (peek() == ',' || peek() == '_') spec.grouping = text[at++];
  if (peek() == '.') {
    ++at;
    if (peek() < '0' || peek() > '9') fault("template.value", "Format specifier missing precision");
    spec.precision = digits();
  }
  if (at < text.size()) spec.type = text[at++];
  if (at < text.size()) fault("template.value", "Invalid format specifier '{}'", text);
  runtime.budget.text(static_cast<uint64_t>(spec.width) * spec.fill.size() + static_cast<uint64_t>(std::max<int64_t>(spec.precision, 0)));
  return spec;
}

std::string aligned(const Spec& spec, std::string_view sign, std::string_view text, char otherwise) {
  const int64_t room = spec.width - width_of(text) - width_of(sign);
  if (room <= 0) return std::string(sign) + std::string(text);
  const char align = spec.align ? spec.align : otherwise;
  const auto fill = [&](int64_t count) {
    std::string out;
    for (int64_t i = 0; i < count; ++i) out += spec.fill;
    return out;
  };
  const std::string whole = std::string(sign) + std::string(text);
  if (align == '<') return whole + fill(room);
  if (align == '^') return fill(room / 2) + whole + fill(room - room / 2);
  if (align == '=') return std::string(sign) + fill(room) + std::string(text);
  return fill(room) + whole;
}

/// Separators between groups of the whole part's digits.
std::string grouped(const std::string& text, char separator, size_t group) {
  if (!separator) return text;
  size_t end = 0;
  while (end < text.size() && std::isalnum(static_cast<unsigned char>(text[end])) && text[end] != 'e') ++end;
  std::string out;
  for (size_t i = 0; i < end; ++i) {
    if (i > 0 && (end - i) % group == 0) out.push_back(separator);
    out.push_back(text[i]);
  }
  return out + text.substr(end);
}

std::string formatted_number(Runtime& runtime, const Value& value, const Spec& spec) {
  std::string digits;
  std::string prefix;
  size_t group = 3;
  const char type = spec.type;
  const bool whole = value.is_integer() && (type == 0 || std::string_view("bcdoxXn").find(type) != std::string_view::npos);
  if (whole) {
    if (spec.precision >= 0) fault("template.value", "Precision not allowed in integer format specifier");
    if (type == 'c') {
      std::string text;
      const Integer code = value.as_integer();
      if (code < 0 || code > 0x10FFFF) fault("template.value", "%c arg not in range(0x110000)");
      append_character(text, static_cast<char32_t>(code));
      return aligned(spec, "", text, '<');
    }
    const int base = type == 'b' ? 2 : type == 'o' ? 8 : type == 'x' || type == 'X' ? 16 : 10;
    digits = integer_by(value.as_integer(), base, type == 'X');
    if (base != 10) group = 4;
    if (spec.alternate && base != 10) prefix = std::string("0") + type;
  } else {
    if (std::string_view("eEfFgGn%\0", 9).find(type) == std::string_view::npos)
      fault("template.value", "Unknown format code '{}' for object of type '{}'", type, type_name(value));
    double real = value.as_real();
    if (type == '%') real *= 100;
    const int precision = static_cast<int>(spec.precision);
    if (type == 0 && precision < 0) {
      digits = real_text(real);
    } else if (type == 0) {
      digits = real_by(runtime, real, 'g', std::max(precision, 1), spec.alternate);
      if (digits.find_first_of(".en") == std::string::npos) {
        // At least one digit stands behind the point, unless that would be one too many.
        const size_t length = digits.size() - (digits[0] == '-');
        if (static_cast<int>(length) < std::max(precision, 1)) digits += ".0";
        else digits = real_by(runtime, real, 'e', std::max(precision, 1) - 1, false);
      }
    } else {
      const char shape = type == '%' ? 'f' : type == 'n' ? 'g' : type;
      digits = real_by(runtime, real, shape, precision < 0 ? 6 : precision, spec.alternate);
      if (type == '%') digits += "%";
    }
  }
  std::string sign;
  if (digits[0] == '-') {
    sign = "-";
    digits.erase(0, 1);
  } else if (spec.sign != '-') {
    sign = std::string(1, spec.sign);
  }
  digits = grouped(digits, spec.grouping, group);
  if (spec.grouping && spec.fill == "0" && spec.align == '=') {
    // Zeros that fill are grouped too.
    while (static_cast<int64_t>(digits.size() + sign.size() + prefix.size()) < spec.width) {
      const size_t first = digits.find(spec.grouping);
      const size_t head = first == std::string::npos ? digits.find_first_not_of("0123456789") : first;
      const size_t length = head == std::string::npos ? digits.size() : head;
      digits.insert(0, length == group ? std::string("0") + spec.grouping : "0");
    }
  }
  return aligned(spec, sign + prefix, digits, '>');
}

std::string formatted(Runtime& runtime, const Value& value, std::string_view spec_text) {
  if (spec_text.empty()) return str(runtime, value);
  if (value.is_undefined() || value.is_none() || !(value.is_string() || value.is_integer() || value.is(Kind::real)))
    fault("template.type", "unsupported format string passed to {}.__format__", type_name(value));
  const Spec spec = read_spec(runtime, spec_text);
  if (!value.is_string()) return formatted_number(runtime, value, spec);
  if (spec.type && spec.type != 's') fault("template.value", "Unknown format code '{}' for object of type 'str'", spec.type);
  if (spec.align == '=' && !spec.zero) fault("template.value", "'=' alignment not allowed in string format specifier");
  Spec own = spec;
  if (own.align == '=') own.align = '<';
  std::string text = value.str();
  if (spec.precision >= 0) text.resize(byte_of(text, spec.precision, false));
  return aligned(own, "", text, '<');
}

class Braces {
 public:
  Braces(Runtime& runtime, const Value& format, Arguments& arguments)
      : runtime_(runtime), markup_(format.string().markup), arguments_(arguments) {}

  std::string run(std::string_view format, int depth) {
    if (depth < 0) fault("template.value", "Max string recursion exceeded");
    std::string out;
    for (size_t at = 0; at < format.size();) {
      const char c = format[at++];
      if (c != '{' && c != '}') {
        out.push_back(c);
        continue;
      }
      if (at < format.size() && format[at] == c) {
        out.push_back(c);
        ++at;
        continue;
      }
      if (c == '}') fault("template.value", "Single '}}' encountered in format string");
      if (at >= format.size()) fault("template.value", "Single '{{' encountered in format string");
      out += field(format, at, depth);
      runtime_.budget.room(out.size());
    }
    return out;
  }

 private:
  std::string field(std::string_view format, size_t& at, int depth) {
    const size_t begin = at;
    int open = 1, square = 0;
    size_t end = at;
    for (; end < format.size(); ++end) {
      const char c = format[end];
      if (c == '[') ++square;
      else if (c == ']' && square > 0) --square;
      else if (c == '{') ++open;
      else if (c == '}' && --open == 0) break;
    }
    if (open > 0) fault("template.value", "expected '}}' before end of string");
    const std::string_view inside = format.substr(begin, end - begin);
    at = end + 1;
    size_t split = 0, brackets = 0;
    while (split < inside.size() && (brackets > 0 || (inside[split] != '!' && inside[split] != ':'))) {
      brackets += inside[split] == '[';
      if (inside[split] == ']' && brackets > 0) --brackets;
      ++split;
    }
    Value value = look_up(inside.substr(0, split));
    if (split < inside.size() && inside[split] == '!') {
      const char conversion = split + 1 < inside.size() ? inside[split + 1] : '\0';
      split += 2;
      if (conversion == 'r') value = runtime_.text(repr(runtime_, value));
      else if (conversion == 's') value = runtime_.text(str(runtime_, value));
      else if (conversion == 'a') value = percent_format(runtime_, Value::text("%a"), runtime_.tuple({value}));
      else fault("template.value", "Unknown conversion specifier {}", conversion);
    }
    std::string spec;
    if (split < inside.size()) {
      if (inside[split] != ':') fault("template.value", "expected ':' after conversion specifier");
      spec = run(inside.substr(split + 1), depth - 1);
    }
    if (markup_) {
      if (value.is_string() && value.string().markup) return value.str();
      return escaped(runtime_, Value::text(formatted(runtime_, value, spec)));
    }
    return formatted(runtime_, value, spec);
  }

  Value look_up(std::string_view path) {
    size_t at = path.find_first_of(".[");
    const std::string_view first = path.substr(0, at);
    Value value = root(first);
    while (at < path.size()) {
      if (path[at] == '.') {
        const size_t end = std::min(path.find_first_of(".[", at + 1), path.size());
        value = attribute(runtime_, value, path.substr(at + 1, end - at - 1));
        at = end;
      } else if (path[at] == '[') {
        const size_t end = path.find(']', at);
        if (end == std::string_view::npos) fault("template.value", "Missing ']' in format string");
        const std::string_view key = path.substr(at + 1, end - at - 1);
        Integer index = 0;
        value = item(runtime_, value, number(key, index) ? Value::integer(index) : runtime_.text(std::string(key)));
        at = end + 1;
      } else {
        fault("template.value", "Only '.' or '[' may follow ']' in format field specifier");
      }
    }
    return value;
  }

  static bool number(std::string_view text, Integer& value) {
    if (text.empty() || text.size() > 18) return false;
    for (char c : text) {
      if (c < '0' || c > '9') return false;
      value = value * 10 + (c - '0');
    }
    return true;
  }

  Value root(std::string_view name) {
    Integer index = 0;
    if (name.empty()) {
      if (manual_) fault("template.value", "cannot switch from manual field specification to automatic field numbering");
      automatic_ = true;
      index = next_++;
    } else if (number(name, index)) {
      if (automatic_) fault("template.value", "cannot switch from automatic field numbering to manual field specification");
      manual_ = true;
    } else {
      for (const auto& [key, value] : arguments_.named)
        if (key == name) return value;
      fault("template.key", "{}", quoted_text(name));
    }
    if (index >= static_cast<Integer>(arguments_.positional.size()))
      fault("template.value", "Replacement index {} out of range for positional args tuple", integer_text(index));
    return arguments_.positional[static_cast<size_t>(index)];
  }

  Runtime& runtime_;
  bool markup_;
  Arguments& arguments_;
  bool automatic_ = false, manual_ = false;
  int64_t next_ = 0;
};

}  // namespace

Value percent_format(Runtime& runtime, const Value& format, const Value& values) {
  return runtime.text(Percent(runtime, format, values).run(), format.string().markup);
}

Value brace_format(Runtime& runtime, const Value& format, Arguments& arguments) {
  return runtime.text(Braces(runtime, format, arguments).run(format.str(), 2), format.string().markup);
}

double rounded(double value, Integer digits) {
  if (!std::isfinite(value) || digits > 323) return value;
  if (digits < -308) return std::copysign(0.0, value);
  const int places = static_cast<int>(digits);
  if (places >= 0) {
    char buffer[800];
    std::snprintf(buffer, sizeof(buffer), "%.*f", places, value);
    return std::strtod(buffer, nullptr);
  }
  const double scale = std::pow(10.0, -places), quotient = value / scale;
  double nearest = std::nearbyint(quotient);
  return nearest * scale;
}

}  // namespace switchyard::jinja
