// Which variable a name means. Jinja's rules are kept exactly, odd ones included: a scope (loop, with, macro, set block) that
// assigns to a name works on a copy of the variable outside, `if` makes no scope, macros see the variables around them as they
// are when called, and a name that is nowhere assigned is looked up in the context when its scope is entered.
#include <algorithm>
#include <deque>
#include <set>

#include "switchyard/formats/template/budget.h"
#include "switchyard/formats/template/parser.h"

namespace switchyard::jinja {
namespace {

struct Reference {
  FunctionScope* function = nullptr;
  int slot = -1;
  bool operator==(const Reference&) const = default;
};

/// The names of one scope. While the branches of an `if` are looked at, each stands as a layer over its base.
struct Symbols {
  Symbols* base = nullptr;    ///< what a branch stands on
  Symbols* parent = nullptr;  ///< the scope outside
  FunctionScope* function = nullptr;
  int level = 0;
  std::map<std::string, Reference> refs;
  std::map<int, Load> loads;  ///< by slot
  std::set<std::string> stores;

  const Reference* own(const std::string& name) const {
    for (const Symbols* layer = this; layer; layer = layer->base)
      if (const auto it = layer->refs.find(name); it != layer->refs.end()) return &it->second;
    return nullptr;
  }
  Symbols* outside() const {
    const Symbols* layer = this;
    while (layer->base) layer = layer->base;
    return layer->parent;
  }
  const Reference* find(const std::string& name) const {
    for (const Symbols* scope = this; scope; scope = scope->outside())
      if (const Reference* found = scope->own(name)) return found;
    return nullptr;
  }
  bool stored(const std::string& name) const {
    for (const Symbols* layer = this; layer; layer = layer->base)
      if (layer->stores.contains(name)) return true;
    return false;
  }

  Reference define(const std::string& name, Load load) {
    const auto [it, fresh] = function->names.try_emplace({level, name}, function->slots);
    if (fresh) ++function->slots;
    load.slot = it->second;
    loads[load.slot] = load;
    return refs[name] = {function, it->second};
  }
  Place place_of(const Reference& reference) const {
    int outwards = 0;
    for (const FunctionScope* f = function; f != reference.function; f = f->parent) ++outwards;
    return {outwards, reference.slot};
  }

  void store(const std::string& name) {
    stores.insert(name);
    if (own(name)) return;
    const Symbols* parent_scope = outside();
    if (const Reference* outer = parent_scope ? parent_scope->find(name) : nullptr) {
      define(name, {.from = Load::From::outside, .outside = place_of(*outer)});
      return;
    }
    define(name, {.from = Load::From::nothing});
  }
  void parameter(const std::string& name) {
    stores.insert(name);
    define(name, {.from = Load::From::parameter});
  }
  void load(const std::string& name) {
    if (!find(name)) define(name, {.from = Load::From::context, .name = name});
  }

  void take_branches(std::deque<Symbols>& branches) {
    std::set<std::string> fresh;
    for (const Symbols& branch : branches)
      for (const std::string& name : branch.stores)
        if (!stored(name)) fresh.insert(name);
    for (Symbols& branch : branches) {
      for (auto& [name, reference] : branch.refs) refs[name] = reference;
      for (auto& [slot, load] : branch.loads) loads[slot] = load;
      stores.insert(branch.stores.begin(), branch.stores.end());
    }
    for (const std::string& name : fresh) {
      const Reference* own_reference = find(name);
      const Symbols* parent_scope = outside();
      const Reference* outer = parent_scope ? parent_scope->find(name) : nullptr;
      Load load{.from = Load::From::context, .slot = own_reference->slot, .name = name};
      if (outer) load = {.from = Load::From::outside, .slot = own_reference->slot, .outside = place_of(*outer)};
      loads[own_reference->slot] = load;
    }
  }
};

/// Which names a scope stores and loads: everything in it, except what is inside inner scopes.
class Survey {
 public:
  explicit Survey(Symbols& symbols) : symbols_(&symbols) {}

  void expression(const Expression* node) {
    if (!node) return;
    if (node->kind == Expression::Kind::name || node->kind == Expression::Kind::space_attribute) symbols_->load(node->text);
    for (const ExpressionPtr& part : node->parts) expression(part.get());
    arguments(node->arguments);
  }
  void arguments(const CallArguments& call) {
    for (const ExpressionPtr& part : call.positional) expression(part.get());
    for (const auto& [name, part] : call.named) expression(part.get());
    expression(call.star.get());
    expression(call.double_star.get());
  }
  void target(const Expression* node, bool as_parameter = false) {
    if (node->kind == Expression::Kind::space_attribute) return symbols_->load(node->text);
    if (node->kind == Expression::Kind::name) return as_parameter ? symbols_->parameter(node->text) : symbols_->store(node->text);
    for (const ExpressionPtr& part : node->parts) target(part.get(), as_parameter);
  }

