#include "switchyard/formats/tokenizers/sentencepiece.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "switchyard/base/error.h"
#include "switchyard/base/random.h"
#include "switchyard/formats/tokenizers/byte_symbols.h"
#include "switchyard/formats/tokenizers/trie.h"
#include "switchyard/formats/utf8.h"

namespace switchyard {
namespace {

using Table = SentencePieceTable;

constexpr std::string_view kSpace = "\xE2\x96\x81";  // ▁

// --- the file: protocol buffers ------------------------------------------------------------------------------------

/// Walks the fields of one message.
class Message {
 public:
  Message(std::string_view bytes, const std::string& source) : rest_(bytes), source_(source) {}

  bool next() {
    if (rest_.empty()) return false;
    const uint64_t key = varint();
    field_ = key >> 3;
    value_ = 0;
    bytes_ = {};
    switch (key & 7) {
      case 0: value_ = varint(); break;
      case 1: bytes_ = take(8); break;
      case 2: bytes_ = take(varint()); break;
      case 5: bytes_ = take(4); break;
      default: fail("tokenizer.format", "{} is no sentencepiece model: a field of wire type {}", source_, key & 7);
    }
    check(field_ > 0, "tokenizer.format", "{} is no sentencepiece model: a field of number 0", source_);
    return true;
  }
  uint64_t field() const { return field_; }
  uint64_t number() const { return value_; }
  int64_t integer() const { return static_cast<int64_t>(value_); }
  std::string_view bytes() const { return bytes_; }
  float real() const {
    float value = 0;
    if (bytes_.size() == 4) std::memcpy(&value, bytes_.data(), 4);
    return value;
  }

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      check(!rest_.empty(), "tokenizer.format", "{} is no sentencepiece model: it ends within a number", source_);
      const auto byte = static_cast<unsigned char>(rest_[0]);
      rest_.remove_prefix(1);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    fail("tokenizer.format", "{} is no sentencepiece model: a number has more than ten bytes", source_);
  }
  std::string_view take(uint64_t count) {
    check(count <= rest_.size(), "tokenizer.format", "{} is no sentencepiece model: a field of {} bytes, of which {} are there", source_, count,
          rest_.size());
    const std::string_view part = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return part;
  }
  std::string_view rest_, bytes_;
  const std::string& source_;
  uint64_t field_ = 0, value_ = 0;
};

void read_piece(std::string_view bytes, Table& table, const std::string& source) {
  std::string piece;
  float score = 0;
  uint64_t type = Table::kNormal;
  for (Message field(bytes, source); field.next();) {
    if (field.field() == 1) piece = field.bytes();
    if (field.field() == 2) score = field.real();
    if (field.field() == 3) type = field.number();
  }
  check(type >= Table::kNormal && type <= Table::kByte, "tokenizer.format", "{}: piece {} has type {}", source, table.pieces.size(), type);
  table.pieces.push_back(std::move(piece));
  table.scores.push_back(score);
  table.types.push_back(static_cast<uint8_t>(type));
}

void read_trainer(std::string_view bytes, Table& table, const std::string& source) {
  for (Message field(bytes, source); field.next();) {
    switch (field.field()) {
      case 3:
        check(field.number() >= 1 && field.number() <= 4, "tokenizer.format", "{}: model type {}", source, field.number());
        table.kind = static_cast<Table::Kind>(field.number());
        break;
      case 24: table.whitespace_as_suffix = field.number() != 0; break;
      case 35: table.byte_fallback = field.number() != 0; break;
      case 41: table.begin = static_cast<int32_t>(field.number()); break;
      case 42: table.end = static_cast<int32_t>(field.number()); break;
      case 44: table.unknown_surface = field.bytes(); break;
      default: break;
    }
  }
}

void read_normaliser(std::string_view bytes, Table& table, const std::string& source) {
  for (Message field(bytes, source); field.next();) {
    switch (field.field()) {
      case 2: table.character_map = field.bytes(); break;
      case 3: table.add_dummy_prefix = field.number() != 0; break;
      case 4: table.remove_extra_whitespaces = field.number() != 0; break;
      case 5: table.escape_whitespaces = field.number() != 0; break;
      default: break;
    }
  }
}

// --- normalising ---------------------------------------------------------------------------------------------------

/// Puts text together with the place in the original that each byte has.
struct Normalised {
  AlignedText text;
  void append(std::string_view bytes, uint32_t begin, uint32_t end) {
    text.text += bytes;
    if (text.tracked) text.origins.insert(text.origins.end(), bytes.size(), Span{begin, end});
  }
};

class SentencePieceNormaliser {
 public:
  explicit SentencePieceNormaliser(const Table& table)
      : prefix_(table.add_dummy_prefix), remove_(table.remove_extra_whitespaces), suffix_(table.whitespace_as_suffix),
        space_(table.escape_whitespaces ? kSpace : std::string_view(" ")) {
    if (!table.character_map.empty()) map_ = CharacterMap(table.character_map);
    for (size_t id = 0; id < table.pieces.size(); ++id)
      if (table.types[id] == Table::kUserDefined) symbols_.add(table.pieces[id], static_cast<int32_t>(id));
  }

