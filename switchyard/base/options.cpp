#include "switchyard/base/options.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

#include "switchyard/base/json.h"
#include "switchyard/base/registry.h"

namespace switchyard {

using Kind = ValueType::Kind;

const Field* Description::find(std::string_view name) const {
  for (const Field& field : fields)
    if (field.name == name) return &field;
  return nullptr;
}

namespace {

/// A scalar, list or map as an error shows it.
std::string shown(const Node& node) {
  switch (node.kind()) {
    case Node::Kind::null: return "nothing";
    case Node::Kind::list: return "a list";
    case Node::Kind::map: return "a map";
    case Node::Kind::scalar: break;
  }
  constexpr size_t kLongest = 60;
  const std::string& text = node.scalar();
  std::string cut = text.size() > kLongest ? text.substr(0, kLongest) + "..." : text;
  return node.quoted() ? fmt::format("the text \"{}\"", cut) : fmt::format("'{}'", cut);
}

/// "recipe.yaml:3: " or nothing for a tree made in code.
std::string at(const Node& node) {
  std::string where = node.where();
  return where.empty() ? where : where + ": ";
}

std::string number_text(double value) {
  return std::abs(value) < 1e15 && value == std::floor(value) ? fmt::format("{}", static_cast<int64_t>(value))
                                                             : fmt::format("{}", value);
}

/// "1 to 8", "at least 1", or empty.
std::string range_text(const Field& field) {
  const bool low = std::isfinite(field.lowest), high = std::isfinite(field.highest);
  if (low && high) return fmt::format("{} to {}", number_text(field.lowest), number_text(field.highest));
  if (low) return fmt::format("at least {}", number_text(field.lowest));
  if (high) return fmt::format("at most {}", number_text(field.highest));
  return {};
}

void check_range(const Node& node, double value, const Field& field) {
  if (value >= field.lowest && value <= field.highest) return;
  fail("options.range", "{}{} is {}; allowed is {}{}", at(node), field.name, node.scalar(), range_text(field),
       field.unit.empty() ? "" : " " + field.unit);
}

const ValueType& innermost(const ValueType& type) {
  const ValueType* at = &type;
  while (at->item) at = at->item.get();
  return *at;
}

}  // namespace

// --- reading ---------------------------------------------------------------------------------

namespace detail {

void wrong_type(const Node& node, const Field& field, std::string_view expected) {
  fail("options.type", "{}{} expects {}, found {}", at(node), field.name, expected, shown(node));
}

void read_value(const Node& node, bool& value, const Field& field) {
  if (node.is_scalar() && !node.quoted() && (node.scalar() == "true" || node.scalar() == "false")) {
    value = node.scalar() == "true";
    return;
  }
  wrong_type(node, field, "true or false");
}

void read_value(const Node& node, int64_t& value, const Field& field) {
  const std::string& text = node.scalar();
  if (!node.is_scalar() || node.quoted()) wrong_type(node, field, "a whole number");
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) wrong_type(node, field, "a whole number");
  check_range(node, static_cast<double>(value), field);
}

void read_value(const Node& node, double& value, const Field& field) {
  const std::string& text = node.scalar();
  // JSON has no infinity, so there it is written as text.
  if (node.is_scalar() && (text == ".inf" || text == "-.inf")) {
    value = text == ".inf" ? std::numeric_limits<double>::infinity() : -std::numeric_limits<double>::infinity();
  } else {
    if (!node.is_scalar() || node.quoted()) wrong_type(node, field, "a number");
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value))
      wrong_type(node, field, "a number");
  }
  check_range(node, value, field);
}

void read_value(const Node& node, std::string& value, const Field& field) {
  if (!node.is_scalar()) wrong_type(node, field, "text");
  value = innermost(field.type).kind == Kind::choice ? choices_of(field)[static_cast<size_t>(read_choice(node, field))]
                                                     : node.scalar();
}

Node write_value(bool value) { return Node(value ? "true" : "false"); }
Node write_value(int64_t value) { return Node(std::to_string(value)); }

Node write_value(double value) {
  if (std::isinf(value)) return Node(value > 0 ? ".inf" : "-.inf");
  return Node(fmt::format("{}", value));
}

Node write_value(const std::string& value) {
  Node node(value);
  // Text that YAML would read as something else keeps its quotes.
  double number = 0;
  auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  const bool numeric = error == std::errc() && end == value.data() + value.size();
  node.set_quoted(value.empty() || numeric || value == "true" || value == "false" || value == "null" || value == "~");
  return node;
}

