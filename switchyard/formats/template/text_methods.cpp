#include "switchyard/formats/template/text_methods.h"

#include <algorithm>
#include <map>

#include "switchyard/formats/template/characters.h"
#include "switchyard/formats/template/format.h"
#include "switchyard/formats/template/operations.h"

namespace switchyard::jinja {
namespace {

using Kind = Value::Kind;
using Method = Value (*)(Runtime&, const Value&, Arguments&);

constexpr size_t npos = std::string_view::npos;

/// A text made from another keeps its being Markup.
Value made(Runtime& runtime, const Value& self, std::string text) { return runtime.text(std::move(text), self.string().markup); }

std::string operand(Runtime& runtime, const Value& self, const Value& other, std::string_view function) {
  const std::string& text = string_of(other, function);
  return self.string().markup ? escaped(runtime, other) : text;
}

template <std::string (*Map)(std::string_view)>
Value mapping(Runtime& runtime, const Value& self, Arguments& arguments) {
  Bound("str method", arguments, {});
  runtime.budget.text(self.str().size());
  return made(runtime, self, Map(self.str()));
}

template <Ends ends>
Value stripping(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound given("strip", arguments, {"chars"});
  const Value* characters = given.or_none(0);
  if (characters && !characters->is_string()) fault("template.type", "strip arg must be None or str");
  runtime.budget.touch(self.str().size());
  return made(runtime, self, std::string(strip(self.str(), characters ? &characters->str() : nullptr, ends)));
}

/// The part of a text from start to stop, in characters; false when start lies behind the end.
bool part_of(Runtime& runtime, const Value& self, const Value* start, const Value* stop, std::string_view& part, int64_t& first) {
  const String& text = self.string();
  const auto place = [&](const Value* value, int64_t otherwise) {
    if (!value || value->is_none()) return otherwise;
    Integer at = integer_of(*value);
    if (at < 0) at = std::max<Integer>(0, at + text.length);
    return static_cast<int64_t>(std::min<Integer>(at, text.length + 1));
  };
  first = place(start, 0);
  const int64_t end = std::min(place(stop, text.length), text.length);
  runtime.budget.touch(text.text.size());
  if (first > end) return false;
  const size_t begin = byte_of(text.text, first, text.ascii()), behind = byte_of(text.text, end, text.ascii());
  part = std::string_view(text.text).substr(begin, behind - begin);
  return true;
}

template <bool at_end>
Value affix(Runtime& runtime, const Value& self, Arguments& arguments) {
  const std::string_view name = at_end ? "endswith" : "startswith";
  const Bound given(name, arguments, {"prefix", "start", "end"}, 1);
  std::string_view part;
  int64_t first = 0;
  if (!part_of(runtime, self, given[1], given[2], part, first)) return Value::boolean(false);
  const auto matches = [&](const Value& affix) {
    const std::string& text = string_of(affix, name);
    return at_end ? part.ends_with(text) : part.starts_with(text);
  };
  if (!given[0]->is(Kind::tuple)) {
    if (!given[0]->is_string())
      fault("template.type", "{} first arg must be str or a tuple of str, not {}", name, type_name(*given[0]));
    return Value::boolean(matches(*given[0]));
  }
  for (const Value& affix : given[0]->items())
    if (matches(affix)) return Value::boolean(true);
  return Value::boolean(false);
}

template <bool last, bool must>
Value finding(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound given("find", arguments, {"sub", "start", "end"}, 1);
  const std::string& what = string_of(*given[0], "find");
  std::string_view part;
  int64_t first = 0;
  size_t at = npos;
  if (part_of(runtime, self, given[1], given[2], part, first)) at = last ? find_last(part, what) : find(part, what);
  if (at != npos) return Value::integer(first + count_characters(part.substr(0, at)));
  if (must) fault("template.value", "substring not found");
  return Value::integer(-1);
}

Value counting(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound given("count", arguments, {"sub", "start", "end"}, 1);
  const std::string& what = string_of(*given[0], "count");
  std::string_view part;
  int64_t first = 0;
  if (!part_of(runtime, self, given[1], given[2], part, first)) return Value::integer(0);
  if (what.empty()) return Value::integer(count_characters(part) + 1);
  Integer count = 0;
  for (size_t at = find(part, what); at != npos; at = find(part, what, at + what.size())) ++count;
  return Value::integer(count);
}

Value replacing(Runtime& runtime, const Value& self, Arguments& arguments) {
  if (!arguments.named.empty()) fault("template.type", "str.replace() takes no keyword arguments");
  const Bound given("replace", arguments, {"old", "new", "count"}, 2);
  const int64_t count = given[2] ? static_cast<int64_t>(std::clamp<Integer>(integer_of(*given[2]), -1, INT64_MAX)) : -1;
  return made(runtime, self, replaced(runtime, self.str(), string_of(*given[0], "replace"), operand(runtime, self, *given[1], "replace"), count));
}

std::vector<std::string_view> split_spaces(std::string_view text, int64_t most, bool from_right) {
  std::vector<std::string_view> parts;
  if (!from_right) {
    size_t at = 0;
    const auto skip = [&](bool spaces) {
      while (at < text.size()) {
        size_t next = at;
        if (is_space(next_character(text, next)) != spaces) return;
        at = next;
      }
    };
    while (true) {
      skip(true);
      if (at >= text.size()) return parts;
      if (most >= 0 && static_cast<int64_t>(parts.size()) >= most) {
        parts.push_back(text.substr(at));
        return parts;
      }
      const size_t begin = at;
      skip(false);
      parts.push_back(text.substr(begin, at - begin));
    }
  }
  size_t end = text.size();
  const auto skip = [&](bool spaces) {
    while (end > 0) {
      const size_t before = previous_character(text, end);
      size_t at = before;
      if (is_space(next_character(text, at)) != spaces) return;
      end = before;
    }
  };
  while (true) {
    skip(true);
    if (end == 0) break;
    if (most >= 0 && static_cast<int64_t>(parts.size()) >= most) {
      parts.push_back(text.substr(0, end));
      break;
    }
    const size_t behind = end;
    skip(false);
    parts.push_back(text.substr(end, behind - end));
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string_view> split_at(std::string_view text, std::string_view separator, int64_t most, bool from_right) {
  std::vector<std::string_view> parts;
  if (!from_right) {
    size_t begin = 0;
    for (size_t at = find(text, separator); at != npos && (most < 0 || static_cast<int64_t>(parts.size()) < most); at = find(text, separator, begin)) {
      parts.push_back(text.substr(begin, at - begin));
      begin = at + separator.size();
    }
    parts.push_back(text.substr(begin));
    return parts;
  }
  // Found from the right: in the reversed text from the left.
  const std::string backwards(text.rbegin(), text.rend()), sought(separator.rbegin(), separator.rend());
  for (std::string_view part : split_at(backwards, sought, most, false)) {
    const size_t offset = static_cast<size_t>(part.data() - backwards.data());
    parts.push_back(text.substr(text.size() - offset - part.size(), part.size()));
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

template <bool from_right>
Value splitting(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound given(from_right ? "rsplit" : "split", arguments, {"sep", "maxsplit"});
  const int64_t most = given[1] ? static_cast<int64_t>(std::clamp<Integer>(integer_of(*given[1]), -1, INT64_MAX)) : -1;
  runtime.budget.touch(self.str().size());
  std::vector<std::string_view> parts;
  if (const Value* separator = given.or_none(0)) {
    if (!separator->is_string()) fault("template.type", "must be str or None, not {}", type_name(*separator));
    if (separator->str().empty()) fault("template.value", "empty separator");
    parts = split_at(self.str(), separator->str(), most, from_right);
  } else {
    parts = split_spaces(self.str(), most, from_right);
  }
  runtime.budget.values(parts.size() * 3);
  std::vector<Value> items;
  items.reserve(parts.size());
  for (std::string_view part : parts) items.push_back(made(runtime, self, std::string(part)));
  return runtime.list(std::move(items));
}

Value lines(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound given("splitlines", arguments, {"keepends"});
  runtime.budget.touch(self.str().size());
  std::vector<Value> items;
  for (std::string_view line : split_lines(self.str(), given[0] && truth(*given[0]))) items.push_back(made(runtime, self, std::string(line)));
  return runtime.list(std::move(items));
}

template <bool last>
Value partition(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound given(last ? "rpartition" : "partition", arguments, {"sep"}, 1);
  const std::string &text = self.str(), &separator = string_of(*given[0], "partition");
  if (separator.empty()) fault("template.value", "empty separator");
  runtime.budget.touch(text.size());
  const size_t at = last ? find_last(text, separator) : find(text, separator);
  const auto part = [&](size_t begin, size_t count) { return made(runtime, self, text.substr(begin, count)); };
  if (at == npos) {
    const Value empty = part(0, 0), whole = part(0, npos);
    return last ? runtime.tuple({empty, empty, whole}) : runtime.tuple({whole, empty, empty});
  }
  return runtime.tuple({part(0, at), part(at, separator.size()), part(at + separator.size(), npos)});
}

Value joining(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound given("join", arguments, {"iterable"}, 1);
  if (!iterable(*given[0])) fault("template.type", "can only join an iterable");
  std::string text;
  const Next next = iterate(runtime, *given[0]);
  int64_t count = 0;
  for (Value item; next(item); ++count) {
    if (count > 0) text += self.str();
    if (!item.is_string() && !self.string().markup)
      fault("template.type", "sequence item {}: expected str instance, {} found", count, type_name(item));
    if (self.string().markup) text += escaped(runtime, item);
    else text += item.str();
    runtime.budget.room(text.size());
  }
  return made(runtime, self, std::move(text));
}

template <bool suffix>
Value removing(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound given(suffix ? "removesuffix" : "removeprefix", arguments, {"affix"}, 1);
  std::string_view text = self.str();
  const std::string& affix = string_of(*given[0], "removeprefix");
  if (suffix && !affix.empty() && text.ends_with(affix)) text.remove_suffix(affix.size());
  else if (!suffix && text.starts_with(affix)) text.remove_prefix(affix.size());
  return made(runtime, self, std::string(text));
}

template <Side side>
Value padding(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound given("center", arguments, {"width", "fillchar"}, 1);
  std::string fill = " ";
  if (given[1]) {
    if (!given[1]->is_string() || given[1]->string().length != 1) fault("template.type", "The fill character must be exactly one character long");
    fill = given[1]->str();
  }
  return made(runtime, self, padded(runtime, self.str(), integer_of(*given[0]), fill, side));
}

Value zero_fill(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound given("zfill", arguments, {"width"}, 1);
  const std::string& text = self.str();
  const size_t sign = !text.empty() && (text[0] == '-' || text[0] == '+');
  const std::string filled = padded(runtime, text, integer_of(*given[0]), "0", Side::left);
  const size_t zeros = filled.size() - text.size();
  return made(runtime, self, text.substr(0, sign) + filled.substr(0, zeros) + text.substr(sign));
}

Value expand_tabs(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound given("expandtabs", arguments, {"tabsize"});
  const Integer size = given[0] ? integer_of(*given[0]) : 8;
  std::string out;
  Integer column = 0;
  for (size_t at = 0; at < self.str().size();) {
    const size_t begin = at;
    const char32_t c = next_character(self.str(), at);
    if (c == '\t') {
      const Integer blanks = size > 0 ? size - column % size : 0;
      runtime.budget.room(out.size() + static_cast<uint64_t>(std::min<Integer>(blanks, Integer{1} << 40)));
      out.append(static_cast<size_t>(blanks), ' ');
      column += blanks;
    } else {
      out += self.str().substr(begin, at - begin);
      column = c == '\n' || c == '\r' ? 0 : column + 1;
    }
  }
  return made(runtime, self, std::move(out));
}

template <bool (*Class)(char32_t)>
Value every(Runtime& runtime, const Value& self, Arguments& arguments) {
  Bound("str method", arguments, {});
  const std::string& text = self.str();
  runtime.budget.touch(text.size());
  for (size_t at = 0; at < text.size();)
    if (!Class(next_character(text, at))) return Value::boolean(false);
  return Value::boolean(!text.empty());
}

bool is_alphanumeric(char32_t c) { return is_alpha(c) || is_numeric(c); }

Value is_ascii(Runtime&, const Value& self, Arguments& arguments) {
  Bound("isascii", arguments, {});
  return Value::boolean(self.string().ascii());
}

Value printable(Runtime& runtime, const Value& self, Arguments& arguments) {
  return Value::boolean(self.str().empty() || every<is_printable>(runtime, self, arguments).is_true());
}

Value identifier(Runtime&, const Value& self, Arguments& arguments) {
  Bound("isidentifier", arguments, {});
  const std::string& text = self.str();
  for (size_t at = 0; at < text.size();) {
    const bool first = at == 0;
    const char32_t c = next_character(text, at);
    if (first ? !is_name_start(c) : !is_name_part(c)) return Value::boolean(false);
  }
  return Value::boolean(!text.empty());
}

Value title_cased(Runtime&, const Value& self, Arguments& arguments) {
  Bound("istitle", arguments, {});
  bool cased = false, inside = false;
  const std::string& text = self.str();
  for (size_t at = 0; at < text.size();) {
    const char32_t c = next_character(text, at);
    if (is_upper(c) || is_title(c)) {
      if (inside) return Value::boolean(false);
      inside = cased = true;
    } else if (is_lower(c)) {
      if (!inside) return Value::boolean(false);
      cased = true;
    } else {
      inside = false;
    }
  }
  return Value::boolean(cased);
}

Value upper_cased(Runtime&, const Value& self, Arguments& arguments) {
  Bound("isupper", arguments, {});
  return Value::boolean(is_all_upper(self.str()));
}

Value lower_cased(Runtime&, const Value& self, Arguments& arguments) {
  Bound("islower", arguments, {});
  return Value::boolean(is_all_lower(self.str()));
}

Value format_map(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound given("format_map", arguments, {"mapping"}, 1);
  if (!given[0]->is(Kind::dict)) fault("template.type", "'{}' object is not a mapping", type_name(*given[0]));
  Arguments named;
  for (const auto& [key, value] : given[0]->dict().entries)
    if (key.is_string()) named.named.emplace_back(key.str(), value);
  return brace_format(runtime, self, named);
}

Value unescape_markup(Runtime& runtime, const Value& self, Arguments& arguments) {
  Bound("unescape", arguments, {});
  std::string text = self.str();
  for (const auto& [entity, plain] : {std::pair("&lt;", "<"), {"&gt;", ">"}, {"&#39;", "'"}, {"&#34;", "\""}, {"&quot;", "\""}, {"&amp;", "&"}})
    text = replaced(runtime, text, entity, plain, -1);
  return runtime.text(std::move(text));
}

const std::map<std::string_view, Method>& methods() {
  static const std::map<std::string_view, Method> table{
      {"strip", stripping<Ends::both>}, {"lstrip", stripping<Ends::left>}, {"rstrip", stripping<Ends::right>},
      {"upper", mapping<upper>}, {"lower", mapping<lower>}, {"title", mapping<title>}, {"capitalize", mapping<capitalize>},
      {"casefold", mapping<fold>}, {"swapcase", mapping<swap_case>},
      {"startswith", affix<false>}, {"endswith", affix<true>},
      {"find", finding<false, false>}, {"rfind", finding<true, false>}, {"index", finding<false, true>}, {"rindex", finding<true, true>},
      {"count", counting}, {"replace", replacing}, {"split", splitting<false>}, {"rsplit", splitting<true>}, {"splitlines", lines},
      {"partition", partition<false>}, {"rpartition", partition<true>}, {"join", joining},
      {"removeprefix", removing<false>}, {"removesuffix", removing<true>},
      {"center", padding<Side::centre>}, {"ljust", padding<Side::right>}, {"rjust", padding<Side::left>}, {"zfill", zero_fill},
      {"expandtabs", expand_tabs}, {"format", brace_format}, {"format_map", format_map},
      {"isalpha", every<is_alpha>}, {"isdigit", every<is_digit>}, {"isdecimal", every<is_decimal>}, {"isnumeric", every<is_numeric>},
      {"isalnum", every<is_alphanumeric>}, {"isspace", every<is_space>}, {"isascii", is_ascii}, {"isprintable", printable},
      {"isidentifier", identifier}, {"istitle", title_cased}, {"isupper", upper_cased}, {"islower", lower_cased}};
  return table;
}

}  // namespace

Value text_method(Runtime& runtime, const Value& object, std::string_view name) {
  Method method = nullptr;
  if (const auto it = methods().find(name); it != methods().end()) method = it->second;
  else if (object.string().markup && name == "unescape") method = unescape_markup;
  if (!method) return {};
  return runtime.function(std::string(name), [object, method](Runtime& r, Arguments& arguments) { return method(r, object, arguments); },
                          object.depth());
}

std::string replaced(Runtime& runtime, std::string_view text, std::string_view old, std::string_view with, int64_t count) {
  std::string out;
  int64_t done = 0;
  const auto more = [&] { return count < 0 || done < count; };
  runtime.budget.touch(text.size() + old.size());
  if (old.empty()) {
    for (size_t at = 0;; ++done) {
      if (more()) out += with;
      if (at >= text.size()) break;
      const size_t begin = at;
      next_character(text, at);
      out += text.substr(begin, at - begin);
      runtime.budget.room(out.size());
    }
    return out;
  }
  size_t begin = 0;
  for (size_t at = find(text, old); at != npos && more(); at = find(text, old, begin), ++done) {
    out += text.substr(begin, at - begin);
    out += with;
    begin = at + old.size();
    runtime.budget.room(out.size());
  }
  out += text.substr(begin);
  return out;
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> parts;
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = at;
    const char32_t c = next_character(text, at);
    const bool ends = (c >= 10 && c <= 13) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
    if (!ends) continue;
    if (c == '\r' && at < text.size() && text[at] == '\n') ++at;
    parts.push_back(text.substr(begin, (keep_ends ? at : end) - begin));
    begin = at;
  }
  if (begin < text.size()) parts.push_back(text.substr(begin));
  return parts;
}

std::string padded(Runtime& runtime, std::string_view text, Integer width, std::string_view fill, Side side) {
  const Integer room = width - count_characters(text);
  if (room <= 0) return std::string(text);
  runtime.budget.text(text.size() + static_cast<uint64_t>(std::min<Integer>(room, Integer{1} << 40)) * fill.size());
  // Python's centre: the odd blank goes left when the width is odd.
  const Integer left = side == Side::left ? room : side == Side::right ? 0 : room / 2 + (room & width & 1);
  std::string out;
  for (Integer i = 0; i < left; ++i) out += fill;
  out += text;
  for (Integer i = left; i < room; ++i) out += fill;
  return out;
}

bool is_all_upper(std::string_view text) {
  bool cased = false;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = next_character(text, at);
    if (is_lower(c) || is_title(c)) return false;
    cased |= is_upper(c);
  }
  return cased;
}

bool is_all_lower(std::string_view text) {
  bool cased = false;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = next_character(text, at);
    if (is_upper(c) || is_title(c)) return false;
    cased |= is_lower(c);
  }
  return cased;
}

}  // namespace switchyard::jinja
