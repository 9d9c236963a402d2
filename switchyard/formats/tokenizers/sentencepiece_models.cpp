// Searches of the sentencepiece library: BPE that merges by score, unigram in single precision, words and characters.
#include <algorithm>
#include <limits>
#include <queue>

#include "switchyard/base/error.h"
#include "switchyard/formats/tokenizers/byte_symbols.h"
#include "switchyard/formats/tokenizers/sentencepiece.h"
#include "switchyard/formats/tokenizers/trie.h"
#include "switchyard/formats/utf8.h"

namespace switchyard {
namespace {

using Table = SentencePieceTable;

/// What the searches share: pieces by text, user-defined symbols, and how unknown text is written.
class PieceModel : public TokenModel {
 protected:
  explicit PieceModel(const Table& table) : TokenModel(Vocabulary::of_list(table.pieces)), types_(table.types), scores_(table.scores) {
    for (size_t id = 0; id < types_.size(); ++id) {
      const auto place = static_cast<int32_t>(id);
      if (types_[id] == Table::kUnknown) unknown_ = place;
      if (types_[id] == Table::kUserDefined) symbols_.add(table.pieces[id], place);
      if (types_[id] == Table::kByte) byte_ids_[static_cast<size_t>(byte_of_token(table.pieces[id]))] = place;
    }
    byte_fallback_ = table.byte_fallback;
  }

  bool ordinary(int32_t id) const {
    const uint8_t type = types_[static_cast<size_t>(id)];
    return type == Table::kNormal || type == Table::kUserDefined || type == Table::kUnused;
  }
  /// The id of a piece of text, or -1.
  int32_t piece_id(std::string_view text) const {
    const int32_t id = vocabulary_.id(text);
    return id >= 0 && ordinary(id) ? id : -1;
  }
  /// Bytes of the user-defined symbol that a text begins with, or of its first character.
  size_t first_symbol(std::string_view text, bool& defined) const {
    size_t length = 0;
    symbols_.walk(text, [&](size_t bytes, int32_t) {
      length = bytes;
      return true;
    });
    defined = length > 0;
    return defined ? length : utf8_length(text[0]);
  }

  /// Appends a piece; id -1 is unknown text, which is written as bytes or joined with the unknown text before it.
  void add(std::string_view text, uint32_t begin, int32_t id, std::vector<Piece>& pieces) const {
    const uint32_t end = begin + static_cast<uint32_t>(text.size());
    if (id >= 0 && id != unknown_) {
      pieces.push_back({id, begin, end, false});
    } else if (byte_fallback_) {
      for (const char byte : text) pieces.push_back({byte_ids_[static_cast<unsigned char>(byte)], begin, end, false});
    } else if (!pieces.empty() && pieces.back().id == unknown_ && pieces.back().end == begin) {
      pieces.back().end = end;
    } else {
      pieces.push_back({unknown_, begin, end, false});
    }
  }

  std::vector<uint8_t> types_;
  std::vector<float> scores_;
  std::array<int32_t, 256> byte_ids_{};
  bool byte_fallback_ = false;
  int32_t unknown_ = -1;
  Trie symbols_;
};

class ScoredBpe : public PieceModel {
 public:
  explicit ScoredBpe(const Table& table) : PieceModel(table) {}

  void encode(const Words& words, std::vector<Piece>& pieces) const override {
    for (size_t i = 0; i < words.spans.size(); ++i) encode_word(words.word(i), words.spans[i].begin, pieces);
  }

 private:
  struct Symbol {
    uint32_t begin, bytes;
    int32_t previous, next;
    bool frozen;  ///< user-defined: never merged
  };
  struct Candidate {
    float score;
    int32_t left, right;
    uint32_t bytes;
    bool operator<(const Candidate& other) const { return score != other.score ? score < other.score : left > other.left; }
  };
  using Halves = std::pair<std::string_view, std::string_view>;

  void encode_word(std::string_view word, uint32_t begin, std::vector<Piece>& pieces) const {
    std::vector<Symbol> symbols;
    for (size_t at = 0; at < word.size();) {
      bool frozen = false;
      const size_t bytes = first_symbol(word.substr(at), frozen);
      const auto i = static_cast<int32_t>(symbols.size());
      symbols.push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(bytes), i - 1, i + 1, frozen});
      at += bytes;
    }
    if (symbols.empty()) return;
    symbols.back().next = -1;

