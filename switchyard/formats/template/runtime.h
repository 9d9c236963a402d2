// One rendering: its budget, its clock, and the makers of values that the budget pays for.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "switchyard/formats/template/budget.h"
#include "switchyard/formats/template/value.h"

namespace switchyard::jinja {

/// A local time, broken into its parts.
struct Clock {
  int year = 1970, month = 1, day = 1, hour = 0, minute = 0, second = 0, microsecond = 0;
};

class Runtime {
 public:
  Runtime(const Limits& limits, const Clock& clock) : budget(limits), clock(clock) {}
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  Value text(std::string text, bool markup = false);
  Value list(std::vector<Value> items) { return sequence(Value::Kind::list, std::move(items)); }
  Value tuple(std::vector<Value> items, bool group = false) { return sequence(Value::Kind::tuple, std::move(items), {}, group); }
  /// A view of a dictionary: "dict_keys", "dict_values", "dict_items".
  Value view(std::string_view name, std::vector<Value> items) { return sequence(Value::Kind::view, std::move(items), name); }
  Value dict(std::vector<std::pair<Value, Value>> entries);
  Value range(Integer start, Integer stop, Integer step);
  /// depth: of the deepest value that `next` holds.
  Value iterator(std::function<bool(Value&)> next, int depth);
  Value undefined(std::string message, bool security = false);
  /// depth: of the deepest value that `call` holds.
  Value function(std::string name, std::function<Value(Runtime&, Arguments&)> call, int depth = 0);
  Value adopt(std::shared_ptr<Function> function);
  /// A namespace; emptied when the rendering ends, since it may hold itself.
  Value space(std::vector<std::pair<Value, Value>> attributes);

  Value call(const Value& callee, Arguments& arguments);

  Budget budget;
  const Clock clock;

 private:
  Value sequence(Value::Kind kind, std::vector<Value> items, std::string_view name = {}, bool group = false);
  std::vector<std::shared_ptr<Namespace>> spaces_;
};

/// Arguments of a function of ours by position or name.
class Bound {
 public:
  /// names: in order; throws Fault template.type when one of the first `required` is missing, or there are others.
  Bound(std::string_view function, Arguments& arguments, std::initializer_list<std::string_view> names, size_t required = 0);
  /// Null when it was not given.
  const Value* operator[](size_t i) const { return values_[i]; }
  bool given(size_t i) const { return values_[i] != nullptr; }
  /// None counts as not given.
  const Value* or_none(size_t i) const { return values_[i] && !values_[i]->is_none() ? values_[i] : nullptr; }

 private:
  std::vector<const Value*> values_;
};

/// The deepest of a value and the arguments beside it.
int depth_of(const Value& value, const Arguments& arguments);

/// An index or count; throws Fault template.type for what is no integer.
Integer integer_of(const Value& value);
/// The bytes of a string; throws Fault template.type naming the function for anything else.
const std::string& string_of(const Value& value, std::string_view function);

}  // namespace switchyard::jinja
