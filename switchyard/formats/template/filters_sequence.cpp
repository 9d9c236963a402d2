#include <algorithm>

#include "switchyard/formats/template/characters.h"
#include "switchyard/formats/template/filters.h"
#include "switchyard/formats/template/operations.h"
#include "switchyard/formats/template/print.h"

namespace switchyard::jinja {
namespace {

using Kind = Value::Kind;
using Key = std::function<Value(const Value&)>;

/// "a.b.0" as the subscripts it stands for.
std::vector<Value> path_of(Runtime& runtime, std::string_view text) {
  std::vector<Value> path;
  while (true) {
    const size_t dot = text.find('.');
    const std::string_view part = text.substr(0, dot);
    const bool digits = !part.empty() && part.size() < 18 && part.find_first_not_of("0123456789") == std::string_view::npos;
    path.push_back(digits ? Value::integer(std::stoll(std::string(part))) : runtime.text(std::string(part)));
    if (dot == std::string_view::npos) return path;
    text.remove_prefix(dot + 1);
  }
}

std::vector<Value> path_of(Runtime& runtime, const Value* attribute) {
  if (!attribute || attribute->is_none()) return {};
  if (attribute->is_string()) return path_of(runtime, attribute->str());
  return {*attribute};
}

Value without_case(Runtime& runtime, Value value) {
  return value.is_string() ? runtime.text(lower(value.str()), value.string().markup) : value;
}

Value follow(Runtime& runtime, Value value, const std::vector<Value>& path, const Value* otherwise = nullptr) {
  for (const Value& part : path) {
    value = item(runtime, value, part);
    if (otherwise && value.is_undefined()) value = *otherwise;
  }
  return value;
}

Key getter(Runtime& runtime, const Value* attribute, bool fold, const Value* otherwise = nullptr) {
  std::vector<Value> path = path_of(runtime, attribute);
  const Value fallback = otherwise ? *otherwise : Value();
  return [&runtime, path = std::move(path), fold, fallback](const Value& value) {
    const Value found = follow(runtime, value, path, fallback.is_missing() ? nullptr : &fallback);
    return fold ? without_case(runtime, found) : found;
  };
}

std::vector<Value> sorted_by(Runtime& runtime, const std::vector<Value>& values, const Key& key, bool reverse) {
  runtime.budget.values(values.size() * 2);
  std::vector<std::pair<Value, Value>> keyed;
  keyed.reserve(values.size());
  for (const Value& value : values) keyed.emplace_back(key(value), value);
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    return reverse ? less(runtime, b.first, a.first) : less(runtime, a.first, b.first);
  });
  std::vector<Value> out;
  out.reserve(keyed.size());
  for (auto& [k, value] : keyed) out.push_back(std::move(value));
  return out;
}

Value do_sort(Runtime& runtime, const Value& value, Arguments& arguments) {
  const Bound given("sort", arguments, {"reverse", "case_sensitive", "attribute"});
  const bool fold = !given[1] || !truth(*given[1]), reverse = given[0] && truth(*given[0]);
  std::vector<Key> keys;
  if (given[2] && given[2]->is_string()) {
    std::string_view text = given[2]->str();
    for (size_t comma; (comma = text.find(',')) != std::string_view::npos; text.remove_prefix(comma + 1)) {
      const Value one = runtime.text(std::string(text.substr(0, comma)));
      keys.push_back(getter(runtime, &one, fold));
    }
    const Value last = runtime.text(std::string(text));
    keys.push_back(getter(runtime, &last, fold));
  } else {
    keys.push_back(getter(runtime, given[2], fold));
  }
  const Key key = [&](const Value& item) {
    std::vector<Value> parts;
    for (const Key& one : keys) parts.push_back(one(item));
    return runtime.list(std::move(parts));
  };
  return runtime.list(sorted_by(runtime, collect(runtime, value), key, reverse));
}

Value do_dictsort(Runtime& runtime, const Value& value, Arguments& arguments) {
  const Bound given("dictsort", arguments, {"case_sensitive", "by", "reverse"});
  const bool fold = !given[0] || !truth(*given[0]);
  const std::string by = given[1] ? str(runtime, *given[1]) : "key";
  if (by != "key" && by != "value") fault("template.argument", "You can only sort by either \"key\" or \"value\"");
  if (value.is_undefined()) use_undefined(value);
  if (!value.is(Kind::dict)) fault("template.type", "'{}' object has no attribute 'items'", type_name(value));
  std::vector<Value> pairs;
  for (const auto& [key, item] : value.dict().entries) pairs.push_back(runtime.tuple({key, item}));
  const size_t place = by == "key" ? 0 : 1;
  const Key key = [&](const Value& pair) { return fold ? without_case(runtime, pair.items()[place]) : pair.items()[place]; };
  return runtime.list(sorted_by(runtime, pairs, key, given[2] && truth(*given[2])));
}

