#include "switchyard/base/registry.h"

#include <fmt/ranges.h>

#include <algorithm>

namespace switchyard {

/// Written by the build from every SWITCHYARD_REGISTER in the library.
void register_all(Registry& registry);

Registry& Registry::instance() {
  static Registry registry = [] {
    Registry filled;
    register_all(filled);
    return filled;
  }();
  return registry;
}

namespace {

bool is_slug(std::string_view text) {
  return !text.empty() && text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string_view::npos;
}

std::string suggestion(std::string_view word, const std::vector<std::string>& names) {
  std::string near = nearest(word, names);
  return near.empty() ? std::string() : fmt::format("; did you mean '{}'?", near);
}

}  // namespace

void Registry::insert(Method method) {
  const Card& card = method.card;
  check(is_slug(card.slug), "registry.slug", "'{}' is no slug: lower case letters, digits and dashes", card.slug);
  auto [known, added] = cards_.try_emplace(card.slug, card);
  // One method may implement several interfaces (a router with its bank) under one card.
  check(added || known->second.name == card.name, "registry.duplicate", "'{}' is the slug of '{}' and of '{}'",
        card.slug, known->second.name, card.name);
  std::pair<std::string, std::string> key{method.interface, card.slug};
  check(!methods_.contains(key), "registry.duplicate", "the {} '{}' is registered twice", key.first, key.second);
  methods_.emplace(std::move(key), std::move(method));
}

void Registry::add_card(Card card) {
  check(is_slug(card.slug), "registry.slug", "'{}' is no slug: lower case letters, digits and dashes", card.slug);
  std::string slug = card.slug;
  check(cards_.try_emplace(slug, std::move(card)).second, "registry.duplicate", "the card '{}' is registered twice", slug);
}

const Method& Registry::find(std::string_view interface, std::string_view slug) const {
  auto found = methods_.find({std::string(interface), std::string(slug)});
  if (found != methods_.end()) return found->second;
  std::vector<std::string> names;
  for (const Method* method : of(interface)) names.push_back(method->card.slug);
  const Card* other = card(slug);
  if (other) fail("registry.unknown", "'{}' ({}) is no {}; choose one of: {}", slug, other->name, interface,
                  fmt::join(names, ", "));
  fail("registry.unknown", "there is no {} '{}'{} (known: {})", interface, slug, suggestion(slug, names),
       fmt::join(names, ", "));
}

const Card* Registry::card(std::string_view slug) const {
  auto found = cards_.find(std::string(slug));
  return found == cards_.end() ? nullptr : &found->second;
}

std::vector<const Method*> Registry::of(std::string_view interface) const {
  std::vector<const Method*> list;
  for (auto at = methods_.lower_bound({std::string(interface), ""}); at != methods_.end() && at->first.first == interface;
       ++at)
    list.push_back(&at->second);
  return list;
}

std::vector<const Card*> Registry::cards() const {
  std::vector<const Card*> list;
  for (const auto& [slug, card] : cards_) list.push_back(&card);
  return list;
}

std::vector<std::string> Registry::interfaces() const {
  std::vector<std::string> list;
  for (const auto& [key, method] : methods_)
    if (list.empty() || list.back() != key.first) list.push_back(key.first);
  return list;
}

namespace detail {

void read_choice_of(std::string_view interface, const Node& node, const Field& field, std::string& slug,
                    Node& options) {
  if (node.is_scalar()) {
    slug = node.scalar();
    options = Node::map();
    options.set_mark(node.mark());
  } else if (node.is_map()) {
    const Node* type = node.find("type");
    check(type && type->is_scalar(), "options.method", "{}: {} needs `type: SLUG`, the name of a {}", node.where(),
          field.name, interface);
    slug = type->scalar();
    options = node;
    auto& entries = options.entries();
    entries.erase(std::find_if(entries.begin(), entries.end(), [](const auto& e) { return e.first == "type"; }));
  } else {
    wrong_type(node, field, fmt::format("the name of a {} or a map with `type`", interface));
  }
  if (slug == "none") {
    check(options.entries().empty(), "options.method", "{}: {} is none, which takes no options", node.where(), field.name);
    slug.clear();
    return;
  }
  const Method* method = nullptr;
  try {
    method = &Registry::instance().find(interface, slug);
  } catch (const Error& error) {
    const std::string where = node.where();
    fail(error.code(), "{}{}{}", where, where.empty() ? "" : ": ", error.message());
  }
  check_keys(*method->options, options, fmt::format("{} '{}'", interface, slug));
  method->validate(options);
}

Node write_choice_of(const std::string& slug, const Node& options) {
  if (slug.empty()) return Node("none");
  if (!options.is_map() || options.entries().empty()) return Node(slug);
  Node node = Node::map();
  node.set_mark(options.mark());
  node["type"] = Node(slug);
  for (const auto& [key, value] : options.entries()) node[key] = value;
  return node;
}

}  // namespace detail
}  // namespace switchyard
