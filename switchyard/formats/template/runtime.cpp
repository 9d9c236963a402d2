#include "switchyard/formats/template/runtime.h"

#include <algorithm>

#include "switchyard/formats/template/operations.h"

namespace switchyard::jinja {
namespace {

void check_depth(int depth) {
  if (depth > kMaxDepth) fault("template.limit", "lists and dictionaries nest more than {} levels deep", kMaxDepth);
}

}  // namespace

Runtime::~Runtime() {
  for (const std::shared_ptr<Namespace>& space : spaces_) space->attributes.clear();
}

Value Runtime::text(std::string text, bool markup) {
  budget.text(text.size());
  auto object = std::make_shared<String>(std::move(text), markup);
  object->charge(budget, object->text.size() + 80);
  return {Value::Kind::string, std::move(object)};
}

Value Runtime::sequence(Value::Kind kind, std::vector<Value> items, std::string_view name, bool group) {
  budget.values(items.size());
  auto object = std::make_shared<Sequence>();
  object->depth = 1;
  for (const Value& item : items) {
    object->depth = std::max(object->depth, item.depth() + 1);
    object->weight += weight_of(item);
  }
  check_depth(object->depth);
  check_weight(object->weight);
  object->charge(budget, items.size() * sizeof(Value) + 96);
  object->items = std::move(items);
  object->name = name;
  object->group = group;
  return {kind, std::move(object)};
}

Value Runtime::dict(std::vector<std::pair<Value, Value>> entries) {
  budget.values(entries.size() * 2);
  auto object = std::make_shared<Dict>();
  object->depth = 1;
  for (auto& [key, value] : entries) {
    if (!hashable(key)) fault("template.type", "unhashable type: '{}'", type_name(key));
    object->depth = std::max({object->depth, key.depth() + 1, value.depth() + 1});
    object->weight += weight_of(key) + weight_of(value);
    object->set(std::move(key), std::move(value));
  }
  check_depth(object->depth);
  check_weight(object->weight);
  object->charge(budget, object->entries.size() * (2 * sizeof(Value) + 48) + 160);
  return {Value::Kind::dict, std::move(object)};
}

Value Runtime::range(Integer start, Integer stop, Integer step) {
  if (step == 0) fault("template.value", "range() arg 3 must not be zero");
  auto object = std::make_shared<Range>();
  object->start = start;
  object->stop = stop;
  object->step = step;
  if (step > 0 && stop > start) object->length = (stop - start - 1) / step + 1;
  if (step < 0 && stop < start) object->length = (start - stop - 1) / -step + 1;
  if (object->length > budget.limits.range)
    fault("template.limit", "Range too big. The sandbox blocks ranges larger than MAX_RANGE ({}).", budget.limits.range);
  object->charge(budget, 160);
  return {Value::Kind::range, std::move(object)};
}

Value Runtime::iterator(std::function<bool(Value&)> next, int depth) {
  auto object = std::make_shared<Iterator>();
  object->next = std::move(next);
  object->depth = depth + 1;
  check_depth(object->depth);
  object->charge(budget, 256);
  return {Value::Kind::iterator, std::move(object)};
}

Value Runtime::undefined(std::string message, bool security) {
  auto object = std::make_shared<Undefined>();
  object->message = std::move(message);
  object->security = security;
  object->charge(budget, object->message.size() + 80);
  return {Value::Kind::undefined, std::move(object)};
}

Value Runtime::function(std::string name, std::function<Value(Runtime&, Arguments&)> call, int depth) {
  auto object = std::make_shared<Function>();
  object->depth = depth + 1;
  object->name = std::move(name);
  object->call = std::move(call);
  return adopt(std::move(object));
}

Value Runtime::adopt(std::shared_ptr<Function> function) {
  check_depth(function->depth);
  function->charge(budget, 256);
  return {Value::Kind::function, std::move(function)};
}

Value Runtime::space(std::vector<std::pair<Value, Value>> attributes) {
  auto object = std::make_shared<Namespace>();
  for (auto& [name, value] : attributes) object->attributes.set(std::move(name), std::move(value));
  budget.take(256);  // kept until the end
  spaces_.push_back(object);
  return {Value::Kind::space, std::move(object)};
}

Value Runtime::call(const Value& callee, Arguments& arguments) {
  if (callee.is_undefined()) use_undefined(callee);
  if (!callee.is(Value::Kind::function) || !callee.function().call)
    fault("template.type", "'{}' object is not callable", type_name(callee));
  const Level level(budget);
  budget.step();
  const Value keep = callee;
  return keep.function().call(*this, arguments);
}

Bound::Bound(std::string_view function, Arguments& arguments, std::initializer_list<std::string_view> names, size_t required)
    : values_(names.size()) {
  if (arguments.positional.size() > names.size())
    fault("template.type", "{}() takes at most {} arguments ({} given)", function, names.size(), arguments.positional.size());
  for (size_t i = 0; i < arguments.positional.size(); ++i) values_[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    const auto at = std::find(names.begin(), names.end(), name);
    if (at == names.end()) fault("template.type", "{}() got an unexpected keyword argument '{}'", function, name);
    const size_t index = static_cast<size_t>(at - names.begin());
    if (values_[index]) fault("template.type", "{}() got multiple values for argument '{}'", function, name);
    values_[index] = &value;
  }
  for (size_t i = 0; i < required; ++i)
    if (!values_[i]) fault("template.type", "{}() missing required argument: '{}'", function, names.begin()[i]);
}

int depth_of(const Value& value, const Arguments& arguments) {
  int depth = value.depth();
  for (const Value& item : arguments.positional) depth = std::max(depth, item.depth());
  for (const auto& [name, item] : arguments.named) depth = std::max(depth, item.depth());
  return depth;
}

Integer integer_of(const Value& value) {
  if (value.is_undefined()) use_undefined(value);
  if (!value.is_integer()) fault("template.type", "'{}' object cannot be interpreted as an integer", type_name(value));
  return value.as_integer();
}

const std::string& string_of(const Value& value, std::string_view function) {
  if (!value.is_string()) fault("template.type", "{}: a text is expected, not {}", function, type_name(value));
  return value.str();
}

}  // namespace switchyard::jinja