ValueType with_choices(ValueType type, std::vector<std::string> words) {
  if (type.item) {
    type.item = std::make_shared<ValueType>(with_choices(*type.item, std::move(words)));
  } else {
    type.kind = Kind::choice;
    type.choices = std::move(words);
  }
  return type;
}

const std::vector<std::string>& choices_of(const Field& field) { return innermost(field.type).choices; }

int64_t read_choice(const Node& node, const Field& field) {
  const std::vector<std::string>& words = choices_of(field);
  if (!node.is_scalar()) wrong_type(node, field, fmt::format("one of {}", fmt::join(words, ", ")));
  auto found = std::find(words.begin(), words.end(), node.scalar());
  if (found != words.end()) return found - words.begin();
  const std::string near = nearest(node.scalar(), words);
  fail("options.choice", "{}{} is {};{} allowed: {}", at(node), field.name, shown(node),
       near.empty() ? "" : fmt::format(" did you mean '{}'?", near), fmt::join(words, ", "));
}

void check_keys(const Description& description, const Node& node, std::string_view whose) {
  std::vector<std::string> names;
  for (const Field& field : description.fields) names.push_back(field.name);
  for (const auto& [key, value] : node.entries()) {
    if (description.find(key)) continue;
    const std::string near = nearest(key, names);
    if (!near.empty())
      fail("options.unknown_key", "{}{} has no option '{}'; did you mean '{}'?", at(value), whose, key, near);
    if (names.empty()) fail("options.unknown_key", "{}{} takes no options, found '{}'", at(value), whose, key);
    fail("options.unknown_key", "{}{} has no option '{}'; its options: {}", at(value), whose, key, fmt::join(names, ", "));
  }
}

void read_group(const Description& description, const Node& node, void* object) {
  const std::string whose = description.name.empty() ? "this group" : description.name;
  check(node.is_map() || node.is_null(), "options.type", "{}{} expects a map of options, found {}", at(node), whose,
        shown(node));
  check_keys(description, node, whose);
  for (const Field& field : description.fields) {
    if (const Node* value = node.find(field.name)) {
      field.read(*value, object, field);
    } else if (field.required) {
      fail("options.missing", "{}{} needs '{}': {}", at(node), whose, field.name, field.help);
    }
  }
}

Node write_group(const Description& description, const void* object) {
  Node map = Node::map();
  for (const Field& field : description.fields) map[field.name] = field.write(object, field);
  return map;
}

void fill_defaults(Description& description, const void* object) {
  for (Field& field : description.fields) field.default_value = field.write(object, field);
}

void check_description(const Description& description) {
  std::set<std::string_view> seen;
  for (const Field& field : description.fields) {
    check(seen.insert(field.name).second, "options.description", "{}: two fields are named '{}'", description.name,
          field.name);
    const ValueType& type = innermost(field.type);
    check(type.kind != Kind::choice || !type.choices.empty(), "options.description", "{}.{} is an enum without .choices",
          description.name, field.name);
  }
}

}  // namespace detail

std::string nearest(std::string_view word, const std::vector<std::string>& names) {
  auto plain = [](std::string_view text) {
    std::string out;
    for (char c : text) out += c == '_' ? '-' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return out;
  };
  // Edit distance with neighbouring letters swapped counted as one edit (optimal string alignment).
  auto distance = [](const std::string& a, const std::string& b) {
    std::vector<size_t> before, last(b.size() + 1), now(b.size() + 1);
    for (size_t j = 0; j <= b.size(); ++j) last[j] = j;
    for (size_t i = 1; i <= a.size(); ++i) {
      now[0] = i;
      for (size_t j = 1; j <= b.size(); ++j) {
        now[j] = std::min({last[j] + 1, now[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1])});
        if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) now[j] = std::min(now[j], before[j - 2] + 1);
      }
      before = std::exchange(last, now);
    }
    return last[b.size()];
  };
  if (word.size() > 100) return {};
  const std::string wanted = plain(word);
  std::string best;
  size_t best_distance = 0;
  for (const std::string& name : names) {
    const std::string known = plain(name);
    const size_t longest = std::max(wanted.size(), known.size());
    const size_t d = distance(wanted, known);
    const bool beginning = wanted.size() >= 3 && (known.starts_with(wanted) || wanted.starts_with(known));
    if (d >= longest || (d > (longest + 2) / 3 && !beginning)) continue;
    if (best.empty() || d < best_distance) {
      best = name;
      best_distance = d;
    }
  }
  return best;
}

