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

/// What encoding a text gives. The lists have one entry a token; all but `ids` are filled only where asked for.
struct Encoding {
  std::vector<int64_t> ids;
  std::vector<std::string> tokens;                    ///< as the vocabulary spells them; unknown text as it stands
  std::vector<std::pair<int64_t, int64_t>> offsets;   ///< in code points of the text: [begin, end)
  std::vector<int64_t> type_ids;                      ///< which text of a pair, as the model counts
  std::vector<uint8_t> special_mask;                  ///< 1: put there by the tokenizer, not by the text
};

struct EncodeOptions {
  bool add_special = false;    ///< with the tokens that the tokenizer puts around texts
  bool parse_special = false;  ///< special tokens that stand in the text are tokens; false: they are text
};

/// Turns ids into text as they come. push returns what is certain: whole characters, none later than it must be.
class IncrementalDecoder {
 public:
  virtual ~IncrementalDecoder() = default;
  virtual std::string push(int64_t id) = 0;
  virtual std::string flush() = 0;  ///< what is left; broken bytes become U+FFFD
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual int64_t vocabulary() const = 0;  ///< the highest id plus one
  /// Ids of a text, without special tokens around it; what looks like a special token in the text is text. In all encoding,
  /// what is no UTF-8 is first replaced by U+FFFD. Throws tokenizer.unknown for a text that the vocabulary cannot spell when it
  /// has no token for the unknown, tokenizer.regex when a pattern would search too long, tokenizer.text over 2 GiB.
  virtual std::vector<int64_t> encode(std::string_view text) const = 0;
  virtual Encoding encode(std::string_view text, const EncodeOptions& options) const = 0;
  virtual Encoding encode_pair(std::string_view first, std::string_view second, const EncodeOptions& options) const = 0;
  /// The bytes that the ids stand for, which may be no UTF-8 (a character cut in two); special tokens are left out. In this
  /// and in all decoding, ids without a token stand for nothing; throws tokenizer.id for negative ones.
  virtual std::string bytes(const std::vector<int64_t>& ids) const = 0;
  /// The text of ids, with U+FFFD for what is no UTF-8.
  virtual std::string decode(const std::vector<int64_t>& ids, bool skip_special = true) const = 0;
  virtual std::unique_ptr<IncrementalDecoder> incremental(bool skip_special) const = 0;
  /// The token as it stands in the vocabulary, for reports (" the", "<0x0A>"); throws tokenizer.id.
  virtual std::string token(int64_t id) const = 0;
  virtual std::optional<int64_t> id_of(std::string_view token) const = 0;
  virtual bool special(int64_t id) const = 0;           ///< a control token, left out of decoded text
  virtual std::optional<int64_t> begin_id() const = 0;  ///< put before a document, when the model wants one
  virtual std::optional<int64_t> end_id() const = 0;    ///< ends a document; generation stops at it
  /// Writes the tokenizer's files into an existing folder.
  virtual void save(const std::filesystem::path& folder) const = 0;
  /// Changes when any id of any text could change; part of the key of tokenised data.
  virtual uint64_t fingerprint() const = 0;
};

/// Loads the tokenizer of a model folder or of one file: tokenizer.json, a tiktoken rank file (tiktoken.model, *.tiktoken), a
/// sentencepiece model (tokenizer.model, spiece.model) or a GGUF file; in a folder the first of these counts, and where it has none, what its
/// folder `tokenizer` holds (a run's). A tokenizer_config.json beside it names special tokens, but a sentencepiece model that is named itself is read alone. Throws
/// tokenizer.missing, tokenizer.format (damaged), tokenizer.unsupported (what is not supported is named), tokenizer.regex.
std::shared_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& path);

/// An incremental decoder that began with `shown`: ids whose text is already there.
class TextStream {
 public:
  explicit TextStream(const Tokenizer& tokenizer, bool skip_special = true, const std::vector<int64_t>& shown = {});
  std::string push(int64_t id) { return decoder_->push(id); }
  std::string flush() { return decoder_->flush(); }

 private:
  std::unique_ptr<IncrementalDecoder> decoder_;
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