  void body(const Body& statements) {
    for (const auto& node : statements) statement(*node);
  }

  void statement(const Statement& node) {
    using Kind = Statement::Kind;
    switch (node.kind) {
      case Kind::output: return expression(node.value.get());
      case Kind::loop: return expression(node.value.get());
      case Kind::branch: return branch(node);
      case Kind::macro: return symbols_->store(node.text);
      case Kind::call: return expression(node.value.get());
      case Kind::filter: return expression(node.value.get());
      case Kind::set:
        expression(node.value.get());
        return target(node.target.get());
      case Kind::set_block: return target(node.target.get());
      case Kind::with:
        for (const auto& [name, value] : node.assignments) expression(value.get());
        return;
      case Kind::scope:
        if (node.text == "print") body(node.body);
        return;
      case Kind::refused:
        expression(node.value.get());
        for (const std::string& name : node.parameters) symbols_->store(name);
        return;
      default: return;
    }
  }

 private:
  /// The layers of if, of all elif together (each a branching of its own), and of else.
  void branch(const Statement& node) {
    Symbols* const outer = symbols_;
    expression(node.branches[0].first.get());
    std::deque<Symbols> layers;
    const auto layer = [&](Symbols& base) -> Symbols& {
      return layers.emplace_back(Symbols{.base = &base, .function = base.function, .level = base.level});
    };
    symbols_ = &layer(*outer);
    body(node.branches[0].second);
    symbols_ = &layer(*outer);
    for (size_t i = 1; i < node.branches.size(); ++i) {
      Symbols* const all = symbols_;
      expression(node.branches[i].first.get());
      std::deque<Symbols> own;
      symbols_ = &own.emplace_back(Symbols{.base = all, .function = all->function, .level = all->level});
      body(node.branches[i].second);
      symbols_ = all;
      all->take_branches(own);
    }
    symbols_ = &layer(*outer);
    body(node.otherwise);
    symbols_ = outer;
    outer->take_branches(layers);
  }

  Symbols* symbols_;
};

/// Does a name stand in these statements, anywhere inside, before it is assigned?
class Mentions {
 public:
  explicit Mentions(std::string_view name) : name_(name) {}
  bool in(const Body& statements) {
    for (const auto& node : statements) {
      if (found_ || stored_) break;
      statement(*node);
    }
    return found_;
  }
  bool in(const std::vector<ExpressionPtr>& parts) {
    for (const ExpressionPtr& part : parts) expression(part.get());
    return found_;
  }

 private:
  void expression(const Expression* node) {
    if (!node || found_ || stored_) return;
    if (node->kind == Expression::Kind::name && node->text == name_) found_ = true;
    for (const ExpressionPtr& part : node->parts) expression(part.get());
    for (const ExpressionPtr& part : node->arguments.positional) expression(part.get());
    for (const auto& [key, part] : node->arguments.named) expression(part.get());
    expression(node->arguments.star.get());
    expression(node->arguments.double_star.get());
  }
  void target(const Expression* node) {
    if (!node || found_) return;
    if (node->kind == Expression::Kind::name && node->text == name_) stored_ = true;
    for (const ExpressionPtr& part : node->parts) target(part.get());
  }
  void statement(const Statement& node) {
    using Kind = Statement::Kind;
    if (node.kind == Kind::block) return;
    if (node.kind == Kind::loop) {
      target(node.target.get());
      expression(node.value.get());
    } else if (node.kind == Kind::set) {
      target(node.target.get());
      expression(node.value.get());
    } else {
      target(node.target.get());
      expression(node.value.get());
    }
    for (const std::string& parameter : node.parameters) stored_ |= !found_ && parameter == name_;
    for (const ExpressionPtr& part : node.defaults) expression(part.get());
    for (const auto& [name, value] : node.assignments) {
      target(name.get());
      expression(value.get());
    }
    for (const auto& [test, then] : node.branches) {
      expression(test.get());
      in(then);
    }
    in(node.body);
    in(node.otherwise);
    expression(node.test.get());
  }

  std::string_view name_;
  bool found_ = false, stored_ = false;
};

/// Walks scope by scope, as the reference's compiler does, and writes places into the tree.
class Resolver {
 public:
  explicit Resolver(Syntax& syntax) : syntax_(syntax) {}

  void run() {
    Symbols root{.function = &syntax_.function};
    Survey(root).body(syntax_.body);
    body(syntax_.body, root, {.toplevel = true});
    syntax_.scope = scope_of(root);
  }

 private:
  struct Frame {
    bool toplevel = false;
    bool soft = false;  ///< in a branch that may never run: unknown filters only fail when reached
  };

