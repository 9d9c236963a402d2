// The parsed template: expressions and statements as plain trees, with the places of variables already resolved.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "switchyard/formats/template/value.h"

namespace switchyard::jinja {

/// A variable's place: so many functions outwards, and the number there. A function is the template itself, a macro, a call
/// block's body, a recursive loop, a loop's condition or a block.
struct Place {
  int outwards = 0;
  int slot = -1;
};

/// What happens to variables when a scope is entered (Jinja's rules: a scope that assigns to a name begins with the value outside).
struct Load {
  enum class From { context, outside, nothing, parameter };
  From from = From::nothing;
  int slot = -1;
  Place outside;
  std::string name;
};

struct Scope {
  std::vector<Load> loads;
};

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct CallArguments {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  ExpressionPtr star, double_star;
};

struct Expression {
  enum class Kind {
    constant, name, attribute, item, slice, call, filter, test, tuple, list, dict, negate, plus, minus, add, subtract, multiply,
    divide, floor_divide, modulo, power, both, either, concat, compare, condition, space_attribute
  };
  enum class Compare { equal, not_equal, less, less_equal, greater, greater_equal, in, not_in };

  Kind kind = Kind::constant;
  int line = 0;
  int depth = 1;               ///< levels of expressions below: bounded, so that recursion is
  size_t begin = 0, end = 0;   ///< where it stands in the source
  std::string text;            ///< name, attribute, filter or test
  Value value;                 ///< of a constant
  Place place;                 ///< of a name
  std::vector<ExpressionPtr> parts;
  std::vector<Compare> compares;
  CallArguments arguments;
};

struct Statement;
using Body = std::vector<std::unique_ptr<Statement>>;

/// What runs in variables of its own: see Place.
struct FunctionScope {
  FunctionScope* parent = nullptr;
  int slots = 0;
  std::map<std::pair<int, std::string>, int> names;  ///< level and name → slot; used while parsing
};

struct Statement {
  enum class Kind { output, loop, branch, macro, call, filter, set, set_block, with, scope, block, break_, continue_, refused, generation };

  Kind kind = Kind::output;
  int line = 0;
  size_t begin = 0, end = 0;
  std::string text;                      ///< plain text; a macro's or block's name; why it is refused
  ExpressionPtr value, target, test;     ///< value: what is written, iterated, assigned, called or filtered
  Body body, otherwise;                  ///< otherwise: else
  std::vector<std::pair<ExpressionPtr, Body>> branches;      ///< if and elif
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> assignments;  ///< of with

  // A macro, a call block, or a generation block.
  std::vector<std::string> parameters;
  std::vector<Place> parameter_places;
  std::vector<ExpressionPtr> defaults;   ///< of the last parameters
  bool catches_caller = false, catches_named = false, catches_positional = false;
  Place caller_place, named_place, positional_place;

  bool recursive = false, extended = false, exported = false;
  Place place;                           ///< of a macro's name, of `loop`
  Scope scope, test_scope, else_scope;
  std::unique_ptr<FunctionScope> function, test_function;
};

struct Syntax {
  std::string source;
  Body body;
  Scope scope;
  FunctionScope function;
  std::map<std::string, const Statement*> blocks;
};

}  // namespace switchyard::jinja
