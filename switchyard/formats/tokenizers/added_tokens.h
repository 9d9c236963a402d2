// Added tokens: texts that are found before anything else looks at a text, and become one token each.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "switchyard/formats/tokenizers/models.h"
#include "switchyard/formats/tokenizers/normalisers.h"
#include "switchyard/formats/tokenizers/trie.h"

namespace switchyard {

struct AddedToken {
  std::string content;
  bool single_word = false;  ///< not inside a word
  bool left_strip = false, right_strip = false;  ///< takes the white space beside it along
  bool normalised = true;    ///< looked for after normalisation
  bool special = false;      ///< left out of decoded text when asked; plain text where special tokens are not parsed
};

class AddedTokens {
 public:
  /// A token has the id that is asked for, else the one that the model's vocabulary gives it, or a new one.
  void add(AddedToken token, const TokenModel& model, const std::vector<Normaliser>& normalisers, std::optional<int64_t> id = {});

  struct Part {
    size_t begin = 0, end = 0;
    int32_t id = -1;  ///< -1: text between tokens
  };
  /// Cuts a text at its tokens: those that are looked for before or after normalisation, leftmost and longest first.
  std::vector<Part> find(std::string_view text, bool after_normalisation, bool parse_special) const;

  int32_t id(std::string_view content) const;
  /// The token as decoders see it, or nullptr.
  const std::string* decoded(int64_t id) const;
  bool special(std::string_view content) const;
  int64_t size() const { return size_; }  ///< the highest id plus one, the model's included
  const std::unordered_map<int64_t, AddedToken>& tokens() const { return tokens_; }

 private:
  std::unordered_map<int64_t, AddedToken> tokens_;
  std::unordered_map<int64_t, std::string> spelling_;  ///< after normalisation, where it changes
  std::unordered_map<std::string, int32_t> ids_;
  Trie before_, after_;
  int32_t nothing_ = -1;  ///< the token that normalisation leaves nothing of, which cuts a text at every character
  int64_t size_ = 0, next_ = -1;
};

}  // namespace switchyard
