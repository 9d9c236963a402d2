#include "switchyard/formats/template/parser.h"

#include "switchyard/formats/template/budget.h"
#include "switchyard/formats/template/expression_parser.h"
#include "switchyard/formats/template/lexer.h"
#include "switchyard/formats/utf8.h"

namespace switchyard::jinja {
namespace {

constexpr size_t kMaxSource = size_t{4} << 20;
constexpr int kMaxBlocks = 60;

class Parser : public ExpressionParser {
 public:
  explicit Parser(Syntax& syntax) : ExpressionParser(syntax.source), syntax_(syntax) {}

  void run() { syntax_.body = body({}); }

 private:
  using StatementPtr = std::unique_ptr<Statement>;

  StatementPtr make_statement(Statement::Kind kind, size_t first) {
    auto node = std::make_unique<Statement>();
    node->kind = kind;
    node->line = tokens_[first].line;
    node->begin = tokens_[first].begin;
    return node;
  }

  /// Statements up to a tag with one of these words, on which the parser then stands.
  Body body(const Words& ends) {
    Body statements;
    while (current().kind != Token::Kind::end) {
      const size_t first = at_;
      if (current().kind == Token::Kind::data) {
        auto text = make_statement(Statement::Kind::output, first);
        text->text = next().text;
        statements.push_back(std::move(text));
      } else if (current().kind == Token::Kind::print_begin) {
        next();
        auto print = make_statement(Statement::Kind::output, first);
        print->value = tuple({});
        if (current().kind != Token::Kind::print_end) error(fmt::format("{} stands where '}}}}' is expected", described(current())));
        next();
        print->end = tokens_[at_ - 1].end;
        statements.push_back(std::move(print));
      } else {
        next();
        if (is_any(ends)) return statements;
        statement(statements);
        expect_block_end();
      }
    }
    if (ends.size() > 0) {
      std::string expected;
      for (std::string_view end : ends) expected += (expected.empty() ? "'" : " or '") + std::string(end) + "'";
      error(fmt::format("the template ends where {} is expected; '{}' of line {} is still open", expected, open_.back().first, open_.back().second));
    }
    return statements;
  }

  /// The body of a block tag: to the end of the tag, then up to one of these words.
  Body inner(const Words& ends) {
    skip_op(":");
    expect_block_end();
    return body(ends);
  }
  Body inner_to(std::string_view end) {
    Body statements = inner({end});
    next();
    return statements;
  }

  void statement(Body& into) {
    if (current().kind != Token::Kind::name) error(fmt::format("{} stands where the name of a tag is expected", described(current())));
    if (open_.size() >= kMaxBlocks) throw Fault{"template.depth", fmt::format("blocks nest more than {} levels deep", kMaxBlocks), current().line, {}};
    open_.emplace_back(current().text, current().line);
    const size_t first = at_;
    StatementPtr node = parsed(current().text);
    node->begin = tokens_[first].begin;
    if (!node->end) node->end = tokens_[at_ - 1].end;
    into.push_back(std::move(node));
    open_.pop_back();
  }

  StatementPtr parsed(const std::string& tag) {
    if (tag == "if") return branch();
    if (tag == "for") return loop();
    if (tag == "set") return set();
    if (tag == "macro") return macro();
    if (tag == "call") return call_block();
    if (tag == "filter") return filter_block();
    if (tag == "with") return with();
    if (tag == "block") return block();
    if (tag == "print") return print();
    if (tag == "generation") return generation();
    if (tag == "autoescape") return autoescape();
    if (tag == "break" || tag == "continue") {
      if (loops_ == 0) error(fmt::format("'{}' stands outside of a loop", tag));
      auto node = make_statement(tag == "break" ? Statement::Kind::break_ : Statement::Kind::continue_, at_);
      next();
      return node;
    }
    if (tag == "extends" || tag == "include" || tag == "import" || tag == "from") return refused(tag);
    std::string inside;
    if (open_.size() > 1) inside = fmt::format("; '{}' of line {} is still open", open_[open_.size() - 2].first, open_[open_.size() - 2].second);
    error(fmt::format("unknown tag '{}'{}", tag, inside));
  }

  StatementPtr branch() {
    auto node = make_statement(Statement::Kind::branch, at_);
    next();
    while (true) {
      ExpressionPtr test = tuple({.conditions = false});
      Body then = inner({"elif", "else", "endif"});
      node->branches.emplace_back(std::move(test), std::move(then));
      if (skip_word("elif")) continue;
      if (skip_word("else")) node->otherwise = inner({"endif"});
      next();
      return node;
    }
  }

  StatementPtr loop() {
    auto node = make_statement(Statement::Kind::loop, at_);
    next();
    node->target = target({.names_only = true, .end = "in"});
    if (!skip_word("in")) error(fmt::format("{} stands where 'in' is expected", described(current())));
    node->value = tuple({.conditions = false, .end = "recursive"});
    if (skip_word("if")) node->test = expression();
    node->recursive = skip_word("recursive");
    node->end = tokens_[at_ - 1].end;
    ++loops_;
    node->body = inner({"endfor", "else"});
    --loops_;
    const bool otherwise = is_word("else");
    next();
    if (otherwise) node->otherwise = inner_to("endfor");
    return node;
  }

  /// Can a value be assigned to it?
  static void check_target(const Expression& node) {
    if (node.kind == Kind::tuple) {
      for (const ExpressionPtr& part : node.parts) check_target(*part);
      return;
    }
    if (node.kind != Kind::name && node.kind != Kind::space_attribute) error_at(node.line, "this cannot be assigned to");
  }

  ExpressionPtr target(TupleRules rules) {
    rules.names_only = true;
    ExpressionPtr node = tuple(rules);
    check_target(*node);
    return node;
  }