// --- help, reference, schema -----------------------------------------------------------------

namespace {

std::string type_text(const ValueType& type) {
  switch (type.kind) {
    case Kind::boolean: return "true or false";
    case Kind::integer: return "whole number";
    case Kind::number: return "number";
    case Kind::text: return "text";
    case Kind::choice: return fmt::format("{}", fmt::join(type.choices, ", "));
    case Kind::list: return "list of " + type_text(*type.item);
    case Kind::optional: return type_text(*type.item) + " or null";
    case Kind::map: return "map to " + type_text(*type.item);
    case Kind::group: return "group";
    case Kind::method: return type.room;
  }
  return {};
}

/// The nested description when the type is a group or holds groups.
const Description* group_of(const ValueType& type) {
  const ValueType& inner = innermost(type);
  return inner.kind == Kind::group ? &inner.group() : nullptr;
}

std::string default_text(const Field& field) {
  if (field.required) return "required";
  if (!field.default_value) return {};
  const Node& value = *field.default_value;
  if (value.is_scalar()) return value.quoted() ? fmt::format("\"{}\"", value.scalar()) : value.scalar();
  if (value.is_null()) return "null";
  std::string text = to_json(value, -1);
  std::erase(text, '"');
  return text;
}

/// The group's fields with the defaults that the owner of the group gives them.
Description with_defaults(const Field& owner, const Description& group) {
  Description description = group;
  if (owner.type.kind != Kind::group || !owner.default_value) return description;
  for (Field& field : description.fields)
    if (const Node* value = owner.default_value->find(field.name)) field.default_value = *value;
  return description;
}

void write_help(std::string& out, const Description& description, const std::string& indent,
                std::vector<const Description*>& open) {
  for (const Field& field : description.fields) {
    const Description* group = group_of(field.type);
    std::vector<std::string> notes;
    if (field.type.kind != Kind::group) notes.push_back(type_text(field.type));
    if (!field.unit.empty()) notes.push_back(field.unit);
    if (std::string range = range_text(field); !range.empty()) notes.push_back(range);
    if (!group && field.required) notes.push_back("required");
    else if (!group && field.default_value) notes.push_back("default " + default_text(field));
    std::string head = fmt::format("{}{}{}", indent, field.name, group && field.type.kind == Kind::list ? "[]" : "");
    out += fmt::format("{:<26} {}{}\n", head, field.help,
                       notes.empty() ? "" : fmt::format(" ({})", fmt::join(notes, "; ")));
    if (!group || std::find(open.begin(), open.end(), group) != open.end()) continue;
    open.push_back(group);
    write_help(out, with_defaults(field, *group), indent + "  ", open);
    open.pop_back();
  }
}

std::string cell(std::string text) {
  for (size_t i = 0; (i = text.find('|', i)) != std::string::npos; i += 2) text.insert(i, "\\");
  return text;
}

void write_reference(std::string& out, const Description& description, const std::string& path, int level,
                     std::set<const Description*>& done) {
  out += fmt::format("{} {}\n\n", std::string(static_cast<size_t>(level), '#'),
                     path.empty() ? description.name : fmt::format("`{}`", path));
  if (!description.help.empty()) out += description.help + "\n\n";
  if (description.fields.empty()) {
    out += "No options.\n\n";
    return;
  }
  out += "| option | type | default | meaning |\n| --- | --- | --- | --- |\n";
  for (const Field& field : description.fields) {
    std::string type = type_text(field.type);
    if (std::string range = range_text(field); !range.empty()) type += ", " + range;
    if (!field.unit.empty()) type += ", " + field.unit;
    std::string value = group_of(field.type) && field.type.kind == Kind::group ? std::string() : default_text(field);
    out += fmt::format("| `{}` | {} | {} | {} |\n", field.name, cell(type),
                       value.empty() ? "" : fmt::format("`{}`", cell(value)), cell(field.help));
  }
  out += "\n";
  for (const Field& field : description.fields) {
    const Description* group = group_of(field.type);
    if (!group || !done.insert(group).second) continue;
    std::string name = field.name + (field.type.kind == Kind::list ? "[]" : field.type.kind == Kind::map ? ".NAME" : "");
    write_reference(out, with_defaults(field, *group), path.empty() ? name : path + "." + name, std::min(level + 1, 6),
                    done);
  }
}

using Json = nlohmann::ordered_json;

/// Builds a schema; groups and methods become definitions, so that nesting and recursion cost nothing.
class SchemaWriter {
 public:
  Json whole(const Description& description, std::string_view title) {
    Json schema{{"$schema", "https://json-schema.org/draft/2020-12/schema"}, {"title", title}};
    Json fields = object(description);
    Json name{{"type", "string"}};
    fields["properties"]["include"] = {{"description", "files whose settings lie below this file's own"},
                                       {"anyOf", {name, {{"type", "array"}, {"items", name}}}}};
    schema.update(fields);
    if (!definitions_.empty()) schema["$defs"] = definitions_;
    return schema;
  }

