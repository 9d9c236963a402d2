#include "switchyard/formats/template/evaluator.h"

#include <algorithm>
#include <memory>

#include "switchyard/formats/template/characters.h"
#include "switchyard/formats/template/filters.h"
#include "switchyard/formats/template/operations.h"
#include "switchyard/formats/template/print.h"

namespace switchyard::jinja {
namespace {

using Kind = Value::Kind;

/// The variables of one call. One that a macro defined in it may still read outlives the call.
struct Activation {
  Activation(Activation* parent, int slots) : parent(parent), slots(static_cast<size_t>(slots)) {}
  Activation* parent;
  std::vector<Value> slots;
  bool captured = false;
};

/// Text that is being written; its bytes are paid for while it exists.
class Buffer {
 public:
  explicit Buffer(Budget& budget) : budget_(budget) {}
  ~Buffer() { budget_.give_back(text_.size()); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  void append(std::string_view text) {
    budget_.text(text.size());
    budget_.take(text.size());
    text_ += text;
    if (text_.size() > static_cast<size_t>(budget_.limits.text))
      fault("template.limit", "the template writes more than {} bytes", budget_.limits.text);
  }
  const std::string& text() const { return text_; }

 private:
  Budget& budget_;
  std::string text_;
};

/// What `loop` knows; items are drawn no earlier than the template can tell.
struct LoopState {
  Value iterable;
  Next next;
  Value current, before, after, changed;
  Integer index0 = -1, length = -1;
  int depth0 = 0;

  bool draw(Value& item) {
    if (!after.is_missing()) {
      item = std::exchange(after, Value());
      return true;
    }
    return next(item);
  }
  bool advance() {
    Value item;
    if (!draw(item)) return false;
    ++index0;
    before = current;
    current = item;
    return true;
  }
  bool peek() {
    if (after.is_missing()) {
      Value item;
      if (next(item)) after = item;
    }
    return !after.is_missing();
  }
  Integer count(Runtime& runtime) {
    if (length >= 0) return length;
    if (!iterable.is(Kind::iterator)) return length = length_of(iterable);
    auto rest = std::make_shared<std::vector<Value>>();
    for (Value item; next(item);) {
      rest->push_back(item);
      if ((rest->size() & 1023) == 0) runtime.budget.values(rest->size());
    }
    length = static_cast<Integer>(rest->size()) + index0 + 1 + (after.is_missing() ? 0 : 1);
    next = [rest, i = size_t{0}](Value& out) mutable {
      if (i >= rest->size()) return false;
      out = (*rest)[i++];
      return true;
    };
    return length;
  }
};

class Evaluator {
 public:
  enum class Flow { normal, break_, continue_ };

  Evaluator(const Syntax& syntax, const Value& variables, const Limits& limits, const Clock& clock)
      : syntax_(syntax), variables_(variables), runtime_(limits, clock), root_(runtime_.budget) {}

  Output run() {
    Activation& activation = *keep(std::make_unique<Activation>(nullptr, syntax_.function.slots));
    enter(syntax_.scope, activation);
    execute(syntax_.body, activation, root_);
    return {root_.text(), std::move(generations_)};
  }

 private:
  // Variables.

  Activation* keep(std::unique_ptr<Activation> activation) {
    runtime_.budget.take(activation->slots.size() * sizeof(Value) + 64);
    kept_.push_back(std::move(activation));
    return kept_.back().get();
  }
  void leave(std::unique_ptr<Activation> activation) {
    if (activation->captured) keep(std::move(activation));
  }

  static Value& at(const Place& place, Activation& activation) {
    Activation* owner = &activation;
    for (int i = 0; i < place.outwards; ++i) owner = owner->parent;
    return owner->slots[static_cast<size_t>(place.slot)];
  }

  Value look_up(std::string_view name) {
    if (const Value* exported = exported_.find(name)) return *exported;
    if (const Value* given = variables_.dict().find(name)) return *given;
    return global(runtime_, name);
  }

