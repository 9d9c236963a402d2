#include <algorithm>
#include <cmath>

#include "switchyard/formats/template/characters.h"
#include "switchyard/formats/template/filters.h"
#include "switchyard/formats/template/format.h"
#include "switchyard/formats/template/numbers.h"
#include "switchyard/formats/template/operations.h"
#include "switchyard/formats/template/print.h"
#include "switchyard/formats/template/text_methods.h"

namespace switchyard::jinja {
namespace {

using Kind = Value::Kind;

/// soft_str: texts stay what they are, everything else becomes one.
Value soft(Runtime& runtime, const Value& value) { return value.is_string() ? value : runtime.text(str(runtime, value)); }

Value apply(Runtime& runtime, const Value& value, std::string_view name, Arguments& arguments) {
  const Value text = soft(runtime, value);
  const Value method = text_method(runtime, text, name);
  return runtime.call(method, arguments);
}

Value do_upper(Runtime& r, const Value& v, Arguments& a) { return apply(r, v, "upper", a); }
Value do_lower(Runtime& r, const Value& v, Arguments& a) { return apply(r, v, "lower", a); }
Value do_capitalize(Runtime& r, const Value& v, Arguments& a) { return apply(r, v, "capitalize", a); }
Value do_trim(Runtime& runtime, const Value& value, Arguments& arguments) {
  const Bound given("trim", arguments, {"chars"});
  Arguments own;
  if (given[0]) own.positional.push_back(*given[0]);
  return apply(runtime, value, "strip", own);
}
Value do_center(Runtime& runtime, const Value& value, Arguments& arguments) {
  const Bound given("center", arguments, {"width"});
  Arguments own;
  own.positional.push_back(given[0] ? *given[0] : Value::integer(80));
  return apply(runtime, value, "center", own);
}

Value do_replace(Runtime& runtime, const Value& value, Arguments& arguments) {
  const Bound given("replace", arguments, {"old", "new", "count"}, 2);
  const Value* limit = given.or_none(2);
  const int64_t count = limit ? static_cast<int64_t>(std::clamp<Integer>(integer_of(*limit), -1, INT64_MAX)) : -1;
  return runtime.text(replaced(runtime, str(runtime, value), str(runtime, *given[0]), str(runtime, *given[1]), count));
}

/// Jinja's own title: words begin after a blank, a hyphen or an opening bracket.
Value do_title(Runtime& runtime, const Value& value, Arguments& arguments) {
  Bound("title", arguments, {});
  const Value text = soft(runtime, value);
  runtime.budget.text(text.str().size());
  std::string out, word;
  const auto flush = [&] {
    if (word.empty()) return;
    size_t first = 0;
    next_character(word, first);
    out += upper(std::string_view(word).substr(0, first)) + lower(std::string_view(word).substr(first));
    word.clear();
  };
  bool between = false;
  for (size_t at = 0; at < text.str().size();) {
    const size_t begin = at;
    const char32_t c = next_character(text.str(), at);
    const bool separates = c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || is_space(c);
    if (separates != between) flush();
    between = separates;
    word += text.str().substr(begin, at - begin);
  }
  flush();
  return runtime.text(std::move(out));
}

Value do_string(Runtime& runtime, const Value& value, Arguments& arguments) {
  Bound("string", arguments, {});
  return soft(runtime, value);
}
Value do_safe(Runtime& runtime, const Value& value, Arguments& arguments) {
  Bound("safe", arguments, {});
  return runtime.text(str(runtime, value), true);
}
Value do_escape(Runtime& runtime, const Value& value, Arguments& arguments) {
  Bound("escape", arguments, {});
  return runtime.text(escaped(runtime, value), true);
}
Value do_force_escape(Runtime& runtime, const Value& value, Arguments& arguments) {
  Bound("forceescape", arguments, {});
  return runtime.text(escaped(runtime, runtime.text(str(runtime, value))), true);
}

Value do_striptags(Runtime& runtime, const Value& value, Arguments& arguments) {
  Bound("striptags", arguments, {});
  std::string text = str(runtime, value);
  const auto drop = [&](std::string_view open, std::string_view close) {
    std::string out;
    size_t begin = 0;
    while (true) {
      const size_t at = text.find(open, begin);
      const size_t end = at == std::string::npos ? at : text.find(close, at + open.size());
      if (end == std::string::npos) break;
      out += text.substr(begin, at - begin);
      begin = end + close.size();
    }
    text = out + text.substr(begin);
  };
  drop("<!--", "-->");
  drop("<", ">");
  std::string joined;
  Arguments none;
  const Value words = runtime.call(text_method(runtime, runtime.text(text), "split"), none);
  for (const Value& word : words.items()) joined += (joined.empty() ? "" : " ") + word.str();
  return runtime.call(text_method(runtime, runtime.text(joined, true), "unescape"), none);
}

Value do_indent(Runtime& runtime, const Value& value, Arguments& arguments) {
  const Bound given("indent", arguments, {"width", "first", "blank"});
  if (!value.is_string()) {
    if (value.is_undefined()) use_undefined(value);
    fault("template.type", "unsupported operand type(s) for +=: '{}' and 'str'", type_name(value));
  }
  std::string indention(4, ' ');
  if (given[0]) {
    if (given[0]->is_string()) {
      indention = given[0]->str();
    } else {
      const Integer width = std::clamp<Integer>(integer_of(*given[0]), 0, Integer{1} << 40);
      runtime.budget.text(static_cast<uint64_t>(width));
      indention.assign(static_cast<size_t>(width), ' ');
    }
  }
  const std::string whole = value.str() + "\n";
  const std::vector<std::string_view> lines = split_lines(whole, false);
  const bool blank = given[2] && truth(*given[2]);
  std::string out;
  if (given[1] && truth(*given[1])) out = indention;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) {
      out += "\n";
      if (blank || !lines[i].empty()) out += indention;
    }
    out += lines[i];
    runtime.budget.room(out.size());
  }
  return runtime.text(std::move(out), value.string().markup);
}

