// Byte-pair encoding: the pair of lowest rank is merged first, the leftmost among equals, until no pair is left. Words
// come back often, so the tokens of short ones are remembered in a table of fixed size.
#include <algorithm>
#include <cstring>
#include <mutex>

#include "switchyard/base/error.h"
#include "switchyard/formats/tokenizers/byte_symbols.h"
#include "switchyard/formats/tokenizers/models.h"
#include "switchyard/formats/utf8.h"

namespace switchyard {
namespace {

/// (left, right) → (rank, result), open addressing.
class MergeTable {
 public:
  struct Entry {
    uint64_t pair = ~uint64_t{0};
    int32_t rank = -1, result = -1;
  };
  explicit MergeTable(const std::vector<Merge>& merges) {
    size_t size = 16;
    while (size < 2 * merges.size()) size *= 2;
    entries_.resize(size);
    mask_ = size - 1;
    for (const Merge& merge : merges) {
      const uint64_t pair = key(merge.left, merge.right);
      // A pair that is listed twice has its last rank, as in the reference library.
      entries_[slot(pair)] = {pair, merge.rank, merge.result};
    }
  }
  const Entry* find(int32_t left, int32_t right) const {
    const Entry& entry = entries_[slot(key(left, right))];
    return entry.rank < 0 ? nullptr : &entry;
  }

 private:
  static uint64_t key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  size_t slot(uint64_t pair) const {
    uint64_t i = (pair * 0x9E3779B97F4A7C15ULL) >> 24 & mask_;
    while (entries_[i].rank >= 0 && entries_[i].pair != pair) i = (i + 1) & mask_;
    return i;
  }
  std::vector<Entry> entries_;
  uint64_t mask_ = 0;
};

struct Symbol {
  int32_t id;
  uint32_t bytes;
  int32_t previous, next;  ///< -1: none
  bool alive;
};

struct Candidate {
  int32_t rank, position, result;
  bool operator<(const Candidate& other) const {  // the queue's top is the largest
    return rank != other.rank ? rank > other.rank : position > other.position;
  }
};

/// The tokens of words seen before, and room for the work on one word. One caller has it at a time.
struct Workspace {
  static constexpr size_t kSlots = 1 << 14, kWordBytes = 28, kTokens = 8;
  struct Slot {
    char word[kWordBytes];
    uint8_t bytes = 0, count = 0;
    uint8_t ends[kTokens];
    int32_t ids[kTokens];
  };
  std::vector<Slot> slots = std::vector<Slot>(kSlots);
  std::vector<Symbol> symbols;
  std::vector<Candidate> queue;
  bool symbols_of_bytes = false;  ///< the words are bytes that stand for symbols
};

uint64_t hash_of(std::string_view word) {
  uint64_t hash = word.size() * 0x9E3779B97F4A7C15ULL;
  while (word.size() >= 8) {
    uint64_t part;
    std::memcpy(&part, word.data(), 8);
    hash = (hash ^ part) * 0xD6E8FEB86659FD93ULL;
    hash ^= hash >> 32;
    word.remove_prefix(8);
  }
  uint64_t part = 0;
  std::memcpy(&part, word.data(), word.size());
  hash = (hash ^ part) * 0xD6E8FEB86659FD93ULL;
  return hash ^ hash >> 29;
}

class Bpe : public TokenModel {
 public:
  Bpe(Vocabulary vocabulary, const std::vector<Merge>& merges, const BpeOptions& options)
      : TokenModel(std::move(vocabulary)), options_(options), merges_(merges) {
    if (!options_.unknown_token.empty()) unknown_ = vocabulary_.id(options_.unknown_token);
    for (int byte = 0; byte < 256; ++byte) byte_ids_[static_cast<size_t>(byte)] = vocabulary_.id(byte_token(byte));
    plain_ = options_.continuing_prefix.empty() && options_.end_suffix.empty();
    low_codes_.fill(-1);
    for (int64_t id = 0; id < vocabulary_.size(); ++id) {
      if (!vocabulary_.has(id)) continue;
      const std::string& token = vocabulary_.token(id);
      if (token.empty() || utf8_length(token[0]) != token.size()) continue;
      const char32_t code = utf8_code_point(token);
      if (code < low_codes_.size()) low_codes_[code] = static_cast<int32_t>(id);
      else codes_.emplace(code, static_cast<int32_t>(id));
    }
    reads_symbols_ = plain_;
    for (int byte = 0; byte < 256; ++byte) {
      const int32_t id = vocabulary_.id(byte_symbol(static_cast<unsigned char>(byte)));
      symbol_ids_[static_cast<size_t>(byte)] = id;
      reads_symbols_ &= id >= 0;
    }
    find_cuts(merges);
  }

