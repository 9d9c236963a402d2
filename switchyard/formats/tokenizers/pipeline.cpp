#include "switchyard/formats/tokenizers/pipeline.h"

#include <algorithm>

#include "switchyard/base/error.h"
#include "switchyard/base/files.h"
#include "switchyard/formats/utf8.h"

namespace switchyard {
namespace {

constexpr size_t kLongestText = (uint64_t{1} << 31) - 1;  // places in a text are 32-bit numbers, and texts grow on the way

/// Bytes of a text to its code points.
class CodePoints {
 public:
  explicit CodePoints(std::string_view text) : bytes_(text.size()) {
    if (std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; })) return;
    index_.reserve(text.size() + 1);
    uint32_t index = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      if (i > 0 && !utf8_continues(text[i])) ++index;
      index_.push_back(index);
    }
    index_.push_back(text.empty() ? 0 : index + 1);
  }
  int64_t begin(uint32_t byte) const { return index_.empty() ? byte : index_[std::min<size_t>(byte, index_.size() - 1)]; }
  int64_t end(uint32_t byte) const { return index_.empty() || byte == 0 ? byte : index_[std::min<size_t>(byte, index_.size() - 1) - 1] + 1; }

  /// The code points of bytes that may lie outside the text; then as they are.
  std::pair<int64_t, int64_t> loose(uint32_t first, uint32_t last) const {
    if (first >= bytes_) return {first, last};
    return {begin(first), last < bytes_ ? begin(last) : last <= bytes_ ? end(last) : begin(first) + 2};
  }

 private:
  size_t bytes_;
  std::vector<uint32_t> index_;
};

class PipelineTokenizer;

class PipelineDecoder : public IncrementalDecoder {
 public:
  PipelineDecoder(const PipelineTokenizer& tokenizer, bool skip_special);
  std::string push(int64_t id) override;
  std::string flush() override;

 private:
  const PipelineTokenizer& tokenizer_;
  bool skip_special_;
  std::unique_ptr<DecodeRun> run_;
};

class PipelineTokenizer : public Tokenizer {
 public:
  explicit PipelineTokenizer(TokenizerParts parts) : parts_(std::move(parts)) {
    size_ = std::max(parts_.model->vocabulary().size(), parts_.added.size());
    special_.resize(static_cast<size_t>(size_));
    for (const int64_t id : parts_.controls) special_[static_cast<size_t>(id)] = true;
    for (const auto& [id, token] : parts_.added.tokens()) special_[static_cast<size_t>(id)] = parts_.added.special(*parts_.added.decoded(id));
    // What a token is called decides, and a unigram vocabulary may hold the same text twice.
    const Vocabulary& vocabulary = parts_.model->vocabulary();
    for (int64_t id = 0; id < vocabulary.size() && vocabulary.repeats(); ++id)
      if (vocabulary.has(id) && parts_.added.special(vocabulary.token(id))) special_[static_cast<size_t>(id)] = true;
    decoded_.resize(static_cast<size_t>(size_));
    for (int64_t id = 0; id < size_; ++id) {
      const std::string* added = parts_.added.decoded(id);
      decoded_[static_cast<size_t>(id)] = added ? added : vocabulary.has(id) ? &vocabulary.token(id) : nullptr;
    }
  }

  int64_t vocabulary() const override { return size_; }

  std::vector<int64_t> encode(std::string_view text) const override { return std::move(encode_one(text, {}, false, 0).ids); }

  Encoding encode(std::string_view text, const EncodeOptions& options) const override {
    std::vector<Encoding> encodings;
    encodings.push_back(encode_one(text, options, true, 0));
    return processed(std::move(encodings), options);
  }

  Encoding encode_pair(std::string_view first, std::string_view second, const EncodeOptions& options) const override {
    std::vector<Encoding> encodings;
    encodings.push_back(encode_one(first, options, true, 0));
    encodings.push_back(encode_one(second, options, true, 1));
    return processed(std::move(encodings), options);
  }