  void enter(const Scope& scope, Activation& activation) {
    for (const Load& load : scope.loads) {
      Value value;
      if (load.from == Load::From::context) value = look_up(load.name);
      if (load.from == Load::From::outside) value = at(load.outside, activation);
      activation.slots[static_cast<size_t>(load.slot)] = std::move(value);
    }
  }
  static void leave(const Scope& scope, Activation& activation) {
    for (const Load& load : scope.loads) activation.slots[static_cast<size_t>(load.slot)] = Value();
  }

  // Errors.

  void locate(Fault& fault, int line, size_t begin, size_t end) const {
    if (fault.line > 0) return;
    fault.line = line;
    std::string text = syntax_.source.substr(begin, end > begin ? end - begin : 0);
    if (text.size() > 160) {
      size_t cut = 157;
      while (cut > 0 && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) --cut;
      text = text.substr(0, cut) + "...";
    }
    std::replace(text.begin(), text.end(), '\n', ' ');
    fault.expression = std::move(text);
  }

  // Expressions.

  Value value_of(const Expression& node, Activation& activation) {
    const Level level(runtime_.budget);
    runtime_.budget.step();
    try {
      return evaluated(node, activation);
    } catch (Fault& fault) {
      locate(fault, node.line, node.begin, node.end);
      throw;
    }
  }

  Value part(const Expression& node, size_t i, Activation& activation) { return value_of(*node.parts[i], activation); }
  Value optional(const ExpressionPtr& node, Activation& activation) { return node ? value_of(*node, activation) : Value::none(); }

  Value evaluated(const Expression& node, Activation& activation) {
    using Op = Expression::Kind;
    switch (node.kind) {
      case Op::constant: return node.value;
      case Op::name: {
        const Value& value = at(node.place, activation);
        return value.is_missing() ? runtime_.undefined(fmt::format("{} is undefined", quoted_text(node.text))) : value;
      }
      case Op::attribute: return attribute(runtime_, part(node, 0, activation), node.text);
      case Op::item: return subscript(node, activation);
      case Op::call: return call(node, activation, {});
      case Op::filter: {
        if (!node.parts[0]) return filtered(node, activation, Value(filter_input_));
        return filtered(node, activation, part(node, 0, activation));
      }
      case Op::test: {
        const Value value = part(node, 0, activation);
        Arguments arguments = arguments_of(node.arguments, activation);
        return Value::boolean(call_test(runtime_, Value::text(node.text), value, arguments));
      }
      case Op::tuple:
      case Op::list: {
        std::vector<Value> items;
        for (const ExpressionPtr& item : node.parts) items.push_back(value_of(*item, activation));
        return node.kind == Op::list ? runtime_.list(std::move(items)) : runtime_.tuple(std::move(items));
      }
      case Op::dict: {
        std::vector<std::pair<Value, Value>> entries;
        for (size_t i = 0; i + 1 < node.parts.size(); i += 2) {
          Value key = part(node, i, activation);
          entries.emplace_back(std::move(key), part(node, i + 1, activation));
        }
        return runtime_.dict(std::move(entries));
      }
      case Op::negate: return Value::boolean(!truth(part(node, 0, activation)));
      case Op::plus: return positive(part(node, 0, activation));
      case Op::minus: return negative(runtime_, part(node, 0, activation));
      case Op::both: {
        Value left = part(node, 0, activation);
        return truth(left) ? part(node, 1, activation) : left;
      }
      case Op::either: {
        Value left = part(node, 0, activation);
        return truth(left) ? left : part(node, 1, activation);
      }
      case Op::concat: {
        std::vector<Value> parts;
        for (const ExpressionPtr& piece : node.parts) parts.push_back(value_of(*piece, activation));
        std::string text;
        for (const Value& piece : parts) {
          text += str(runtime_, piece);
          runtime_.budget.room(text.size());
        }
        return runtime_.text(std::move(text));
      }
      case Op::compare: return Value::boolean(compared(node, activation));
      case Op::condition:
        if (truth(part(node, 0, activation))) return part(node, 1, activation);
        if (node.parts.size() > 2) return part(node, 2, activation);
        return runtime_.undefined(fmt::format("the inline if-expression on line {} evaluated to false and no else section was defined.", node.line));
      case Op::slice: fault("template.type", "a slice stands where a value is expected");
      default: {
        const Value left = part(node, 0, activation);
        return binary(runtime_, node.kind, left, part(node, 1, activation));
      }
    }
  }

