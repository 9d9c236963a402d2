// The registry: every method of every room by name, with its card, its options and a factory.
// A method's source file ends with
//
//   SWITCHYARD_REGISTER(switch_top1) {
//     registry.add<Router, SwitchTop1, SwitchOptions>(
//         {.slug = "switch-top1", .name = "Switch routing", .paper = "Fedus et al., Switch Transformers", .year = 2021,
//          .section = "4.1.1", .room = "routing/token_choice", .line = "one expert a token, scaled by its probability"});
//   }
//
// The build collects these functions into one table, so that static linking cannot lose them.
// A recipe names the method by its slug: `router: switch-top1` or `router: {type: switch-top1, jitter: 0.01}`.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <typeindex>
#include <vector>

#include "switchyard/base/options.h"

namespace switchyard {

/// What `switchyard catalog` shows of a method.
struct Card {
  std::string slug;      ///< unique over the catalogue; the name in recipes and tests
  std::string name;
  std::string paper;     ///< authors, short title
  int year = 0;
  std::string section;   ///< of the survey; "beyond" when it is not in it
  std::string room;      ///< folder under switchyard/
  std::string coupling;  ///< "none", "sequence", "batch": what a decision depends on besides its row
  std::string line;      ///< one line: what it does
  std::string recipe;    ///< under recipes/, where it is used
};

/// A registered method of one interface.
struct Method {
  Card card;
  std::string interface;                    ///< "router", "loss", ...: the recipe's word
  const Description* options = nullptr;     ///< null = takes none
  std::function<Description()> defaults;    ///< options with default texts
  /// Validates the options without building anything.
  std::function<void(const Node&)> validate;
  std::shared_ptr<void> factory;            ///< std::function<std::shared_ptr<I>(const Node&)> of its interface
};

/// Every interface that methods implement says its word: `static constexpr const char* kInterface = "router";`
class Registry {
 public:
  /// The process-wide registry, filled on first use.
  static Registry& instance();

  /// Registers M (constructible from Options) under its card. Throws registry.duplicate.
  template <typename Interface, typename M, typename Options>
  void add(Card card);
  /// Registers a card that has no factory: a technique that is an option or a preset.
  void add_card(Card card);

  /// The method, or registry.unknown with the nearest slug of that interface.
  const Method& find(std::string_view interface, std::string_view slug) const;
  const Card* card(std::string_view slug) const;
  std::vector<const Method*> of(std::string_view interface) const;
  std::vector<const Card*> cards() const;  ///< sorted by slug
  std::vector<std::string> interfaces() const;

  template <typename Interface>
  std::shared_ptr<Interface> make(std::string_view slug, const Node& options) const;

 private:
  void insert(Method method);
  std::map<std::pair<std::string, std::string>, Method> methods_;
  std::map<std::string, Card> cards_;
};

/// A method of an interface as a recipe names it: its slug and its options, checked when read.
template <typename Interface>
struct Choice {
  std::string slug;  ///< empty = none chosen
  Node options;      ///< a map without `type`

  Choice() = default;
  Choice(std::string name) : slug(std::move(name)) {}
  Choice(const char* name) : slug(name) {}

  explicit operator bool() const { return !slug.empty(); }
  std::shared_ptr<Interface> make() const { return Registry::instance().make<Interface>(slug, options); }

  static ValueType value_type();
  static void read(const Node&, Choice&, const Field&);
  Node write() const;
};

namespace detail {
/// Splits `slug` or `{type: slug, ...}`; checks the slug and its options. "none" gives an empty slug.
void read_choice_of(std::string_view interface, const Node&, const Field&, std::string& slug, Node& options);
Node write_choice_of(const std::string& slug, const Node& options);
}  // namespace detail

/// Opens the registration function of a source file; `name` is unique over the library.
#define SWITCHYARD_REGISTER(name)                                 \
  namespace switchyard::registrations { void name(::switchyard::Registry& registry); } \
  void switchyard::registrations::name([[maybe_unused]] ::switchyard::Registry& registry)

// --- implementation of the templates ---------------------------------------------------------

/// For methods without options.
struct NoOptions {
  static void describe(Fields<NoOptions>&) {}
};

template <typename Interface, typename M, typename Options>
void Registry::add(Card card) {
  using Factory = std::function<std::shared_ptr<Interface>(const Node&)>;
  Method method;
  method.card = std::move(card);
  method.interface = Interface::kInterface;
  method.options = &description_of<Options>();
  method.defaults = [] { return described_defaults<Options>(); };
  method.validate = [](const Node& node) { (void)read_options<Options>(node); };
  method.factory = std::make_shared<Factory>([](const Node& node) -> std::shared_ptr<Interface> {
    if constexpr (std::is_same_v<Options, NoOptions>) {
      (void)read_options<NoOptions>(node);
      return std::make_shared<M>();
    } else {
      return std::make_shared<M>(read_options<Options>(node));
    }
  });
  insert(std::move(method));
}

template <typename Interface>
std::shared_ptr<Interface> Registry::make(std::string_view slug, const Node& options) const {
  using Factory = std::function<std::shared_ptr<Interface>(const Node&)>;
  const Method& method = find(Interface::kInterface, slug);
  return (*std::static_pointer_cast<Factory>(method.factory))(options);
}

template <typename Interface>
ValueType Choice<Interface>::value_type() {
  ValueType type;
  type.kind = ValueType::Kind::method;
  type.room = Interface::kInterface;
  return type;
}

template <typename Interface>
void Choice<Interface>::read(const Node& node, Choice& choice, const Field& field) {
  detail::read_choice_of(Interface::kInterface, node, field, choice.slug, choice.options);
}

template <typename Interface>
Node Choice<Interface>::write() const {
  return detail::write_choice_of(slug, options);
}

}  // namespace switchyard