  std::string bytes(const std::vector<int64_t>& ids) const override { return decode_all(ids, true, DecodeMode::bytes); }
  std::string decode(const std::vector<int64_t>& ids, bool skip_special) const override {
    return decode_all(ids, skip_special, DecodeMode::whole);
  }
  std::unique_ptr<IncrementalDecoder> incremental(bool skip_special) const override {
    return std::make_unique<PipelineDecoder>(*this, skip_special);
  }

  std::string token(int64_t id) const override {
    check(id >= 0 && id < size_, "tokenizer.id", "token id {} is outside the vocabulary of {}", id, size_);
    if (const auto added = parts_.added.tokens().find(id); added != parts_.added.tokens().end()) return added->second.content;
    return parts_.model->vocabulary().has(id) ? parts_.model->vocabulary().token(id) : "";
  }

  std::optional<int64_t> id_of(std::string_view token) const override {
    int32_t id = parts_.added.id(token);
    if (id < 0) id = parts_.model->vocabulary().id(token);
    return id < 0 ? std::nullopt : std::optional<int64_t>(id);
  }

  bool special(int64_t id) const override { return id >= 0 && id < size_ && special_[static_cast<size_t>(id)]; }
  std::optional<int64_t> begin_id() const override { return parts_.begin; }
  std::optional<int64_t> end_id() const override { return parts_.end; }
  uint64_t fingerprint() const override { return parts_.fingerprint; }

  void save(const std::filesystem::path& folder) const override {
    check(!parts_.files.empty(), "tokenizer.save", "this tokenizer was not read from files of its own, so there are none to write");
    for (const auto& [name, content] : parts_.files) write_file_atomically(folder / name, content);
  }

  /// Gives an id's token to a decoder.
  void decode_into(DecodeRun& run, int64_t id, bool skip_special) const {
    check(id >= 0, "tokenizer.id", "token id {} is negative", id);
    if (id >= size_ || (skip_special && special_[static_cast<size_t>(id)])) return;
    if (const std::string* token = decoded_[static_cast<size_t>(id)]) run.push(*token);
  }
  const TokenDecoder& decoder() const { return parts_.decoder; }

 private:
  std::string decode_all(const std::vector<int64_t>& ids, bool skip_special, DecodeMode mode) const {
    DecodeRun run(parts_.decoder, mode);
    for (const int64_t id : ids) decode_into(run, id, skip_special);
    run.finish();
    return run.take();
  }

  /// The tokens of one text, before post-processing.
  Encoding encode_one(std::string_view given, const EncodeOptions& options, bool details, int64_t type_id) const {
    check(given.size() <= kLongestText, "tokenizer.text", "a text of {} bytes is too long; up to {} are encoded at once", given.size(),
          kLongestText);
    std::string repaired;
    std::string_view text = given;
    if (!utf8_valid(given)) text = repaired = utf8_repair(given);
    Encoding encoding;
    const CodePoints points(details ? text : std::string_view());
    const bool tracked = details || parts_.needs_origins;
    for (const AddedTokens::Part& part : parts_.added.find(text, false, options.parse_special)) {
      AlignedText piece{.text = std::string(text.substr(part.begin, part.end - part.begin)), .origins = {},
                        .base = static_cast<uint32_t>(part.begin), .tracked = tracked};
      if (part.id >= 0) {
        add(encoding, piece, {part.id, 0, static_cast<uint32_t>(piece.text.size()), true}, details, points);
        continue;
      }
      for (const Normaliser& normaliser : parts_.normalisers) normaliser(piece);
      for (const AddedTokens::Part& inner : parts_.added.find(piece.text, true, options.parse_special)) {
        if (inner.id >= 0) {
          add(encoding, piece, {inner.id, static_cast<uint32_t>(inner.begin), static_cast<uint32_t>(inner.end), true}, details, points);
          continue;
        }
        const bool whole = inner.begin == 0 && inner.end == piece.text.size();
        Words words{.text = whole ? std::move(piece) : piece.slice(inner.begin, inner.end), .spans = {}};
        words.spans.push_back({0, static_cast<uint32_t>(words.text.text.size())});
        for (const PreTokenizer& pre_tokenizer : parts_.pre_tokenizers) {
          write_symbols(words);
          pre_tokenizer(words);
        }
        if (!parts_.model->reads_symbols()) write_symbols(words);
        std::vector<Piece> pieces;
        pieces.reserve(words.spans.size());
        parts_.model->encode(words, pieces);
        reserve(encoding, pieces.size(), details);
        for (const Piece& p : pieces) add(encoding, words.text, p, details, points);
        if (whole) break;
      }
    }
    if (details) {
      encoding.type_ids.assign(encoding.ids.size(), type_id);
      encoding.special_mask.assign(encoding.ids.size(), 0);
    }
    return encoding;
  }

