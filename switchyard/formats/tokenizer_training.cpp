// Training by the sentencepiece library, set so that nothing of a text is changed: no normalisation, no space put in
// front, no space taken away. Its "▁" is a space again in our vocabulary.
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <map>
#include <unordered_map>

#include "switchyard/base/error.h"
#include "switchyard/base/progress.h"
#include "switchyard/formats/tokenizers/piece_table.h"
#include "switchyard/formats/utf8.h"

namespace switchyard {
namespace {

constexpr int64_t kSpecialTokens = 3;
constexpr std::string_view kSpace = "\xE2\x96\x81";  // ▁, sentencepiece's space
constexpr char kBoundary = '\t';                      // no piece of sentencepiece reaches over a tab
constexpr size_t kSentenceBytes = 4096;

using Characters = std::map<std::string, int64_t, std::less<>>;

bool printable_ascii(std::string_view c) { return c.size() == 1 && c[0] > ' ' && c[0] <= '~'; }

/// Characters that may not get a token of their own: sentencepiece gives them another meaning, or they are controls
/// (also U+0080 to U+009F) or noncharacters.
bool reserved(std::string_view c) {
  if (c == kSpace || c == "\xE2\x96\x85") return true;
  const char32_t code = utf8_code_point(c);
  if (code == '\n') return false;
  return code < 0x20 || (code >= 0x7F && code < 0xA0) || (code & 0xFFFE) == 0xFFFE || (code >= 0xFDD0 && code <= 0xFDEF);
}

/// The characters that get a token: the most frequent ones that cover 99.95 % of the text, but at most a third of the
/// free tokens, so that rich scripts leave room for pieces.
Characters frequent_characters(const Characters& counts, int64_t vocabulary) {
  std::vector<std::pair<int64_t, std::string_view>> order;
  int64_t total = 0;
  for (const auto& [character, count] : counts) {
    if (character == " " || reserved(character)) continue;
    total += count;
    if (!printable_ascii(character) && character != "\n") order.emplace_back(-count, character);
  }
  std::sort(order.begin(), order.end());
  Characters chosen;
  int64_t covered = 0;
  for (const auto& [character, count] : counts) {
    if (!printable_ascii(character) && character != "\n") continue;
    chosen.emplace(character, count);
    covered += count;
  }
  const auto most = static_cast<size_t>((vocabulary - kSpecialTokens - 256) / 3);
  for (const auto& [count, character] : order) {
    if (static_cast<double>(covered) >= 0.9995 * static_cast<double>(total) || chosen.size() >= most) break;
    chosen.emplace(character, -count);
    covered -= count;
  }
  return chosen;
}

/// Hands over the sample sentence by sentence, with every character that gets no token replaced by a boundary.
class Sentences : public sentencepiece::SentenceIterator {
 public:
  Sentences(const std::vector<std::string>& texts, const Characters& characters) : texts_(texts), characters_(characters) {
    // Every printable ASCII character once, so that all get tokens, whatever the text.
    for (char c = '!'; c <= '~'; ++c) sentence_ += {c, kBoundary};
  }
  bool done() const override { return done_; }
  const std::string& value() const override { return sentence_; }
  sentencepiece::util::Status status() const override { return {}; }
  void Next() override {
    sentence_.clear();
    while (sentence_.size() < kSentenceBytes) {
      if (text_ == texts_.size() || (at_ == texts_[text_].size() && !sentence_.empty())) break;
      if (at_ == texts_[text_].size()) {
        ++text_;
        at_ = 0;
        continue;
      }
      const std::string_view rest = std::string_view(texts_[text_]).substr(at_);
      const std::string_view character = rest.substr(0, utf8_step(rest).bytes);
      at_ += character.size();
      if (character == " " || characters_.contains(character)) sentence_ += character;
      else sentence_ += kBoundary;
      if (character == "\n" && sentence_.size() > kSentenceBytes / 2) break;
    }
    done_ = sentence_.empty();
  }

