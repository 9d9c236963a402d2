// The vocabulary and the merges of a tokenizer.json are nearly all of it: a quarter of a million short texts. They are read
// straight into lists here, several times as fast as into JSON values; the few lines around them remain to be parsed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace switchyard {

struct LongLists {
  /// "model.vocab": an object of tokens and ids, or a list of pairs of token and score.
  std::optional<std::vector<std::pair<std::string, int64_t>>> ids;
  std::optional<std::vector<std::pair<std::string, double>>> scores;
  std::optional<std::vector<std::pair<std::string, std::string>>> merges;  ///< "model.merges", of either form
  std::string rest;  ///< the text with nothing in those
};

/// None when the text is no JSON, or written in a way that only the full parser judges: keys twice, numbers out of range, texts that
/// are not UTF-8, merges that are no two tokens. Of tokens that stand twice both are given.
std::optional<LongLists> take_long_lists(std::string_view json);

}  // namespace switchyard