Value do_unique(Runtime& runtime, const Value& value, Arguments& arguments) {
  const Bound given("unique", arguments, {"case_sensitive", "attribute"});
  const Key key = getter(runtime, given[1], !given[0] || !truth(*given[0]));
  auto seen = std::make_shared<Dict>();
  return runtime.iterator(
      [&runtime, next = Next(), value, key, seen](Value& out) mutable {
        if (!next) next = iterate(runtime, value);
        while (next(out)) {
          const Value k = key(out);
          if (!hashable(k)) fault("template.type", "unhashable type: '{}'", type_name(k));
          if (seen->find(k)) continue;
          seen->set(k, Value::none());
          return true;
        }
        return false;
      },
      depth_of(value, arguments));
}

template <bool largest>
Value extreme(Runtime& runtime, const Value& value, Arguments& arguments) {
  const Bound given(largest ? "max" : "min", arguments, {"case_sensitive", "attribute"});
  const Key key = getter(runtime, given[1], !given[0] || !truth(*given[0]));
  const Next next = iterate(runtime, value);
  Value best, best_key;
  if (!next(best)) return runtime.undefined("No aggregated item, sequence was empty.");
  best_key = key(best);
  for (Value item; next(item);) {
    const Value k = key(item);
    if (largest ? less(runtime, best_key, k, ">") : less(runtime, k, best_key)) {
      best = item;
      best_key = k;
    }
  }
  return best;
}

Value do_default(Runtime& runtime, const Value& value, Arguments& arguments) {
  const Bound given("default", arguments, {"default_value", "boolean"});
  const bool replace = value.is_undefined() || (given[1] && truth(*given[1]) && !truth(value));
  if (!replace) return value;
  return given[0] ? *given[0] : runtime.text("");
}

Value do_join(Runtime& runtime, const Value& value, Arguments& arguments) {
  const Bound given("join", arguments, {"d", "attribute"});
  const std::string joint = given[0] ? str(runtime, *given[0]) : "";
  const std::vector<Value> path = path_of(runtime, given[1]);
  std::string out;
  const Next next = iterate(runtime, value);
  bool first = true;
  for (Value item; next(item); first = false) {
    if (!first) out += joint;
    out += str(runtime, follow(runtime, item, path));
    runtime.budget.room(out.size());
  }
  return runtime.text(std::move(out));
}

Value do_first(Runtime& runtime, const Value& value, Arguments& arguments) {
  Bound("first", arguments, {});
  Value item;
  if (iterate(runtime, value)(item)) return item;
  return runtime.undefined("No first item, sequence was empty.");
}

/// Items from the back, for what Python can reverse; empty function else.
Next backwards(Runtime& runtime, const Value& value) {
  if (value.is(Kind::iterator) || !iterable(value)) return {};
  if (value.is_string()) {
    return [&runtime, value, end = value.str().size()](Value& out) mutable {
      if (end == 0) return false;
      const size_t begin = previous_character(value.str(), end);
      out = runtime.text(value.str().substr(begin, end - begin));
      end = begin;
      return true;
    };
  }
  if (value.is(Kind::range)) {
    return [&runtime, value, i = value.range().length](Value& out) mutable {
      if (i == 0) return false;
      runtime.budget.step();
      out = Value::integer(value.range().at(--i));
      return true;
    };
  }
  if (value.is_undefined()) return [](Value&) { return false; };
  const size_t size = value.is(Kind::dict) ? value.dict().entries.size() : value.items().size();
  return [&runtime, value, i = size](Value& out) mutable {
    if (i == 0) return false;
    runtime.budget.step();
    --i;
    out = value.is(Kind::dict) ? value.dict().entries[i].first : value.items()[i];
    return true;
  };
}

Value do_last(Runtime& runtime, const Value& value, Arguments& arguments) {
  Bound("last", arguments, {});
  const Next next = backwards(runtime, value);
  if (!next) fault("template.type", "'{}' object is not reversible", type_name(value));
  Value item;
  if (next(item)) return item;
  return runtime.undefined("No last item, sequence was empty.");
}