 private:
  const std::vector<std::string>& texts_;
  const Characters& characters_;
  size_t text_ = 0, at_ = 0;
  std::string sentence_;
  bool done_ = false;
};

std::string with_spaces(std::string_view piece) {
  std::string result;
  while (!piece.empty()) {
    const bool space = piece.starts_with(kSpace);
    result += space ? ' ' : piece[0];
    piece.remove_prefix(space ? kSpace.size() : 1);
  }
  return result;
}

/// Every way to make a piece of two pieces is a merge, those of better pieces first.
std::vector<std::pair<int32_t, int32_t>> merges_of(const std::vector<std::string>& tokens, int32_t first) {
  std::unordered_map<std::string_view, int32_t> ids;
  for (auto id = first; id < static_cast<int32_t>(tokens.size()); ++id) ids.emplace(tokens[static_cast<size_t>(id)], id);
  std::vector<std::pair<int32_t, int32_t>> merges;
  for (auto id = first; id < static_cast<int32_t>(tokens.size()); ++id) {
    const std::string_view token = tokens[static_cast<size_t>(id)];
    const size_t before = merges.size();
    for (size_t cut = 1; cut < token.size(); ++cut) {
      const auto left = ids.find(token.substr(0, cut)), right = ids.find(token.substr(cut));
      if (left != ids.end() && right != ids.end()) merges.emplace_back(left->second, right->second);
    }
    std::sort(merges.begin() + static_cast<std::ptrdiff_t>(before), merges.end());
  }
  return merges;
}

/// In the file of a unigram tokenizer, special tokens and bytes must never win against the characters of their names.
constexpr double kNeverChosen = -1e6;

PieceTable table_of(std::string model, TokenizerKind kind) {
  sentencepiece::SentencePieceProcessor processor;
  const auto status = processor.LoadFromSerializedProto(model);
  check(status.ok(), "tokenizer.train", "sentencepiece cannot read its own model: {}", status.ToString());
  PieceTable table{.kind = kind, .unknown = processor.unk_id(), .begin = processor.bos_id(), .end = processor.eos_id()};
  for (int id = 0; id < processor.GetPieceSize(); ++id) {
    const bool text = !processor.IsControl(id) && !processor.IsUnknown(id) && !processor.IsByte(id);
    const std::string piece(processor.IdToPiece(id));
    table.tokens.push_back(text ? with_spaces(piece) : piece);
    if (kind == TokenizerKind::unigram) table.scores.push_back(text ? processor.GetScore(id) : kNeverChosen);
  }
  if (kind == TokenizerKind::bpe) table.merges = merges_of(table.tokens, kSpecialTokens + 256);
  table.sentencepiece = std::move(model);
  return table;
}

}  // namespace

std::shared_ptr<Tokenizer> train_tokenizer(const TokenizerOptions& options,
                                           const std::function<bool(std::string&)>& next) {
  std::vector<std::string> texts;
  Characters counts;
  int64_t bytes = 0;
  for (std::string text; bytes < options.sample_bytes && next(text);) {
    text = utf8_repair(text);
    if (const int64_t left = options.sample_bytes - bytes; static_cast<int64_t>(text.size()) > left) {
      text.resize(static_cast<size_t>(left));
      text.resize(text.size() - utf8_unfinished(text));
    }
    bytes += static_cast<int64_t>(text.size());
    for (std::string_view rest = text; !rest.empty();) {
      const std::string_view character = rest.substr(0, utf8_step(rest).bytes);
      if (auto found = counts.find(character); found != counts.end()) ++found->second;
      else counts.emplace(character, 1);
      rest.remove_prefix(character.size());
    }
    texts.push_back(std::move(text));
  }
  check(bytes > 0, "tokenizer.train", "there is no text to train the tokenizer on");

  const Characters characters = frequent_characters(counts, options.vocabulary);
  Sentences sentences(texts, characters);
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(
      {{"model_type", options.kind == TokenizerKind::bpe ? "bpe" : "unigram"},
       {"vocab_size", std::to_string(options.vocabulary)},
       {"hard_vocab_limit", "false"},
       {"byte_fallback", "true"},
       {"character_coverage", "1.0"},
       {"normalization_rule_name", "identity"},
       {"add_dummy_prefix", "false"},
       {"remove_extra_whitespaces", "false"},
       {"allow_whitespace_only_pieces", "true"},
       {"split_digits", "true"},
       {"max_sentence_length", std::to_string(2 * kSentenceBytes)},
       {"num_threads", "8"},  // fixed: sums of the unigram model depend on it
       {"unk_piece", "<|unknown|>"}, {"bos_piece", "<|begin|>"}, {"eos_piece", "<|end|>"},
       {"minloglevel", "3"}},
      &sentences, &model);
  check(status.ok(), "tokenizer.train", "sentencepiece cannot train a {} vocabulary of {} tokens on {} bytes of text: {}",
        options.kind == TokenizerKind::bpe ? "bpe" : "unigram", options.vocabulary, bytes, status.ToString());
  auto tokenizer = make_tokenizer(table_of(std::move(model), options.kind));
  if (tokenizer->vocabulary() < options.vocabulary)
    log_warning(fmt::format("the tokenizer has {} tokens instead of {}: {} bytes of text hold no more pieces",
                            tokenizer->vocabulary(), options.vocabulary, bytes));
  return tokenizer;
}

}  // namespace switchyard
