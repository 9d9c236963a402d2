#include <locale.h>
#include <time.h>

#include <algorithm>

#include "switchyard/formats/template/filters.h"
#include "switchyard/formats/template/operations.h"
#include "switchyard/formats/template/print.h"

namespace switchyard::jinja {
namespace {

using Kind = Value::Kind;

Value make_range(Runtime& runtime, Arguments& arguments) {
  if (!arguments.named.empty()) fault("template.type", "range() takes no keyword arguments");
  const size_t count = arguments.positional.size();
  if (count == 0 || count > 3) fault("template.type", "range expected 1 to 3 arguments, got {}", count);
  Integer bounds[3] = {0, 0, 1};
  for (size_t i = 0; i < count; ++i) {
    const Integer value = integer_of(arguments.positional[i]);
    bounds[count == 1 ? 1 : i] = std::clamp<Integer>(value, INT64_MIN, INT64_MAX);
  }
  return runtime.range(bounds[0], bounds[1], bounds[2]);
}

/// dict(mapping or pairs, name=value).
std::vector<std::pair<Value, Value>> entries_of(Runtime& runtime, Arguments& arguments) {
  std::vector<std::pair<Value, Value>> entries;
  if (arguments.positional.size() > 1) fault("template.type", "dict expected at most 1 argument, got {}", arguments.positional.size());
  if (!arguments.positional.empty()) {
    const Value& source = arguments.positional[0];
    if (source.is(Kind::dict)) {
      runtime.budget.values(source.dict().entries.size() * 2);
      entries = source.dict().entries;
    } else {
      const Next next = iterate(runtime, source);
      size_t number = 0;
      for (Value item; next(item); ++number) {
        if (!iterable(item)) fault("template.type", "cannot convert dictionary update sequence element #{} to a sequence", number);
        std::vector<Value> both = collect(runtime, item);
        if (both.size() != 2)
          fault("template.value", "dictionary update sequence element #{} has length {}; 2 is required", number, both.size());
        entries.emplace_back(both[0], both[1]);
      }
    }
  }
  for (const auto& [name, value] : arguments.named) entries.emplace_back(runtime.text(name), value);
  return entries;
}

Value make_dict(Runtime& runtime, Arguments& arguments) { return runtime.dict(entries_of(runtime, arguments)); }

void check_space_name(const Value& name) {
  if (name.is_string() && name.str().starts_with("_"))
    fault("template.security", "Chat templates cannot store underscore-prefixed attributes on a namespace, but got {}. Please rename the attribute.",
          quoted_text(name.str()));
}

Value make_space(Runtime& runtime, Arguments& arguments) {
  std::vector<std::pair<Value, Value>> attributes = entries_of(runtime, arguments);
  for (const auto& [name, value] : attributes) {
    if (!hashable(name)) fault("template.type", "unhashable type: '{}'", type_name(name));
    check_space_name(name);
  }
  return runtime.space(std::move(attributes));
}

Value raise_exception(Runtime& runtime, Arguments& arguments) {
  const Bound given("raise_exception", arguments, {"message"}, 1);
  throw Fault{"template.raised", given[0]->is_none() ? "None" : str(runtime, *given[0]), 0, {}};
}

Value strftime_now(Runtime& runtime, Arguments& arguments) {
  const Bound given("strftime_now", arguments, {"format"}, 1);
  return runtime.text(format_time(runtime.clock, string_of(*given[0], "strftime")));
}

/// What a cycler or a joiner remembers. Held by a function value, whose calls change it.
struct Cycle {
  std::vector<Value> items;
  size_t at = 0;
};

Value make_cycler(Runtime& runtime, Arguments& arguments) {
  if (!arguments.named.empty()) fault("template.type", "cycler() got an unexpected keyword argument {}", quoted_text(arguments.named[0].first));
  if (arguments.positional.empty()) fault("template.value", "at least one item has to be provided");
  auto cycle = std::make_shared<Cycle>();
  cycle->items = arguments.positional;
  auto object = std::make_shared<Function>();
  object->type = "Cycler";
  object->depth = 1;
  for (const Value& item : cycle->items) object->depth = std::max(object->depth, item.depth() + 1);
  object->attribute = [cycle](Runtime& r, std::string_view name) -> Value {
    if (name == "current") return cycle->items[cycle->at];
    if (name == "pos") return Value::integer(static_cast<Integer>(cycle->at));
    if (name == "items") return r.tuple(cycle->items);
    if (name == "next")
      return r.function("next", [cycle](Runtime&, Arguments&) {
        const Value item = cycle->items[cycle->at];
        cycle->at = (cycle->at + 1) % cycle->items.size();
        return item;
      });
    if (name == "reset")
      return r.function("reset", [cycle](Runtime&, Arguments&) {
        cycle->at = 0;
        return Value::none();
      });
    return {};
  };
  return runtime.adopt(std::move(object));
}

Value make_joiner(Runtime& runtime, Arguments& arguments) {
  const Bound given("joiner", arguments, {"sep"});
  const Value separator = given[0] ? *given[0] : runtime.text(", ");
  auto used = std::make_shared<bool>(false);
  auto object = std::make_shared<Function>();
  object->type = "Joiner";
  object->depth = separator.depth() + 1;
  object->call = [separator, used](Runtime& r, Arguments&) {
    if (std::exchange(*used, true)) return separator;
    return r.text("");
  };
  object->attribute = [separator, used](Runtime&, std::string_view name) -> Value {
    if (name == "sep") return separator;
    return name == "used" ? Value::boolean(*used) : Value();
  };
  return runtime.adopt(std::move(object));
}

Value lipsum(Runtime&, Arguments&) { fault("template.unsupported", "lipsum() writes random text, which has no use in a prompt and is not supported"); }

}  // namespace

Value global(Runtime& runtime, std::string_view name) {
  const auto function = [&](Value (*call)(Runtime&, Arguments&)) { return runtime.function(std::string(name), call); };
  if (name == "range") return function(make_range);
  if (name == "namespace") return function(make_space);
  if (name == "raise_exception") return function(raise_exception);
  if (name == "strftime_now") return function(strftime_now);
  if (name == "cycler") return function(make_cycler);
  if (name == "joiner") return function(make_joiner);
  if (name == "lipsum") return function(lipsum);
  if (name == "dict") {
    auto object = std::make_shared<Function>();
    object->name = "dict";
    object->type = "TemplateDict";
    object->call = make_dict;
    object->attribute = [](Runtime& r, std::string_view method_name) -> Value {
      return method_name == "fromkeys" ? method(r, r.dict({}), "fromkeys") : Value();
    };
    return runtime.adopt(std::move(object));
  }
  return {};
}

std::string format_time(const Clock& clock, const std::string& format) {
  static const locale_t plain = ::newlocale(LC_ALL_MASK, "C", nullptr);
  tm moment{};
  moment.tm_year = clock.year - 1900;
  moment.tm_mon = clock.month - 1;
  moment.tm_mday = clock.day;
  moment.tm_hour = clock.hour;
  moment.tm_min = clock.minute;
  moment.tm_sec = clock.second;
  tm whole = moment;
  const time_t seconds = ::timegm(&whole);  // gives the day of the week and of the year
  moment.tm_wday = whole.tm_wday;
  moment.tm_yday = whole.tm_yday;
  std::string out;
  for (size_t at = 0; at < format.size(); ++at) {
    if (format[at] != '%' || at + 1 == format.size()) {
      out.push_back(format[at]);
      continue;
    }
    std::string piece = "%";
    while (++at < format.size() && std::string_view("-_0^#").find(format[at]) != std::string_view::npos && piece.size() < 4) piece.push_back(format[at]);
    if (at >= format.size()) return out + piece;
    const char kind = format[at];
    if (kind == 'f') {
      out += fmt::format("{:06}", clock.microsecond);
    } else if (kind == 's') {
      out += std::to_string(seconds);
    } else if (kind == 'z' || kind == 'Z' || kind == ':') {
      // a time without a zone writes none
    } else if (std::string_view("aAbBcCdDeFgGhHIjklmMnpPrRStTuUVwWxXyY%").find(kind) == std::string_view::npos) {
      out += piece + kind;
    } else {
      piece.push_back(kind);
      char buffer[256];
      out.append(buffer, ::strftime_l(buffer, sizeof(buffer), piece.c_str(), &moment, plain));
    }
  }
  return out;
}

}  // namespace switchyard::jinja
