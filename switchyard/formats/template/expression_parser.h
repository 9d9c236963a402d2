// The expression half of Jinja's grammar, on which the parser of statements stands (parser.cpp).
#pragma once

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "switchyard/formats/template/budget.h"
#include "switchyard/formats/template/lexer.h"
#include "switchyard/formats/template/syntax.h"

namespace switchyard::jinja {

using Words = std::initializer_list<std::string_view>;

/// Most levels that expressions nest.
inline constexpr int kMaxDepthOfExpressions = 200;

class ExpressionParser {
 public:
  explicit ExpressionParser(const std::string& source) : tokens_(tokenize(source)) {}

 protected:
  using Kind = Expression::Kind;

  /// Guards the recursion of the parser itself.
  struct Deeper {
    explicit Deeper(ExpressionParser& parser) : parser(parser) {
      if (++parser.depth_ > kMaxDepthOfExpressions)
        throw Fault{"template.depth", fmt::format("an expression nests more than {} levels deep", kMaxDepthOfExpressions), parser.current().line, {}};
    }
    ~Deeper() { --parser.depth_; }
    ExpressionParser& parser;
  };

  struct TupleRules {
    bool names_only = false, conditions = true, parentheses = false, spaces = false;
    std::string_view end = {};  ///< a word that ends it
  };

  const Token& current() const { return tokens_[at_]; }
  const Token& ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  const Token& next() { return at_ + 1 < tokens_.size() ? tokens_[at_++] : tokens_.back(); }
  bool is_op(std::string_view op) const { return current().kind == Token::Kind::op && current().text == op; }
  bool is_word(std::string_view word) const { return current().kind == Token::Kind::name && current().text == word; }
  bool is_any(const Words& words) const {
    return std::any_of(words.begin(), words.end(), [&](std::string_view word) { return is_word(word); });
  }
  bool skip_op(std::string_view op) { return is_op(op) && (next(), true); }
  bool skip_word(std::string_view word) { return is_word(word) && (next(), true); }
  [[noreturn]] void error(std::string reason) const { error_at(current().line, std::move(reason)); }
  [[noreturn]] static void error_at(int line, std::string reason);
  static std::string described(const Token& token);
  void expect_op(std::string_view op);
  std::string expect_name();
  void expect_block_end();
  ExpressionPtr make(Kind kind, size_t first);
  /// Its end in the source is what was read last; its depth one more than its parts'.
  void finish(Expression& node);
  ExpressionPtr join(Kind kind, size_t first, ExpressionPtr a, ExpressionPtr b);
  ExpressionPtr expression(bool conditions = true);
  ExpressionPtr condition();
  ExpressionPtr either();
  ExpressionPtr both();
  ExpressionPtr negation();
  bool comparing(Expression::Compare& compare);
  ExpressionPtr comparison();
  ExpressionPtr sum();
  ExpressionPtr concatenation();
  ExpressionPtr product();
  ExpressionPtr power();
  ExpressionPtr unary(bool with_filters);
  ExpressionPtr constant(Value value, size_t first);
  ExpressionPtr primary(bool assigned);
  /// One expression, or several with commas between.
  ExpressionPtr tuple(const TupleRules& rules);
  ExpressionPtr list();
  ExpressionPtr dictionary();
  ExpressionPtr postfix(ExpressionPtr node, size_t first);
  ExpressionPtr filters_and_tests(ExpressionPtr node, size_t first);
  ExpressionPtr call(ExpressionPtr callee, size_t first);
  ExpressionPtr subscript(ExpressionPtr object, size_t first);
  /// What stands between brackets: an expression, or a slice (its parts: from, to, step, each may be absent).
  ExpressionPtr subscribed();
  CallArguments call_arguments();
  std::string dotted_name();
  /// node: null in front of a block whose text is filtered; inline_first: the first one has no '|'.
  ExpressionPtr filters(ExpressionPtr node, size_t first, bool inline_first = false);
  ExpressionPtr test(ExpressionPtr value, size_t first);

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace switchyard::jinja