 private:
  Json object(const Description& description) {
    Json out{{"type", "object"}};
    if (!description.help.empty()) out["description"] = description.help;
    out["properties"] = Json::object();
    out["additionalProperties"] = false;
    Json required = Json::array();
    for (const Field& field : description.fields) {
      Json one = value(field.type, field);
      one["description"] = field.unit.empty() ? field.help : fmt::format("{} ({})", field.help, field.unit);
      if (field.default_value && !field.required) one["default"] = ordered_json_from(to_json(*field.default_value, -1));
      out["properties"][field.name] = std::move(one);
      if (field.required) required.push_back(field.name);
    }
    if (!required.empty()) out["required"] = std::move(required);
    return out;
  }

  Json value(const ValueType& type, const Field& field) {
    switch (type.kind) {
      case Kind::boolean: return {{"type", "boolean"}};
      case Kind::integer: return bounded("integer", field);
      case Kind::number: return bounded("number", field);
      case Kind::text: return {{"type", {"string", "number", "boolean"}}};
      case Kind::choice: return {{"enum", type.choices}};
      case Kind::list: {
        Json item = value(*type.item, field);
        return {{"anyOf", {{{"type", "array"}, {"items", item}}, item}}};
      }
      case Kind::optional: return {{"anyOf", {value(*type.item, field), {{"type", "null"}}}}};
      case Kind::map: return {{"type", "object"}, {"additionalProperties", value(*type.item, field)}};
      case Kind::group: return group(type.group());
      case Kind::method: return methods(type.room);
    }
    return {};
  }

  static Json bounded(const char* type, const Field& field) {
    Json out{{"type", type}};
    auto bound = [&](const char* name, double limit) {
      if (!std::isfinite(limit)) return;
      if (std::string_view(type) == "integer") out[name] = static_cast<int64_t>(limit);
      else out[name] = limit;
    };
    bound("minimum", field.lowest);
    bound("maximum", field.highest);
    return out;
  }

  Json group(const Description& description) {
    auto [found, added] = groups_.try_emplace(&description);
    if (added) {
      std::string base = description.name.empty() ? "group" : description.name;
      std::replace_if(base.begin(), base.end(), [](unsigned char c) { return !std::isalnum(c); }, '_');
      std::string name = base;
      for (int n = 2; definitions_.contains(name); ++n) name = fmt::format("{}_{}", base, n);
      found->second = name;
      definitions_[name] = Json::object();  // taken, before the fields may name it again
      definitions_[name] = object(description);
    }
    return reference(groups_.at(&description));
  }

  Json methods(const std::string& interface) {
    std::string name = "method." + interface;
    if (definitions_.contains(name)) return reference(name);
    definitions_[name] = Json::object();
    Json slugs = Json::array({"none"});
    Json one_of = Json::array();
    for (const Method* method : Registry::instance().of(interface)) {
      slugs.push_back(method->card.slug);
      Json options = object(method->defaults());
      options["title"] = method->card.name;
      options["description"] = method->card.line;
      options["properties"]["type"] = {{"const", method->card.slug}};
      options["required"].push_back("type");
      one_of.push_back(std::move(options));
    }
    one_of.insert(one_of.begin(), Json{{"enum", slugs}});
    definitions_[name] = {{"oneOf", one_of}};
    return reference(name);
  }

  static Json reference(const std::string& name) { return {{"$ref", "#/$defs/" + name}}; }

  Json definitions_ = Json::object();
  std::map<const Description*, std::string> groups_;
};

}  // namespace

std::string help_text(const Description& description) {
  std::string out;
  std::vector<const Description*> open;
  write_help(out, description, "  ", open);
  return out;
}

std::string reference_markdown(const Description& description, int heading_level) {
  std::string out;
  std::set<const Description*> done;
  write_reference(out, description, "", heading_level, done);
  return out;
}

std::string json_schema(const Description& description, std::string_view title) {
  return json_text(SchemaWriter().whole(description, title), 2) + "\n";
}

}  // namespace switchyard