  bool compared(const Expression& node, Activation& activation) {
    Value left = part(node, 0, activation);
    for (size_t i = 0; i < node.compares.size(); ++i) {
      Value right = part(node, i + 1, activation);
      if (!compare(runtime_, node.compares[i], left, right)) return false;
      left = std::move(right);
    }
    return true;
  }

  Value subscript(const Expression& node, Activation& activation) {
    const Value object = part(node, 0, activation);
    const Expression& index = *node.parts[1];
    if (index.kind != Expression::Kind::slice) return item(runtime_, object, value_of(index, activation));
    const Value from = optional(index.parts[0], activation), to = optional(index.parts[1], activation), step = optional(index.parts[2], activation);
    return slice(runtime_, object, from, to, step);
  }

  Arguments arguments_of(const CallArguments& call, Activation& activation) {
    Arguments arguments;
    for (const ExpressionPtr& value : call.positional) arguments.positional.push_back(value_of(*value, activation));
    for (const auto& [name, value] : call.named) arguments.named.emplace_back(name, value_of(*value, activation));
    if (call.star) {
      const Value rest = value_of(*call.star, activation);
      if (!iterable(rest)) fault("template.type", "argument after * must be an iterable, not {}", type_name(rest));
      for (Value& value : collect(runtime_, rest)) arguments.positional.push_back(std::move(value));
    }
    if (call.double_star) {
      const Value rest = value_of(*call.double_star, activation);
      if (!rest.is(Kind::dict)) fault("template.type", "argument after ** must be a mapping, not {}", type_name(rest));
      for (const auto& [name, value] : rest.dict().entries) {
        if (!name.is_string()) fault("template.type", "keywords must be strings");
        const std::string& key = name.str();
        const auto same = [&key](const auto& entry) { return entry.first == key; };
        if (std::any_of(arguments.named.begin(), arguments.named.end(), same))
          fault("template.type", "got multiple values for keyword argument '{}'", name.str());
        arguments.named.emplace_back(name.str(), value);
      }
    }
    return arguments;
  }

  Value call(const Expression& node, Activation& activation, Value caller) {
    const Value callee = part(node, 0, activation);
    Arguments arguments = arguments_of(node.arguments, activation);
    if (!caller.is_missing()) arguments.named.emplace_back("caller", std::move(caller));
    return runtime_.call(callee, arguments);
  }

  Value filtered(const Expression& node, Activation& activation, const Value& input) {
    Arguments arguments = arguments_of(node.arguments, activation);
    return call_filter(runtime_, Value::text(node.text), input, arguments);
  }

  /// A block's text through the filters behind its tag.
  Value through_filters(const Expression& node, Activation& activation, Value text) {
    const Value before = std::exchange(filter_input_, std::move(text));
    Value result = value_of(node, activation);
    filter_input_ = before;
    return result;
  }

  // Statements.

  Flow execute(const Body& body, Activation& activation, Buffer& out) {
    for (const auto& statement : body) {
      const Flow flow = run_statement(*statement, activation, out);
      if (flow != Flow::normal) return flow;
    }
    return Flow::normal;
  }

  Flow run_statement(const Statement& node, Activation& activation, Buffer& out) {
    if (node.kind == Statement::Kind::output && !node.value) {
      out.append(node.text);
      return Flow::normal;
    }
    const Level level(runtime_.budget);
    runtime_.budget.step();
    try {
      return executed(node, activation, out);
    } catch (Fault& fault) {
      locate(fault, node.line, node.begin, node.end);
      throw;
    }
  }

