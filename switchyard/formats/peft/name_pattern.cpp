#include "switchyard/formats/peft/name_pattern.h"

#include <cctype>

#include "switchyard/base/error.h"

namespace switchyard::peft {

namespace {

constexpr int kDeepest = 64;          // nested groups
constexpr size_t kMostStates = 1 << 14;
constexpr int kMostRepeats = 1000;

bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }

}  // namespace

/// Recursive descent over the pattern; each part is built in front of the state that follows it.
class PatternCompiler {
 public:
  PatternCompiler(std::string_view text, NamePattern& out) : text_(text), out_(out) {}

  void compile() {
    const Tree tree = alternatives(0);
    check(at_ == text_.size(), "formats.peft.pattern", "'{}': a ) without its ( at {}", text_, at_);
    out_.start_ = build(tree, add({.kind = Kind::match}));
  }

 private:
  using Kind = NamePattern::State::Kind;
  using Set = NamePattern::Set;
  struct Tree {
    enum class What { empty, set, any, chain, either, repeat, assertion, ahead } what = What::empty;
    std::vector<Tree> parts;
    int set = -1, least = 0, most = -1;  ///< most -1: no bound
    Kind assertion = Kind::match;
  };

  template <typename... Args>
  [[noreturn]] void wrong(fmt::format_string<Args...> text, Args&&... args) const {
    fail("formats.peft.pattern", "'{}': {} at {}", text_, fmt::format(text, std::forward<Args>(args)...), at_);
  }

  bool more() const { return at_ < text_.size(); }
  bool take(std::string_view word) {
    if (!text_.substr(at_).starts_with(word)) return false;
    at_ += word.size();
    return true;
  }

  int add(NamePattern::State state) {
    if (out_.states_.size() >= kMostStates) wrong("it grows beyond {} states", kMostStates);
    out_.states_.push_back(state);
    return static_cast<int>(out_.states_.size()) - 1;
  }
  int add_set(Set set) {
    out_.sets_.push_back(std::move(set));
    return static_cast<int>(out_.sets_.size()) - 1;
  }

  Tree alternatives(int depth) {
    if (depth > kDeepest) wrong("groups nest deeper than {}", kDeepest);
    Tree either{.what = Tree::What::either};
    do either.parts.push_back(chain(depth));
    while (take("|"));
    return either.parts.size() == 1 ? std::move(either.parts.front()) : either;
  }

  Tree chain(int depth) {
    Tree chain{.what = Tree::What::chain};
    while (more() && text_[at_] != '|' && text_[at_] != ')') chain.parts.push_back(repeated(atom(depth)));
    return chain;
  }

  Tree repeated(Tree part) {
    int least = 0, most = 0;
    while (quantifier(least, most)) {
      if (part.what == Tree::What::repeat) wrong("a repeat of a repeat");
      take("?");  // lazy: the same names match
      if (take("+")) wrong("a possessive repeat is not supported");
      Tree repeat{.what = Tree::What::repeat, .least = least, .most = most};
      repeat.parts.push_back(std::move(part));
      part = std::move(repeat);
    }
    return part;
  }

  bool quantifier(int& least, int& most) {
    if (take("*")) return least = 0, most = -1, true;
    if (take("+")) return least = 1, most = -1, true;
    if (take("?")) return least = 0, most = 1, true;
    if (!more() || text_[at_] != '{') return false;
    size_t end = at_ + 1;
    const auto number = [&](int otherwise) {
      if (end >= text_.size() || !std::isdigit(static_cast<unsigned char>(text_[end]))) return otherwise;
      int value = 0;
      for (; end < text_.size() && std::isdigit(static_cast<unsigned char>(text_[end])); ++end) {
        value = value * 10 + (text_[end] - '0');
        if (value > kMostRepeats) wrong("more than {} repeats", kMostRepeats);
      }
      return value;
    };
    least = number(-1);
    most = least;
    if (end < text_.size() && text_[end] == ',') {
      ++end;
      most = number(-1);
      if (least < 0) least = most < 0 ? -1 : 0;
    }
    if (least < 0 || end >= text_.size() || text_[end] != '}') return false;  // a plain brace, as Python takes it
    if (most >= 0 && most < least) wrong("a repeat from {} to {}", least, most);
    at_ = end + 1;
    return true;
  }

