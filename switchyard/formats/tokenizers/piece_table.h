// Tokenizers that a recipe trains, as data: pieces of text with a token for each byte to fall back on, in byte-pair encoding
// or the unigram model. Text is not normalised. Written as the files that the Hugging Face library reads.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "switchyard/formats/tokenizer.h"

namespace switchyard {

struct PieceTable {
  TokenizerKind kind = TokenizerKind::bpe;
  std::vector<std::string> tokens;                  ///< by id; spaces are spaces, bytes are "<0x0A>"
  std::vector<std::pair<int32_t, int32_t>> merges;  ///< bpe: pairs of ids, first merged first
  std::vector<double> scores;                       ///< unigram: log probabilities by id
  int64_t unknown = 0;
  std::optional<int64_t> begin, end;
  std::string sentencepiece;                        ///< the same as a sentencepiece model file, or empty
};

/// tokenizer.json, tokenizer_config.json, special_tokens_map.json and, where there is one, tokenizer.model; name → content.
std::map<std::string, std::string> piece_table_files(const PieceTable& table);

/// The tokenizer of a table; throws tokenizer.format.
std::shared_ptr<Tokenizer> make_tokenizer(const PieceTable& table);

}  // namespace switchyard