  void operator()(AlignedText& source) const {
    const std::string_view all = source.text;
    size_t at = 0;
    while (remove_ && at < all.size()) {
      const auto [bytes, replacement] = first(all.substr(at));
      if (replacement != " ") break;
      at += bytes;
    }
    Normalised result;
    result.text.tracked = source.tracked;
    result.text.base = source.base;
    if (at == all.size()) {
      source = std::move(result.text);
      return;
    }
    const uint32_t start = source.origin(at).begin;
    if (prefix_ && !suffix_) result.append(space_, start, start);
    bool after_space = remove_;
    uint32_t end = start;
    while (at < all.size()) {
      auto [bytes, replacement] = first(all.substr(at));
      const uint32_t begin = source.tracked ? source.origin(at).begin : 0;
      end = source.tracked ? source.origin(at + bytes - 1).end : 0;
      while (after_space && replacement.starts_with(' ')) replacement.remove_prefix(1);
      if (!replacement.empty()) {
        for (const char& byte : replacement) result.append(byte == ' ' ? space_ : std::string_view(&byte, 1), begin, end);
        after_space = remove_ && replacement.ends_with(' ');
      }
      at += bytes;
    }
    while (remove_ && result.text.text.ends_with(space_)) {
      const size_t size = result.text.text.size() - space_.size();
      if (result.text.tracked) {
        end = result.text.origins[size].begin;
        result.text.origins.resize(size);
      }
      result.text.text.resize(size);
    }
    if (prefix_ && suffix_) result.append(space_, end, end);
    source = std::move(result.text);
  }

  /// Bytes of the text whose replacement no later text can change.
  size_t certain(std::string_view text) const {
    if (prefix_ || remove_) return 0;  // ends and runs of blanks count
    size_t at = 0;
    while (at < text.size() && !map_.goes_on(text.substr(at))) at += first(text.substr(at)).first;
    return at;
  }

 private:
  /// What a text begins with: bytes, and what they become.
  std::pair<size_t, std::string_view> first(std::string_view text) const {
    size_t symbol = 0;
    symbols_.walk(text, [&](size_t bytes, int32_t) {
      symbol = bytes;
      return true;
    });
    if (symbol > 0) return {symbol, text.substr(0, symbol)};
    if (const CharacterMap::Match match = map_.longest(text); match.bytes > 0) return {match.bytes, match.replacement};
    const size_t bytes = std::min(utf8_length(text[0]), text.size());
    return {bytes, text.substr(0, bytes)};
  }

