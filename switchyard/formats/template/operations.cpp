#include "switchyard/formats/template/operations.h"

#include <algorithm>
#include <cmath>

#include "switchyard/formats/template/characters.h"
#include "switchyard/formats/template/format.h"
#include "switchyard/formats/template/print.h"

namespace switchyard::jinja {
namespace {

using Kind = Value::Kind;
using Op = Expression::Kind;

constexpr int64_t kMaxWeight = 5'000'000;

std::string_view symbol(Op op) {
  switch (op) {
    case Op::add: return "+";
    case Op::subtract: return "-";
    case Op::multiply: return "*";
    case Op::divide: return "/";
    case Op::floor_divide: return "//";
    case Op::modulo: return "%";
    default: return "** or pow()";
  }
}

[[noreturn]] void unsupported(Op op, const Value& a, const Value& b) {
  fault("template.type", "unsupported operand type(s) for {}: '{}' and '{}'", symbol(op), type_name(a), type_name(b));
}

[[noreturn]] void too_big() { fault("template.integer", "the template computes with an integer of more than 128 bits"); }

Integer floor_divide(Integer a, Integer b) {
  const Integer quotient = a / b;
  return (a % b != 0 && (a < 0) != (b < 0)) ? quotient - 1 : quotient;
}

Integer floor_modulo(Integer a, Integer b) {
  const Integer rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

double real_modulo(double a, double b) {
  double rest = std::fmod(a, b);
  if (rest != 0) {
    if ((rest < 0) != (b < 0)) rest += b;
  } else {
    rest = std::copysign(0.0, b);
  }
  return rest;
}

double real_floor_divide(double a, double b) {
  const double rest = std::fmod(a, b);
  double quotient = (a - rest) / b;
  if (rest != 0 && (rest < 0) != (b < 0)) quotient -= 1;
  if (quotient == 0) return std::copysign(0.0, a / b);
  const double floor = std::floor(quotient);
  return quotient - floor > 0.5 ? floor + 1 : floor;
}

Value integer_power(Integer base, Integer exponent) {
  if (exponent < 0) {
    if (base == 0) fault("template.zero", "0.0 cannot be raised to a negative power");
    return Value::real(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  Integer result = 1;
  if (base == 0 || base == 1) return Value::integer(exponent == 0 ? 1 : base);
  if (base == -1) return Value::integer(exponent % 2 == 0 ? 1 : -1);
  for (; exponent > 0; --exponent)
    if (__builtin_mul_overflow(result, base, &result)) too_big();
  return Value::integer(result);
}

Value integers(Op op, Integer a, Integer b) {
  Integer result = 0;
  switch (op) {
    case Op::add:
      if (__builtin_add_overflow(a, b, &result)) too_big();
      return Value::integer(result);
    case Op::subtract:
      if (__builtin_sub_overflow(a, b, &result)) too_big();
      return Value::integer(result);
    case Op::multiply:
      if (__builtin_mul_overflow(a, b, &result)) too_big();
      return Value::integer(result);
    case Op::divide:
      if (b == 0) fault("template.zero", "division by zero");
      return Value::real(static_cast<double>(static_cast<long double>(a) / static_cast<long double>(b)));
    case Op::floor_divide:
    case Op::modulo:
      if (b == 0) fault("template.zero", "{}", op == Op::modulo ? "integer modulo by zero" : "integer division or modulo by zero");
      if (b == -1) {  // the one quotient that may not fit
        if (op == Op::modulo) return Value::integer(0);
        if (__builtin_sub_overflow(static_cast<Integer>(0), a, &result)) too_big();
        return Value::integer(result);
      }
      return Value::integer(op == Op::modulo ? floor_modulo(a, b) : floor_divide(a, b));
    default: return integer_power(a, b);
  }
}

Value reals(Op op, double a, double b) {
  switch (op) {
    case Op::add: return Value::real(a + b);
    case Op::subtract: return Value::real(a - b);
    case Op::multiply: return Value::real(a * b);
    case Op::divide:
      if (b == 0) fault("template.zero", "float division by zero");
      return Value::real(a / b);
    case Op::floor_divide:
      if (b == 0) fault("template.zero", "float floor division by zero");
      return Value::real(real_floor_divide(a, b));
    case Op::modulo:
      if (b == 0) fault("template.zero", "float modulo");
      return Value::real(real_modulo(a, b));
    default: {
      if (a == 0 && b < 0) fault("template.zero", "0.0 cannot be raised to a negative power");
      if (a < 0 && std::isfinite(a) && std::isfinite(b) && b != std::floor(b)) fault("template.type", "a power of a negative number is complex");
      const double power = std::pow(a, b);
      if (std::isinf(power) && std::isfinite(a) && std::isfinite(b)) fault("template.value", "(34, 'Numerical result out of range')");
      return Value::real(power);
    }
  }
}

Value repeated(Runtime& runtime, const Value& sequence, Integer count) {
  const uint64_t times = count < 0 ? 0 : count > (Integer{1} << 40) ? uint64_t{1} << 40 : static_cast<uint64_t>(count);
  if (sequence.is_string()) {
    const std::string& piece = sequence.str();
    uint64_t bytes = 0;
    if (__builtin_mul_overflow(times, static_cast<uint64_t>(piece.size()), &bytes)) bytes = UINT64_MAX;
    runtime.budget.text(bytes);
    std::string text;
    text.reserve(bytes);
    if (!piece.empty())
      for (uint64_t i = 0; i < times; ++i) text += piece;
    return runtime.text(std::move(text), sequence.string().markup);
  }
  const std::vector<Value>& piece = sequence.items();
  uint64_t total = 0;
  if (__builtin_mul_overflow(times, static_cast<uint64_t>(piece.size()), &total)) total = UINT64_MAX;
  runtime.budget.values(total);
  std::vector<Value> items;
  items.reserve(total);
  if (!piece.empty())
    for (uint64_t i = 0; i < times; ++i) items.insert(items.end(), piece.begin(), piece.end());
  return sequence.is(Kind::list) ? runtime.list(std::move(items)) : runtime.tuple(std::move(items));
}

bool is_text_or_list(const Value& value) { return value.is_string() || value.is(Kind::list) || value.is(Kind::tuple); }

Value added(Runtime& runtime, const Value& a, const Value& b) {
  if (a.is_string() && b.is_string()) {
    const bool markup = a.string().markup || b.string().markup;
    if (!markup) {
      runtime.budget.text(a.str().size() + b.str().size());
      return runtime.text(a.str() + b.str());
    }
    return runtime.text(escaped(runtime, a) + escaped(runtime, b), true);
  }
  if (a.kind() == b.kind() && (a.is(Kind::list) || a.is(Kind::tuple))) {
    runtime.budget.values(a.items().size() + b.items().size());
    std::vector<Value> items = a.items();
    items.insert(items.end(), b.items().begin(), b.items().end());
    return a.is(Kind::list) ? runtime.list(std::move(items)) : runtime.tuple(std::move(items));
  }
  if (is_text_or_list(a))
    fault("template.type", "can only concatenate {0} (not \"{1}\") to {0}", a.is_string() ? "str" : type_name(a), type_name(b));
  unsupported(Op::add, a, b);
}

/// Which of a list's or text's items a slice takes: Python's slice.indices.
struct Indices {
  int64_t from = 0, step = 1, count = 0;
};

Indices indices(const Value& from, const Value& to, const Value& step_value, int64_t length) {
  const auto number = [](const Value& value) {
    if (value.is_undefined()) use_undefined(value);
    if (!value.is_integer()) fault("template.type", "slice indices must be integers or None or have an __index__ method");
    return std::clamp<Integer>(value.as_integer(), INT64_MIN / 4, INT64_MAX / 4);
  };
  const Integer step = step_value.is_none() ? Integer{1} : number(step_value);
  if (step == 0) fault("template.value", "slice step cannot be zero");
  const Integer low = step < 0 ? -1 : 0, high = step < 0 ? length - 1 : length;
  const auto bound = [&](const Value& value, Integer otherwise) {
    if (value.is_none()) return otherwise;
    Integer at = number(value);
    if (at < 0) at += length;
    return std::clamp(at, low, high);
  };
  const Integer begin = bound(from, step < 0 ? high : low), end = bound(to, step < 0 ? low : high);
  Integer count = 0;
  if (step > 0 && end > begin) count = (end - begin - 1) / step + 1;
  if (step < 0 && end < begin) count = (begin - end - 1) / -step + 1;
  return {static_cast<int64_t>(begin), static_cast<int64_t>(step), static_cast<int64_t>(count)};
}

/// One character of a text; false when the index is outside.
bool character(Runtime& runtime, const Value& value, Integer index, Value& result) {
  const String& text = value.string();
  if (index < 0) index += text.length;
  if (index < 0 || index >= text.length) return false;
  if (!text.ascii()) runtime.budget.touch(text.text.size());
  const size_t begin = byte_of(text.text, static_cast<int64_t>(index), text.ascii());
  size_t end = begin;
  next_character(text.text, end);
  result = runtime.text(text.text.substr(begin, end - begin), text.markup);
  return true;
}

/// value[key] where Python has it; false for what it answers with TypeError or LookupError.
bool subscript(Runtime& runtime, const Value& object, const Value& key, Value& result) {
  if (object.is(Kind::dict)) {
    if (!hashable(key)) return false;
    runtime.budget.step(weight_of(key) / 8);
    const Value* found = object.dict().find(key);
    if (found) result = *found;
    return found != nullptr;
  }
  if (!key.is_integer()) return false;
  const Integer index = key.as_integer();
  if (object.is_string()) return character(runtime, object, index, result);
  if (object.is(Kind::list) || object.is(Kind::tuple)) {
    const std::vector<Value>& items = object.items();
    const Integer size = static_cast<Integer>(items.size()), at = index < 0 ? index + size : index;
    if (at < 0 || at >= size) return false;
    result = items[static_cast<size_t>(at)];
    return true;
  }
  if (object.is(Kind::range)) {
    const Range& range = object.range();
    const Integer at = index < 0 ? index + range.length : index;
    if (at < 0 || at >= range.length) return false;
    result = Value::integer(range.at(at));
    return true;
  }
  return false;
}

}  // namespace

void use_undefined(const Value& value) {
  const Undefined& undefined = value.undefined();
  throw Fault{undefined.security ? "template.security" : "template.undefined", undefined.message, 0, {}};
}

int64_t weight_of(const Value& value) {
  if (value.is_string()) return 1 + static_cast<int64_t>(value.str().size() / 64);
  return value.object() ? value.object()->weight : 1;
}

void check_weight(int64_t weight) {
  if (weight > kMaxWeight) fault("template.limit", "a list or dictionary holds more than {} values", kMaxWeight);
}

bool truth(const Value& value) {
  switch (value.kind()) {
    case Kind::missing:
    case Kind::undefined:
    case Kind::none: return false;
    case Kind::boolean:
    case Kind::integer: return value.as_integer() != 0;
    case Kind::real: return value.as_real() != 0;
    case Kind::string: return !value.str().empty();
    case Kind::list:
    case Kind::tuple:
    case Kind::view: return !value.items().empty();
    case Kind::dict: return !value.dict().entries.empty();
    case Kind::range: return value.range().length != 0;
    default: return true;
  }
}

Integer length_of(const Value& value) {
  switch (value.kind()) {
    case Kind::undefined: return 0;
    case Kind::string: return value.string().length;
    case Kind::list:
    case Kind::tuple:
    case Kind::view: return static_cast<Integer>(value.items().size());
    case Kind::dict: return static_cast<Integer>(value.dict().entries.size());
    case Kind::range: return value.range().length;
    default: fault("template.type", "object of type '{}' has no len()", type_name(value));
  }
}

bool iterable(const Value& value) {
  switch (value.kind()) {
    case Kind::none:
    case Kind::boolean:
    case Kind::integer:
    case Kind::big:
    case Kind::real:
    case Kind::space:
    case Kind::function: return false;
    default: return true;
  }
}

Next iterate(Runtime& runtime, const Value& value) {
  Budget& budget = runtime.budget;
  switch (value.kind()) {
    case Kind::undefined: return [](Value&) { return false; };
    case Kind::string:
      return [&runtime, value, at = size_t{0}](Value& out) mutable {
        const std::string& text = value.str();
        if (at >= text.size()) return false;
        const size_t begin = at;
        next_character(text, at);
        runtime.budget.step();
        out = runtime.text(text.substr(begin, at - begin));
        return true;
      };
    case Kind::list:
    case Kind::tuple:
    case Kind::view:
      return [&budget, value, i = size_t{0}](Value& out) mutable {
        if (i >= value.items().size()) return false;
        budget.step();
        out = value.items()[i++];
        return true;
      };
    case Kind::dict:
      return [&budget, value, i = size_t{0}](Value& out) mutable {
        if (i >= value.dict().entries.size()) return false;
        budget.step();
        out = value.dict().entries[i++].first;
        return true;
      };
    case Kind::range:
      return [&budget, value, i = Integer{0}](Value& out) mutable {
        if (i >= value.range().length) return false;
        budget.step();
        out = Value::integer(value.range().at(i++));
        return true;
      };
    case Kind::iterator:
      return [&budget, value](Value& out) {
        budget.step();
        return value.iterator().next(out);
      };
    default: fault("template.type", "'{}' object is not iterable", type_name(value));
  }
}

std::vector<Value> collect(Runtime& runtime, const Value& value) {
  if (value.is_sequence()) {
    runtime.budget.values(value.items().size());
    return value.items();
  }
  std::vector<Value> items;
  const Next next = iterate(runtime, value);
  for (Value item; next(item);) {
    items.push_back(item);
    if ((items.size() & 1023) == 0) runtime.budget.values(items.size());
  }
  return items;
}

Value binary(Runtime& runtime, Op op, const Value& a, const Value& b) {
  if (a.is_integer() && b.is_integer()) return integers(op, a.as_integer(), b.as_integer());
  const bool plain_a = a.is_integer() || a.is(Kind::real), plain_b = b.is_integer() || b.is(Kind::real);
  if (plain_a && plain_b) return reals(op, a.as_real(), b.as_real());
  if (op == Op::modulo && a.is_string()) return percent_format(runtime, a, b);
  if (a.is_undefined()) use_undefined(a);
  if (b.is_undefined()) use_undefined(b);
  if (a.is_number() && b.is_number()) too_big();
  if (op == Op::add) return added(runtime, a, b);
  if (op == Op::multiply) {
    if (is_text_or_list(a) && b.is_integer()) return repeated(runtime, a, b.as_integer());
    if (a.is_integer() && is_text_or_list(b)) return repeated(runtime, b, a.as_integer());
    if (is_text_or_list(a)) fault("template.type", "can't multiply sequence by non-int of type '{}'", type_name(b));
    if (is_text_or_list(b)) fault("template.type", "can't multiply sequence by non-int of type '{}'", type_name(a));
  }
  unsupported(op, a, b);
}

Value negative(Runtime& runtime, const Value& value) {
  if (value.is_undefined()) use_undefined(value);
  if (value.is(Kind::big)) {
    const std::string& digits = value.str();
    auto object = std::make_shared<String>(digits[0] == '-' ? digits.substr(1) : "-" + digits);
    object->charge(runtime.budget, object->text.size() + 80);
    return {Kind::big, std::move(object)};
  }
  if (value.is(Kind::real)) return Value::real(-value.as_real());
  if (!value.is_integer()) fault("template.type", "bad operand type for unary -: '{}'", type_name(value));
  Integer result = 0;
  if (__builtin_sub_overflow(static_cast<Integer>(0), value.as_integer(), &result)) too_big();
  return Value::integer(result);
}

Value positive(const Value& value) {
  if (value.is_undefined()) use_undefined(value);
  if (value.is_integer()) return Value::integer(value.as_integer());
  if (!value.is_number()) fault("template.type", "bad operand type for unary +: '{}'", type_name(value));
  return value;
}

bool less(Runtime& runtime, const Value& a, const Value& b, std::string_view symbol) {
  runtime.budget.step();
  if (a.is_undefined()) use_undefined(a);
  if (b.is_undefined()) use_undefined(b);
  if (a.is_integer() && b.is_integer()) return a.as_integer() < b.as_integer();
  if (a.is(Kind::real) && b.is(Kind::real)) return a.as_real() < b.as_real();
  if (a.is_number() && b.is_number()) {
    if (a.is(Kind::big) || b.is(Kind::big)) too_big();
    const auto wide = [](const Value& v) { return v.is(Kind::real) ? static_cast<long double>(v.as_real()) : static_cast<long double>(v.as_integer()); };
    return wide(a) < wide(b);
  }
  if (a.is_string() && b.is_string()) {
    runtime.budget.touch(std::min(a.str().size(), b.str().size()));
    return a.str() < b.str();
  }
  if (a.kind() == b.kind() && (a.is(Kind::list) || a.is(Kind::tuple))) {
    const std::vector<Value>&x = a.items(), &y = b.items();
    for (size_t i = 0; i < x.size() && i < y.size(); ++i)
      if (!equal(x[i], y[i], &runtime.budget)) return less(runtime, x[i], y[i], symbol);
    return x.size() < y.size();
  }
  fault("template.type", "'{}' not supported between instances of '{}' and '{}'", symbol, type_name(a), type_name(b));
}

bool compare(Runtime& runtime, Expression::Compare kind, const Value& a, const Value& b) {
  using Compare = Expression::Compare;
  const bool unordered = (a.is(Kind::real) && std::isnan(a.as_real())) || (b.is(Kind::real) && std::isnan(b.as_real()));
  switch (kind) {
    case Compare::equal: return equal(a, b, &runtime.budget);
    case Compare::not_equal: return !equal(a, b, &runtime.budget);
    case Compare::less: return less(runtime, a, b, "<");
    case Compare::greater: {
      if (a.is_undefined()) use_undefined(a);
      if (!a.is_number() || !b.is_number())
        if (a.kind() != b.kind()) fault("template.type", "'>' not supported between instances of '{}' and '{}'", type_name(a), type_name(b));
      return less(runtime, b, a, ">");
    }
    case Compare::less_equal:
      if (a.kind() == b.kind() || (a.is_number() && b.is_number())) return !less(runtime, b, a, "<=") && !unordered;
      return !less(runtime, a, b, "<=");
    case Compare::greater_equal: return !less(runtime, a, b, ">=") && !unordered;
    case Compare::in: return contains(runtime, b, a);
    case Compare::not_in: return !contains(runtime, b, a);
  }
  return false;
}

bool contains(Runtime& runtime, const Value& container, const Value& item) {
  if (container.is_string()) {
    if (!item.is_string()) fault("template.type", "'in <string>' requires string as left operand, not {}", type_name(item));
    runtime.budget.touch(container.str().size() + item.str().size());
    return find(container.str(), item.str()) != std::string_view::npos;
  }
  if (container.is(Kind::dict)) {
    if (!hashable(item)) fault("template.type", "unhashable type: '{}'", type_name(item));
    runtime.budget.step(weight_of(item) / 8);
    return container.dict().find(item) != nullptr;
  }
  if (container.is(Kind::range) && item.is_integer()) {
    const Range& range = container.range();
    const Integer offset = item.as_integer() - range.start;
    return range.length > 0 && offset % range.step == 0 && offset / range.step >= 0 && offset / range.step < range.length;
  }
  if (!iterable(container)) fault("template.type", "argument of type '{}' is not iterable", type_name(container));
  if (container.is_sequence()) {
    for (const Value& value : container.items())
      if (equal(value, item, &runtime.budget)) return true;
    return false;
  }
  const Next next = iterate(runtime, container);
  for (Value value; next(value);)
    if (equal(value, item, &runtime.budget)) return true;
  return false;
}

Value attribute(Runtime& runtime, const Value& object, std::string_view name) {
  if (object.is_undefined()) use_undefined(object);
  Value found = method(runtime, object, name);
  if (!found.is_missing()) return found;
  if (object.is(Kind::dict)) {
    if (const Value* value = object.dict().find(name)) return *value;
  }
  return runtime.undefined(fmt::format("{} has no attribute {}", quoted_text(object_name(object)), quoted_text(name)));
}

Value item(Runtime& runtime, const Value& object, const Value& key) {
  if (object.is_undefined()) use_undefined(object);
  Value found;
  if (subscript(runtime, object, key, found)) return found;
  if (key.is_string()) {
    found = method(runtime, object, key.str());
    if (!found.is_missing()) return found;
    return runtime.undefined(fmt::format("{} has no attribute {}", quoted_text(object_name(object)), quoted_text(key.str())));
  }
  return runtime.undefined(fmt::format("{} has no element {}", object_name(object), repr(runtime, key)));
}

Value slice(Runtime& runtime, const Value& object, const Value& from, const Value& to, const Value& step) {
  if (object.is_undefined()) use_undefined(object);
  if (object.is(Kind::list) || object.is(Kind::tuple)) {
    const Indices taken = indices(from, to, step, static_cast<int64_t>(object.items().size()));
    runtime.budget.values(static_cast<uint64_t>(taken.count));
    std::vector<Value> items;
    items.reserve(static_cast<size_t>(taken.count));
    for (int64_t i = 0; i < taken.count; ++i) items.push_back(object.items()[static_cast<size_t>(taken.from + i * taken.step)]);
    return object.is(Kind::list) ? runtime.list(std::move(items)) : runtime.tuple(std::move(items));
  }
  if (object.is_string()) {
    const String& text = object.string();
    const Indices taken = indices(from, to, step, text.length);
    runtime.budget.touch(text.text.size());
    if (taken.step == 1 || taken.count == 0) {
      const size_t begin = byte_of(text.text, taken.from, text.ascii());
      const size_t bytes = taken.count == 0 ? 0 : byte_of(std::string_view(text.text).substr(begin), taken.count, text.ascii());
      return runtime.text(text.text.substr(std::min(begin, text.text.size()), bytes), text.markup);
    }
    std::string out;
    if (text.ascii()) {
      for (int64_t i = 0; i < taken.count; ++i) out.push_back(text.text[static_cast<size_t>(taken.from + i * taken.step)]);
    } else {
      std::u32string wide;
      for (size_t at = 0; at < text.text.size();) wide.push_back(next_character(text.text, at));
      for (int64_t i = 0; i < taken.count; ++i) append_character(out, wide[static_cast<size_t>(taken.from + i * taken.step)]);
    }
    return runtime.text(std::move(out), text.markup);
  }
  if (object.is(Kind::range)) {
    const Range& range = object.range();
    const Indices taken = indices(from, to, step, static_cast<int64_t>(range.length));
    return runtime.range(range.at(taken.from), range.at(taken.from + taken.step * taken.count), range.step * taken.step);
  }
  if (object.is(Kind::dict)) fault("template.type", "unhashable type: 'slice'");
  fault("template.type", "'{}' object is not subscriptable", type_name(object));
}

std::string escaped(Runtime& runtime, const Value& value) {
  if (value.is_string() && value.string().markup) return value.str();
  const std::string text = str(runtime, value);
  std::string out;
  for (char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '\'': out += "&#39;"; break;
      case '"': out += "&#34;"; break;
      default: out.push_back(c);
    }
  }
  runtime.budget.room(out.size());
  return out;
}

}  // namespace switchyard::jinja
