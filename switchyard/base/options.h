// Options described once. A plain struct with defaults lists its fields in `describe`; that one
// description reads and validates YAML, names the nearest valid key in an error, writes --help,
// the reference page and a JSON schema.
//
//   struct TopKOptions {
//     int64_t k = 2;
//     double jitter = 0;
//     static void describe(Fields<TopKOptions>& f) {
//       f("k", &TopKOptions::k, "experts that a token engages").range(1, 1 << 20);
//       f("jitter", &TopKOptions::jitter, "half-width of the multiplicative input noise").range(0, 1);
//     }
//   };
//   auto options = read_options<TopKOptions>(node);
//
// Field types: bool, int64_t, double, std::string, enums (with .choices), std::vector and
// std::optional of those, nested described structs, vectors of them, std::map<std::string, T>,
// and Choice<Interface> (base/registry.h), a method of a room picked by name with options of its own.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "switchyard/base/error.h"
#include "switchyard/base/node.h"

namespace switchyard {

struct Description;

/// What a value may be, as the reference page and the JSON schema say it.
struct ValueType {
  enum class Kind { boolean, integer, number, text, choice, list, optional, map, group, method };
  Kind kind = Kind::text;
  std::shared_ptr<const ValueType> item;                          ///< list, optional, map: of what
  std::function<const Description&()> group;                      ///< group: the nested fields
  std::vector<std::string> choices;                               ///< choice: the allowed words
  std::string room;                                               ///< method: the registry's room
};

/// One field of one struct, with its type erased.
struct Field {
  std::string name;
  std::string help;
  std::string unit;                     ///< "tokens", "bytes", "" = a bare number or word
  ValueType type;
  double lowest = -std::numeric_limits<double>::infinity();
  double highest = std::numeric_limits<double>::infinity();
  bool required = false;
  std::optional<Node> default_value;    ///< of a default-constructed struct; set by described_defaults
  std::function<void(const Node&, void* object, const Field&)> read;
  std::function<Node(const void* object, const Field&)> write;
};

/// All fields of one struct, in the order they were described.
struct Description {
  std::string name;                     ///< the struct's title on the reference page
  std::string help;
  std::vector<Field> fields;
  const Field* find(std::string_view name) const;
};

namespace detail {
void read_value(const Node&, bool&, const Field&);
void read_value(const Node&, int64_t&, const Field&);
void read_value(const Node&, double&, const Field&);
void read_value(const Node&, std::string&, const Field&);
Node write_value(bool);
Node write_value(int64_t);
Node write_value(double);
Node write_value(const std::string&);
/// The type with its innermost item made a choice of `words`.
ValueType with_choices(ValueType type, std::vector<std::string> words);
/// The allowed words of a field, or of its items.
const std::vector<std::string>& choices_of(const Field&);
/// The index in choices_of(field); throws options.choice with the nearest word.
int64_t read_choice(const Node&, const Field&);
[[noreturn]] void wrong_type(const Node&, const Field&, std::string_view expected);
/// Throws options.unknown_key with the nearest key; `whose` begins the message ("router 'sparse-topk'").
void check_keys(const Description&, const Node&, std::string_view whose);
/// Reads every entry of the map `node` into `object`; unknown keys throw options.unknown_key.
void read_group(const Description&, const Node&, void* object);
Node write_group(const Description&, const void* object);

template <typename T>
concept Described = requires { &T::describe; };
/// Types that read themselves: `static void read(const Node&, T&, const Field&)`, `Node write() const`
/// and `static ValueType value_type()`.
template <typename T>
concept SelfReading = requires(const Node& n, T& t, const Field& f) { T::read(n, t, f); };

template <typename T> struct is_vector : std::false_type {};
template <typename T> struct is_vector<std::vector<T>> : std::true_type {};
template <typename T> struct is_optional : std::false_type {};
template <typename T> struct is_optional<std::optional<T>> : std::true_type {};
template <typename T> struct is_map : std::false_type {};
template <typename T> struct is_map<std::map<std::string, T>> : std::true_type {};

template <typename T> ValueType value_type();
template <typename T> void read_any(const Node&, T&, const Field&);
template <typename T> Node write_any(const T&, const Field&);
}  // namespace detail

template <typename T> const Description& description_of();
template <typename T> Description described_defaults();

/// Collects the fields of T; given to T::describe. Fields of a base struct are named as T's own
/// (`f("k", &T::k, ...)`), or taken over together with `f.inherit<Base>()`.
template <typename T>
class Fields {
 public:
  /// Names the group on the reference page.
  void title(std::string name, std::string help = {}) {
    description_.name = std::move(name);
    description_.help = std::move(help);
  }

