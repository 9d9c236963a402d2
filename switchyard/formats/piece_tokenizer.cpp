#include "switchyard/formats/piece_tokenizer.h"

#include "switchyard/base/error.h"
#include "switchyard/base/files.h"
#include "switchyard/base/random.h"
#include "switchyard/formats/piece_models.h"

namespace switchyard {

std::string byte_token(int byte) { return fmt::format("<0x{:02X}>", byte); }

int byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  const auto digit = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; };
  const int high = digit(token[3]), low = digit(token[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

PieceTokenizer::PieceTokenizer(PieceTable table) : table_(std::move(table)) {
  const auto size = static_cast<int64_t>(table_.tokens.size());
  for (int64_t id = 0; id < size; ++id) {
    const std::string& token = table_.tokens[static_cast<size_t>(id)];
    check(ids_.emplace(token, id).second, "tokenizer.format", "token \"{}\" stands twice in the vocabulary", token);
  }
  for (const std::optional<int64_t> special : {std::optional(table_.unknown), table_.begin, table_.end})
    check(!special || (*special >= 0 && *special < size), "tokenizer.format", "special token {} is outside the vocabulary of {}",
          special.value_or(-1), size);
  std::array<int64_t, 256> byte_ids{};
  for (int byte = 0; byte < 256; ++byte) {
    const auto found = ids_.find(byte_token(byte));
    check(found != ids_.end(), "tokenizer.format", "token {} is missing, so not every text could be encoded", byte_token(byte));
    byte_ids[static_cast<size_t>(byte)] = found->second;
  }
  bytes_ = table_.tokens;
  for (std::string& token : bytes_)
    if (const int byte = byte_of_token(token); byte >= 0) token = static_cast<char>(byte);
  for (const std::optional<int64_t> special : {std::optional(table_.unknown), table_.begin, table_.end})
    if (special) bytes_[static_cast<size_t>(*special)].clear();
  if (table_.kind == TokenizerKind::bpe) {
    model_ = make_bpe_model(table_, byte_ids, ids_);
  } else {
    check(static_cast<int64_t>(table_.scores.size()) == size, "tokenizer.format", "{} scores for {} tokens",
          table_.scores.size(), size);
    model_ = make_unigram_model(table_, byte_ids);
  }
  fingerprint_ = stable_hash(piece_table_to_json(table_));
}

std::vector<int64_t> PieceTokenizer::encode(std::string_view text) const {
  std::vector<int64_t> ids;
  model_->encode(text, ids);
  return ids;
}

std::string PieceTokenizer::bytes(const std::vector<int64_t>& ids) const {
  std::string result;
  for (const int64_t id : ids) {
    check(id >= 0 && id < vocabulary(), "tokenizer.id", "token id {} is outside the vocabulary of {}", id, vocabulary());
    result += bytes_[static_cast<size_t>(id)];
  }
  return result;
}

std::string PieceTokenizer::token(int64_t id) const {
  check(id >= 0 && id < vocabulary(), "tokenizer.id", "token id {} is outside the vocabulary of {}", id, vocabulary());
  return table_.tokens[static_cast<size_t>(id)];
}

std::optional<int64_t> PieceTokenizer::id_of(std::string_view token) const {
  const auto found = ids_.find(std::string(token));
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

}  // namespace switchyard