  Flow executed(const Statement& node, Activation& activation, Buffer& out) {
    using Tag = Statement::Kind;
    switch (node.kind) {
      case Tag::output: out.append(str(runtime_, value_of(*node.value, activation))); return Flow::normal;
      case Tag::branch:
        for (const auto& [test, then] : node.branches)
          if (truth(value_of(*test, activation))) return execute(then, activation, out);
        return execute(node.otherwise, activation, out);
      case Tag::loop: return loop(node, activation, out);
      case Tag::set: {
        check_spaces(*node.target, activation);
        assign(*node.target, value_of(*node.value, activation), activation, node.exported);
        return Flow::normal;
      }
      case Tag::set_block: return set_block(node, activation);
      case Tag::macro: {
        const Value macro = closure(node, activation);
        at(node.place, activation) = macro;
        if (node.exported) export_value(node.text, macro);
        return Flow::normal;
      }
      case Tag::call: {
        const Value caller = closure(node, activation);
        const Level level(runtime_.budget);
        out.append(str(runtime_, call(*node.value, activation, caller)));
        return Flow::normal;
      }
      case Tag::generation: {
        Arguments none;
        const Value text = call_macro(node, &activation, none);
        runtime_.budget.touch(root_.text().size());
        const int64_t begin = count_characters(root_.text());
        generations_.emplace_back(begin, begin + text.string().length);
        out.append(text.str());
        return Flow::normal;
      }
      case Tag::filter: {
        enter(node.scope, activation);
        Buffer inner(runtime_.budget);
        const Flow flow = execute(node.body, activation, inner);
        if (flow == Flow::normal) {
          const Value text = through_filters(*node.value, activation, runtime_.text(inner.text()));
          if (!text.is_string()) fault("template.type", "a filter block gives {}, not text", type_name(text));
          out.append(text.str());
        }
        leave(node.scope, activation);
        return flow;
      }
      case Tag::with: {
        enter(node.scope, activation);
        for (const auto& [name, value] : node.assignments) assign(*name, value_of(*value, activation), activation, false);
        const Flow flow = execute(node.body, activation, out);
        leave(node.scope, activation);
        return flow;
      }
      case Tag::scope: {
        enter(node.scope, activation);
        const Flow flow = execute(node.body, activation, out);
        leave(node.scope, activation);
        return flow;
      }
      case Tag::block: {
        auto own = std::make_unique<Activation>(kept_.front().get(), node.function->slots);
        enter(node.scope, *own);
        execute(node.body, *own, out);
        leave(std::move(own));
        return Flow::normal;
      }
      case Tag::break_: return Flow::break_;
      case Tag::continue_: return Flow::continue_;
      case Tag::refused: fault("template.unsupported", "{}", node.text);
    }
    return Flow::normal;
  }

  Flow set_block(const Statement& node, Activation& activation) {
    enter(node.scope, activation);
    Buffer inner(runtime_.budget);
    const Flow flow = execute(node.body, activation, inner);
    if (flow == Flow::normal) {
      Value text = runtime_.text(inner.text());
      if (node.value) text = through_filters(*node.value, activation, std::move(text));
      check_spaces(*node.target, activation);
      assign(*node.target, text, activation, node.exported);
    }
    leave(node.scope, activation);
    return flow;
  }

  // Assignments.

  void export_value(const std::string& name, const Value& value) {
    if (!syntax_.blocks.empty()) exported_.set(Value::text(name), value);
  }

  void check_spaces(const Expression& target, Activation& activation) {
    if (target.kind == Expression::Kind::space_attribute) {
      if (!at(target.place, activation).is(Kind::space)) fault("template.type", "cannot assign attribute on non-namespace object");
      return;
    }
    for (const ExpressionPtr& inner : target.parts) check_spaces(*inner, activation);
  }