  class Handle {
   public:
    Handle(Description& d, size_t i) : description_(d), index_(i) {}
    /// Both ends included; a list is checked item by item.
    Handle& range(double lowest, double highest = std::numeric_limits<double>::infinity()) {
      field().lowest = lowest; field().highest = highest; return *this;
    }
    Handle& unit(std::string unit) { field().unit = std::move(unit); return *this; }
    /// The words of an enum in the order of its values, or the allowed texts of a string; of the items in a list.
    Handle& choices(std::vector<std::string> words) {
      field().type = detail::with_choices(field().type, std::move(words));
      return *this;
    }
    Handle& required() { field().required = true; return *this; }

   private:
    Field& field() { return description_.fields[index_]; }
    Description& description_;
    size_t index_;
  };

  /// A member of T or of a struct that T extends.
  template <typename V, typename Owner>
    requires std::is_base_of_v<Owner, T>
  Handle operator()(std::string name, V Owner::*member, std::string help) {
    Field field;
    field.name = std::move(name);
    field.help = std::move(help);
    field.type = detail::value_type<V>();
    field.read = [member](const Node& node, void* object, const Field& f) {
      detail::read_any<V>(node, static_cast<T*>(object)->*member, f);
    };
    field.write = [member](const void* object, const Field& f) {
      return detail::write_any<V>(static_cast<const T*>(object)->*member, f);
    };
    description_.fields.push_back(std::move(field));
    return Handle(description_, description_.fields.size() - 1);
  }

  /// All fields of the base struct B, as B describes them.
  template <typename B>
    requires std::is_base_of_v<B, T>
  void inherit() {
    for (Field field : description_of<B>().fields) {
      field.read = [read = field.read](const Node& node, void* object, const Field& f) {
        read(node, static_cast<B*>(static_cast<T*>(object)), f);
      };
      field.write = [write = field.write](const void* object, const Field& f) {
        return write(static_cast<const B*>(static_cast<const T*>(object)), f);
      };
      description_.fields.push_back(std::move(field));
    }
  }

  Description take() { return std::move(description_); }