  bool reads_symbols() const override { return reads_symbols_; }

  void encode(const Words& words, std::vector<Piece>& pieces) const override {
    std::unique_ptr<Workspace> space = borrow();
    space->symbols_of_bytes = words.symbols;  // a tokenizer's words all are, or none: the same table remembers them
    for (const Span span : words.spans) {
      const std::string_view word = std::string_view(words.text.text).substr(span.begin, span.end - span.begin);
      if (word.size() > kCutBytes && !cuts_.empty() && !words.symbols) encode_in_parts(word, span.begin, *space, pieces);
      else encode_cached(word, span.begin, *space, pieces);
    }
    give_back(std::move(space));
  }

 private:
  static constexpr size_t kCutBytes = 64;   // longer words are cut where no token can reach over
  static constexpr size_t kScanSymbols = 24;  // up to here a scan for the best pair beats a queue

  std::unique_ptr<Workspace> borrow() const {
    const std::lock_guard lock(mutex_);
    if (spaces_.empty()) return std::make_unique<Workspace>();
    auto space = std::move(spaces_.back());
    spaces_.pop_back();
    return space;
  }
  void give_back(std::unique_ptr<Workspace> space) const {
    const std::lock_guard lock(mutex_);
    spaces_.push_back(std::move(space));
  }

  /// Separators (a space, or sentencepiece's) that no result of a merge has after another character: a text can be cut there.
  void find_cuts(const std::vector<Merge>& merges) {
    if (!plain_ || options_.ignore_merges || unknown_ < 0) return;
    for (const std::string_view separator : {std::string_view(" "), std::string_view("\xE2\x96\x81")}) {
      if (vocabulary_.id(separator) < 0) continue;
      bool inside = false;
      for (const Merge& merge : merges) {
        const std::string& token = vocabulary_.token(merge.result);
        size_t first = 0;
        while (token.compare(first, separator.size(), separator) == 0 && first < token.size()) first += separator.size();
        inside |= token.find(separator, first) != std::string::npos;
      }
      if (!inside) cuts_.emplace_back(separator);
    }
  }

  void encode_in_parts(std::string_view word, uint32_t begin, Workspace& space, std::vector<Piece>& pieces) const {
    size_t start = 0;
    for (size_t at = 0; at < word.size();) {
      size_t length = utf8_length(word[at]);
      for (const std::string& cut : cuts_) {
        if (word.compare(at, cut.size(), cut) != 0) continue;
        if (at > start) encode_cached(word.substr(start, at - start), begin + static_cast<uint32_t>(start), space, pieces);
        start = at;
        while (word.compare(at + length, cut.size(), cut) == 0 && at + length < word.size()) length += cut.size();
        break;
      }
      at += length;
    }
    if (start < word.size()) encode_cached(word.substr(start), begin + static_cast<uint32_t>(start), space, pieces);
  }

  void encode_cached(std::string_view word, uint32_t begin, Workspace& space, std::vector<Piece>& pieces) const {
    if (word.size() > Workspace::kWordBytes) return encode_word(word, begin, space, pieces);
    Workspace::Slot& slot = space.slots[hash_of(word) % Workspace::kSlots];
    if (slot.bytes == word.size() && std::memcmp(slot.word, word.data(), word.size()) == 0 && slot.bytes > 0) {
      uint32_t from = begin;
      for (size_t i = 0; i < slot.count; ++i) {
        pieces.push_back({slot.ids[i], from, begin + slot.ends[i]});
        from = begin + slot.ends[i];
      }
      return;
    }
    const size_t first = pieces.size();
    encode_word(word, begin, space, pieces);
    const size_t count = pieces.size() - first;
    if (count > Workspace::kTokens || word.empty() || (count > 0 && pieces.back().loose)) return;
    std::memcpy(slot.word, word.data(), word.size());
    slot.bytes = static_cast<uint8_t>(word.size());
    slot.count = static_cast<uint8_t>(count);
    for (size_t i = 0; i < count; ++i) {
      slot.ids[i] = pieces[first + i].id;
      slot.ends[i] = static_cast<uint8_t>(pieces[first + i].end - begin);
    }
  }