  ExpressionPtr name_target() {
    const size_t first = at_;
    std::string name = expect_name();
    ExpressionPtr node = make(Kind::name, first);
    if (name == "true" || name == "false" || name == "none" || name == "True" || name == "False" || name == "None")
      error_at(node->line, fmt::format("'{}' cannot be assigned to", name));
    node->text = std::move(name);
    return node;
  }

  StatementPtr set() {
    auto node = make_statement(Statement::Kind::set, at_);
    next();
    node->target = target({.spaces = true});
    if (skip_op("=")) {
      node->value = tuple({});
      return node;
    }
    node->kind = Statement::Kind::set_block;
    node->value = filters(nullptr, at_);
    node->body = inner_to("endset");
    return node;
  }

  void signature(Statement& node) {
    expect_op("(");
    while (!is_op(")")) {
      if (!node.parameters.empty()) expect_op(",");
      const ExpressionPtr name = name_target();
      for (const std::string& other : node.parameters)
        if (other == name->text) error_at(name->line, fmt::format("the parameter '{}' stands twice", name->text));
      if (skip_op("=")) node.defaults.push_back(expression());
      else if (!node.defaults.empty()) error("a parameter without a default follows one with a default");
      node.parameters.push_back(name->text);
    }
    next();
  }

  /// The body of a macro: loops outside do not reach into it.
  Body function_body(std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    Body statements = inner_to(end);
    loops_ = loops;
    return statements;
  }

  StatementPtr macro() {
    auto node = make_statement(Statement::Kind::macro, at_);
    next();
    node->text = name_target()->text;
    signature(*node);
    node->end = tokens_[at_ - 1].end;
    node->body = function_body("endmacro");
    return node;
  }

  StatementPtr call_block() {
    auto node = make_statement(Statement::Kind::call, at_);
    next();
    if (is_op("(")) signature(*node);
    node->value = expression();
    if (node->value->kind != Kind::call) error("a call block needs a call");
    node->end = tokens_[at_ - 1].end;
    node->body = function_body("endcall");
    return node;
  }

  StatementPtr generation() {
    auto node = make_statement(Statement::Kind::generation, at_);
    next();
    node->body = function_body("endgeneration");
    return node;
  }

  StatementPtr filter_block() {
    auto node = make_statement(Statement::Kind::filter, at_);
    next();
    node->value = filters(nullptr, at_, /*inline_first=*/true);
    node->end = tokens_[at_ - 1].end;
    node->body = inner_to("endfilter");
    return node;
  }

  StatementPtr with() {
    auto node = make_statement(Statement::Kind::with, at_);
    next();
    while (current().kind != Token::Kind::block_end) {
      if (!node->assignments.empty()) expect_op(",");
      ExpressionPtr name = target({});
      expect_op("=");
      node->assignments.emplace_back(std::move(name), expression());
    }
    node->end = tokens_[at_ - 1].end;
    node->body = inner_to("endwith");
    return node;
  }

  StatementPtr block() {
    auto node = make_statement(Statement::Kind::block, at_);
    next();
    node->text = expect_name();
    skip_word("scoped");
    skip_word("required");
    node->end = tokens_[at_ - 1].end;
    node->body = function_body("endblock");
    skip_word(node->text);
    if (!syntax_.blocks.emplace(node->text, node.get()).second) error(fmt::format("the block '{}' is defined twice", node->text));
    return node;
  }

  StatementPtr print() {
    auto node = make_statement(Statement::Kind::scope, at_);
    node->text = "print";
    next();
    while (current().kind != Token::Kind::block_end) {
      if (!node->body.empty()) expect_op(",");
      auto output = make_statement(Statement::Kind::output, at_);
      output->value = expression();
      output->end = tokens_[at_ - 1].end;
      node->body.push_back(std::move(output));
    }
    return node;
  }

  StatementPtr autoescape() {
    auto node = make_statement(Statement::Kind::scope, at_);
    next();
    const ExpressionPtr value = expression();
    if (value->kind != Kind::constant || value->value.is_true())
      error("automatic escaping is not supported: chat templates write plain text");
    node->body = inner_to("endautoescape");
    return node;
  }

  /// Other templates: read whole, refused when they are reached.
  StatementPtr refused(const std::string& tag) {
    auto node = make_statement(Statement::Kind::refused, at_);
    node->text = fmt::format("'{}' needs another template, and a chat template stands alone", tag);
    next();
    node->value = expression();
    while (current().kind == Token::Kind::name || is_op(",")) {
      if (is_word("as") || is_word("import")) {
        next();
        const size_t first = at_;
        node->parameters.push_back(expect_name());
        if (skip_word("as")) node->parameters.back() = expect_name();
        (void)first;
      } else if (skip_op(",")) {
        node->parameters.push_back(expect_name());
        if (skip_word("as")) node->parameters.back() = expect_name();
      } else {
        next();  // ignore missing, with context
      }
    }
    return node;
  }

  Syntax& syntax_;
  int loops_ = 0;
  std::vector<std::pair<std::string, int>> open_;
};

}  // namespace

std::shared_ptr<const Syntax> parse(std::string_view source) {
  if (source.size() > kMaxSource) fault("template.size", "the template has {} bytes, more than {}", source.size(), kMaxSource);
  int64_t broken = 0;
  utf8_repair(source, &broken);
  if (broken > 0) fault("template.encoding", "the template is not UTF-8 in {} places", broken);
  auto syntax = std::make_shared<Syntax>();
  syntax->source = normalise_lines(source);
  Parser(*syntax).run();
  resolve_scopes(*syntax);
  return syntax;
}

}  // namespace switchyard::jinja