 private:
  Description description_;
};

namespace detail {
/// Fills default_value of every field from a default-constructed object.
void fill_defaults(Description&, const void* object);
/// Throws options.description for two fields of one name or an enum without words.
void check_description(const Description&);
template <typename T> const Description& make_description() {
  static const Description description = [] {
    Fields<T> fields;
    T::describe(fields);
    Description made = fields.take();
    check_description(made);
    return made;
  }();
  return description;
}
}  // namespace detail

template <typename T>
const Description& description_of() {
  return detail::make_description<T>();
}

/// Description with the default values filled in, for help and reference pages.
template <typename T>
Description described_defaults() {
  Description d = description_of<T>();
  T object{};
  detail::fill_defaults(d, &object);
  return d;
}

/// Reads a map into a T on top of T's defaults. Throws options.unknown_key (with the nearest valid
/// key), options.type, options.range, options.choice, options.missing; each names file and line.
template <typename T>
T read_options(const Node& node) {
  T object{};
  detail::read_group(description_of<T>(), node, &object);
  return object;
}

/// Every field with its present value: read_options(write_options(x)) == x.
template <typename T>
Node write_options(const T& object) {
  return detail::write_group(description_of<T>(), &object);
}

/// The name among `names` with the least edit distance to `word`; empty when none is near.
std::string nearest(std::string_view word, const std::vector<std::string>& names);

/// Text for --help: one line a field (name, unit, default, range, meaning), nested groups indented.
std::string help_text(const Description&);
/// A Markdown section with one table a group.
std::string reference_markdown(const Description&, int heading_level = 2);
/// JSON Schema (draft 2020-12) for editors. Methods become a oneOf over the room's registry.
std::string json_schema(const Description&, std::string_view title);

// --- implementation of the templates ---------------------------------------------------------

namespace detail {

template <typename T>
ValueType value_type() {
  ValueType type;
  using Kind = ValueType::Kind;
  if constexpr (std::is_same_v<T, bool>) type.kind = Kind::boolean;
  else if constexpr (std::is_same_v<T, int64_t>) type.kind = Kind::integer;
  else if constexpr (std::is_same_v<T, double>) type.kind = Kind::number;
  else if constexpr (std::is_same_v<T, std::string>) type.kind = Kind::text;
  else if constexpr (std::is_enum_v<T>) type.kind = Kind::choice;
  else if constexpr (SelfReading<T>) type = T::value_type();
  else if constexpr (Described<T>) {
    type.kind = Kind::group;
    type.group = []() -> const Description& {
      static const Description description = described_defaults<T>();
      return description;
    };
  } else if constexpr (is_vector<T>::value) {
    type.kind = Kind::list;
    type.item = std::make_shared<ValueType>(value_type<typename T::value_type>());
  } else if constexpr (is_optional<T>::value) {
    type.kind = Kind::optional;
    type.item = std::make_shared<ValueType>(value_type<typename T::value_type>());
  } else if constexpr (is_map<T>::value) {
    type.kind = Kind::map;
    type.item = std::make_shared<ValueType>(value_type<typename T::mapped_type>());
  } else {
    static_assert(!sizeof(T), "this type cannot be an option");
  }
  return type;
}

template <typename T>
void read_any(const Node& node, T& value, const Field& field) {
  if constexpr (std::is_enum_v<T>) {
    value = static_cast<T>(read_choice(node, field));
  } else if constexpr (SelfReading<T>) {
    T::read(node, value, field);
  } else if constexpr (Described<T>) {
    read_group(description_of<T>(), node, &value);
  } else if constexpr (is_vector<T>::value) {
    value.clear();
    auto one = [&](const Node& item) {
      typename T::value_type v{};
      read_any(item, v, field);
      value.push_back(std::move(v));
    };
    if (node.is_list()) for (const Node& item : node.items()) one(item);
    else if (!node.is_null()) one(node);  // a single value stands for a list of one
  } else if constexpr (is_optional<T>::value) {
    if (node.is_null()) { value.reset(); return; }
    typename T::value_type v{};
    read_any(node, v, field);
    value = std::move(v);
  } else if constexpr (is_map<T>::value) {
    if (!node.is_map()) wrong_type(node, field, "a map");
    value.clear();
    for (const auto& [key, item] : node.entries()) read_any(item, value[key], field);
  } else {
    read_value(node, value, field);
  }
}

template <typename T>
Node write_any(const T& value, const Field& field) {
  if constexpr (std::is_enum_v<T>) {
    return Node(choices_of(field).at(static_cast<size_t>(value)));
  } else if constexpr (SelfReading<T>) {
    return value.write();
  } else if constexpr (Described<T>) {
    return write_group(description_of<T>(), &value);
  } else if constexpr (is_vector<T>::value) {
    Node list = Node::list();
    for (const auto& item : value) list.append(write_any(item, field));
    return list;
  } else if constexpr (is_optional<T>::value) {
    return value ? write_any(*value, field) : Node();
  } else if constexpr (is_map<T>::value) {
    Node map = Node::map();
    for (const auto& [key, item] : value) map[key] = write_any(item, field);
    return map;
  } else {
    return write_value(value);
  }
}

}  // namespace detail
}  // namespace switchyard