Value do_reverse(Runtime& runtime, const Value& value, Arguments& arguments) {
  Bound("reverse", arguments, {});
  if (value.is_string()) return slice(runtime, value, Value::none(), Value::none(), Value::integer(-1));
  if (Next next = backwards(runtime, value)) return runtime.iterator(std::move(next), value.depth());
  if (!iterable(value)) fault("template.argument", "argument must be iterable");
  std::vector<Value> items = collect(runtime, value);
  std::reverse(items.begin(), items.end());
  return runtime.list(std::move(items));
}

Value do_length(Runtime&, const Value& value, Arguments& arguments) {
  Bound("length", arguments, {});
  return Value::integer(length_of(value));
}

Value do_list(Runtime& runtime, const Value& value, Arguments& arguments) {
  Bound("list", arguments, {});
  return runtime.list(collect(runtime, value));
}

Value do_items(Runtime& runtime, const Value& value, Arguments& arguments) {
  Bound("items", arguments, {});
  return runtime.iterator(
      [&runtime, value, i = size_t{0}](Value& out) mutable {
        if (value.is_undefined()) return false;
        if (!value.is(Kind::dict)) fault("template.type", "Can only get item pairs from a mapping.");
        if (i >= value.dict().entries.size()) return false;
        const auto& entry = value.dict().entries[i++];
        out = runtime.tuple({entry.first, entry.second});
        return true;
      },
      depth_of(value, arguments));
}

Value do_sum(Runtime& runtime, const Value& value, Arguments& arguments) {
  const Bound given("sum", arguments, {"attribute", "start"});
  const std::vector<Value> path = path_of(runtime, given[0]);
  Value total = given[1] ? *given[1] : Value::integer(0);
  if (total.is_string()) fault("template.type", "sum() can't sum strings [use ''.join(seq) instead]");
  const Next next = iterate(runtime, value);
  for (Value item; next(item);) total = binary(runtime, Expression::Kind::add, total, follow(runtime, item, path));
  return total;
}

Value do_batch(Runtime& runtime, const Value& value, Arguments& arguments) {
  const Bound given("batch", arguments, {"linecount", "fill_with"}, 1);
  const Value count = *given[0], fill = given[1] ? *given[1] : Value::none();
  return runtime.iterator(
      [&runtime, next = Next(), value, count, fill, items = std::vector<Value>()](Value& out) mutable {
        if (!next) next = iterate(runtime, value);
        for (Value item; next(item);) {
          // Asked before an item is added: a line of no items comes first when the count is zero.
          const bool full = equal(Value::integer(static_cast<Integer>(items.size())), count);
          if (full) out = runtime.list(std::exchange(items, {}));
          items.push_back(item);
          if (full) return true;
          if ((items.size() & 1023) == 0) runtime.budget.values(items.size());
        }
        if (items.empty()) return false;
        const Integer size = fill.is_none() ? 0 : integer_of(count);
        if (static_cast<Integer>(items.size()) < size) {
          runtime.budget.values(static_cast<uint64_t>(std::min<Integer>(size, Integer{1} << 40)));
          items.resize(static_cast<size_t>(size), fill);
        }
        out = runtime.list(std::exchange(items, {}));
        return true;
      },
      depth_of(value, arguments));
}

Value do_slice(Runtime& runtime, const Value& value, Arguments& arguments) {
  const Bound given("slice", arguments, {"slices", "fill_with"}, 1);
  const Value count = *given[0], fill = given[1] ? *given[1] : Value::none();
  return runtime.iterator(
      [&runtime, value, count, fill, items = std::vector<Value>(), number = Integer{-1}, offset = Integer{0}](Value& out) mutable {
        const Integer slices = integer_of(count);
        if (number < 0) {
          items = collect(runtime, value);
          if (slices == 0) fault("template.zero", "integer division or modulo by zero");
          number = 0;
        }
        if (number >= slices) return false;
        const Integer size = static_cast<Integer>(items.size()), each = size / slices, extra = size % slices;
        const Integer begin = offset + number * each;
        if (number < extra) ++offset;
        const Integer end = offset + (number + 1) * each;
        std::vector<Value> part(items.begin() + static_cast<int64_t>(begin), items.begin() + static_cast<int64_t>(end));
        if (!fill.is_none() && number >= extra) part.push_back(fill);
        ++number;
        runtime.budget.step();
        out = runtime.list(std::move(part));
        return true;
      },
      depth_of(value, arguments));
}