  bool prefix_, remove_, suffix_;
  std::string_view space_;
  CharacterMap map_;
  Trie symbols_;
};

// --- decoding ------------------------------------------------------------------------------------------------------

struct DecodeTable {
  std::set<std::string, std::less<>> bytes;
  std::string unknown, unknown_surface;
  bool strip_first = false, strip_all = false;
};

class SentencePieceDecoder : public DecodeStep {
 public:
  SentencePieceDecoder(std::shared_ptr<const DecodeTable> table, DecodeMode mode) : table_(std::move(table)), mode_(mode) {}

  void push(std::string_view token, const Emit& emit) override {
    if (table_->bytes.contains(token)) {
      held_ += static_cast<char>(byte_of_token(token));
      if (mode_ != DecodeMode::bytes) give(held_.size() - utf8_unfinished(held_), emit);
      return;
    }
    give(held_.size(), emit);
    if (space_seen_ || written_) at_start_ = false;
    space_seen_ = false;
    if (token == table_->unknown) return write(table_->unknown_surface, emit);
    if (at_start_ && table_->strip_first && token.starts_with(kSpace)) {
      token.remove_prefix(kSpace.size());
      space_seen_ = !table_->strip_all;
    }
    std::string text;
    for (size_t at = 0; at < token.size();) {
      const bool space = token.compare(at, kSpace.size(), kSpace) == 0;
      text += space ? ' ' : token[at];
      at += space ? kSpace.size() : 1;
    }
    write(text, emit);
  }
  void finish(const Emit& emit) override { give(held_.size(), emit); }

 private:
  /// Writes the first held bytes, with U+FFFD for each that is no UTF-8.
  void give(size_t count, const Emit& emit) {
    if (count == 0) return;
    std::string text;
    for (std::string_view rest = std::string_view(held_).substr(0, count); !rest.empty();) {
      const Utf8Step step = utf8_step(rest);
      const bool good = step.kind == Utf8Step::Kind::character;
      if (good || mode_ == DecodeMode::bytes) text += rest.substr(0, step.bytes);
      else for (size_t i = 0; i < step.bytes; ++i) text += "\xEF\xBF\xBD";
      rest.remove_prefix(step.bytes);
    }
    held_.erase(0, count);
    write(text, emit);
  }
  void write(std::string_view text, const Emit& emit) {
    written_ |= !text.empty();
    emit(text);
  }
  std::shared_ptr<const DecodeTable> table_;
  DecodeMode mode_;
  std::string held_;  ///< bytes that begin a character
  bool at_start_ = true, space_seen_ = false, written_ = false;
};

/// Changes text that was decoded by a model's second normaliser.
class DenormaliseStep : public DecodeStep {
 public:
  DenormaliseStep(std::shared_ptr<const SentencePieceNormaliser> rules, DecodeMode mode) : rules_(std::move(rules)), mode_(mode) {}
  void push(std::string_view text, const Emit& emit) override {
    held_ += text;
    if (mode_ == DecodeMode::stream) give(rules_->certain(held_), emit);
  }
  void finish(const Emit& emit) override { give(held_.size(), emit); }

