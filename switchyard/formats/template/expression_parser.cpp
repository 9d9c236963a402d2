#include "switchyard/formats/template/expression_parser.h"

namespace switchyard::jinja {

void ExpressionParser::error_at(int line, std::string reason) { throw Fault{"template.syntax", std::move(reason), line, {}}; }

std::string ExpressionParser::described(const Token& token) {
  switch (token.kind) {
    case Token::Kind::data: return "text";
    case Token::Kind::print_begin: return "'{{'";
    case Token::Kind::print_end: return "'}}'";
    case Token::Kind::block_begin: return "'{%'";
    case Token::Kind::block_end: return "'%}'";
    case Token::Kind::end: return "the end of the template";
    case Token::Kind::text: return "a text";
    default: return "'" + token.text + "'";
  }
}

void ExpressionParser::expect_op(std::string_view op) {
  if (!skip_op(op)) error(fmt::format("{} stands where '{}' is expected", described(current()), op));
}

std::string ExpressionParser::expect_name() {
  if (current().kind != Token::Kind::name) error(fmt::format("{} stands where a name is expected", described(current())));
  return next().text;
}

void ExpressionParser::expect_block_end() {
  if (current().kind != Token::Kind::block_end) error(fmt::format("{} stands where '%}}' is expected", described(current())));
  next();
}

ExpressionPtr ExpressionParser::make(Kind kind, size_t first) {
  auto node = std::make_unique<Expression>();
  node->kind = kind;
  node->line = tokens_[first].line;
  node->begin = tokens_[first].begin;
  finish(*node);
  return node;
}

void ExpressionParser::finish(Expression& node) {
  node.end = tokens_[at_ > 0 ? at_ - 1 : 0].end;
  const auto under = [&](const ExpressionPtr& part) {
    if (part) node.depth = std::max(node.depth, part->depth + 1);
  };
  for (const ExpressionPtr& part : node.parts) under(part);
  for (const ExpressionPtr& part : node.arguments.positional) under(part);
  for (const auto& [name, part] : node.arguments.named) under(part);
  under(node.arguments.star);
  under(node.arguments.double_star);
  if (node.depth > kMaxDepthOfExpressions)
    throw Fault{"template.depth", fmt::format("an expression nests more than {} levels deep", kMaxDepthOfExpressions), node.line, {}};
}

ExpressionPtr ExpressionParser::join(Kind kind, size_t first, ExpressionPtr a, ExpressionPtr b) {
  ExpressionPtr node = make(kind, first);
  node->parts.push_back(std::move(a));
  node->parts.push_back(std::move(b));
  finish(*node);
  return node;
}

ExpressionPtr ExpressionParser::expression(bool conditions) {
  const Deeper deeper(*this);
  return conditions ? condition() : either();
}

ExpressionPtr ExpressionParser::condition() {
  const size_t first = at_;
  ExpressionPtr value = either();
  while (skip_word("if")) {
    ExpressionPtr node = make(Kind::condition, first);
    ExpressionPtr test = either();
    node->parts.push_back(std::move(test));
    node->parts.push_back(std::move(value));
    if (skip_word("else")) {
      const Deeper deeper(*this);
      node->parts.push_back(condition());
    }
    finish(*node);
    value = std::move(node);
  }
  return value;
}

ExpressionPtr ExpressionParser::either() {
  const size_t first = at_;
  ExpressionPtr left = both();
  while (skip_word("or")) left = join(Kind::either, first, std::move(left), both());
  return left;
}

ExpressionPtr ExpressionParser::both() {
  const size_t first = at_;
  ExpressionPtr left = negation();
  while (skip_word("and")) left = join(Kind::both, first, std::move(left), negation());
  return left;
}

ExpressionPtr ExpressionParser::negation() {
  if (!is_word("not")) return comparison();
  const Deeper deeper(*this);
  const size_t first = at_;
  next();
  ExpressionPtr inner = negation();
  ExpressionPtr node = make(Kind::negate, first);
  node->parts.push_back(std::move(inner));
  finish(*node);
  return node;
}

bool ExpressionParser::comparing(Expression::Compare& compare) {
  using Compare = Expression::Compare;
  static constexpr std::pair<std::string_view, Compare> kOperators[] = {
      {"==", Compare::equal}, {"!=", Compare::not_equal}, {"<", Compare::less}, {"<=", Compare::less_equal},
      {">", Compare::greater}, {">=", Compare::greater_equal}};
  for (const auto& [text, meaning] : kOperators) {
    if (skip_op(text)) {
      compare = meaning;
      return true;
    }
  }
  if (skip_word("in")) {
    compare = Compare::in;
    return true;
  }
  if (is_word("not") && ahead().kind == Token::Kind::name && ahead().text == "in") {
    at_ += 2;
    compare = Compare::not_in;
    return true;
  }
  return false;
}

ExpressionPtr ExpressionParser::comparison() {
  const size_t first = at_;
  ExpressionPtr left = sum();
  Expression::Compare compare;
  ExpressionPtr node;
  while (comparing(compare)) {
    if (!node) {
      node = make(Kind::compare, first);
      node->parts.push_back(std::move(left));
    }
    node->compares.push_back(compare);
    node->parts.push_back(sum());
  }
  if (!node) return left;
  finish(*node);
  return node;
}

ExpressionPtr ExpressionParser::sum() {
  const size_t first = at_;
  ExpressionPtr left = concatenation();
  while (is_op("+") || is_op("-")) {
    const Kind kind = next().text == "+" ? Kind::add : Kind::subtract;
    left = join(kind, first, std::move(left), concatenation());
  }
  return left;
}

ExpressionPtr ExpressionParser::concatenation() {
  const size_t first = at_;
  ExpressionPtr left = product();
  if (!is_op("~")) return left;
  ExpressionPtr node = make(Kind::concat, first);
  node->parts.push_back(std::move(left));
  while (skip_op("~")) node->parts.push_back(product());
  finish(*node);
  return node;
}

ExpressionPtr ExpressionParser::product() {
  const size_t first = at_;
  ExpressionPtr left = power();
  while (is_op("*") || is_op("/") || is_op("//") || is_op("%")) {
    const std::string op = next().text;
    const Kind kind = op == "*" ? Kind::multiply : op == "/" ? Kind::divide : op == "//" ? Kind::floor_divide : Kind::modulo;
    left = join(kind, first, std::move(left), power());
  }
  return left;
}

ExpressionPtr ExpressionParser::power() {
  const size_t first = at_;
  ExpressionPtr left = unary(true);
  while (skip_op("**")) left = join(Kind::power, first, std::move(left), unary(true));
  return left;
}

ExpressionPtr ExpressionParser::unary(bool with_filters) {
  const size_t first = at_;
  ExpressionPtr node;
  if (is_op("-") || is_op("+")) {
    const Deeper deeper(*this);
    const Kind kind = next().text == "-" ? Kind::minus : Kind::plus;
    ExpressionPtr inner = unary(false);
    node = make(kind, first);
    node->parts.push_back(std::move(inner));
    finish(*node);
  } else {
    node = primary(/*assigned=*/false);
  }
  node = postfix(std::move(node), first);
  return with_filters ? filters_and_tests(std::move(node), first) : std::move(node);
}

ExpressionPtr ExpressionParser::constant(Value value, size_t first) {
  ExpressionPtr node = make(Kind::constant, first);
  node->value = std::move(value);
  return node;
}

ExpressionPtr ExpressionParser::primary(bool assigned) {
  const size_t first = at_;
  const Token& token = current();
  switch (token.kind) {
    case Token::Kind::name: {
      next();
      const std::string& name = token.text;
      if (name == "true" || name == "True") return constant(Value::boolean(true), first);
      if (name == "false" || name == "False") return constant(Value::boolean(false), first);
      if (name == "none" || name == "None") return constant(Value::none(), first);
      const bool attribute = assigned && is_op(".");
      ExpressionPtr node = make(attribute ? Kind::space_attribute : Kind::name, first);
      node->text = name;
      if (attribute) {
        next();
        const std::string written = expect_name();
        node->value = Value::text(written);
        finish(*node);
      }
      return node;
    }
    case Token::Kind::text: {
      std::string text;
      while (current().kind == Token::Kind::text) text += next().text;
      return constant(Value::text(std::move(text)), first);
    }
    case Token::Kind::integer:
    case Token::Kind::real: return constant(next().value, first);
    default: break;
  }
  if (skip_op("(")) {
    ExpressionPtr node = tuple({.parentheses = true});
    expect_op(")");
    return node;
  }
  if (is_op("[")) return list();
  if (is_op("{")) return dictionary();
  error(fmt::format("{} stands where an expression is expected", described(token)));
}

ExpressionPtr ExpressionParser::tuple(const TupleRules& rules) {
  const Deeper deeper(*this);
  const size_t first = at_;
  std::vector<ExpressionPtr> items;
  bool several = false;
  while (true) {
    if (!items.empty()) expect_op(",");
    const Token::Kind kind = current().kind;
    if (kind == Token::Kind::print_end || kind == Token::Kind::block_end || is_op(")") || (!rules.end.empty() && is_word(rules.end))) break;
    items.push_back(rules.names_only ? primary(rules.spaces) : expression(rules.conditions));
    if (!is_op(",")) break;
    several = true;
  }
  if (!several) {
    if (!items.empty()) return std::move(items[0]);
    if (!rules.parentheses) error(fmt::format("{} stands where an expression is expected", described(current())));
  }
  ExpressionPtr node = make(Kind::tuple, first);
  node->parts = std::move(items);
  finish(*node);
  return node;
}

ExpressionPtr ExpressionParser::list() {
  const size_t first = at_;
  next();
  std::vector<ExpressionPtr> items;
  while (!is_op("]")) {
    if (!items.empty()) expect_op(",");
    if (is_op("]")) break;
    items.push_back(expression());
  }
  next();
  ExpressionPtr node = make(Kind::list, first);
  node->parts = std::move(items);
  finish(*node);
  return node;
}

ExpressionPtr ExpressionParser::dictionary() {
  const size_t first = at_;
  next();
  std::vector<ExpressionPtr> items;  // key, value, key, value
  while (!is_op("}")) {
    if (!items.empty()) expect_op(",");
    if (is_op("}")) break;
    items.push_back(expression());
    expect_op(":");
    items.push_back(expression());
  }
  next();
  ExpressionPtr node = make(Kind::dict, first);
  node->parts = std::move(items);
  finish(*node);
  return node;
}

ExpressionPtr ExpressionParser::postfix(ExpressionPtr node, size_t first) {
  while (true) {
    if (is_op(".") || is_op("[")) node = subscript(std::move(node), first);
    else if (is_op("(")) node = call(std::move(node), first);
    else return node;
  }
}

ExpressionPtr ExpressionParser::filters_and_tests(ExpressionPtr node, size_t first) {
  while (true) {
    if (is_op("|")) node = filters(std::move(node), first);
    else if (is_word("is")) node = test(std::move(node), first);
    else if (is_op("(")) node = call(std::move(node), first);
    else return node;
  }
}

ExpressionPtr ExpressionParser::call(ExpressionPtr callee, size_t first) {
  CallArguments arguments = call_arguments();
  ExpressionPtr node = make(Kind::call, first);
  node->parts.push_back(std::move(callee));
  node->arguments = std::move(arguments);
  finish(*node);
  return node;
}

ExpressionPtr ExpressionParser::subscript(ExpressionPtr object, size_t first) {
  if (next().text == ".") {
    const Token& name = current();
    if (name.kind == Token::Kind::name) {
      next();
      ExpressionPtr node = make(Kind::attribute, first);
      node->text = name.text;
      node->parts.push_back(std::move(object));
      finish(*node);
      return node;
    }
    if (name.kind != Token::Kind::integer) error(fmt::format("{} stands where a name or a number is expected", described(name)));
    const size_t number = at_;
    const Value value = next().value;
    return join(Kind::item, first, std::move(object), constant(value, number));
  }
  const size_t inside = at_;
  std::vector<ExpressionPtr> items;
  while (!is_op("]")) {
    if (!items.empty()) expect_op(",");
    items.push_back(subscribed());
  }
  next();
  ExpressionPtr index;
  if (items.size() == 1) {
    index = std::move(items[0]);
  } else {
    index = make(Kind::tuple, inside);
    index->parts = std::move(items);
    finish(*index);
  }
  return join(Kind::item, first, std::move(object), std::move(index));
}

ExpressionPtr ExpressionParser::subscribed() {
  const size_t first = at_;
  std::vector<ExpressionPtr> parts;
  if (skip_op(":")) {
    parts.push_back(nullptr);
  } else {
    ExpressionPtr node = expression();
    if (!skip_op(":")) return node;
    parts.push_back(std::move(node));
  }
  if (is_op(":") || is_op("]") || is_op(",")) parts.push_back(nullptr);
  else parts.push_back(expression());
  if (skip_op(":") && !is_op("]") && !is_op(",")) parts.push_back(expression());
  else parts.push_back(nullptr);
  ExpressionPtr node = make(Kind::slice, first);
  node->parts = std::move(parts);
  finish(*node);
  return node;
}

CallArguments ExpressionParser::call_arguments() {
  CallArguments arguments;
  const int line = current().line;
  expect_op("(");
  const auto ensure = [&](bool holds) {
    if (!holds) error_at(line, "the arguments of a call stand in a wrong order");
  };
  bool comma = false;
  while (!is_op(")")) {
    if (comma) {
      expect_op(",");
      if (is_op(")")) break;
    }
    if (is_op("*")) {
      ensure(!arguments.star && !arguments.double_star);
      next();
      arguments.star = expression();
    } else if (is_op("**")) {
      ensure(!arguments.double_star);
      next();
      arguments.double_star = expression();
    } else if (current().kind == Token::Kind::name && ahead().kind == Token::Kind::op && ahead().text == "=") {
      ensure(!arguments.double_star);
      std::string name = next().text;
      next();
      for (const auto& [other, value] : arguments.named)
        if (other == name) error_at(line, fmt::format("the argument '{}' is given twice", name));
      arguments.named.emplace_back(std::move(name), expression());
    } else {
      ensure(!arguments.star && !arguments.double_star && arguments.named.empty());
      arguments.positional.push_back(expression());
    }
    comma = true;
  }
  next();
  return arguments;
}

std::string ExpressionParser::dotted_name() {
  std::string name = expect_name();
  while (skip_op(".")) name += "." + expect_name();
  return name;
}

ExpressionPtr ExpressionParser::filters(ExpressionPtr node, size_t first, bool inline_first) {
  while (is_op("|") || inline_first) {
    if (!inline_first) next();
    inline_first = false;
    std::string name = dotted_name();
    CallArguments arguments;
    if (is_op("(")) arguments = call_arguments();
    ExpressionPtr filter = make(Kind::filter, first);
    filter->text = std::move(name);
    filter->parts.push_back(std::move(node));
    filter->arguments = std::move(arguments);
    finish(*filter);
    node = std::move(filter);
  }
  return node;
}

ExpressionPtr ExpressionParser::test(ExpressionPtr value, size_t first) {
  next();
  const bool negated = skip_word("not");
  std::string name = dotted_name();
  CallArguments arguments;
  const Token::Kind kind = current().kind;
  if (is_op("(")) {
    arguments = call_arguments();
  } else if ((kind == Token::Kind::name || kind == Token::Kind::text || kind == Token::Kind::integer || kind == Token::Kind::real ||
              is_op("[") || is_op("{")) &&
             !is_any({"else", "or", "and"})) {
    if (is_word("is")) error("tests with 'is' cannot be chained");
    const size_t begin = at_;
    arguments.positional.push_back(postfix(primary(false), begin));
  }
  ExpressionPtr node = make(Kind::test, first);
  node->text = std::move(name);
  node->parts.push_back(std::move(value));
  node->arguments = std::move(arguments);
  finish(*node);
  if (!negated) return node;
  ExpressionPtr opposite = make(Kind::negate, first);
  opposite->parts.push_back(std::move(node));
  finish(*opposite);
  return opposite;
}

}  // namespace switchyard::jinja
