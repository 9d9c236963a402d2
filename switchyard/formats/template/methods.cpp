// Methods of values, as Python has them; those that would change a list or a dictionary are refused, as the sandbox does.
#include <algorithm>
#include <array>
#include <cmath>

#include "switchyard/formats/template/characters.h"
#include "switchyard/formats/template/format.h"
#include "switchyard/formats/template/operations.h"
#include "switchyard/formats/template/print.h"
#include "switchyard/formats/template/text_methods.h"

namespace switchyard::jinja {
namespace {

using Kind = Value::Kind;

/// What every object of Python has: out of reach for a template.
bool internal(std::string_view name, const Value& object) {
  static constexpr std::array<std::string_view, 22> kAlways{
      "__class__", "__doc__", "__init__", "__new__", "__repr__", "__str__", "__hash__", "__eq__", "__ne__", "__lt__", "__le__", "__gt__",
      "__ge__", "__getattribute__", "__setattr__", "__delattr__", "__dir__", "__reduce__", "__reduce_ex__", "__format__", "__sizeof__",
      "__subclasshook__"};
  if (std::find(kAlways.begin(), kAlways.end(), name) != kAlways.end() || name == "__init_subclass__") return true;
  if (object.is_none() || !iterable(object)) return false;
  return name == "__len__" || name == "__getitem__" || name == "__iter__" || name == "__contains__";
}

Value unsafe(Runtime& runtime, const Value& object, std::string_view name) {
  return runtime.undefined(fmt::format("access to attribute {} of {} object is unsafe.", quoted_text(name), quoted_text(type_name(object))), true);
}

using Method = Value (*)(Runtime&, const Value&, Arguments&);

Value bound(Runtime& runtime, std::string_view name, const Value& object, Method method) {
  return runtime.function(std::string(name), [object, method](Runtime& r, Arguments& arguments) { return method(r, object, arguments); },
                          object.depth());
}

Value pair(Runtime& runtime, const std::pair<Value, Value>& entry) { return runtime.tuple({entry.first, entry.second}); }

Value dict_keys(Runtime& runtime, const Value& self, Arguments& arguments) {
  Bound("keys", arguments, {});
  std::vector<Value> items;
  for (const auto& entry : self.dict().entries) items.push_back(entry.first);
  return runtime.view("dict_keys", std::move(items));
}

Value dict_values(Runtime& runtime, const Value& self, Arguments& arguments) {
  Bound("values", arguments, {});
  std::vector<Value> items;
  for (const auto& entry : self.dict().entries) items.push_back(entry.second);
  return runtime.view("dict_values", std::move(items));
}

Value dict_items(Runtime& runtime, const Value& self, Arguments& arguments) {
  Bound("items", arguments, {});
  std::vector<Value> items;
  for (const auto& entry : self.dict().entries) items.push_back(pair(runtime, entry));
  return runtime.view("dict_items", std::move(items));
}

void positional_only(std::string_view name, const Arguments& arguments) {
  if (!arguments.named.empty()) fault("template.type", "{}() takes no keyword arguments", name);
}

Value dict_get(Runtime& runtime, const Value& self, Arguments& arguments) {
  positional_only("get", arguments);
  const Bound given("get", arguments, {"key", "default"}, 1);
  if (!hashable(*given[0])) fault("template.type", "unhashable type: '{}'", type_name(*given[0]));
  if (const Value* found = self.dict().find(*given[0])) return *found;
  return given[1] ? *given[1] : Value::none();
}

Value dict_copy(Runtime&, const Value& self, Arguments& arguments) {
  Bound("copy", arguments, {});
  return self;
}

Value dict_fromkeys(Runtime& runtime, const Value&, Arguments& arguments) {
  const Bound given("fromkeys", arguments, {"iterable", "value"}, 1);
  std::vector<std::pair<Value, Value>> entries;
  for (Value& key : collect(runtime, *given[0])) entries.emplace_back(std::move(key), given[1] ? *given[1] : Value::none());
  return runtime.dict(std::move(entries));
}

Value list_index(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound given("index", arguments, {"value", "start", "stop"}, 1);
  const Integer size = static_cast<Integer>(self.items().size());
  const auto place = [&](size_t i, Integer otherwise) {
    if (!given.given(i)) return otherwise;
    const Integer at = integer_of(*given[i]);
    return std::clamp<Integer>(at < 0 ? at + size : at, 0, size);
  };
  for (Integer i = place(1, 0), end = place(2, size); i < end; ++i)
    if (equal(self.items()[static_cast<size_t>(i)], *given[0], &runtime.budget)) return Value::integer(i);
  fault("template.value", "{} is not in {}", repr(runtime, *given[0]), type_name(self));
}

Value list_count(Runtime& runtime, const Value& self, Arguments& arguments) {
  const Bound given("count", arguments, {"value"}, 1);
  Integer count = 0;
  for (const Value& item : self.items()) count += equal(item, *given[0], &runtime.budget);
  return Value::integer(count);
}

Value bit_length(Runtime&, const Value& self, Arguments& arguments) {
  Bound("bit_length", arguments, {});
  Integer value = self.as_integer() < 0 ? -self.as_integer() : self.as_integer(), bits = 0;
  for (; value > 0; value >>= 1) ++bits;
  return Value::integer(bits);
}

Value is_whole(Runtime&, const Value& self, Arguments& arguments) {
  Bound("is_integer", arguments, {});
  return Value::boolean(self.as_real() == std::floor(self.as_real()));
}

Value itself(Runtime&, const Value& self, Arguments& arguments) {
  Bound("conjugate", arguments, {});
  return self;
}

Value dict_method(Runtime& runtime, const Value& object, std::string_view name) {
  if (name == "items") return bound(runtime, name, object, dict_items);
  if (name == "get") return bound(runtime, name, object, dict_get);
  if (name == "keys") return bound(runtime, name, object, dict_keys);
  if (name == "values") return bound(runtime, name, object, dict_values);
  if (name == "copy") return bound(runtime, name, object, dict_copy);
  if (name == "fromkeys") return bound(runtime, name, object, dict_fromkeys);
  for (std::string_view changing : {"clear", "pop", "popitem", "setdefault", "update"})
    if (name == changing) return unsafe(runtime, object, name);
  return {};
}

Value list_method(Runtime& runtime, const Value& object, std::string_view name) {
  if (name == "index") return bound(runtime, name, object, list_index);
  if (name == "count") return bound(runtime, name, object, list_count);
  if (object.is(Kind::tuple)) {
    if (!static_cast<const Sequence*>(object.object())->group) return {};
    if (name == "grouper") return object.items()[0];
    if (name == "list") return object.items()[1];
    return {};
  }
  if (name == "copy") return bound(runtime, name, object, dict_copy);
  for (std::string_view changing : {"append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"})
    if (name == changing) return unsafe(runtime, object, name);
  return {};
}

Value number_method(Runtime& runtime, const Value& object, std::string_view name) {
  if (name == "real") return object.is(Kind::boolean) ? Value::integer(object.as_integer()) : object;
  if (name == "imag") return object.is(Kind::real) ? Value::real(0) : Value::integer(0);
  if (name == "conjugate") return bound(runtime, name, object, itself);
  if (object.is(Kind::real)) return name == "is_integer" ? bound(runtime, name, object, is_whole) : Value();
  if (name == "numerator") return Value::integer(object.as_integer());
  if (name == "denominator") return Value::integer(1);
  if (name == "bit_length") return bound(runtime, name, object, bit_length);
  return {};
}

}  // namespace

Value method(Runtime& runtime, const Value& object, std::string_view name) {
  if (object.is(Kind::space)) {
    const Value* found = object.space().attributes.find(name);
    return found ? *found : Value();
  }
  if (internal(name, object)) return unsafe(runtime, object, name);
  switch (object.kind()) {
    case Kind::string: return text_method(runtime, object, name);
    case Kind::dict: return dict_method(runtime, object, name);
    case Kind::list:
    case Kind::tuple: return list_method(runtime, object, name);
    case Kind::boolean:
    case Kind::integer:
    case Kind::real: return number_method(runtime, object, name);
    case Kind::range:
      if (name == "start") return Value::integer(object.range().start);
      if (name == "stop") return Value::integer(object.range().stop);
      if (name == "step") return Value::integer(object.range().step);
      return {};
    case Kind::function: return object.function().attribute && name[0] != '\x01' ? object.function().attribute(runtime, name) : Value();
    default: return {};
  }
}

}  // namespace switchyard::jinja