 private:
  void give(size_t count, const Emit& emit) {
    if (count == 0) return;
    AlignedText text{.text = held_.substr(0, count), .origins = {}, .base = 0, .tracked = false};
    held_.erase(0, count);
    (*rules_)(text);
    emit(text.text);
  }
  std::shared_ptr<const SentencePieceNormaliser> rules_;
  DecodeMode mode_;
  std::string held_;
};

TokenDecoder::Part sentencepiece_decoder(const Table& table) {
  auto made = std::make_shared<DecodeTable>();
  for (size_t id = 0; id < table.pieces.size(); ++id) {
    if (table.types[id] == Table::kByte) made->bytes.insert(table.pieces[id]);
    if (table.types[id] == Table::kUnknown) made->unknown = table.pieces[id];
  }
  made->unknown_surface = table.unknown_surface;
  made->strip_first = table.add_dummy_prefix || table.remove_extra_whitespaces;
  made->strip_all = table.remove_extra_whitespaces;
  return {[made](DecodeMode mode, bool) { return std::make_unique<SentencePieceDecoder>(made, mode); }, true};
}

void check_table(const Table& table, const std::string& source) {
  check(!table.pieces.empty(), "tokenizer.format", "{} holds no pieces", source);
  check(table.scores.size() == table.pieces.size() && table.types.size() == table.pieces.size(), "tokenizer.format",
        "{} has {} pieces, {} scores and {} types", source, table.pieces.size(), table.scores.size(), table.types.size());
  int64_t unknown = 0, bytes = 0;
  for (size_t id = 0; id < table.pieces.size(); ++id) {
    check(!table.pieces[id].empty(), "tokenizer.format", "{}: piece {} is empty", source, id);
    check(utf8_valid(table.pieces[id]), "tokenizer.format", "{}: piece {} (\"{}\") is not UTF-8", source, id, utf8_repair(table.pieces[id]));
    check(table.scores[id] == table.scores[id], "tokenizer.format", "{}: the score of piece {} is not a number", source, id);
    unknown += table.types[id] == Table::kUnknown;
    if (table.types[id] != Table::kByte) continue;
    check(byte_of_token(table.pieces[id]) >= 0, "tokenizer.format", "{}: piece {} is said to be a byte, but is \"{}\"", source, id,
          utf8_repair(table.pieces[id]));
    ++bytes;
  }
  check(unknown == 1, "tokenizer.format", "{} has {} unknown tokens instead of one", source, unknown);
  check(!table.byte_fallback || bytes == 256, "tokenizer.format", "{} falls back on bytes, but has {} of 256", source, bytes);
  const auto size = static_cast<int64_t>(table.pieces.size());
  check(table.begin < size && table.end < size, "tokenizer.format", "{}: begin token {} or end token {} is outside the vocabulary of {}", source,
        table.begin, table.end, size);
}

}  // namespace

SentencePieceTable read_sentencepiece_model(std::string_view model, const std::string& source) {
  Table table;
  table.begin = 1;  // as the format says where the file does not
  table.end = 2;
  for (Message field(model, source); field.next();) {
    if (field.field() == 1) read_piece(field.bytes(), table, source);
    if (field.field() == 2) read_trainer(field.bytes(), table, source);
    if (field.field() == 3) read_normaliser(field.bytes(), table, source);
    if (field.field() == 5) {
      auto rules = std::make_shared<Table>();
      read_normaliser(field.bytes(), *rules, source);
      if (!rules->character_map.empty()) table.denormaliser = std::move(rules);  // without a map the library leaves text alone
    }
  }
  const auto outside = [&](int64_t id) { return id < 0 || id >= static_cast<int64_t>(table.pieces.size()); };
  if (outside(table.begin) || table.types[static_cast<size_t>(table.begin)] != Table::kControl) table.begin = -1;
  if (outside(table.end) || table.types[static_cast<size_t>(table.end)] != Table::kControl) table.end = -1;
  return table;
}

std::string write_sentencepiece_model(const SentencePieceTable& table) {
  std::string model, trainer;
  const auto varint = [](std::string& out, uint64_t value) {
    for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
    out += static_cast<char>(value);
  };
  const auto number = [&](std::string& out, int field, uint64_t value) {
    varint(out, static_cast<uint64_t>(field) << 3);
    varint(out, value);
  };
  const auto bytes = [&](std::string& out, int field, std::string_view value) {
    varint(out, static_cast<uint64_t>(field) << 3 | 2);
    varint(out, value.size());
    out += value;
  };
  int64_t unknown = 0;
  for (size_t id = 0; id < table.pieces.size(); ++id) {
    std::string piece;
    bytes(piece, 1, table.pieces[id]);
    varint(piece, 2 << 3 | 5);
    piece.append(reinterpret_cast<const char*>(&table.scores[id]), sizeof(float));
    if (table.types[id] != Table::kNormal) number(piece, 3, table.types[id]);
    if (table.types[id] == Table::kUnknown) unknown = static_cast<int64_t>(id);
    bytes(model, 1, piece);
  }
  number(trainer, 3, static_cast<uint64_t>(table.kind));
  number(trainer, 24, table.whitespace_as_suffix);
  number(trainer, 35, table.byte_fallback);
  // Signed numbers of 32 bits; -1, for none, is written as one of 64.
  for (const auto& [field, id] : {std::pair(40, unknown), std::pair(41, table.begin), std::pair(42, table.end)}) number(trainer, field, static_cast<uint64_t>(id));
  bytes(trainer, 44, table.unknown_surface);
  const auto rules = [&](const Table& of) {
    std::string message;
    bytes(message, 2, of.character_map);
    number(message, 3, of.add_dummy_prefix);
    number(message, 4, of.remove_extra_whitespaces);
    number(message, 5, of.escape_whitespaces);
    return message;
  };
  bytes(model, 2, trainer);
  bytes(model, 3, rules(table));
  if (table.denormaliser) bytes(model, 5, rules(*table.denormaliser));
  return model;
}