  Tree atom(int depth) {
    if (take("(")) return group(depth);
    if (take("[")) return of_set(bracket());
    if (take(".")) return {.what = Tree::What::any};
    if (take("^")) return {.what = Tree::What::assertion, .assertion = Kind::begin};
    if (take("$")) return {.what = Tree::What::assertion, .assertion = Kind::end};
    if (take("\\")) return escape();
    if (std::string_view("*+?").find(text_[at_]) != std::string_view::npos) wrong("nothing to repeat");
    return literal(text_[at_++]);
  }

  Tree group(int depth) {
    Tree tree;
    if (take("?:")) {
      tree = alternatives(depth + 1);
    } else if (take("?=") || take("?!")) {
      const bool wanted = text_[at_ - 1] == '=';
      if (ahead_) wrong("a lookahead inside a lookahead is not supported");
      ahead_ = true;
      tree = {.what = Tree::What::ahead, .assertion = wanted ? Kind::ahead : Kind::not_ahead};
      tree.parts.push_back(alternatives(depth + 1));
      ahead_ = false;
    } else if (take("?P<")) {
      const size_t close = text_.find('>', at_);
      if (close == std::string_view::npos) wrong("a group's name without its >");
      at_ = close + 1;
      tree = alternatives(depth + 1);
    } else {
      if (more() && text_[at_] == '?') wrong("this kind of group is not supported");
      tree = alternatives(depth + 1);
    }
    if (!take(")")) wrong("a ( without its )");
    // A group may be repeated though what is in it is a repeat.
    Tree whole{.what = Tree::What::chain};
    whole.parts.push_back(std::move(tree));
    return whole;
  }

  Tree of_set(Set set) { return {.what = Tree::What::set, .set = add_set(std::move(set))}; }
  Tree literal(char c) {
    Set set(256);
    set[static_cast<unsigned char>(c)] = true;
    return of_set(std::move(set));
  }

  /// \d \w \s and their complements.
  static bool class_of(char letter, Set& set) {
    const auto add = [&](auto member, bool complement) {
      for (int c = 0; c < 256; ++c)
        if (member(static_cast<char>(c)) != complement) set[static_cast<size_t>(c)] = true;
    };
    const auto digit = [](char c) { return c >= '0' && c <= '9'; };
    const auto space = [](char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; };
    switch (letter) {
      case 'd': case 'D': add(digit, letter == 'D'); return true;
      case 'w': case 'W': add(is_word, letter == 'W'); return true;
      case 's': case 'S': add(space, letter == 'S'); return true;
      default: return false;
    }
  }
  static char escaped(char letter) {
    switch (letter) {
      case 'n': return '\n';
      case 't': return '\t';
      case 'r': return '\r';
      default: return letter;
    }
  }

  Tree escape() {
    if (!more()) wrong("a \\ at the end");
    const char letter = text_[at_++];
    if (letter == 'b') return {.what = Tree::What::assertion, .assertion = Kind::word_edge};
    if (letter == 'B') return {.what = Tree::What::assertion, .assertion = Kind::not_word_edge};
    if (letter == 'A') return {.what = Tree::What::assertion, .assertion = Kind::begin};
    if (letter == 'Z') return {.what = Tree::What::assertion, .assertion = Kind::end};
    Set set(256);
    if (class_of(letter, set)) return of_set(std::move(set));
    if (std::isalnum(static_cast<unsigned char>(letter)) && std::string_view("ntr").find(letter) == std::string_view::npos)
      wrong("\\{} is not supported", letter);
    return literal(escaped(letter));
  }

  Set bracket() {
    Set set(256);
    const bool complement = take("^");
    for (bool first = true;; first = false) {
      if (!more()) wrong("a [ without its ]");
      if (text_[at_] == ']' && !first) break;
      char low = text_[at_++];
      if (low == '\\') {
        if (!more()) wrong("a [ without its ]");
        low = text_[at_++];
        if (class_of(low, set)) continue;
        low = escaped(low);
      }
      char high = low;
      if (at_ + 1 < text_.size() && text_[at_] == '-' && text_[at_ + 1] != ']') {
        high = text_[at_ + 1];
        at_ += 2;
        if (high == '\\') {
          if (!more()) wrong("a [ without its ]");
          high = escaped(text_[at_++]);
        }
      }
      if (static_cast<unsigned char>(high) < static_cast<unsigned char>(low)) wrong("a range from {} to {}", low, high);
      for (int c = static_cast<unsigned char>(low); c <= static_cast<unsigned char>(high); ++c) set[static_cast<size_t>(c)] = true;
    }
    ++at_;
    if (complement) set.flip();
    return set;
  }

