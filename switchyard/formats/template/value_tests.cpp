// The tests behind `is`, and the lookup of filters and tests by name.
#include <algorithm>

#include "switchyard/formats/template/characters.h"
#include "switchyard/formats/template/filters.h"
#include "switchyard/formats/template/operations.h"
#include "switchyard/formats/template/parser.h"
#include "switchyard/formats/template/print.h"
#include "switchyard/formats/template/text_methods.h"

namespace switchyard::jinja {
namespace {

using Kind = Value::Kind;
using Compare = Expression::Compare;

template <bool (*Holds)(const Value&)>
bool plain(Runtime&, const Value& value, Arguments& arguments) {
  Bound("test", arguments, {});
  return Holds(value);
}

bool is_defined(const Value& value) { return !value.is_undefined(); }
bool is_undefined(const Value& value) { return value.is_undefined(); }
bool is_none(const Value& value) { return value.is_none(); }
bool is_boolean(const Value& value) { return value.is(Kind::boolean); }
bool is_true(const Value& value) { return value.is(Kind::boolean) && value.is_true(); }
bool is_false(const Value& value) { return value.is(Kind::boolean) && !value.is_true(); }
bool is_whole(const Value& value) { return value.is(Kind::integer) || value.is(Kind::big); }
bool is_real(const Value& value) { return value.is(Kind::real); }
bool is_number(const Value& value) { return value.is_number(); }
bool is_text(const Value& value) { return value.is_string(); }
bool is_mapping(const Value& value) { return value.is(Kind::dict); }
bool is_sequence(const Value& value) {
  return value.is_undefined() || value.is_string() || value.is(Kind::list) || value.is(Kind::tuple) || value.is(Kind::dict) || value.is(Kind::range);
}
bool is_iterable(const Value& value) { return iterable(value); }
bool is_callable(const Value& value) { return value.is_undefined() || (value.is(Kind::function) && value.function().call); }
bool is_escaped(const Value& value) { return value.is_string() && value.string().markup; }

bool is_upper_text(Runtime& runtime, const Value& value, Arguments& arguments) {
  Bound("upper", arguments, {});
  return is_all_upper(str(runtime, value));
}
bool is_lower_text(Runtime& runtime, const Value& value, Arguments& arguments) {
  Bound("lower", arguments, {});
  return is_all_lower(str(runtime, value));
}

bool remainder_is(Runtime& runtime, const Value& value, const Value& divisor, Integer rest) {
  if (value.is(Kind::big) && divisor.is_integer() && divisor.as_integer() == 2) return (value.str().back() - '0') % 2 == rest;
  return equal(binary(runtime, Expression::Kind::modulo, value, divisor), Value::integer(rest), &runtime.budget);
}
bool is_odd(Runtime& runtime, const Value& value, Arguments& arguments) {
  Bound("odd", arguments, {});
  return remainder_is(runtime, value, Value::integer(2), 1);
}
bool is_even(Runtime& runtime, const Value& value, Arguments& arguments) {
  Bound("even", arguments, {});
  return remainder_is(runtime, value, Value::integer(2), 0);
}
bool is_divisible(Runtime& runtime, const Value& value, Arguments& arguments) {
  const Bound given("divisibleby", arguments, {"num"}, 1);
  return remainder_is(runtime, value, *given[0], 0);
}

template <Compare compare_by>
bool compares(Runtime& runtime, const Value& value, Arguments& arguments) {
  const Bound given("test", arguments, {"other"}, 1);
  return compare(runtime, compare_by, value, *given[0]);
}

bool is_same(Runtime&, const Value& value, Arguments& arguments) {
  const Bound given("sameas", arguments, {"other"}, 1);
  if (value.kind() != given[0]->kind()) return false;
  return value.same_object(*given[0]) || ((!value.object() || value.is_string()) && equal(value, *given[0]));
}

bool is_filter(Runtime&, const Value& value, Arguments& arguments) {
  Bound("filter", arguments, {});
  return value.is_string() && find_filter(value.str());
}
bool is_test(Runtime&, const Value& value, Arguments& arguments) {
  Bound("test", arguments, {});
  return value.is_string() && find_test(value.str());
}

const std::map<std::string_view, Test>& tests() {
  static const std::map<std::string_view, Test> table{
      {"defined", plain<is_defined>}, {"undefined", plain<is_undefined>}, {"none", plain<is_none>}, {"boolean", plain<is_boolean>},
      {"true", plain<is_true>}, {"false", plain<is_false>}, {"integer", plain<is_whole>}, {"float", plain<is_real>}, {"number", plain<is_number>},
      {"string", plain<is_text>}, {"mapping", plain<is_mapping>}, {"sequence", plain<is_sequence>}, {"iterable", plain<is_iterable>},
      {"callable", plain<is_callable>}, {"escaped", plain<is_escaped>}, {"upper", is_upper_text}, {"lower", is_lower_text},
      {"odd", is_odd}, {"even", is_even}, {"divisibleby", is_divisible}, {"sameas", is_same}, {"filter", is_filter}, {"test", is_test},
      {"in", compares<Compare::in>}, {"==", compares<Compare::equal>}, {"eq", compares<Compare::equal>}, {"equalto", compares<Compare::equal>},
      {"!=", compares<Compare::not_equal>}, {"ne", compares<Compare::not_equal>}, {">", compares<Compare::greater>}, {"gt", compares<Compare::greater>},
      {"greaterthan", compares<Compare::greater>}, {"ge", compares<Compare::greater_equal>}, {">=", compares<Compare::greater_equal>},
      {"<", compares<Compare::less>}, {"lt", compares<Compare::less>}, {"lessthan", compares<Compare::less>}, {"<=", compares<Compare::less_equal>},
      {"le", compares<Compare::less_equal>}};
  return table;
}

[[noreturn]] void unknown(Runtime& runtime, std::string_view what, const Value& name) {
  const std::string hint = name.is_undefined() ? fmt::format(" ({}; did you forget to quote the callable name?)", name.undefined().message) : "";
  fault("template.name", "No {} named {}.{}", what, repr(runtime, name), hint);
}

}  // namespace

Filter find_filter(std::string_view name) {
  for (const FilterTable* table : {&text_filters(), &sequence_filters()})
    if (const auto it = table->find(name); it != table->end()) return it->second;
  return nullptr;
}

Test find_test(std::string_view name) {
  const auto it = tests().find(name);
  return it == tests().end() ? nullptr : it->second;
}

bool filter_exists(std::string_view name) { return find_filter(name) != nullptr; }
bool test_exists(std::string_view name) { return find_test(name) != nullptr; }

Value call_filter(Runtime& runtime, const Value& name, const Value& value, Arguments& arguments) {
  const Filter filter = name.is_string() ? find_filter(name.str()) : nullptr;
  if (!filter) unknown(runtime, "filter", name);
  runtime.budget.step();
  const Level level(runtime.budget);
  return filter(runtime, value, arguments);
}

bool call_test(Runtime& runtime, const Value& name, const Value& value, Arguments& arguments) {
  const Test test = name.is_string() ? find_test(name.str()) : nullptr;
  if (!test) unknown(runtime, "test", name);
  runtime.budget.step();
  return test(runtime, value, arguments);
}

}  // namespace switchyard::jinja