  static Scope scope_of(const Symbols& symbols) {
    Scope scope;
    for (const auto& [slot, load] : symbols.loads)
      if (load.from != Load::From::parameter) scope.loads.push_back(load);
    return scope;
  }

  static Symbols inner(Symbols& outer) { return {.parent = &outer, .function = outer.function, .level = outer.level + 1}; }
  static Symbols inner(Symbols& outer, std::unique_ptr<FunctionScope>& function) {
    function = std::make_unique<FunctionScope>();
    function->parent = outer.function;
    return {.parent = &outer, .function = function.get(), .level = outer.level + 1};
  }

  static Place place(const Symbols& symbols, const std::string& name) {
    const Reference* reference = symbols.find(name);
    if (!reference) throw Fault{"template.syntax", fmt::format("the variable '{}' cannot be resolved", name), 0, {}};
    return symbols.place_of(*reference);
  }

  void expression(Expression* node, const Symbols& symbols, bool soft) {
    if (!node) return;
    using Kind = Expression::Kind;
    if (node->kind == Kind::name || node->kind == Kind::space_attribute) node->place = place(symbols, node->text);
    if (!soft && node->kind == Kind::filter && !filter_exists(node->text))
      throw Fault{"template.name", fmt::format("No filter named '{}'.", node->text), node->line, {}};
    if (!soft && node->kind == Kind::test && !test_exists(node->text))
      throw Fault{"template.name", fmt::format("No test named '{}'.", node->text), node->line, {}};
    soft |= node->kind == Kind::condition;
    for (const ExpressionPtr& part : node->parts) expression(part.get(), symbols, soft);
    for (const ExpressionPtr& part : node->arguments.positional) expression(part.get(), symbols, soft);
    for (const auto& [name, part] : node->arguments.named) expression(part.get(), symbols, soft);
    expression(node->arguments.star.get(), symbols, soft);
    expression(node->arguments.double_star.get(), symbols, soft);
  }

  void body(const Body& statements, Symbols& symbols, Frame frame) {
    for (const auto& node : statements) statement(*node, symbols, frame);
  }

  void statement(Statement& node, Symbols& symbols, Frame frame) {
    using Kind = Statement::Kind;
    switch (node.kind) {
      case Kind::output: return expression(node.value.get(), symbols, frame.soft);
      case Kind::loop: return loop(node, symbols, frame);
      case Kind::branch:
        frame.soft = true;
        for (auto& [test, then] : node.branches) {
          expression(test.get(), symbols, true);
          body(then, symbols, frame);
        }
        return body(node.otherwise, symbols, frame);
      case Kind::macro:
        function(node, symbols);
        node.place = place(symbols, node.text);
        node.exported = frame.toplevel;
        return;
      case Kind::generation: return function(node, symbols);
      case Kind::call:
        function(node, symbols);
        return expression(node.value.get(), symbols, frame.soft);
      case Kind::filter: {
        Symbols own = inner(symbols);
        Survey(own).expression(node.value.get());
        Survey(own).body(node.body);
        body(node.body, own, {});
        expression(node.value.get(), own, false);
        node.scope = scope_of(own);
        return;
      }
      case Kind::set:
        node.exported = frame.toplevel;
        expression(node.target.get(), symbols, frame.soft);
        return expression(node.value.get(), symbols, frame.soft);
      case Kind::set_block: {
        node.exported = frame.toplevel;
        Symbols own = inner(symbols);
        Survey(own).body(node.body);
        // The reference forgets to look at the filter's arguments; a name that only stands there is read from the context.
        Survey(own).expression(node.value.get());
        body(node.body, own, {});
        expression(node.target.get(), symbols, frame.soft);
        expression(node.value.get(), own, false);
        node.scope = scope_of(own);
        return;
      }
      case Kind::with: {
        Symbols own = inner(symbols);
        for (const auto& [name, value] : node.assignments) Survey(own).target(name.get(), /*as_parameter=*/true);
        Survey(own).body(node.body);
        for (auto& [name, value] : node.assignments) {
          expression(name.get(), own, false);
          expression(value.get(), symbols, frame.soft);
        }
        body(node.body, own, {});
        node.scope = scope_of(own);
        return;
      }
      case Kind::scope: {
        if (node.text == "print") return body(node.body, symbols, frame);
        Symbols own = inner(symbols);
        Survey(own).body(node.body);
        body(node.body, own, {});
        node.scope = scope_of(own);
        return;
      }
      case Kind::block: {
        // A block knows the context and what the template's top level has put there, no variable around it.
        node.function = std::make_unique<FunctionScope>();
        node.function->parent = &syntax_.function;
        Symbols own{.function = node.function.get(), .level = symbols.level + 1};
        Survey(own).body(node.body);
        body(node.body, own, {});
        node.scope = scope_of(own);
        return;
      }
      case Kind::refused: return expression(node.value.get(), symbols, true);
      default: return;
    }
  }

