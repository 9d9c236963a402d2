#include <algorithm>
#include <queue>

#include "switchyard/base/error.h"
#include "switchyard/formats/piece_models.h"
#include "switchyard/formats/utf8.h"

namespace switchyard {
namespace {

uint64_t pair_key(int64_t left, int64_t right) {
  return static_cast<uint64_t>(left) << 32 | static_cast<uint64_t>(right);
}

class BpeModel : public PieceModel {
 public:
  BpeModel(const PieceTable& table, const std::array<int64_t, 256>& byte_ids,
           const std::unordered_map<std::string, int64_t>& ids)
      : byte_ids_(byte_ids) {
    for (const auto& [token, id] : ids)
      if (!token.empty() && utf8_step(token).bytes == token.size()) characters_.emplace(token, id);
    merges_.reserve(table.merges.size());
    for (size_t rank = 0; rank < table.merges.size(); ++rank) {
      const auto [left, right] = table.merges[rank];
      const std::string whole = table.tokens[static_cast<size_t>(left)] + table.tokens[static_cast<size_t>(right)];
      const auto merged = ids.find(whole);
      check(merged != ids.end(), "tokenizer.format", "merge {} gives \"{}\", which is not in the vocabulary", rank, whole);
      // A pair that is listed twice has its last rank, as in the reference library.
      merges_[pair_key(left, right)] = {static_cast<int32_t>(rank), static_cast<int32_t>(merged->second)};
      const size_t space = whole.find(' ');
      if (space != std::string::npos && whole.find_first_not_of(' ') < whole.rfind(' ')) words_ = false;
    }
  }

  void encode(std::string_view text, std::vector<int64_t>& ids) const override {
    if (!words_) return encode_word(text, ids);
    // No piece has a space after another character, so that each such place can be cut; words come back often.
    std::unordered_map<std::string_view, std::pair<size_t, size_t>> seen;
    while (!text.empty()) {
      size_t end = text.find_first_not_of(' ');
      end = end == std::string_view::npos ? text.size() : std::min(text.find(' ', end), text.size());
      const std::string_view word = text.substr(0, end);
      text.remove_prefix(end);
      const auto [place, fresh] = seen.try_emplace(word, ids.size(), 0);
      auto& [begin, count] = place->second;
      if (fresh) {
        encode_word(word, ids);
        count = ids.size() - begin;
      } else {
        for (size_t i = begin, last = begin + count; i < last; ++i) ids.push_back(ids[i]);
      }
    }
  }

 private:
  struct Merge { int32_t rank, merged; };
  struct Symbol { int64_t id; int32_t previous, next; bool alive; };
  struct Candidate {
    int32_t rank, position, merged;
    bool operator<(const Candidate& other) const {  // the queue's top is the largest
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };

  void encode_word(std::string_view word, std::vector<int64_t>& ids) const {
    std::vector<Symbol> symbols;
    const auto add = [&](int64_t id) {
      const auto i = static_cast<int32_t>(symbols.size());
      symbols.push_back({id, i - 1, i + 1, true});
    };
    while (!word.empty()) {
      const Utf8Step step = utf8_step(word);
      const std::string_view character = word.substr(0, step.bytes);
      const auto known = characters_.find(std::string(character));
      if (step.kind == Utf8Step::Kind::character && known != characters_.end()) add(known->second);
      else for (const char byte : character) add(byte_ids_[static_cast<unsigned char>(byte)]);
      word.remove_prefix(step.bytes);
    }
    if (symbols.empty()) return;
    symbols.back().next = -1;

    std::priority_queue<Candidate> queue;
    const auto consider = [&](int32_t left) {
      if (left < 0 || symbols[static_cast<size_t>(left)].next < 0) return;
      const Symbol& a = symbols[static_cast<size_t>(left)];
      const auto found = merges_.find(pair_key(a.id, symbols[static_cast<size_t>(a.next)].id));
      if (found != merges_.end()) queue.push({found->second.rank, left, found->second.merged});
    };
    for (size_t i = 0; i + 1 < symbols.size(); ++i) consider(static_cast<int32_t>(i));
    while (!queue.empty()) {
      const Candidate best = queue.top();
      queue.pop();
      Symbol& left = symbols[static_cast<size_t>(best.position)];
      if (!left.alive || left.next < 0) continue;
      Symbol& right = symbols[static_cast<size_t>(left.next)];
      // The pair may have changed since it was queued; what counts is that it still gives the same token.
      const auto found = merges_.find(pair_key(left.id, right.id));
      if (found == merges_.end() || found->second.merged != best.merged) continue;
      left.id = best.merged;
      left.next = right.next;
      right.alive = false;
      if (right.next >= 0) symbols[static_cast<size_t>(right.next)].previous = best.position;
      consider(left.previous);
      consider(best.position);
    }
    for (const Symbol& symbol : symbols)
      if (symbol.alive) ids.push_back(symbol.id);
  }

  std::array<int64_t, 256> byte_ids_;
  std::unordered_map<std::string, int64_t> characters_;
  std::unordered_map<uint64_t, Merge> merges_;
  bool words_ = true;
};

}  // namespace

std::unique_ptr<PieceModel> make_bpe_model(const PieceTable& table, const std::array<int64_t, 256>& byte_ids,
                                           const std::unordered_map<std::string, int64_t>& ids) {
  return std::make_unique<BpeModel>(table, byte_ids, ids);
}

}  // namespace switchyard
