// What Python's operators do with the values of a template, with its error messages.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "switchyard/formats/template/runtime.h"
#include "switchyard/formats/template/syntax.h"

namespace switchyard::jinja {

/// Throws Fault template.undefined (or template.security) with the value's own message.
[[noreturn]] void use_undefined(const Value& value);

int64_t weight_of(const Value& value);
void check_weight(int64_t weight);

bool truth(const Value& value);
/// len(): throws Fault template.type where Python has none.
Integer length_of(const Value& value);

/// Gives each item once; throws Fault template.type for what cannot be iterated.
using Next = std::function<bool(Value&)>;
Next iterate(Runtime& runtime, const Value& value);
bool iterable(const Value& value);
std::vector<Value> collect(Runtime& runtime, const Value& value);

Value binary(Runtime& runtime, Expression::Kind kind, const Value& a, const Value& b);
Value negative(Runtime& runtime, const Value& value);
Value positive(const Value& value);
bool less(Runtime& runtime, const Value& a, const Value& b, std::string_view symbol = "<");
bool compare(Runtime& runtime, Expression::Compare kind, const Value& a, const Value& b);
bool contains(Runtime& runtime, const Value& container, const Value& item);

/// value.name and value[key], undefined where there is nothing.
Value attribute(Runtime& runtime, const Value& object, std::string_view name);
Value item(Runtime& runtime, const Value& object, const Value& key);
/// value[from:to:step]; missing bounds are None.
Value slice(Runtime& runtime, const Value& object, const Value& from, const Value& to, const Value& step);

/// The methods and properties of a value; missing when it has none of this name (methods.cpp).
Value method(Runtime& runtime, const Value& object, std::string_view name);

/// &, <, >, ' and " written as HTML; Markup stays (filters).
std::string escaped(Runtime& runtime, const Value& value);

}  // namespace switchyard::jinja
