// The unigram model: the segmentation of highest probability (Viterbi), the first found among equals, sums in double
// precision as in the Hugging Face library.
#include <algorithm>
#include <limits>

#include "switchyard/base/error.h"
#include "switchyard/formats/tokenizers/byte_symbols.h"
#include "switchyard/formats/tokenizers/models.h"
#include "switchyard/formats/tokenizers/trie.h"
#include "switchyard/formats/utf8.h"

namespace switchyard {
namespace {

constexpr double kUnknownPenalty = 10;

class Unigram : public TokenModel {
 public:
  Unigram(Vocabulary vocabulary, std::vector<double> scores, const UnigramOptions& options)
      : TokenModel(std::move(vocabulary)), scores_(std::move(scores)), unknown_(static_cast<int32_t>(options.unknown.value_or(-1))),
        byte_fallback_(options.byte_fallback) {
    double lowest = std::numeric_limits<double>::infinity();
    for (const double score : scores_) lowest = std::min(lowest, score);
    unknown_score_ = lowest - kUnknownPenalty;
    for (int64_t id = 0; id < vocabulary_.size(); ++id) trie_.add(vocabulary_.token(id), static_cast<int32_t>(id));
    for (int byte = 0; byte < 256; ++byte) byte_ids_[static_cast<size_t>(byte)] = vocabulary_.id(byte_token(byte));
  }

  void encode(const Words& words, std::vector<Piece>& pieces) const override {
    std::vector<Best> best;
    for (size_t i = 0; i < words.spans.size(); ++i) encode_word(words.word(i), words.spans[i].begin, best, pieces);
  }

 private:
  struct Best {
    double score = 0;
    int64_t from = -1;
    int32_t id = -1;
  };

  void encode_word(std::string_view word, uint32_t begin, std::vector<Best>& best, std::vector<Piece>& pieces) const {
    best.assign(word.size() + 1, {});
    for (size_t at = 0; at < word.size();) {
      const size_t character = utf8_length(word[at]);
      const double here = best[at].score;
      const auto offer = [&](size_t end, double score, int32_t id) {
        Best& target = best[end];
        if (target.from < 0 || score > target.score) target = {score, static_cast<int64_t>(at), id};
      };
      bool single = false;
      trie_.walk(word.substr(at), [&](size_t bytes, int32_t id) {
        offer(at + bytes, scores_[static_cast<size_t>(id)] + here, id);
        single |= bytes == character;
        return true;
      });
      if (!single) {
        check(unknown_ >= 0, "tokenizer.unknown", "\"{}\" is not in the vocabulary, which has no token for the unknown",
              word.substr(at, character));
        offer(at + character, unknown_score_ + here, unknown_);
      }
      at += character;
    }
    // Backwards, with neighbouring unknowns joined.
    const size_t first = pieces.size();
    for (size_t end = word.size(); end > 0;) {
      const Best& last = best[end];
      auto from = static_cast<size_t>(last.from);
      if (last.id == unknown_)
        while (from > 0 && best[from].id == unknown_) from = static_cast<size_t>(best[from].from);
      add(word.substr(from, end - from), begin + static_cast<uint32_t>(from), last.id, pieces);
      end = from;
    }
    std::reverse(pieces.begin() + static_cast<std::ptrdiff_t>(first), pieces.end());
  }

  /// Adds a piece, or the bytes of an unknown one (in reverse).
  void add(std::string_view text, uint32_t begin, int32_t id, std::vector<Piece>& pieces) const {
    const uint32_t end = begin + static_cast<uint32_t>(text.size());
    if (id != unknown_) {
      pieces.push_back({id, begin, end, false});
      return;
    }
    if (const int32_t whole = vocabulary_.id(text); whole >= 0) {  // unknowns that are a token together
      pieces.push_back({whole, begin, end, false});
      return;
    }
    const auto known = [&](char byte) { return byte_ids_[static_cast<unsigned char>(byte)] >= 0; };
    if (byte_fallback_ && std::all_of(text.begin(), text.end(), known)) {
      for (size_t i = text.size(); i-- > 0;) pieces.push_back({byte_ids_[static_cast<unsigned char>(text[i])], begin, end, false});
      return;
    }
    pieces.push_back({unknown_, begin, end, true});
  }

  std::vector<double> scores_;
  double unknown_score_ = 0;
  int32_t unknown_ = -1;
  bool byte_fallback_ = false;
  std::array<int32_t, 256> byte_ids_{};
  Trie trie_;
};

}  // namespace

std::unique_ptr<TokenModel> make_unigram(Vocabulary vocabulary, std::vector<double> scores, const UnigramOptions& options) {
  check(static_cast<int64_t>(scores.size()) == vocabulary.size(), "tokenizer.format", "{} scores for {} tokens", scores.size(),
        vocabulary.size());
  for (const double score : scores)
    check(score == score, "tokenizer.format", "a score of the unigram model is not a number");
  check(!options.unknown || (*options.unknown >= 0 && *options.unknown < vocabulary.size()), "tokenizer.format",
        "unk_id is {}, but the vocabulary has {} tokens", options.unknown.value_or(-1), vocabulary.size());
  return std::make_unique<Unigram>(std::move(vocabulary), std::move(scores), options);
}

}  // namespace switchyard