  void assign(const Expression& target, const Value& value, Activation& activation, bool exported) {
    if (target.kind == Expression::Kind::name) {
      at(target.place, activation) = value;
      if (exported) export_value(target.text, value);
      return;
    }
    if (target.kind == Expression::Kind::space_attribute) {
      const std::string& name = target.value.str();
      if (name.starts_with("_"))
        fault("template.security", "Chat templates cannot store underscore-prefixed attributes on a namespace, but got {}. Please rename the attribute.",
              quoted_text(name));
      const Value space = at(target.place, activation);
      if (!space.is(Kind::space)) fault("template.type", "cannot assign attribute on non-namespace object");
      space.space().attributes.set(target.value, value);
      return;
    }
    if (!iterable(value)) fault("template.type", "cannot unpack non-iterable {} object", type_name(value));
    const Next next = iterate(runtime_, value);
    std::vector<Value> items;
    for (Value item; items.size() <= target.parts.size() && next(item);) items.push_back(item);
    if (items.size() < target.parts.size())
      fault("template.value", "not enough values to unpack (expected {}, got {})", target.parts.size(), items.size());
    if (items.size() > target.parts.size()) fault("template.value", "too many values to unpack (expected {})", target.parts.size());
    for (size_t i = 0; i < items.size(); ++i) assign(*target.parts[i], items[i], activation, exported);
  }

  // Macros.

  Value closure(const Statement& node, Activation& activation) {
    activation.captured = true;
    auto object = std::make_shared<Function>();
    object->name = node.text;
    object->type = "Macro";
    object->shown = node.kind == Statement::Kind::macro ? "<Macro " + quoted_text(node.text) + ">" : "<Macro anonymous>";
    object->call = [this, &node, parent = &activation](Runtime&, Arguments& arguments) { return call_macro(node, parent, arguments); };
    object->attribute = [&node](Runtime& r, std::string_view name) -> Value {
      if (name == "name") return node.kind == Statement::Kind::macro ? Value::text(node.text) : Value::none();
      if (name == "catch_kwargs") return Value::boolean(node.catches_named);
      if (name == "catch_varargs") return Value::boolean(node.catches_positional);
      if (name == "caller") return Value::boolean(node.catches_caller);
      if (name != "arguments") return {};
      std::vector<Value> names;
      for (const std::string& parameter : node.parameters) names.push_back(Value::text(parameter));
      return r.tuple(std::move(names));
    };
    return runtime_.adopt(std::move(object));
  }

  Value call_macro(const Statement& node, Activation* parent, Arguments& arguments) {
    const Level level(runtime_.budget);
    auto own = std::make_unique<Activation>(parent, node.function->slots);
    bind(node, arguments, *own);
    enter(node.scope, *own);
    for (size_t i = 0; i < node.parameters.size(); ++i) {
      Value& parameter = at(node.parameter_places[i], *own);
      if (!parameter.is_missing()) continue;
      const size_t without = node.parameters.size() - node.defaults.size();
      // Evaluated first: the value may be assigned into a vector that the expression reads.
      Value value = i >= without ? value_of(*node.defaults[i - without], *own)
                                 : runtime_.undefined(fmt::format("parameter {} was not provided", quoted_text(node.parameters[i])));
      at(node.parameter_places[i], *own) = std::move(value);
    }
    Buffer out(runtime_.budget);
    execute(node.body, *own, out);
    leave(std::move(own));
    return runtime_.text(out.text());
  }