Value do_truncate(Runtime& runtime, const Value& value, Arguments& arguments) {
  const Bound given("truncate", arguments, {"length", "killwords", "end", "leeway"});
  const Integer length = given[0] ? integer_of(*given[0]) : 255;
  const std::string end = given[2] ? string_of(*given[2], "truncate") : "...";
  const Integer leeway = given.or_none(3) ? integer_of(*given[3]) : 5, tail = count_characters(end);
  if (length < tail) fault("template.value", "expected length >= {}, got {}", integer_text(tail), integer_text(length));
  if (leeway < 0) fault("template.value", "expected leeway >= 0, got {}", integer_text(leeway));
  if (length_of(value) <= length + leeway) return value;
  const Value head = slice(runtime, value, Value::none(), Value::integer(length - tail), Value::none());
  if (!head.is_string()) fault("template.type", "truncate: a text is expected, not {}", type_name(value));
  std::string text = head.str();
  if (!given[1] || !truth(*given[1])) {
    const size_t blank = text.rfind(' ');
    if (blank != std::string::npos) text.resize(blank);
  }
  return runtime.text(text + end);
}

/// Chunks of a line that textwrap may put on lines of their own: blanks, words, and words cut behind a hyphen.
std::vector<std::string_view> wrap_chunks(std::string_view line, bool hyphens) {
  std::vector<std::string_view> chunks;
  const auto blank = [](char c) { return c == ' ' || (c >= 9 && c <= 13); };
  for (size_t at = 0; at < line.size();) {
    size_t end = at;
    if (blank(line[at])) {
      while (end < line.size() && blank(line[end])) ++end;
      chunks.push_back(line.substr(at, end - at));
      at = end;
      continue;
    }
    while (end < line.size() && !blank(line[end])) ++end;
    size_t begin = at;
    for (size_t i = at + 1; hyphens && i + 1 < end; ++i) {
      const auto letter = [](char c) { return std::isalpha(static_cast<unsigned char>(c)) || static_cast<unsigned char>(c) >= 0x80; };
      if (line[i] == '-' && letter(line[i - 1]) && letter(line[i + 1])) {
        chunks.push_back(line.substr(begin, i + 1 - begin));
        begin = i + 1;
      }
    }
    chunks.push_back(line.substr(begin, end - begin));
    at = end;
  }
  return chunks;
}

