// A regular expression over module names, in the part of Python's syntax that adapter configs use: literals, classes, groups,
// alternatives, repeats, anchors, lookahead. Only whether it matches is asked, so it runs as a set of states: time is length
// of pattern times length of name, whatever the pattern.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard::peft {

class NamePattern {
 public:
  /// Throws formats.peft.pattern for what is malformed, too large, or beyond this syntax (backreferences, lookbehind, flags).
  explicit NamePattern(std::string_view pattern);
  /// Whether the whole name matches.
  bool matches(std::string_view name) const;

 private:
  friend class PatternCompiler;
  struct State {
    enum class Kind { any, set, split, begin, end, word_edge, not_word_edge, ahead, not_ahead, match };
    Kind kind = Kind::match;
    int next = -1, other = -1;   ///< other: the second way of a split
    int set = -1;                ///< index into sets_; of a lookahead: its first state
  };
  using Set = std::vector<bool>;  ///< 256 bytes
  bool run(int start, std::string_view name, size_t from, bool to_the_end) const;
  void follow(int state, std::string_view name, size_t at, std::vector<int>& list, std::vector<bool>& seen) const;

  std::vector<State> states_;
  std::vector<Set> sets_;
  int start_ = 0;
};

}  // namespace switchyard::peft