  int32_t character_id(std::string_view character, bool first, bool last) const {
    if (!plain_) {
      std::string spelled = first ? std::string(character) : options_.continuing_prefix + std::string(character);
      if (last) spelled += options_.end_suffix;
      return vocabulary_.id(spelled);
    }
    const char32_t code = utf8_code_point(character);
    if (code < low_codes_.size()) return low_codes_[code];
    const auto found = codes_.find(code);
    return found == codes_.end() ? -1 : found->second;
  }

  /// The first symbols of a word: characters, bytes of characters without a token, unknowns.
  void spell(std::string_view word, std::vector<Symbol>& symbols) const {
    symbols.clear();
    const auto add = [&](int32_t id, size_t bytes) {
      const auto i = static_cast<int32_t>(symbols.size());
      symbols.push_back({id, static_cast<uint32_t>(bytes), i - 1, i + 1, true});
    };
    size_t unknown_bytes = 0;  // waiting, to be fused with more
    const auto settle = [&] {
      if (unknown_bytes > 0) add(unknown_, unknown_bytes);
      unknown_bytes = 0;
    };
    for (size_t at = 0; at < word.size();) {
      const std::string_view character = word.substr(at, utf8_length(word[at]));
      const bool first = at == 0;
      at += character.size();
      const bool last = at >= word.size();
      if (const int32_t id = character_id(character, first, last); id >= 0) {
        settle();
        add(id, character.size());
        continue;
      }
      if (options_.byte_fallback && add_bytes(character, first, last, add)) continue;
      if (options_.unknown_token.empty()) continue;
      check(unknown_ >= 0, "tokenizer.unknown", "the unknown token \"{}\" is not in the vocabulary", options_.unknown_token);
      if (!options_.fuse_unknown) settle();
      unknown_bytes += character.size();
    }
    settle();
    if (!symbols.empty()) symbols.back().next = -1;
  }

  void spell_bytes(std::string_view word, std::vector<Symbol>& symbols) const {
    symbols.resize(word.size());
    for (size_t i = 0; i < word.size(); ++i) {
      const auto at = static_cast<int32_t>(i);
      symbols[i] = {symbol_ids_[static_cast<unsigned char>(word[i])], 1, at - 1, at + 1, true};
    }
    if (!symbols.empty()) symbols.back().next = -1;
  }

  template <typename F>
  bool add_bytes(std::string_view character, bool first, bool last, F&& add) const {
    std::string spelled(character);
    if (!first) spelled.insert(0, options_.continuing_prefix);
    if (last) spelled += options_.end_suffix;
    for (const char byte : spelled)
      if (byte_ids_[static_cast<unsigned char>(byte)] < 0) return false;
    for (const char byte : spelled) add(byte_ids_[static_cast<unsigned char>(byte)], 1);
    return true;
  }

  void encode_word(std::string_view word, uint32_t begin, Workspace& space, std::vector<Piece>& pieces) const {
    if (options_.ignore_merges) {
      if (const int32_t whole = space.symbols_of_bytes ? vocabulary_.id(to_byte_symbols(word)) : vocabulary_.id(word); whole >= 0) {
        pieces.push_back({whole, begin, begin + static_cast<uint32_t>(word.size())});
        return;
      }
    }
    if (space.symbols_of_bytes) spell_bytes(word, space.symbols);
    else spell(word, space.symbols);
    if (space.symbols.size() <= kScanSymbols) merge_by_scan(space.symbols);
    else merge_by_queue(space);
    uint32_t at = 0;
    for (const Symbol& symbol : space.symbols) {
      if (!symbol.alive) continue;
      // The bytes of a prefix or suffix count as if they stood in the word, and may run past its end.
      const uint32_t end = at + symbol.bytes;
      if (end <= word.size()) pieces.push_back({symbol.id, begin + at, begin + end});
      else pieces.push_back({symbol.id, at, end, false, true});
      at = end;
    }
  }