  static void reserve(Encoding& encoding, size_t more, bool details) {
    const auto grow = [more](auto& list) { list.reserve(std::max(list.size() + more, list.capacity())); };
    grow(encoding.ids);
    if (!details) return;
    grow(encoding.tokens);
    grow(encoding.offsets);
  }

  void add(Encoding& encoding, const AlignedText& text, const Piece& piece, bool details, const CodePoints& points) const {
    encoding.ids.push_back(piece.id);
    if (!details) return;
    encoding.tokens.push_back(piece.literal ? text.text.substr(piece.begin, piece.end - piece.begin) : parts_.model->vocabulary().token(piece.id));
    if (piece.loose) {
      encoding.offsets.push_back(points.loose(piece.begin, piece.end));
      return;
    }
    if (text.origins.empty() && piece.end > piece.begin) {
      encoding.offsets.emplace_back(points.begin(text.base + piece.begin), points.end(text.base + piece.end));
      return;
    }
    const Span first = text.origin(piece.begin);
    const uint32_t end = piece.end > piece.begin ? text.origin(piece.end - 1).end : first.begin;
    encoding.offsets.emplace_back(points.begin(first.begin), points.end(end));
  }

  Encoding processed(std::vector<Encoding> encodings, const EncodeOptions& options) const {
    for (const PostProcessor& processor : parts_.post_processors) processor(encodings, options.add_special);
    if (encodings.size() == 1) return std::move(encodings.front());
    Encoding whole;
    for (Encoding& encoding : encodings) append(whole, std::move(encoding));
    return whole;
  }

  TokenizerParts parts_;
  int64_t size_ = 0;
  std::vector<bool> special_;
  std::vector<const std::string*> decoded_;  ///< what a decoder gets for each id, or null
};

PipelineDecoder::PipelineDecoder(const PipelineTokenizer& tokenizer, bool skip_special)
    : tokenizer_(tokenizer), skip_special_(skip_special), run_(new DecodeRun(tokenizer.decoder(), DecodeMode::stream)) {}

std::string PipelineDecoder::push(int64_t id) {
  tokenizer_.decode_into(*run_, id, skip_special_);
  return run_->take();
}

std::string PipelineDecoder::flush() {
  run_->finish();
  std::string text = run_->take();
  run_ = std::make_unique<DecodeRun>(tokenizer_.decoder(), DecodeMode::stream);
  return text;
}

}  // namespace

std::shared_ptr<Tokenizer> make_tokenizer(TokenizerParts parts) { return std::make_shared<PipelineTokenizer>(std::move(parts)); }

std::optional<int64_t> leading_token(const std::vector<PostProcessor>& processors) {
  constexpr int64_t kText = -1;
  std::vector<Encoding> encodings(1);
  encodings[0].ids = {kText};
  for (const PostProcessor& processor : processors) processor(encodings, true);
  for (const Encoding& encoding : encodings)
    for (const int64_t id : encoding.ids) return id == kText ? std::nullopt : std::optional(id);
  return std::nullopt;
}

}  // namespace switchyard