  /// The first state of `tree` before `next`.
  int build(const Tree& tree, int next) {
    if (++built_ > 8 * kMostStates) wrong("its repeats grow too large");
    switch (tree.what) {
      case Tree::What::empty: return next;
      case Tree::What::set: return add({.kind = Kind::set, .next = next, .set = tree.set});
      case Tree::What::any: return add({.kind = Kind::any, .next = next});
      case Tree::What::assertion: return add({.kind = tree.assertion, .next = next});
      case Tree::What::ahead: {
        const int inner = build(tree.parts[0], add({.kind = Kind::match}));
        return add({.kind = tree.assertion, .next = next, .set = inner});
      }
      case Tree::What::chain:
        for (size_t i = tree.parts.size(); i-- > 0;) next = build(tree.parts[i], next);
        return next;
      case Tree::What::either: {
        int first = build(tree.parts.back(), next);
        for (size_t i = tree.parts.size() - 1; i-- > 0;) {
          const int branch = build(tree.parts[i], next);
          first = add({.kind = Kind::split, .next = branch, .other = first});
        }
        return first;
      }
      case Tree::What::repeat: break;
    }
    const Tree& part = tree.parts[0];
    int first = next;
    if (tree.most < 0) {
      const int loop = add({.kind = Kind::split, .other = next});
      const int inner = build(part, loop);
      out_.states_[static_cast<size_t>(loop)].next = inner;
      first = loop;
    }
    for (int i = tree.least; i < tree.most; ++i) {
      const int inner = build(part, first);
      first = add({.kind = Kind::split, .next = inner, .other = next});
    }
    for (int i = 0; i < tree.least; ++i) first = build(part, first);
    return first;
  }

  std::string_view text_;
  size_t at_ = 0, built_ = 0;
  bool ahead_ = false;
  NamePattern& out_;
};

NamePattern::NamePattern(std::string_view pattern) {
  check(pattern.size() <= 1 << 16, "formats.peft.pattern", "a pattern of {} bytes is too long", pattern.size());
  PatternCompiler(pattern, *this).compile();
}

void NamePattern::follow(int first, std::string_view name, size_t at, std::vector<int>& list, std::vector<bool>& seen) const {
  std::vector<int> open{first};
  while (!open.empty()) {
    const int index = open.back();
    open.pop_back();
    if (seen[static_cast<size_t>(index)]) continue;
    seen[static_cast<size_t>(index)] = true;
    const State& state = states_[static_cast<size_t>(index)];
    const bool edge = (at > 0 && is_word(name[at - 1])) != (at < name.size() && is_word(name[at]));
    switch (state.kind) {
      case State::Kind::split: open.push_back(state.other); open.push_back(state.next); break;
      case State::Kind::begin: if (at == 0) open.push_back(state.next); break;
      case State::Kind::end: if (at == name.size()) open.push_back(state.next); break;
      case State::Kind::word_edge: if (edge) open.push_back(state.next); break;
      case State::Kind::not_word_edge: if (!edge) open.push_back(state.next); break;
      case State::Kind::ahead: if (run(state.set, name, at, false)) open.push_back(state.next); break;
      case State::Kind::not_ahead: if (!run(state.set, name, at, false)) open.push_back(state.next); break;
      case State::Kind::any: case State::Kind::set: case State::Kind::match: list.push_back(index); break;
    }
  }
}

bool NamePattern::run(int start, std::string_view name, size_t from, bool to_the_end) const {
  std::vector<int> now, then;
  std::vector<bool> seen(states_.size());
  follow(start, name, from, now, seen);
  for (size_t at = from;; ++at) {
    for (const int index : now)
      if (states_[static_cast<size_t>(index)].kind == State::Kind::match && (!to_the_end || at == name.size())) return true;
    if (at == name.size() || now.empty()) return false;
    then.clear();
    seen.assign(states_.size(), false);
    for (const int index : now) {
      const State& state = states_[static_cast<size_t>(index)];
      const bool fits = state.kind == State::Kind::any
                            ? name[at] != '\n'
                            : state.kind == State::Kind::set && sets_[static_cast<size_t>(state.set)][static_cast<unsigned char>(name[at])];
      if (fits) follow(state.next, name, at + 1, then, seen);
    }
    std::swap(now, then);
  }
}

bool NamePattern::matches(std::string_view name) const { return run(start_, name, 0, true); }

}  // namespace switchyard::peft