Value do_wordwrap(Runtime& runtime, const Value& value, Arguments& arguments) {
  const Bound given("wordwrap", arguments, {"width", "break_long_words", "wrapstring", "break_on_hyphens"});
  const Integer width = given[0] ? integer_of(*given[0]) : 79;
  if (width <= 0) fault("template.value", "invalid width {} (must be > 0)", integer_text(width));
  const bool breaks = !given[1] || truth(*given[1]), hyphens = !given[3] || truth(*given[3]);
  const std::string joint = given.or_none(2) ? string_of(*given[2], "wordwrap") : "\n";
  std::string out;
  bool first_line = true;
  const auto put = [&](const std::string& line) {
    if (!first_line) out += joint;
    first_line = false;
    out += line;
    runtime.budget.room(out.size());
  };
  for (std::string_view paragraph : split_lines(string_of(value, "wordwrap"), false)) {
    std::vector<std::string_view> chunks = wrap_chunks(paragraph, hyphens);
    bool any = false;
    for (size_t i = 0; i < chunks.size();) {
      const auto blank = [](std::string_view chunk) { return strip(chunk, nullptr, Ends::both).empty(); };
      if (any && blank(chunks[i])) {
        ++i;
        if (i >= chunks.size()) break;
      }
      std::vector<std::string_view> line;
      Integer used = 0;
      while (i < chunks.size() && used + count_characters(chunks[i]) <= width) {
        used += count_characters(chunks[i]);
        line.push_back(chunks[i++]);
      }
      if (i < chunks.size() && count_characters(chunks[i]) > width) {
        if (breaks) {
          const Integer room = std::max<Integer>(width - used, 1);
          const size_t cut = byte_of(chunks[i], static_cast<int64_t>(room), false);
          line.push_back(chunks[i].substr(0, cut));
          chunks[i].remove_prefix(cut);
          if (chunks[i].empty()) ++i;
        } else if (line.empty()) {
          line.push_back(chunks[i++]);
        }
      }
      if (!line.empty() && blank(line.back())) line.pop_back();
      if (line.empty()) continue;
      std::string text;
      for (std::string_view chunk : line) text += chunk;
      put(text);
      any = true;
    }
    if (!any) put("");
  }
  return runtime.text(std::move(out));
}

Value do_wordcount(Runtime& runtime, const Value& value, Arguments& arguments) {
  Bound("wordcount", arguments, {});
  const Value text = soft(runtime, value);
  Integer words = 0;
  bool inside = false;
  for (size_t at = 0; at < text.str().size();) {
    const bool word = is_word(next_character(text.str(), at));
    words += word && !inside;
    inside = word;
  }
  return Value::integer(words);
}

Value do_format(Runtime& runtime, const Value& value, Arguments& arguments) {
  if (!arguments.positional.empty() && !arguments.named.empty())
    fault("template.argument", "can't handle positional and keyword arguments at the same time");
  Value values;
  if (!arguments.named.empty()) {
    std::vector<std::pair<Value, Value>> entries;
    for (const auto& [name, item] : arguments.named) entries.emplace_back(runtime.text(name), item);
    values = runtime.dict(std::move(entries));
  } else {
    values = runtime.tuple(arguments.positional);
  }
  return percent_format(runtime, soft(runtime, value), values);
}