    std::priority_queue<Candidate> queue;
    std::unordered_map<std::string_view, Halves> halves;  // of unused pieces, which are taken apart again
    const auto consider = [&](int32_t left, int32_t right) {
      if (left < 0 || right < 0) return;
      const Symbol &a = symbols[static_cast<size_t>(left)], &b = symbols[static_cast<size_t>(right)];
      if (a.frozen || b.frozen) return;
      const std::string_view whole = word.substr(a.begin, a.bytes + b.bytes);
      const int32_t id = piece_id(whole);
      if (id < 0) return;
      queue.push({scores_[static_cast<size_t>(id)], left, right, a.bytes + b.bytes});
      if (types_[static_cast<size_t>(id)] == Table::kUnused) halves[whole] = {word.substr(a.begin, a.bytes), word.substr(b.begin, b.bytes)};
    };
    for (size_t i = 1; i < symbols.size(); ++i) consider(static_cast<int32_t>(i) - 1, static_cast<int32_t>(i));
    while (!queue.empty()) {
      const Candidate best = queue.top();
      queue.pop();
      Symbol &left = symbols[static_cast<size_t>(best.left)], &right = symbols[static_cast<size_t>(best.right)];
      if (left.bytes == 0 || right.bytes == 0 || left.bytes + right.bytes != best.bytes) continue;
      left.bytes = best.bytes;
      left.next = right.next;
      if (right.next >= 0) symbols[static_cast<size_t>(right.next)].previous = best.left;
      right.bytes = 0;
      consider(left.previous, best.left);
      consider(best.left, left.next);
    }
    std::vector<std::string_view> waiting;
    for (int32_t i = 0; i >= 0; i = symbols[static_cast<size_t>(i)].next) {
      waiting.push_back(word.substr(symbols[static_cast<size_t>(i)].begin, symbols[static_cast<size_t>(i)].bytes));
      while (!waiting.empty()) {
        const std::string_view text = waiting.back();
        waiting.pop_back();
        const int32_t id = piece_id(text);
        const auto parts = id >= 0 && types_[static_cast<size_t>(id)] == Table::kUnused ? halves.find(text) : halves.end();
        if (parts != halves.end()) {
          waiting.push_back(parts->second.second);
          waiting.push_back(parts->second.first);
          continue;
        }
        add(text, begin + static_cast<uint32_t>(text.data() - word.data()), id, pieces);
      }
    }
  }
};

class SentencePieceUnigram : public PieceModel {
 public:
  explicit SentencePieceUnigram(const Table& table) : PieceModel(table) {
    float lowest = std::numeric_limits<float>::max(), highest = std::numeric_limits<float>::min();
    for (size_t id = 0; id < types_.size(); ++id) {
      if (types_[id] != Table::kNormal) continue;
      lowest = std::min(lowest, scores_[id]);
      highest = std::max(highest, scores_[id]);
    }
    unknown_score_ = lowest - 10.0f;
    weights_ = scores_;
    for (size_t id = 0; id < types_.size(); ++id) {
      const std::string& piece = table.pieces[id];
      // A user-defined symbol gets so much that it is always chosen.
      if (types_[id] == Table::kUserDefined) weights_[id] = static_cast<float>(static_cast<float>(piece.size()) * highest - 0.1);
      if (ordinary(static_cast<int32_t>(id)) && types_[id] != Table::kUnused) trie_.add(piece, static_cast<int32_t>(id));
    }
  }

  void encode(const Words& words, std::vector<Piece>& pieces) const override {
    for (size_t i = 0; i < words.spans.size(); ++i) encode_word(words.word(i), words.spans[i].begin, pieces);
  }

 private:
  struct Best {
    float score = 0;
    int64_t from = -1;
    int32_t id = -1;
  };

  void encode_word(std::string_view word, uint32_t begin, std::vector<Piece>& pieces) const {
    std::vector<Best> best(word.size() + 1);
    for (size_t at = 0; at < word.size();) {
      const size_t character = utf8_length(word[at]);
      const float here = best[at].score;
      bool single = false;
      trie_.walk(word.substr(at), [&](size_t bytes, int32_t id) {
        Best& target = best[at + bytes];
        const float score = weights_[static_cast<size_t>(id)] + here;
        if (target.from < 0 || score > target.score) target = {score, static_cast<int64_t>(at), id};
        single |= bytes == character;
        return true;
      });
      if (!single) {
        Best& target = best[at + character];
        const float score = unknown_score_ + here;
        if (target.from < 0 || score > target.score) target = {score, static_cast<int64_t>(at), unknown_};
      }
      at += character;
    }
    std::vector<std::pair<size_t, size_t>> path;
    for (size_t end = word.size(); end > 0; end = static_cast<size_t>(best[end].from)) path.emplace_back(best[end].from, end);
    for (auto step = path.rbegin(); step != path.rend(); ++step)
      add(word.substr(step->first, step->second - step->first), begin + static_cast<uint32_t>(step->first), best[step->second].id, pieces);
  }

  std::vector<float> weights_;
  float unknown_score_ = 0;
  Trie trie_;
};

class PieceWords : public PieceModel {
 public:
  explicit PieceWords(const Table& table) : PieceModel(table), characters_(table.kind == Table::Kind::character) {}

  void encode(const Words& words, std::vector<Piece>& pieces) const override {
    for (size_t i = 0; i < words.spans.size(); ++i) {
      const std::string_view word = words.word(i);
      for (size_t at = 0; at < word.size();) {
        bool defined = false;
        size_t end = at + first_symbol(word.substr(at), defined);
        if (!characters_) end = std::min(word.find("\xE2\x96\x81", at + utf8_length(word[at])), word.size());
        const std::string_view text = word.substr(at, end - at);
        const int32_t id = piece_id(text);
        add(text, words.spans[i].begin + static_cast<uint32_t>(at), id, pieces);
        at = end;
      }
    }
  }

 private:
  bool characters_;
};

}  // namespace

std::unique_ptr<TokenModel> make_scored_bpe(const Table& table) { return std::make_unique<ScoredBpe>(table); }
std::unique_ptr<TokenModel> make_sentencepiece_unigram(const Table& table) { return std::make_unique<SentencePieceUnigram>(table); }
std::unique_ptr<TokenModel> make_piece_words(const Table& table) { return std::make_unique<PieceWords>(table); }

}  // namespace switchyard
