// Text to token ids and back. One interface for every kind of tokenizer file; what a recipe trains is
// saved so that transformers loads it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "switchyard/base/options.h"

namespace switchyard {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual int64_t vocabulary() const = 0;
  /// Ids of UTF-8 text, without special tokens around it; what looks like a special token in the text is text.
  /// Never throws on text: every byte has a token.
  virtual std::vector<int64_t> encode(std::string_view text) const = 0;
  /// The bytes that the ids stand for, which may be no UTF-8 (a character cut in two); special tokens are left out.
  /// Throws tokenizer.id for an id outside the vocabulary.
  virtual std::string bytes(const std::vector<int64_t>& ids) const = 0;
  /// The text of ids: their bytes, with U+FFFD for what is no UTF-8.
  std::string decode(const std::vector<int64_t>& ids) const;
  /// The token as it stands in the vocabulary, for reports (" the", "<0x0A>").
  virtual std::string token(int64_t id) const = 0;
  virtual std::optional<int64_t> id_of(std::string_view token) const = 0;
  virtual std::optional<int64_t> begin_id() const = 0;  ///< put before a document, when the model wants one
  virtual std::optional<int64_t> end_id() const = 0;    ///< ends a document; generation stops at it
  /// Writes tokenizer files in Hugging Face layout into an existing folder.
  virtual void save(const std::filesystem::path& folder) const = 0;
  /// Changes when any id of any text could change; part of the key of tokenised data.
  virtual uint64_t fingerprint() const = 0;
};

/// Loads the tokenizer of a model folder (its tokenizer.json); throws tokenizer.missing, tokenizer.format (damaged, or of
/// a kind that is not supported, which is named).
std::shared_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& folder);

/// Turns a stream of ids into text that never splits a character: push returns what is certain.
class TextStream {
 public:
  explicit TextStream(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  std::string push(int64_t id);
  std::string flush();  ///< what is left; broken bytes become U+FFFD

 private:
  const Tokenizer& tokenizer_;
  std::vector<int64_t> last_;  ///< the token before: some tokenizers write a text's first token in another way
  std::string held_;           ///< the beginning of a character
};

enum class TokenizerKind { bpe, unigram };

struct TokenizerOptions {
  std::string from;              ///< folder of an existing tokenizer; empty = train one
  TokenizerKind kind = TokenizerKind::bpe;
  int64_t vocabulary = 4096;
  int64_t sample_bytes = 8 << 20;  ///< text that training looks at, spread over the domains
  static void describe(Fields<TokenizerOptions>& f);
};

/// Trains a tokenizer on what `next` gives until it returns false, or until options.sample_bytes are read. Nothing is
/// normalised: decode(encode(text)) == text for every UTF-8 text. The same text and options give the same tokenizer
/// whatever the thread count. A text too small for the vocabulary gives a smaller one. Throws tokenizer.train.
std::shared_ptr<Tokenizer> train_tokenizer(const TokenizerOptions& options,
                                           const std::function<bool(std::string&)>& next);

}  // namespace switchyard
