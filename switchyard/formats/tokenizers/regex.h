// Regular expressions of tokenizer files, by the PCRE2 library. Patterns are written for other engines, so they are
// translated first (regex_syntax.cpp): classes such as \s, \w and \p{Han}, set operations and anchors mean there what
// they mean in the engine the pattern was written for. Work is bounded: a pattern that would search too long on a text
// is an error.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "switchyard/formats/tokenizers/aligned_text.h"

namespace switchyard {

/// Where a pattern comes from: tokenizer.json (Oniguruma with Ruby's syntax), or tiktoken and GGUF (Perl's, as in Rust).
enum class RegexDialect { ruby, perl };

/// The pattern as PCRE2 reads it; throws tokenizer.regex.
std::string translate_regex(std::string_view pattern, RegexDialect dialect);

class Regex {
 public:
  /// Throws tokenizer.regex with the pattern and what is wrong with it.
  Regex(std::string pattern, RegexDialect dialect);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  /// Fills `matches` with the matches in `text` (well-formed UTF-8), from left to right; an empty match
  /// right after another one is left out. Throws tokenizer.regex when the search takes too long.
  void find_all(std::string_view text, std::vector<Span>& matches) const;
  const std::string& pattern() const { return pattern_; }

 private:
  struct Compiled;
  std::string pattern_;
  std::unique_ptr<Compiled> compiled_;
};

/// Exactly this text, as a pattern.
std::string quote_regex(std::string_view text);

}  // namespace switchyard
