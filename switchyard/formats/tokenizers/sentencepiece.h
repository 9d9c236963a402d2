// The sentencepiece library's tokenizers as data: a model file (tokenizer.model, spiece.model), or the same lists in a GGUF
// file. Ids are those of the library, whose search they are written after; the library itself is not trusted with files
// from elsewhere.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "switchyard/formats/tokenizers/pipeline.h"

namespace switchyard {

struct SentencePieceTable {
  enum class Kind { unigram = 1, bpe = 2, word = 3, character = 4 };
  enum Type : uint8_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };
  Kind kind = Kind::unigram;
  std::vector<std::string> pieces;
  std::vector<float> scores;   ///< by id
  std::vector<uint8_t> types;  ///< by id
  bool byte_fallback = false;
  bool add_dummy_prefix = true, remove_extra_whitespaces = true, escape_whitespaces = true;
  bool whitespace_as_suffix = false;
  std::string character_map;                        ///< may be empty
  std::string unknown_surface = " \xE2\x81\x87 ";   ///< what the unknown token is decoded to
  int64_t begin = -1, end = -1;                     ///< ids, -1: none
  std::shared_ptr<const SentencePieceTable> denormaliser;  ///< its character map and flags change decoded text; null: nothing does
};

/// Throws tokenizer.format.
SentencePieceTable read_sentencepiece_model(std::string_view model, const std::string& source);
/// A model file of a table, which the library reads.
std::string write_sentencepiece_model(const SentencePieceTable& table);
/// Normaliser, model and decoder of a table; throws tokenizer.format when it does not hold together.
TokenizerParts parts_of(SentencePieceTable table, const std::string& source);

/// The searches. `searched` pieces are found in a text; the unknown token stands for what is not.
std::unique_ptr<TokenModel> make_scored_bpe(const SentencePieceTable& table);
std::unique_ptr<TokenModel> make_sentencepiece_unigram(const SentencePieceTable& table);
std::unique_ptr<TokenModel> make_piece_words(const SentencePieceTable& table);  ///< words or characters

}  // namespace switchyard