  void merge_by_scan(std::vector<Symbol>& symbols) const {
    constexpr uint64_t kNone = ~uint64_t{0};
    std::array<uint64_t, kScanSymbols> pairs;  // that begin at each symbol: rank and result
    size_t count = symbols.size();
    const auto pair_at = [&](size_t i) {
      const MergeTable::Entry* merge = i + 1 < count ? merges_.find(symbols[i].id, symbols[i + 1].id) : nullptr;
      return merge ? static_cast<uint64_t>(merge->rank) << 32 | static_cast<uint32_t>(merge->result) : kNone;
    };
    for (size_t i = 0; i < count; ++i) pairs[i] = pair_at(i);
    while (count > 1) {
      const auto* const best = std::min_element(pairs.data(), pairs.data() + count, [](uint64_t a, uint64_t b) { return a >> 32 < b >> 32; });
      if (*best == kNone) break;
      const auto i = static_cast<size_t>(best - pairs.data());
      symbols[i].id = static_cast<int32_t>(*best);
      symbols[i].bytes += symbols[i + 1].bytes;
      std::copy(symbols.begin() + static_cast<std::ptrdiff_t>(i) + 2, symbols.begin() + static_cast<std::ptrdiff_t>(count),
                symbols.begin() + static_cast<std::ptrdiff_t>(i) + 1);
      std::copy(pairs.begin() + i + 2, pairs.begin() + count, pairs.begin() + i + 1);
      --count;
      pairs[i] = pair_at(i);
      if (i > 0) pairs[i - 1] = pair_at(i - 1);
    }
    symbols.resize(count);
  }

  void merge_by_queue(Workspace& space) const {
    std::vector<Symbol>& symbols = space.symbols;
    std::vector<Candidate>& queue = space.queue;
    queue.clear();
    const auto consider = [&](int32_t left, bool heap) {
      if (left < 0 || symbols[static_cast<size_t>(left)].next < 0) return;
      const Symbol& symbol = symbols[static_cast<size_t>(left)];
      const MergeTable::Entry* merge = merges_.find(symbol.id, symbols[static_cast<size_t>(symbol.next)].id);
      if (!merge) return;
      queue.push_back({merge->rank, left, merge->result});
      if (heap) std::push_heap(queue.begin(), queue.end());
    };
    for (size_t i = 0; i + 1 < symbols.size(); ++i) consider(static_cast<int32_t>(i), false);
    std::make_heap(queue.begin(), queue.end());
    while (!queue.empty()) {
      const Candidate best = queue.front();
      std::pop_heap(queue.begin(), queue.end());
      queue.pop_back();
      Symbol& left = symbols[static_cast<size_t>(best.position)];
      if (!left.alive || left.next < 0) continue;
      Symbol& right = symbols[static_cast<size_t>(left.next)];
      // The pair may have changed since it was queued; what counts is that it still gives the same token.
      const MergeTable::Entry* merge = merges_.find(left.id, right.id);
      if (!merge || merge->result != best.result) continue;
      left.id = best.result;
      left.bytes += right.bytes;
      left.next = right.next;
      right.alive = false;
      if (right.next >= 0) symbols[static_cast<size_t>(right.next)].previous = best.position;
      consider(left.previous, true);
      consider(best.position, true);
    }
  }

  BpeOptions options_;
  MergeTable merges_;
  std::array<int32_t, 0x800> low_codes_;  ///< ids of one-character tokens by code point
  std::unordered_map<char32_t, int32_t> codes_;
  std::array<int32_t, 256> byte_ids_{}, symbol_ids_{};  ///< of <0x41> and the like; of byte_symbols.h
  std::vector<std::string> cuts_;
  int32_t unknown_ = -1;
  bool plain_ = true, reads_symbols_ = false;
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Workspace>> spaces_;
};

}  // namespace

std::unique_ptr<TokenModel> make_bpe(Vocabulary vocabulary, const std::vector<Merge>& merges, const BpeOptions& options) {
  return std::make_unique<Bpe>(std::move(vocabulary), merges, options);
}

std::unique_ptr<TokenModel> make_bpe(Vocabulary vocabulary, const std::vector<std::pair<std::string, std::string>>& merges,
                                     const BpeOptions& options) {
  std::vector<Merge> table;
  table.reserve(merges.size());
  for (const auto& [left, right] : merges) {
    const size_t prefix = options.continuing_prefix.size();
    check(right.size() >= prefix, "tokenizer.format", "merge {} ends in \"{}\", which is shorter than the prefix \"{}\"",
          table.size(), right, options.continuing_prefix);
    const std::string whole = left + right.substr(prefix);
    const Merge merge{vocabulary.id(left), vocabulary.id(right), static_cast<int32_t>(table.size()), vocabulary.id(whole)};
    check(merge.left >= 0, "tokenizer.format", "merge {} names \"{}\", which is not in the vocabulary", table.size(), left);
    check(merge.right >= 0, "tokenizer.format", "merge {} names \"{}\", which is not in the vocabulary", table.size(), right);
    check(merge.result >= 0, "tokenizer.format", "merge {} gives \"{}\", which is not in the vocabulary", table.size(), whole);
    table.push_back(merge);
  }
  return make_bpe(std::move(vocabulary), table, options);
}

}  // namespace switchyard
