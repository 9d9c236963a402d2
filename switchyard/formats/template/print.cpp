#include "switchyard/formats/template/print.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "switchyard/formats/template/characters.h"
#include "switchyard/formats/template/operations.h"

namespace switchyard::jinja {
namespace {

using Kind = Value::Kind;

class Printer {
 public:
  explicit Printer(Runtime& runtime) : runtime_(runtime) {}

  void repr(const Value& value) {
    runtime_.budget.step();
    switch (value.kind()) {
      case Kind::missing:
      case Kind::undefined: return put("Undefined");
      case Kind::none: return put("None");
      case Kind::boolean: return put(value.is_true() ? "True" : "False");
      case Kind::integer: return put(integer_text(value.as_integer()));
      case Kind::big: return put(value.str());
      case Kind::real: return put(real_text(value.as_real()));
      case Kind::string: return put(value.string().markup ? "Markup(" + quoted_text(value.str()) + ")" : quoted_text(value.str()));
      case Kind::list: return put("["), items(value.items()), put("]");
      case Kind::tuple: return put("("), items(value.items()), put(value.items().size() == 1 ? ",)" : ")");
      case Kind::view: return put(type_name(value) + "(["), items(value.items()), put("])");
      case Kind::dict: return dict(value.dict());
      case Kind::range: {
        const Range& range = value.range();
        put("range(" + integer_text(range.start) + ", " + integer_text(range.stop));
        return put(range.step == 1 ? ")" : ", " + integer_text(range.step) + ")");
      }
      case Kind::iterator: return put("<generator object>");
      case Kind::space: {
        const Level level(runtime_.budget);  // it may hold itself
        put("<Namespace ");
        dict(value.space().attributes);
        return put(">");
      }
      case Kind::function: {
        const Function& function = value.function();
        if (function.attribute) {
          const Value own = function.attribute(runtime_, "\x01repr");
          if (own.is_string()) return put(own.str());
        }
        return put(function.shown.empty() ? "<" + function.type + " " + function.name + ">" : function.shown);
      }
    }
  }

  std::string take() { return std::move(out_); }

 private:
  void put(std::string_view text) {
    runtime_.budget.room(out_.size() + text.size());
    out_ += text;
  }
  void items(const std::vector<Value>& values) {
    for (size_t i = 0; i < values.size(); ++i) {
      if (i > 0) put(", ");
      repr(values[i]);
    }
  }
  void dict(const Dict& dict) {
    put("{");
    bool first = true;
    for (const auto& [key, value] : dict.entries) {
      if (!first) put(", ");
      first = false;
      repr(key);
      put(": ");
      repr(value);
    }
    put("}");
  }

  Runtime& runtime_;
  std::string out_;
};

class JsonWriter {
 public:
  JsonWriter(Runtime& runtime, const JsonStyle& style) : runtime_(runtime), style_(style) {}

  void write(const Value& value) {
    runtime_.budget.step();
    switch (value.kind()) {
      case Kind::none: return put("null");
      case Kind::boolean: return put(value.is_true() ? "true" : "false");
      case Kind::integer: return put(integer_text(value.as_integer()));
      case Kind::big: return put(value.str());
      case Kind::real: return put(number(value.as_real()));
      case Kind::string: return text(value.str());
      case Kind::list:
      case Kind::tuple: {
        if (value.items().empty()) return put("[]");
        open('[');
        bool first = true;
        for (const Value& item : value.items()) {
          separate(first);
          write(item);
        }
        return close(']');
      }
      case Kind::dict: return dict(value.dict());
      default: fault("template.type", "Object of type {} is not JSON serializable", type_name(value));
    }
  }

  std::string take() { return std::move(out_); }

 private:
  static std::string number(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
    return real_text(value);
  }
  void put(std::string_view text) {
    runtime_.budget.room(out_.size() + text.size());
    out_ += text;
  }
  void line() {
    if (!style_.indented) return;
    put("\n");
    for (int i = 0; i < level_; ++i) put(style_.indent);
  }
  void open(char bracket) {
    put(std::string_view(&bracket, 1));
    ++level_;
  }
  void close(char bracket) {
    --level_;
    line();
    put(std::string_view(&bracket, 1));
  }
  void separate(bool& first) {
    if (!first) put(style_.item_separator);
    first = false;
    line();
  }

  void dict(const Dict& dict) {
    if (dict.entries.empty()) return put("{}");
    std::vector<const std::pair<Value, Value>*> order;
    for (const auto& entry : dict.entries) order.push_back(&entry);
    if (style_.sorted)
      std::stable_sort(order.begin(), order.end(), [&](const auto* a, const auto* b) { return less(runtime_, a->first, b->first); });
    open('{');
    bool first = true;
    for (const auto* entry : order) {
      separate(first);
      key(entry->first);
      put(style_.key_separator);
      write(entry->second);
    }
    close('}');
  }

