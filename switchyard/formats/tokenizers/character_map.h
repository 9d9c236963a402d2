// The table of replacements that sentencepiece models carry ("precompiled_charsmap"): a double-array trie over UTF-8
// (Yata et al., Darts-clone) whose values point into a list of texts.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

class CharacterMap {
 public:
  CharacterMap() = default;
  /// Throws tokenizer.format when the bytes are no such table.
  explicit CharacterMap(std::string_view bytes);
  bool empty() const { return units_.empty(); }

  struct Match {
    size_t bytes = 0;  ///< of the text, 0: none
    std::string_view replacement;
  };
  Match longest(std::string_view text) const;   ///< the longest entry at the beginning of the text, as sentencepiece takes
  Match shortest(std::string_view text) const;  ///< the shortest one, as the Hugging Face library takes
  /// Whether an entry goes on where the text ends, so that more text could match more.
  bool goes_on(std::string_view text) const;

 private:
  /// Calls each(bytes, value) for the entries that begin the text; returns where those that go on behind it have their units, or 0.
  template <typename F>
  size_t walk(std::string_view text, F&& each) const;
  std::string_view text_at(uint32_t place) const;
  std::vector<uint32_t> units_;
  std::string texts_;  ///< each ends in a zero byte
};

}  // namespace switchyard
