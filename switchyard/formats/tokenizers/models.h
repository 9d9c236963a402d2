// Token models: how a word becomes tokens. BPE (Sennrich et al. 2016), the unigram model (Kudo 2018), WordPiece (Schuster
// and Nakajima 2012) and whole words. Ids are those of the reference libraries, tie by tie.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "switchyard/formats/tokenizers/aligned_text.h"

namespace switchyard {

/// Tokens by id and ids by token. Ids may have holes.
class Vocabulary {
 public:
  Vocabulary() = default;
  /// (token, id) pairs; throws tokenizer.format for an id given twice or far beyond the number of tokens, a token given
  /// twice, or one that is not UTF-8.
  explicit Vocabulary(std::vector<std::pair<std::string, int64_t>> tokens);
  static Vocabulary of_list(std::vector<std::string> tokens);  ///< ids in order
  /// The same where a token may stand twice, and means its last id.
  static Vocabulary of_list_with_repeats(std::vector<std::string> tokens);

  int64_t size() const { return static_cast<int64_t>(tokens_.size()); }  ///< the highest id plus one
  int64_t count() const { return count_; }                                ///< tokens
  bool repeats() const { return static_cast<int64_t>(ids_.size()) < count_; }  ///< a token stands twice
  int32_t id(std::string_view token) const;                               ///< or -1
  bool has(int64_t id) const { return id >= 0 && id < size() && present_[static_cast<size_t>(id)]; }
  const std::string& token(int64_t id) const { return tokens_[static_cast<size_t>(id)]; }

 private:
  void add(std::string token, int64_t id, bool repeats);
  void reserve(size_t tokens, int64_t highest);
  std::vector<std::string> tokens_;
  std::vector<bool> present_;
  std::unordered_map<std::string_view, int32_t> ids_;  ///< keys lie in tokens_
  int64_t count_ = 0;
};

/// A token of a text: its id and the bytes of Words::text that it stands for. `literal`: it is shown as those bytes, not as
/// the vocabulary spells it. `loose`: it stands for what its model put into a word, and has the bytes of the whole text that the
/// reference library gives it.
struct Piece {
  int32_t id = 0;
  uint32_t begin = 0, end = 0;
  bool literal = false, loose = false;
};

class TokenModel {
 public:
  virtual ~TokenModel() = default;
  /// Appends the tokens of all words. Throws tokenizer.unknown for a word that the vocabulary cannot spell when it has no
  /// token for the unknown.
  virtual void encode(const Words& words, std::vector<Piece>& pieces) const = 0;
  /// Whether words may be bytes that stand for symbols; otherwise these are written before it sees them.
  virtual bool reads_symbols() const { return false; }
  const Vocabulary& vocabulary() const { return vocabulary_; }

 protected:
  explicit TokenModel(Vocabulary vocabulary) : vocabulary_(std::move(vocabulary)) {}
  Vocabulary vocabulary_;
};

struct BpeOptions {
  std::string unknown_token;                      ///< empty: characters without a token vanish
  std::string continuing_prefix, end_suffix;      ///< of a word's later characters; of its last one
  bool fuse_unknown = false, byte_fallback = false;
  bool ignore_merges = false;                     ///< a word that is a token is that token
};
/// `merges`: pairs of tokens, best first; throws tokenizer.format when one or its result is no token.
std::unique_ptr<TokenModel> make_bpe(Vocabulary vocabulary, const std::vector<std::pair<std::string, std::string>>& merges,
                                     const BpeOptions& options);
/// As make_bpe, with the ids of pairs and of what they become; `merges[i]` has rank i.
struct Merge {
  int32_t left = 0, right = 0, rank = 0, result = 0;
};
std::unique_ptr<TokenModel> make_bpe(Vocabulary vocabulary, const std::vector<Merge>& merges, const BpeOptions& options);

struct UnigramOptions {
  std::optional<int64_t> unknown;
  bool byte_fallback = false;
};
std::unique_ptr<TokenModel> make_unigram(Vocabulary vocabulary, std::vector<double> scores, const UnigramOptions& options);

struct WordPieceOptions {
  std::string unknown_token = "[UNK]", continuing_prefix = "##";
  uint64_t longest_word = 100;  ///< in characters; longer ones are unknown
};
std::unique_ptr<TokenModel> make_word_piece(Vocabulary vocabulary, const WordPieceOptions& options);
std::unique_ptr<TokenModel> make_word_level(Vocabulary vocabulary, const std::string& unknown_token);

}  // namespace switchyard