  void key(const Value& key) {
    switch (key.kind()) {
      case Kind::string: return text(key.str());
      case Kind::boolean: return put(key.is_true() ? "\"true\"" : "\"false\"");
      case Kind::none: return put("\"null\"");
      case Kind::integer: return put("\"" + integer_text(key.as_integer()) + "\"");
      case Kind::big: return put("\"" + key.str() + "\"");
      case Kind::real: return put("\"" + number(key.as_real()) + "\"");
      default: fault("template.type", "keys must be str, int, float, bool or None, not {}", type_name(key));
    }
  }

  void text(std::string_view text) {
    std::string out = "\"";
    for (size_t at = 0; at < text.size();) {
      const char c = text[at];
      if (static_cast<unsigned char>(c) >= 0x80) {
        const size_t begin = at;
        const char32_t code = next_character(text, at);
        if (!style_.ascii) out += text.substr(begin, at - begin);
        else if (code < 0x10000) out += fmt::format("\\u{:04x}", static_cast<uint32_t>(code));
        else out += fmt::format("\\u{:04x}\\u{:04x}", 0xD7C0u + (static_cast<uint32_t>(code) >> 10), 0xDC00u + (static_cast<uint32_t>(code) & 0x3FF));
        continue;
      }
      ++at;
      switch (c) {
        case '"': out += "\\\""; break;
        case '\\': out += "\\\\"; break;
        case '\n': out += "\\n"; break;
        case '\r': out += "\\r"; break;
        case '\t': out += "\\t"; break;
        case '\f': out += "\\f"; break;
        case '\b': out += "\\b"; break;
        default:
          if (static_cast<unsigned char>(c) < 0x20 || (c == 0x7F && style_.ascii)) out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
          else out.push_back(c);
      }
    }
    out.push_back('"');
    runtime_.budget.touch(out.size());
    put(out);
  }

  Runtime& runtime_;
  const JsonStyle& style_;
  std::string out_;
  int level_ = 0;
};

}  // namespace

std::string integer_text(Integer value) {
  char digits[48];
  char* at = digits + sizeof(digits);
  const bool negative = value < 0;
  do {
    const int digit = static_cast<int>(value % 10);
    *--at = static_cast<char>('0' + (digit < 0 ? -digit : digit));
    value /= 10;
  } while (value != 0);
  if (negative) *--at = '-';
  return {at, static_cast<size_t>(digits + sizeof(digits) - at)};
}

std::string real_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[64];
  const auto result = std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific);
  const std::string_view shortest(buffer, static_cast<size_t>(result.ptr - buffer));
  const size_t e = shortest.find('e');
  const int exponent = std::stoi(std::string(shortest.substr(e + 1)));
  std::string digits, sign;
  for (char c : shortest.substr(0, e)) {
    if (c == '-') sign = "-";
    else if (c != '.') digits.push_back(c);
  }
  const int count = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    std::string text = sign + digits.substr(0, 1);
    if (count > 1) text += "." + digits.substr(1);
    return text + fmt::format("e{}{:02}", exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  if (exponent < 0) return sign + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  if (count <= exponent + 1) return sign + digits + std::string(static_cast<size_t>(exponent + 1 - count), '0') + ".0";
  return sign + digits.substr(0, static_cast<size_t>(exponent + 1)) + "." + digits.substr(static_cast<size_t>(exponent + 1));
}

std::string quoted_text(std::string_view text) {
  const bool single = text.find('\'') != std::string_view::npos, twice = text.find('"') != std::string_view::npos;
  const char quote = single && !twice ? '"' : '\'';
  std::string out(1, quote);
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const char32_t c = next_character(text, at);
    if (c == static_cast<unsigned char>(quote) || c == '\\') out += {'\\', static_cast<char>(c)};
    else if (c == '\n') out += "\\n";
    else if (c == '\r') out += "\\r";
    else if (c == '\t') out += "\\t";
    else if (is_printable(c)) out += text.substr(begin, at - begin);
    else if (c < 0x100) out += fmt::format("\\x{:02x}", static_cast<uint32_t>(c));
    else if (c < 0x10000) out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
    else out += fmt::format("\\U{:08x}", static_cast<uint32_t>(c));
  }
  out.push_back(quote);
  return out;
}

std::string repr(Runtime& runtime, const Value& value) {
  Printer printer(runtime);
  printer.repr(value);
  return printer.take();
}

std::string str(Runtime& runtime, const Value& value) {
  if (value.is_string()) return value.str();
  if (value.is_undefined()) return {};
  return repr(runtime, value);
}

std::string json(Runtime& runtime, const Value& value, const JsonStyle& style) {
  JsonWriter writer(runtime, style);
  writer.write(value);
  return writer.take();
}

}  // namespace switchyard::jinja
