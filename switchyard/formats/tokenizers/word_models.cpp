// WordPiece, which takes the longest token that fits from left to right, and the model whose tokens are whole words.
#include <algorithm>

#include "switchyard/base/error.h"
#include "switchyard/formats/tokenizers/models.h"
#include "switchyard/formats/tokenizers/trie.h"
#include "switchyard/formats/utf8.h"

namespace switchyard {
namespace {

class WordPiece : public TokenModel {
 public:
  WordPiece(Vocabulary vocabulary, const WordPieceOptions& options) : TokenModel(std::move(vocabulary)), options_(options) {
    unknown_ = vocabulary_.id(options_.unknown_token);
    for (int64_t id = 0; id < vocabulary_.size(); ++id) {
      if (!vocabulary_.has(id)) continue;
      const std::string_view token = vocabulary_.token(id);
      first_.add(token, static_cast<int32_t>(id));
      if (token.starts_with(options_.continuing_prefix))
        later_.add(token.substr(options_.continuing_prefix.size()), static_cast<int32_t>(id));
    }
  }

  void encode(const Words& words, std::vector<Piece>& pieces) const override {
    for (size_t i = 0; i < words.spans.size(); ++i) {
      const std::string_view word = words.word(i);
      const size_t first = pieces.size();
      const auto characters = static_cast<uint64_t>(std::count_if(word.begin(), word.end(), [](char c) { return !utf8_continues(c); }));
      if (characters <= options_.longest_word && encode_word(word, words.spans[i].begin, pieces)) continue;
      pieces.resize(first);
      check(unknown_ >= 0, "tokenizer.unknown", "the unknown token \"{}\" is not in the vocabulary", options_.unknown_token);
      pieces.push_back({unknown_, words.spans[i].begin, words.spans[i].end, false});
    }
  }

 private:
  bool encode_word(std::string_view word, uint32_t begin, std::vector<Piece>& pieces) const {
    for (size_t at = 0; at < word.size();) {
      size_t longest = 0;
      int32_t best = -1;
      (at == 0 ? first_ : later_).walk(word.substr(at), [&](size_t bytes, int32_t id) {
        longest = bytes;
        best = id;
        return true;
      });
      if (best < 0) return false;
      pieces.push_back({best, begin + static_cast<uint32_t>(at), begin + static_cast<uint32_t>(at + longest), false});
      at += longest;
    }
    return true;
  }

  WordPieceOptions options_;
  int32_t unknown_ = -1;
  Trie first_, later_;
};

class WordLevel : public TokenModel {
 public:
  WordLevel(Vocabulary vocabulary, std::string unknown_token)
      : TokenModel(std::move(vocabulary)), unknown_token_(std::move(unknown_token)), unknown_(vocabulary_.id(unknown_token_)) {}

  void encode(const Words& words, std::vector<Piece>& pieces) const override {
    for (size_t i = 0; i < words.spans.size(); ++i) {
      int32_t id = vocabulary_.id(words.word(i));
      if (id < 0) id = unknown_;
      check(id >= 0, "tokenizer.unknown", "\"{}\" is not in the vocabulary, and neither is the unknown token \"{}\"", words.word(i),
            unknown_token_);
      pieces.push_back({id, words.spans[i].begin, words.spans[i].end, false});
    }
  }

 private:
  std::string unknown_token_;
  int32_t unknown_;
};

}  // namespace

std::unique_ptr<TokenModel> make_word_piece(Vocabulary vocabulary, const WordPieceOptions& options) {
  return std::make_unique<WordPiece>(std::move(vocabulary), options);
}

std::unique_ptr<TokenModel> make_word_level(Vocabulary vocabulary, const std::string& unknown_token) {
  return std::make_unique<WordLevel>(std::move(vocabulary), unknown_token);
}

}  // namespace switchyard
