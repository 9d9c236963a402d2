// Pre-tokenizers: what cuts a normalised text into words, and may change them. Each is a function; a list runs in order.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "switchyard/formats/tokenizers/aligned_text.h"

namespace switchyard {

using PreTokenizer = std::function<void(Words&)>;

/// Fills the places in a word (well-formed UTF-8, not empty) at which it is cut.
using Finder = std::function<void(std::string_view word, std::vector<Span>& matches)>;

/// What becomes of the places that were found ("the-final--countdown" cut at "-").
enum class SplitBehavior {
  removed,               ///< the final countdown
  isolated,              ///< the - final - - countdown
  merged_with_previous,  ///< the- final- - countdown
  merged_with_next,      ///< the -final - -countdown
  contiguous             ///< the - final -- countdown
};

/// A pattern as a finder: a hand-written matcher where there is one for it, else PCRE2. Throws tokenizer.regex.
Finder find_pattern(const std::string& pattern);
Finder find_text(std::string text);                          ///< exactly this text
Finder find_characters(std::function<bool(char32_t)> wanted);  ///< each such character

/// `inverted`: what the finder leaves is what was found.
PreTokenizer split(Finder finder, SplitBehavior behavior, bool inverted = false);

struct ByteLevel {
  bool add_prefix_space = true, use_regex = true;
};
/// Leaves the words as bytes that stand for symbols.
PreTokenizer byte_level(ByteLevel options);
/// Writes the symbols of words that have them: for whatever reads text after byte_level.
void write_symbols(Words& words);

enum class PrependScheme { always, first, never };
/// Spaces become `replacement`, which is put before a word as `scheme` says; cut before each when `split`.
PreTokenizer metaspace(std::string replacement, PrependScheme scheme, bool split);

PreTokenizer whitespace();        ///< \w+|[^\w\s]+
PreTokenizer whitespace_split();
PreTokenizer punctuation(SplitBehavior behavior);
PreTokenizer digits(bool individual);
PreTokenizer bert_pre_tokenizer();
PreTokenizer fixed_length(size_t characters);
PreTokenizer unicode_scripts();   ///< cut where the script changes; blanks belong to what is before them

}  // namespace switchyard
