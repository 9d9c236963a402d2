// Tokenizers whose tokens are pieces of text, with a token for each byte to fall back on: byte-pair encoding
// (Sennrich et al. 2016) and the unigram model (Kudo 2018). Text is not normalised. Ids are those of the Hugging Face
// library on the same tokenizer.json, tie by tie, which is why the search is written here.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "switchyard/formats/tokenizer.h"

namespace switchyard {

/// A tokenizer as data.
struct PieceTable {
  TokenizerKind kind = TokenizerKind::bpe;
  std::vector<std::string> tokens;                  ///< by id; spaces are spaces, bytes are "<0x0A>"
  std::vector<std::pair<int32_t, int32_t>> merges;  ///< bpe: pairs of ids, first merged first
  std::vector<double> scores;                       ///< unigram: log probabilities by id
  int64_t unknown = 0;
  std::optional<int64_t> begin, end;
  std::string sentencepiece;                        ///< the same as a sentencepiece model file, or empty
};

/// The search for one text's pieces.
class PieceModel {
 public:
  virtual ~PieceModel() = default;
  virtual void encode(std::string_view text, std::vector<int64_t>& ids) const = 0;
};

class PieceTokenizer : public Tokenizer {
 public:
  explicit PieceTokenizer(PieceTable table);  ///< throws tokenizer.format

  int64_t vocabulary() const override { return static_cast<int64_t>(table_.tokens.size()); }
  std::vector<int64_t> encode(std::string_view text) const override;
  std::string bytes(const std::vector<int64_t>& ids) const override;
  std::string token(int64_t id) const override;
  std::optional<int64_t> id_of(std::string_view token) const override;
  std::optional<int64_t> begin_id() const override { return table_.begin; }
  std::optional<int64_t> end_id() const override { return table_.end; }
  void save(const std::filesystem::path& folder) const override;
  uint64_t fingerprint() const override { return fingerprint_; }

 private:
  PieceTable table_;
  std::unordered_map<std::string, int64_t> ids_;
  std::vector<std::string> bytes_;  ///< by id; empty for special tokens
  std::unique_ptr<PieceModel> model_;
  uint64_t fingerprint_ = 0;
};

/// tokenizer.json of a table, and back; `source` names the file in errors. Throws tokenizer.format.
std::string piece_table_to_json(const PieceTable& table);
PieceTable piece_table_from_json(std::string_view json, const std::string& source);

/// "<0x0A>", and the byte of such a name or -1.
std::string byte_token(int byte);
int byte_of_token(std::string_view token);

}  // namespace switchyard