  void function(Statement& node, Symbols& symbols) {
    Symbols own = inner(symbols, node.function);
    for (const std::string& name : node.parameters) own.parameter(name);
    const auto parameter = [&](std::string_view name) {
      return std::find(node.parameters.begin(), node.parameters.end(), name) != node.parameters.end();
    };
    if (Mentions("caller").in(node.body)) {
      if (!parameter("caller")) own.parameter("caller");
      else if (const size_t index = static_cast<size_t>(std::find(node.parameters.begin(), node.parameters.end(), "caller") - node.parameters.begin());
               index + node.defaults.size() < node.parameters.size())
        throw Fault{"template.syntax", "a macro's parameter 'caller' must be left out or have a default", node.line, {}};
      node.catches_caller = true;
    }
    if (!parameter("kwargs") && Mentions("kwargs").in(node.body)) {
      own.parameter("kwargs");
      node.catches_named = true;
    }
    if (!parameter("varargs") && Mentions("varargs").in(node.body)) {
      own.parameter("varargs");
      node.catches_positional = true;
    }
    for (const ExpressionPtr& value : node.defaults) Survey(own).expression(value.get());
    Survey(own).body(node.body);
    for (const std::string& name : node.parameters) node.parameter_places.push_back(place(own, name));
    if (node.catches_caller) node.caller_place = place(own, "caller");
    if (node.catches_named) node.named_place = place(own, "kwargs");
    if (node.catches_positional) node.positional_place = place(own, "varargs");
    for (const ExpressionPtr& value : node.defaults) expression(value.get(), own, false);
    body(node.body, own, {});
    node.scope = scope_of(own);
  }

  static void forbid_loop(const Statement& node) {
    const auto assigned = [](const auto& self, const Expression* target) -> bool {
      if (!target) return false;
      if (target->kind == Expression::Kind::name && target->text == "loop") return true;
      if (target->kind != Expression::Kind::tuple) return false;
      return std::any_of(target->parts.begin(), target->parts.end(), [&](const ExpressionPtr& part) { return self(self, part.get()); });
    };
    if (assigned(assigned, node.target.get()))
      throw Fault{"template.syntax", "the special variable 'loop' cannot be assigned to inside a loop", node.line, {}};
    for (const auto& [test, then] : node.branches)
      for (const auto& inner : then) forbid_loop(*inner);
    for (const auto& inner : node.body) forbid_loop(*inner);
    for (const auto& inner : node.otherwise) forbid_loop(*inner);
  }

  void loop(Statement& node, Symbols& symbols, Frame frame) {
    if (!inside_loop_) forbid_loop(node);
    const bool outermost = !std::exchange(inside_loop_, true);
    node.extended = node.recursive || Mentions("loop").in(node.body);
    std::unique_ptr<FunctionScope> unused;
    Symbols own = node.recursive ? inner(symbols, node.function) : inner(symbols);
    if (node.extended) own.parameter("loop");
    Survey(own).target(node.target.get(), /*as_parameter=*/true);
    Survey(own).body(node.body);
    if (node.test) {
      // The condition runs in a function of its own, whose variables are the loop's targets again.
      node.test_function = std::make_unique<FunctionScope>();
      node.test_function->parent = own.function;
      Symbols condition{.parent = &symbols, .function = node.test_function.get(), .level = symbols.level + 1};
      Survey(condition).target(node.target.get(), /*as_parameter=*/true);
      Survey(condition).expression(node.test.get());
      expression(node.test.get(), condition, false);
      collect(node.target.get(), condition, node.parameter_places);
      node.test_scope = scope_of(condition);
    }
    Symbols other = inner(symbols);
    if (node.recursive) other.function = own.function;
    Survey(other).body(node.otherwise);
    expression(node.target.get(), own, false);
    if (node.extended) node.place = place(own, "loop");
    expression(node.value.get(), symbols, frame.soft);
    body(node.body, own, {});
    body(node.otherwise, other, {});
    node.scope = scope_of(own);
    node.else_scope = scope_of(other);
    if (outermost) inside_loop_ = false;
  }

  /// The places of a target's names, in order.
  static void collect(const Expression* target, const Symbols& symbols, std::vector<Place>& places) {
    if (target->kind == Expression::Kind::name) places.push_back(place(symbols, target->text));
    for (const ExpressionPtr& part : target->parts) collect(part.get(), symbols, places);
  }

  Syntax& syntax_;
  bool inside_loop_ = false;
};

}  // namespace

void resolve_scopes(Syntax& syntax) { Resolver(syntax).run(); }

}  // namespace switchyard::jinja