Value do_groupby(Runtime& runtime, const Value& value, Arguments& arguments) {
  const Bound given("groupby", arguments, {"attribute", "default", "case_sensitive"}, 1);
  const bool fold = !given[2] || !truth(*given[2]);
  const Value* otherwise = given.or_none(1);
  const Key key = getter(runtime, given[0], fold, otherwise), shown = getter(runtime, given[0], false, otherwise);
  const std::vector<Value> items = sorted_by(runtime, collect(runtime, value), key, false);
  std::vector<Value> groups, group;
  Value current;
  const auto close = [&] {
    if (group.empty()) return;
    const Value name = fold ? shown(group[0]) : current;
    groups.push_back(runtime.tuple({name, runtime.list(std::move(group))}, /*group=*/true));
    group.clear();
  };
  for (const Value& item : items) {
    const Value k = key(item);
    if (!group.empty() && !equal(k, current, &runtime.budget)) close();
    current = k;
    group.push_back(item);
  }
  close();
  return runtime.list(std::move(groups));
}

Value do_attr(Runtime& runtime, const Value& value, Arguments& arguments) {
  const Bound given("attr", arguments, {"name"}, 1);
  const std::string& name = string_of(*given[0], "attr");
  if (value.is_undefined()) use_undefined(value);
  const Value found = method(runtime, value, name);
  if (!found.is_missing()) return found;
  return runtime.undefined(fmt::format("{} has no attribute {}", quoted_text(object_name(value)), quoted_text(name)));
}

Value do_map(Runtime& runtime, const Value& value, Arguments& arguments) {
  return runtime.iterator(
      [&runtime, next = Next(), value, arguments, attribute = Key()](Value& out) mutable {
        if (!next) {
          if (!truth(value)) {
            next = [](Value&) { return false; };
            return false;
          }
          if (arguments.positional.empty()) {
            const auto named = [&](std::string_view name) {
              const auto it = std::find_if(arguments.named.begin(), arguments.named.end(), [&](const auto& entry) { return entry.first == name; });
              return it == arguments.named.end() ? nullptr : &it->second;
            };
            const Value* path = named("attribute");
            if (!path) fault("template.argument", "map requires a filter argument");
            for (const auto& [name, ignored] : arguments.named)
              if (name != "attribute" && name != "default") fault("template.argument", "Unexpected keyword argument {}", quoted_text(name));
            const Value* otherwise = named("default");
            attribute = getter(runtime, path, false, otherwise && !otherwise->is_none() ? otherwise : nullptr);
          }
          next = iterate(runtime, value);
        }
        if (!next(out)) return false;
        if (attribute) {
          out = attribute(out);
          return true;
        }
        Arguments rest{{arguments.positional.begin() + 1, arguments.positional.end()}, arguments.named};
        out = call_filter(runtime, arguments.positional[0], out, rest);
        return true;
      },
      depth_of(value, arguments));
}

template <bool keep, bool by_attribute>
Value choosing(Runtime& runtime, const Value& value, Arguments& arguments) {
  return runtime.iterator(
      [&runtime, next = Next(), value, arguments, path = std::vector<Value>()](Value& out) mutable {
        constexpr size_t first = by_attribute ? 1 : 0;
        if (!next) {
          if (!truth(value)) {
            next = [](Value&) { return false; };
            return false;
          }
          if (by_attribute) {
            if (arguments.positional.empty()) fault("template.argument", "Missing parameter for attribute name");
            path = path_of(runtime, &arguments.positional[0]);
          }
          next = iterate(runtime, value);
        }
        while (next(out)) {
          const Value subject = follow(runtime, out, path);
          bool holds = false;
          if (arguments.positional.size() > first) {
            Arguments rest{{arguments.positional.begin() + first + 1, arguments.positional.end()}, arguments.named};
            holds = call_test(runtime, arguments.positional[first], subject, rest);
          } else {
            holds = truth(subject);
          }
          if (holds == keep) return true;
        }
        return false;
      },
      depth_of(value, arguments));
}

}  // namespace

const FilterTable& sequence_filters() {
  static const FilterTable table{
      {"sort", do_sort}, {"dictsort", do_dictsort}, {"unique", do_unique}, {"min", extreme<false>}, {"max", extreme<true>},
      {"default", do_default}, {"d", do_default}, {"join", do_join}, {"first", do_first}, {"last", do_last}, {"reverse", do_reverse},
      {"length", do_length}, {"count", do_length}, {"list", do_list}, {"items", do_items}, {"sum", do_sum}, {"batch", do_batch}, {"slice", do_slice},
      {"groupby", do_groupby}, {"attr", do_attr}, {"map", do_map}, {"select", choosing<true, false>}, {"reject", choosing<false, false>},
      {"selectattr", choosing<true, true>}, {"rejectattr", choosing<false, true>}};
  return table;
}

}  // namespace switchyard::jinja