  void bind(const Statement& node, Arguments& arguments, Activation& own) {
    const std::string name = node.kind == Statement::Kind::macro ? quoted_text(node.text) : "None";
    std::vector<std::pair<std::string, Value>> named = arguments.named;
    const auto take = [&](std::string_view key) {
      const auto it = std::find_if(named.begin(), named.end(), [&](const auto& entry) { return entry.first == key; });
      if (it == named.end()) return Value();
      Value value = it->second;
      named.erase(it);
      return value;
    };
    const size_t count = node.parameters.size(), given = std::min(arguments.positional.size(), count);
    bool has_caller = false;
    for (size_t i = 0; i < count; ++i) {
      const bool caller = node.parameters[i] == "caller";
      if (i < given) {
        at(node.parameter_places[i], own) = arguments.positional[i];
        has_caller |= caller && given == count;
      } else {
        at(node.parameter_places[i], own) = take(node.parameters[i]);
        has_caller |= caller;
      }
    }
    if (node.catches_caller && !has_caller) {
      Value caller = take("caller");
      if (caller.is_missing() || caller.is_none()) caller = runtime_.undefined("No caller defined");
      at(node.caller_place, own) = caller;
    }
    if (node.catches_named) {
      std::vector<std::pair<Value, Value>> entries;
      for (auto& [key, value] : named) entries.emplace_back(runtime_.text(key), value);
      at(node.named_place, own) = runtime_.dict(std::move(entries));
    } else if (!named.empty()) {
      for (const auto& [key, value] : named)
        if (key == "caller")
          fault("template.type", "macro {} was invoked with two values for the special caller argument. This is most likely a bug.", name);
      fault("template.type", "macro {} takes no keyword argument {}", name, quoted_text(named[0].first));
    }
    if (node.catches_positional) {
      at(node.positional_place, own) = runtime_.tuple({arguments.positional.begin() + static_cast<int64_t>(given), arguments.positional.end()});
    } else if (arguments.positional.size() > count) {
      fault("template.type", "macro {} takes not more than {} argument(s)", name, count);
    }
  }

  // Loops.

  Flow loop(const Statement& node, Activation& activation, Buffer& out) {
    const Value iterable = value_of(*node.value, activation);
    if (!node.recursive) return run_loop(node, iterable, activation, out, 0);
    out.append(recursion(node, iterable, &activation, 0).str());
    return Flow::normal;
  }

  Value recursion(const Statement& node, const Value& iterable, Activation* parent, int depth0) {
    const Level level(runtime_.budget);
    parent->captured = true;
    auto own = std::make_unique<Activation>(parent, node.function->slots);
    Buffer out(runtime_.budget);
    run_loop(node, iterable, *own, out, depth0);
    leave(std::move(own));
    return runtime_.text(out.text());
  }

  /// The items for which the loop's condition holds, asked when an item is drawn.
  Value conditioned(const Statement& node, const Value& iterable, Activation& activation) {
    activation.captured = true;
    auto own = std::make_shared<Activation>(&activation, node.test_function->slots);
    return runtime_.iterator(
        [this, &node, iterable, own, next = Next(), entered = false](Value& out) mutable {
          if (!entered) {
            next = iterate(runtime_, iterable);
            enter(node.test_scope, *own);
            entered = true;
          }
          while (next(out)) {
            size_t place = 0;
            unpack_into(*node.target, out, node.parameter_places, place, *own);
            if (truth(value_of(*node.test, *own))) return true;
          }
          return false;
        },
        iterable.depth());
  }

  void unpack_into(const Expression& target, const Value& value, const std::vector<Place>& places, size_t& place, Activation& own) {
    if (target.kind == Expression::Kind::name) {
      at(places[place++], own) = value;
      return;
    }
    if (!iterable(value)) fault("template.type", "cannot unpack non-iterable {} object", type_name(value));
    const std::vector<Value> items = collect(runtime_, value);
    if (items.size() != target.parts.size())
      fault("template.value", "{} values to unpack (expected {}, got {})", items.size() < target.parts.size() ? "not enough" : "too many",
            target.parts.size(), items.size());
    for (size_t i = 0; i < items.size(); ++i) unpack_into(*target.parts[i], items[i], places, place, own);
  }

