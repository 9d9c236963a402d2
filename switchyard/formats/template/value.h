// The values a chat template works with: Python's None, bool, int, float, str, list, tuple, dict, range and iterators, and
// Jinja's undefined. They are immutable and shared; only a namespace can change. What a template makes is metered, so that
// memory has a limit (template/budget.h).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace switchyard::jinja {

/// Python's integers, as far as 128 bits reach. What is longer in an input stays text (Kind::big) and cannot be computed with.
__extension__ typedef __int128 Integer;

class Budget;
class Runtime;

/// Base of everything that is allocated; gives its bytes back to the budget that it was charged to.
class Object {
 public:
  Object() = default;
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  virtual ~Object();
  void charge(Budget& budget, size_t bytes);
  int depth = 0;       ///< levels of containers below and including this one: bounded, so that recursion over values is
  int64_t weight = 1;  ///< values inside, counted as often as they stand there: bounds what walking through it costs

 private:
  Budget* budget_ = nullptr;
  size_t bytes_ = 0;
};

struct String;
struct Sequence;
struct Dict;
struct Range;
struct Iterator;
struct Namespace;
struct Function;
struct Undefined;

class Value {
 public:
  enum class Kind : uint8_t {
    missing,  ///< a variable that nothing was assigned to; never seen by an expression
    undefined, none, boolean, integer, big, real, string, list, tuple, view, dict, range, iterator, space, function
  };

  Value() = default;
  static Value none() { return Value(Kind::none); }
  static Value boolean(bool value) { Value v(Kind::boolean); v.integer_ = value; return v; }
  static Value integer(Integer value) { Value v(Kind::integer); v.integer_ = value; return v; }
  static Value real(double value) { Value v(Kind::real); v.real_ = value; return v; }
  /// Text that no budget pays for: of the template itself and of inputs. Must be UTF-8.
  static Value text(std::string text);
  Value(Kind kind, std::shared_ptr<Object> object) : kind_(kind), object_(std::move(object)) {}

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool is_none() const { return kind_ == Kind::none; }
  bool is_undefined() const { return kind_ == Kind::undefined; }
  bool is_missing() const { return kind_ == Kind::missing; }
  bool is_string() const { return kind_ == Kind::string; }
  /// bool or int that can be computed with.
  bool is_integer() const { return kind_ == Kind::integer || kind_ == Kind::boolean; }
  bool is_number() const { return is_integer() || kind_ == Kind::real || kind_ == Kind::big; }
  bool is_true() const { return kind_ == Kind::boolean && integer_; }
  /// list, tuple or a view of a dictionary.
  bool is_sequence() const { return kind_ == Kind::list || kind_ == Kind::tuple || kind_ == Kind::view; }

  Integer as_integer() const { return integer_; }
  double as_real() const { return kind_ == Kind::real ? real_ : static_cast<double>(integer_); }
  const String& string() const;
  const std::string& str() const;  ///< the bytes of a string, or the digits of a big integer
  const std::vector<Value>& items() const;
  const Dict& dict() const;
  const Range& range() const;
  Iterator& iterator() const;
  Namespace& space() const;
  const Function& function() const;
  const Undefined& undefined() const;
  const Object* object() const { return object_.get(); }
  int depth() const { return object_ ? object_->depth : 0; }
  bool same_object(const Value& other) const { return kind_ == other.kind_ && object_ && object_ == other.object_; }

 private:
  explicit Value(Kind kind) : kind_(kind) {}
  Kind kind_ = Kind::missing;
  union {
    Integer integer_ = 0;
    double real_;
  };
  std::shared_ptr<Object> object_;
};

struct String : Object {
  explicit String(std::string text, bool markup = false);
  bool ascii() const { return length == static_cast<int64_t>(text.size()); }
  std::string text;
  int64_t length;       ///< in code points
  bool markup = false;  ///< Jinja's Markup: what is joined to it gets escaped
};

struct Sequence : Object {
  std::vector<Value> items;
  std::string_view name;  ///< of a view: "dict_keys"
  bool group = false;     ///< a tuple of groupby, with attributes grouper and list
};

struct Dict : Object {
  std::vector<std::pair<Value, Value>> entries;  ///< in order of insertion
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
  /// Adds or replaces. The key must be hashable.
  void set(Value key, Value value);
  void clear();

 private:
  std::unordered_multimap<size_t, size_t> index_;  ///< hash of the key → entry; only of larger dictionaries
};

struct Range : Object {
  Integer start = 0, stop = 0, step = 1, length = 0;
  Integer at(Integer i) const { return start + i * step; }
};

/// A generator: gives each value once.
struct Iterator : Object {
  std::function<bool(Value&)> next;
};

struct Namespace : Object {
  Dict attributes;
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

/// Anything that can be called: a macro, a method of a value, a global function. `attribute` gives what stands behind a dot.
struct Function : Object {
  std::string name, type = "builtin_function_or_method";
  std::function<Value(Runtime&, Arguments&)> call;
  std::function<Value(Runtime&, std::string_view)> attribute;  ///< missing where there is none
  std::string shown;                                           ///< its repr
};

struct Undefined : Object {
  std::string message;      ///< of the error when it is used
  bool security = false;
};

/// Equality and hash as Python's: 1 == 1.0 == True. Inputs only nest to a limit, so that recursion is bounded.
bool equal(const Value& a, const Value& b, Budget* budget = nullptr);
bool hashable(const Value& value);
size_t hash_of(const Value& value);

/// Names of types as Python writes them: "str", "NoneType".
std::string type_name(const Value& value);
/// For "'dict object' has no attribute": "dict object".
std::string object_name(const Value& value);

/// Most levels that lists and dictionaries may nest, in inputs and in what a template makes.
inline constexpr int kMaxDepth = 400;

}  // namespace switchyard::jinja
