#include "switchyard/formats/template/value.h"

#include <cmath>

#include "switchyard/formats/template/budget.h"
#include "switchyard/formats/template/characters.h"

namespace switchyard::jinja {
namespace {

constexpr size_t kIndexed = 9;  // entries from which a dictionary gets an index

size_t mix(size_t seed, size_t value) { return seed ^ (value + 0x9e3779b97f4a7c15ULL + (seed << 6) + (seed >> 2)); }

/// An integer and a real compare by value, never by rounding the integer.
bool equal_mixed(Integer a, double b) {
  if (!(std::abs(b) < 1.7e38) || b != std::floor(b)) return false;
  return static_cast<Integer>(b) == a;
}

}  // namespace

Object::~Object() {
  if (budget_) budget_->give_back(bytes_);
}

void Object::charge(Budget& budget, size_t bytes) {
  budget.take(bytes);
  budget_ = &budget;
  bytes_ = bytes;
}

String::String(std::string bytes, bool safe) : text(std::move(bytes)), length(count_characters(text)), markup(safe) {}

Value Value::text(std::string text) { return {Kind::string, std::make_shared<String>(std::move(text))}; }

const String& Value::string() const { return static_cast<const String&>(*object_); }
const std::string& Value::str() const { return string().text; }
const std::vector<Value>& Value::items() const { return static_cast<const Sequence&>(*object_).items; }
const Dict& Value::dict() const { return static_cast<const Dict&>(*object_); }
const Range& Value::range() const { return static_cast<const Range&>(*object_); }
Iterator& Value::iterator() const { return static_cast<Iterator&>(*object_); }
Namespace& Value::space() const { return static_cast<Namespace&>(*object_); }
const Function& Value::function() const { return static_cast<const Function&>(*object_); }
const Undefined& Value::undefined() const { return static_cast<const Undefined&>(*object_); }

const Value* Dict::find(const Value& key) const {
  if (entries.size() < kIndexed) {
    for (const auto& [name, value] : entries)
      if (equal(name, key)) return &value;
    return nullptr;
  }
  const auto [begin, end] = index_.equal_range(hash_of(key));
  for (auto it = begin; it != end; ++it)
    if (equal(entries[it->second].first, key)) return &entries[it->second].second;
  return nullptr;
}

const Value* Dict::find(std::string_view key) const {
  if (entries.size() < kIndexed) {
    for (const auto& [name, value] : entries)
      if (name.is_string() && name.str() == key) return &value;
    return nullptr;
  }
  const auto [begin, end] = index_.equal_range(std::hash<std::string_view>()(key));
  for (auto it = begin; it != end; ++it) {
    const Value& name = entries[it->second].first;
    if (name.is_string() && name.str() == key) return &entries[it->second].second;
  }
  return nullptr;
}

void Dict::set(Value key, Value value) {
  if (const Value* old = find(key)) {
    const_cast<Value&>(*old) = std::move(value);
    return;
  }
  entries.emplace_back(std::move(key), std::move(value));
  if (entries.size() == kIndexed)
    for (size_t i = 0; i + 1 < entries.size(); ++i) index_.emplace(hash_of(entries[i].first), i);
  if (entries.size() >= kIndexed) index_.emplace(hash_of(entries.back().first), entries.size() - 1);
}

void Dict::clear() {
  entries.clear();
  index_.clear();
}

bool equal(const Value& a, const Value& b, Budget* budget) {
  using Kind = Value::Kind;
  if (budget) budget->step();
  if (a.is_integer() && b.is_integer()) return a.as_integer() == b.as_integer();
  if (a.is_integer() && b.is(Kind::real)) return equal_mixed(a.as_integer(), b.as_real());
  if (a.is(Kind::real) && b.is_integer()) return equal_mixed(b.as_integer(), a.as_real());
  if (a.kind() != b.kind()) return false;
  if (a.same_object(b)) return true;
  switch (a.kind()) {
    case Kind::undefined:
    case Kind::none:
    case Kind::missing: return true;
    case Kind::real: return a.as_real() == b.as_real();
    case Kind::string:
    case Kind::big:
      if (a.str().size() != b.str().size()) return false;
      if (budget) budget->touch(a.str().size());
      return a.str() == b.str();
    case Kind::view:
      if (static_cast<const Sequence*>(a.object())->name == "dict_values") return false;  // compared by identity
      [[fallthrough]];
    case Kind::list:
    case Kind::tuple: {
      if (a.items().size() != b.items().size()) return false;
      for (size_t i = 0; i < a.items().size(); ++i)
        if (!equal(a.items()[i], b.items()[i], budget)) return false;
      return true;
    }
    case Kind::dict: {
      if (a.dict().entries.size() != b.dict().entries.size()) return false;
      for (const auto& [key, value] : a.dict().entries) {
        const Value* other = b.dict().find(key);
        if (!other || !equal(value, *other, budget)) return false;
      }
      return true;
    }
    case Kind::range: {
      const Range &x = a.range(), &y = b.range();
      if (x.length != y.length) return false;
      return x.length == 0 || (x.start == y.start && (x.length == 1 || x.step == y.step));
    }
    default: return false;
  }
}

bool hashable(const Value& value) {
  if (value.is(Value::Kind::tuple)) {
    for (const Value& item : value.items())
      if (!hashable(item)) return false;
    return true;
  }
  return !value.is(Value::Kind::list) && !value.is(Value::Kind::dict) && !value.is(Value::Kind::view);
}

size_t hash_of(const Value& value) {
  using Kind = Value::Kind;
  switch (value.kind()) {
    case Kind::string:
    case Kind::big: return std::hash<std::string_view>()(value.str());
    case Kind::boolean:
    case Kind::integer: return mix(0x51ed, static_cast<size_t>(value.as_integer()));
    case Kind::real: {
      const double real = value.as_real();
      if (std::abs(real) < 1.7e38 && real == std::floor(real)) return mix(0x51ed, static_cast<size_t>(static_cast<Integer>(real)));
      return std::hash<double>()(real);
    }
    case Kind::tuple: {
      size_t seed = 17;
      for (const Value& item : value.items()) seed = mix(seed, hash_of(item));
      return seed;
    }
    case Kind::none:
    case Kind::undefined:
    case Kind::range: return static_cast<size_t>(value.kind());
    default: return std::hash<const void*>()(value.object());
  }
}

std::string type_name(const Value& value) {
  using Kind = Value::Kind;
  switch (value.kind()) {
    case Kind::missing:
    case Kind::undefined: return "Undefined";
    case Kind::none: return "NoneType";
    case Kind::boolean: return "bool";
    case Kind::integer:
    case Kind::big: return "int";
    case Kind::real: return "float";
    case Kind::string: return value.string().markup ? "Markup" : "str";
    case Kind::list: return "list";
    case Kind::tuple: return "tuple";
    case Kind::view: return std::string(static_cast<const Sequence*>(value.object())->name);
    case Kind::dict: return "dict";
    case Kind::range: return "range";
    case Kind::iterator: return "generator";
    case Kind::space: return "TemplateNamespace";
    case Kind::function: return value.function().type;
  }
  return "object";
}

std::string object_name(const Value& value) {
  if (value.is_none()) return "None";
  if (value.is(Value::Kind::string) && value.string().markup) return "markupsafe.Markup object";
  return type_name(value) + " object";
}

}  // namespace switchyard::jinja