std::string url_quoted(Runtime& runtime, const Value& value, bool for_query) {
  std::string out;
  for (char c : str(runtime, value)) {
    if (std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.' || c == '-' || c == '~' || (c == '/' && !for_query)) out.push_back(c);
    else if (c == ' ' && for_query) out.push_back('+');
    else out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  runtime.budget.room(out.size());
  return out;
}

Value do_urlencode(Runtime& runtime, const Value& value, Arguments& arguments) {
  Bound("urlencode", arguments, {});
  if (value.is_string() || !iterable(value)) return runtime.text(url_quoted(runtime, value, false));
  std::string out;
  const auto put = [&](const Value& key, const Value& item) {
    out += (out.empty() ? "" : "&") + url_quoted(runtime, key, true) + "=" + url_quoted(runtime, item, true);
    runtime.budget.room(out.size());
  };
  if (value.is(Kind::dict)) {
    for (const auto& [key, item] : value.dict().entries) put(key, item);
  } else {
    const Next next = iterate(runtime, value);
    for (Value item; next(item);) {
      const std::vector<Value> both = collect(runtime, item);
      if (both.size() != 2) fault("template.value", "not a pair to unpack (expected 2, got {})", both.size());
      put(both[0], both[1]);
    }
  }
  return runtime.text(std::move(out));
}

Value do_xmlattr(Runtime& runtime, const Value& value, Arguments& arguments) {
  const Bound given("xmlattr", arguments, {"autospace"});
  if (value.is_undefined()) use_undefined(value);
  if (!value.is(Kind::dict)) fault("template.type", "'{}' object has no attribute 'items'", type_name(value));
  std::string out;
  for (const auto& [key, item] : value.dict().entries) {
    if (item.is_none() || item.is_undefined()) continue;
    const std::string& name = string_of(key, "xmlattr");
    if (name.find_first_of(" \t\n\r\f\v/>=") != std::string::npos) fault("template.value", "Invalid character in attribute name: {}", quoted_text(name));
    out += (out.empty() ? "" : " ") + escaped(runtime, key) + "=\"" + escaped(runtime, item) + "\"";
  }
  if (!out.empty() && (!given[0] || truth(*given[0]))) out.insert(0, " ");
  return runtime.text(std::move(out));
}

Value do_filesizeformat(Runtime& runtime, const Value& value, Arguments& arguments) {
  const Bound given("filesizeformat", arguments, {"binary"});
  const bool binary = given[0] && truth(*given[0]);
  double bytes = 0;
  if (value.is_undefined()) use_undefined(value);
  if (value.is_string() ? !read_real(value.str(), bytes) : !value.is_number()) fault("template.value", "could not convert {} to float", repr(runtime, value));
  if (!value.is_string()) bytes = value.as_real();
  const double base = binary ? 1024 : 1000;
  if (bytes == 1) return runtime.text("1 Byte");
  if (bytes < base) return runtime.text(integer_text(static_cast<Integer>(bytes)) + " Bytes");
  double unit = base;
  std::string text;
  for (char prefix : std::string_view(binary ? "KMGTPEZY" : "kMGTPEZY")) {
    unit *= base;
    text = fmt::format("{:.1f} {}{}", base * bytes / unit, prefix, binary ? "iB" : "B");
    if (bytes < unit) break;
  }
  return runtime.text(text);
}

Value do_int(Runtime&, const Value& value, Arguments& arguments) {
  const Bound given("int", arguments, {"default", "base"});
  const Value otherwise = given[0] ? *given[0] : Value::integer(0);
  if (value.is_undefined()) use_undefined(value);
  if (value.is_integer()) return Value::integer(value.as_integer());
  if (value.is(Kind::big)) return value;
  double real = value.is(Kind::real) ? value.as_real() : 0;
  if (value.is_string()) {
    Integer whole = 0;
    const Integer base = given[1] ? integer_of(*given[1]) : 10;
    if (base >= 0 && base <= 36 && base != 1 && read_integer(value.str(), static_cast<int>(base), whole)) return Value::integer(whole);
    if (!read_real(value.str(), real)) return otherwise;
  } else if (!value.is(Kind::real)) {
    return otherwise;
  }
  if (!std::isfinite(real)) return otherwise;
  if (std::abs(real) >= 1.7e38) fault("template.integer", "the template makes an integer of more than 128 bits");
  return Value::integer(static_cast<Integer>(real));
}

Value do_float(Runtime&, const Value& value, Arguments& arguments) {
  const Bound given("float", arguments, {"default"});
  if (value.is_undefined()) use_undefined(value);
  double real = 0;
  if (value.is_string() && read_real(value.str(), real)) return Value::real(real);
  if (value.is(Kind::big)) return Value::real(std::strtod(value.str().c_str(), nullptr));
  if (value.is_number()) return Value::real(value.as_real());
  return given[0] ? *given[0] : Value::real(0);
}

Value do_abs(Runtime& runtime, const Value& value, Arguments& arguments) {
  Bound("abs", arguments, {});
  if (value.is(Kind::real)) return Value::real(std::abs(value.as_real()));
  if (!value.is_number()) fault("template.type", "bad operand type for abs(): '{}'", type_name(value));
  const bool below = value.is(Kind::big) ? value.str()[0] == '-' : value.as_integer() < 0;
  return below ? negative(runtime, value) : positive(value);
}

Value do_round(Runtime&, const Value& value, Arguments& arguments) {
  const Bound given("round", arguments, {"precision", "method"});
  const Integer digits = given[0] ? integer_of(*given[0]) : 0;
  const std::string method = given[1] ? string_of(*given[1], "round") : "common";
  if (method != "common" && method != "ceil" && method != "floor") fault("template.argument", "method must be common, ceil or floor");
  if (value.is_undefined() || !(value.is_integer() || value.is(Kind::real))) fault("template.type", "type {} doesn't define __round__ method", type_name(value));
  if (method == "common") {
    if (value.is(Kind::real)) return Value::real(rounded(value.as_real(), digits));
    if (digits >= 0) return Value::integer(value.as_integer());
    if (digits < -38) return Value::integer(0);
    Integer scale = 1;
    for (Integer i = 0; i < -digits; ++i) scale *= 10;
    const Integer whole = value.as_integer();
    Integer quotient = whole / scale, rest = whole % scale;
    if (rest < 0) rest = -rest;
    const bool up = rest * 2 > scale || (rest * 2 == scale && quotient % 2 != 0);
    if (up) quotient += whole < 0 ? -1 : 1;
    return Value::integer(quotient * scale);
  }
  const double scale = std::pow(10.0, static_cast<double>(digits)), scaled = value.as_real() * scale;
  return Value::real((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
}

Value do_tojson(Runtime& runtime, const Value& value, Arguments& arguments) {
  const Bound given("tojson", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ascii = given[0] && truth(*given[0]);
  style.sorted = given[3] && truth(*given[3]);
  if (const Value* indent = given.or_none(1)) {
    style.indented = true;
    style.item_separator = ",";
    if (indent->is_string()) {
      style.indent = indent->str();
    } else {
      const Integer width = std::clamp<Integer>(integer_of(*indent), 0, Integer{1} << 40);
      runtime.budget.text(static_cast<uint64_t>(width));
      style.indent.assign(static_cast<size_t>(width), ' ');
    }
  }
  if (const Value* separators = given.or_none(2)) {
    const std::vector<Value> both = collect(runtime, *separators);
    if (both.size() != 2) fault("template.value", "separators are two texts, not {}", both.size());
    style.item_separator = string_of(both[0], "separators");
    style.key_separator = string_of(both[1], "separators");
  }
  return runtime.text(json(runtime, value, style));
}

/// The value with the keys of all its dictionaries sorted.
Value with_sorted_keys(Runtime& runtime, const Value& value) {
  if (value.is(Kind::dict)) {
    std::vector<std::pair<Value, Value>> entries;
    for (const auto& [key, item] : value.dict().entries) entries.emplace_back(key, with_sorted_keys(runtime, item));
    std::stable_sort(entries.begin(), entries.end(), [&](const auto& a, const auto& b) {
      const bool comparable = a.first.kind() == b.first.kind() || (a.first.is_number() && b.first.is_number());
      return comparable ? less(runtime, a.first, b.first) : type_name(a.first) < type_name(b.first);
    });
    return runtime.dict(std::move(entries));
  }
  if (!value.is(Kind::list) && !value.is(Kind::tuple)) return value;
  std::vector<Value> items;
  for (const Value& item : value.items()) items.push_back(with_sorted_keys(runtime, item));
  return value.is(Kind::list) ? runtime.list(std::move(items)) : runtime.tuple(std::move(items));
}

/// Python's pprint: on one line when it fits into 80 characters, else an item a line. Keys are sorted already.
void pretty(Runtime& runtime, const Value& value, size_t indent, size_t allowance, std::string& out) {
  const Level level(runtime.budget);
  const std::string line = repr(runtime, value);
  const bool container = value.is(Kind::dict) || value.is(Kind::list) || value.is(Kind::tuple);
  if (!container || line.size() + indent + allowance <= 80) {
    out += line;
    return;
  }
  const char* brackets = value.is(Kind::dict) ? "{}" : value.is(Kind::list) ? "[]" : "()";
  out.push_back(brackets[0]);
  const size_t count = value.is(Kind::dict) ? value.dict().entries.size() : value.items().size();
  for (size_t i = 0; i < count; ++i) {
    if (i > 0) out += ",\n" + std::string(indent + 1, ' ');
    const size_t room = i + 1 == count ? allowance + 1 : 1;
    if (value.is(Kind::dict)) {
      const auto& [key, item] = value.dict().entries[i];
      const std::string name = repr(runtime, key) + ": ";
      out += name;
      pretty(runtime, item, indent + 1 + name.size(), room, out);
    } else {
      pretty(runtime, value.items()[i], indent + 1, room, out);
    }
    runtime.budget.room(out.size());
  }
  if (value.is(Kind::tuple) && count == 1) out.push_back(',');
  out.push_back(brackets[1]);
}

Value do_pprint(Runtime& runtime, const Value& value, Arguments& arguments) {
  Bound("pprint", arguments, {});
  std::string out;
  pretty(runtime, with_sorted_keys(runtime, value), 0, 0, out);
  return runtime.text(std::move(out));
}

Value refused(Runtime&, const Value&, Arguments&) {
  fault("template.unsupported", "the filters random and urlize have no use in a prompt and are not supported");
}

}  // namespace

const FilterTable& text_filters() {
  static const FilterTable table{
      {"upper", do_upper}, {"lower", do_lower}, {"capitalize", do_capitalize}, {"title", do_title}, {"trim", do_trim}, {"center", do_center},
      {"replace", do_replace}, {"string", do_string}, {"safe", do_safe}, {"escape", do_escape}, {"e", do_escape}, {"forceescape", do_force_escape},
      {"striptags", do_striptags}, {"indent", do_indent}, {"truncate", do_truncate}, {"wordwrap", do_wordwrap}, {"wordcount", do_wordcount},
      {"format", do_format}, {"urlencode", do_urlencode}, {"xmlattr", do_xmlattr}, {"filesizeformat", do_filesizeformat}, {"int", do_int},
      {"float", do_float}, {"abs", do_abs}, {"round", do_round}, {"tojson", do_tojson}, {"pprint", do_pprint}, {"random", refused}, {"urlize", refused}};
  return table;
}

}  // namespace switchyard::jinja