  Flow run_loop(const Statement& node, const Value& given, Activation& activation, Buffer& out, int depth0) {
    auto state = std::make_shared<LoopState>();
    state->iterable = node.test ? conditioned(node, given, activation) : given;
    state->next = iterate(runtime_, state->iterable);
    state->depth0 = depth0;
    // What changed() remembers may hold the loop itself.
    const std::shared_ptr<void> forget(nullptr, [state](void*) { state->changed = Value(); });
    Value loop;
    if (node.extended) loop = loop_variable(node, state, activation);
    bool none = true;
    while (state->advance()) {
      runtime_.budget.step();
      assign(*node.target, state->current, activation, false);
      if (node.extended) at(node.place, activation) = loop;
      enter(node.scope, activation);
      const Flow flow = execute(node.body, activation, out);
      if (flow == Flow::break_) break;
      if (flow == Flow::normal) none = false;
    }
    leave(node.scope, activation);
    if (!none || node.otherwise.empty()) return Flow::normal;
    enter(node.else_scope, activation);
    const Flow flow = execute(node.otherwise, activation, out);
    leave(node.else_scope, activation);
    return flow;
  }

  Value loop_variable(const Statement& node, std::shared_ptr<LoopState> state, Activation& activation) {
    auto object = std::make_shared<Function>();
    object->name = "loop";
    object->type = "LoopContext";
    object->depth = state->iterable.depth() + 1;
    Activation* parent = activation.parent;
    object->call = [this, &node, state, parent](Runtime& r, Arguments& arguments) {
      const Bound bound("loop", arguments, {"iterable"}, 1);
      if (!node.recursive) fault("template.type", "The loop must have the 'recursive' marker to be called recursively.");
      return recursion(node, *bound[0], parent, state->depth0 + 1);
    };
    object->attribute = [state](Runtime& r, std::string_view name) { return loop_attribute(r, state, name); };
    return runtime_.adopt(std::move(object));
  }

  static Value loop_attribute(Runtime& r, const std::shared_ptr<LoopState>& state, std::string_view name) {
    const auto number = [](Integer value) { return Value::integer(value); };
    if (name == "index") return number(state->index0 + 1);
    if (name == "index0") return number(state->index0);
    if (name == "first") return Value::boolean(state->index0 == 0);
    if (name == "last") return Value::boolean(!state->peek());
    if (name == "length") return number(state->count(r));
    if (name == "revindex") return number(state->count(r) - state->index0);
    if (name == "revindex0") return number(state->count(r) - state->index0 - 1);
    if (name == "depth") return number(state->depth0 + 1);
    if (name == "depth0") return number(state->depth0);
    if (name == "previtem") return state->index0 == 0 ? r.undefined("there is no previous item") : state->before;
    if (name == "nextitem") return state->peek() ? state->after : r.undefined("there is no next item");
    if (name == "\x01repr") return r.text("<LoopContext " + integer_text(state->index0 + 1) + "/" + integer_text(state->count(r)) + ">");
    if (name == "cycle") {
      return r.function("cycle", [state](Runtime&, Arguments& arguments) {
        if (arguments.positional.empty()) fault("template.type", "no items for cycling given");
        return arguments.positional[static_cast<size_t>(state->index0 % static_cast<Integer>(arguments.positional.size()))];
      });
    }
    if (name == "changed") {
      return r.function("changed", [state](Runtime& inner, Arguments& arguments) {
        const Value now = inner.tuple(arguments.positional);
        if (!state->changed.is_missing() && equal(state->changed, now, &inner.budget)) return Value::boolean(false);
        state->changed = now;
        return Value::boolean(true);
      });
    }
    return {};
  }

  const Syntax& syntax_;
  const Value& variables_;
  Runtime runtime_;
  Buffer root_;
  std::vector<std::unique_ptr<Activation>> kept_;
  Dict exported_;
  Value filter_input_;
  std::vector<std::pair<int64_t, int64_t>> generations_;
};

}  // namespace

Output evaluate(const Syntax& syntax, const Value& variables, const Limits& limits, const Clock& clock) {
  return Evaluator(syntax, variables, limits, clock).run();
}

}  // namespace switchyard::jinja