TokenizerParts parts_of(SentencePieceTable table, const std::string& source) {
  check_table(table, source);
  TokenizerParts parts;
  parts.normalisers.push_back([normaliser = std::make_shared<SentencePieceNormaliser>(table)](AlignedText& text) { (*normaliser)(text); });
  switch (table.kind) {
    case Table::Kind::bpe: parts.model = make_scored_bpe(table); break;
    case Table::Kind::unigram: parts.model = make_sentencepiece_unigram(table); break;
    default: parts.model = make_piece_words(table); break;
  }
  parts.decoder.parts.push_back(sentencepiece_decoder(table));
  if (table.denormaliser)
    parts.decoder.parts.push_back({[rules = std::make_shared<const SentencePieceNormaliser>(*table.denormaliser)](DecodeMode mode, bool) {
                                     return std::make_unique<DenormaliseStep>(rules, mode);
                                   }, true});
  for (size_t id = 0; id < table.types.size(); ++id)
    if (table.types[id] == Table::kControl) parts.controls.push_back(static_cast<int64_t>(id));
  if (table.begin >= 0) parts.begin = table.begin;
  if (table.end >= 0) parts.end = table.end;
  return parts;
}

TokenizerParts parts_from_sentencepiece(std::string_view model, const std::map<std::string, std::string>& files, const std::string& source) {
  TokenizerParts parts = parts_of(read_sentencepiece_model(model, source), source);
  const TokenizerConfig config = read_tokenizer_config(files, source);
  for (const auto& [id, token] : config.added) parts.added.add(token, *parts.model, {});
  const auto id_of = [&](const std::optional<std::string>& token, std::optional<int64_t> otherwise) -> std::optional<int64_t> {
    const int32_t id = token ? parts.model->vocabulary().id(*token) : -1;
    return id >= 0 ? std::optional<int64_t>(id) : otherwise;
  };
  parts.begin = id_of(config.begin_token, parts.begin);
  parts.end = id_of(config.end_token, parts.end);
  // Whether texts are surrounded is no part of the model; the file beside it says so.
  std::vector<TemplatePart> single, pair;
  const auto add = [&](std::vector<TemplatePart>& list, std::optional<int64_t> id) {
    if (id) list.push_back({.text = -1, .type_id = 0, .ids = {*id}, .tokens = {parts.model->vocabulary().token(*id)}});
  };
  for (const int text : {0, 1}) {
    for (std::vector<TemplatePart>* list : {&single, &pair}) {
      if (text == 1 && list == &single) continue;
      if (config.add_begin.value_or(false)) add(*list, parts.begin);
      list->push_back({.text = text, .type_id = text, .ids = {}, .tokens = {}});
      if (config.add_end.value_or(false)) add(*list, parts.end);
    }
  }
  parts.post_processors.push_back(template_processing(std::move(single), std::move(pair)));
  if (!config.add_begin.value_or(false)) parts.begin.reset();
  parts.fingerprint = stable_hash(model);
  return parts;
}

}  // namespace switchyard
