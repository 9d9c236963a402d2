#include "switchyard/formats/tokenizers/decoders.h"

#include "switchyard/formats/tokenizers/byte_symbols.h"
#include "switchyard/formats/utf8.h"

namespace switchyard {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  if (from.empty()) return text;
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) text.replace(at, from.size(), to);
  return text;
}

/// Blanks before punctuation and around English contractions.
std::string cleaned(std::string text) {
  for (const auto& [from, to] : std::initializer_list<std::pair<const char*, const char*>>{
           {" .", "."}, {" ?", "?"}, {" !", "!"}, {" ,", ","}, {" ' ", "'"}, {" n't", "n't"}, {" 'm", "'m"},
           {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}})
    text = replaced(std::move(text), from, to);
  return text;
}

/// A step without memory, but for whether a token is the first.
class EachToken : public DecodeStep {
 public:
  using Change = std::function<std::string(std::string_view token, bool first)>;
  explicit EachToken(Change change) : change_(std::move(change)) {}
  void push(std::string_view token, const Emit& emit) override {
    emit(change_(token, first_));
    first_ = false;
  }

 private:
  Change change_;
  bool first_ = true;
};

TokenDecoder::Part each_token(EachToken::Change change) {
  return {[change = std::move(change)](DecodeMode, bool) { return std::make_unique<EachToken>(change); }};
}

class ByteLevelStep : public DecodeStep {
 public:
  explicit ByteLevelStep(DecodeMode mode) : mode_(mode) {}
  void push(std::string_view token, const Emit& emit) override {
    append_bytes_of_symbols(token, held_);
    if (mode_ != DecodeMode::stream) return;
    const size_t certain = held_.size() - utf8_unfinished(held_);
    if (certain == 0) return;
    const std::string text = utf8_repair(std::string_view(held_).substr(0, certain));
    held_.erase(0, certain);
    emit(text);
  }
  void finish(const Emit& emit) override {
    const std::string text = mode_ == DecodeMode::bytes ? held_ : utf8_repair(held_);
    held_.clear();
    emit(text);
  }

 private:
  DecodeMode mode_;
  std::string held_;
};

/// A run of byte tokens is text when all of it is UTF-8, else U+FFFD for each. In a stream, a run ends where it is text.
class ByteFallbackStep : public DecodeStep {
 public:
  explicit ByteFallbackStep(DecodeMode mode) : mode_(mode) {}
  void push(std::string_view token, const Emit& emit) override {
    const int byte = byte_of_token(token);
    if (byte < 0) {
      finish(emit);
      return emit(token);
    }
    run_ += static_cast<char>(byte);
    if (mode_ == DecodeMode::stream && whole_from_here()) finish(emit);
  }
  void finish(const Emit& emit) override {
    if (run_.empty()) return;
    const std::string run = std::exchange(run_, {});
    checked_ = 0;
    if (mode_ == DecodeMode::bytes || utf8_repair(run) == run) return emit(run);
    std::string text;
    for (size_t i = 0; i < run.size(); ++i) text += kReplacement;
    emit(text);
  }

 private:
  /// Whether the run is UTF-8; characters are looked at once.
  bool whole_from_here() {
    while (checked_ < run_.size()) {
      const Utf8Step step = utf8_step(std::string_view(run_).substr(checked_));
      if (step.kind != Utf8Step::Kind::character) return false;
      checked_ += step.bytes;
    }
    return true;
  }
  DecodeMode mode_;
  std::string run_;
  size_t checked_ = 0;
};

class FuseStep : public DecodeStep {
 public:
  explicit FuseStep(DecodeMode mode) : mode_(mode) {}
  void push(std::string_view token, const Emit& emit) override {
    if (mode_ == DecodeMode::stream) emit(token);
    else all_ += token;
  }
  void finish(const Emit& emit) override {
    if (mode_ != DecodeMode::stream) emit(std::exchange(all_, {}));
  }

 private:
  DecodeMode mode_;
  std::string all_;
};

std::string stripped(std::string_view token, std::string_view character, size_t start, size_t stop) {
  for (size_t i = 0; i < start && token.starts_with(character); ++i) token.remove_prefix(character.size());
  for (size_t i = 0; i < stop && token.ends_with(character); ++i) token.remove_suffix(character.size());
  return std::string(token);
}

/// Strips the ends of a text that comes in parts: what may be its end is held back.
class StripStream : public DecodeStep {
 public:
  StripStream(std::string character, size_t start, size_t stop) : character_(std::move(character)), start_(start), stop_(stop) {}
  void push(std::string_view token, const Emit& emit) override {
    while (start_ > 0 && token.starts_with(character_)) {
      token.remove_prefix(character_.size());
      --start_;
    }
    if (token.empty()) return emit(token);
    start_ = 0;
    size_t end = token.size();
    if (stop_ > 0)
      while (token.substr(0, end).ends_with(character_)) end -= character_.size();
    if (end == 0) {
      held_ += token;
      return emit({});
    }
    const std::string text = held_ + std::string(token.substr(0, end));
    held_ = token.substr(end);
    emit(text);
  }
  void finish(const Emit& emit) override { emit(stripped(std::exchange(held_, {}), character_, 0, stop_)); }

 private:
  std::string character_, held_;
  size_t start_, stop_;
};

/// Replaces in a text that comes in parts: what may be the beginning of a match is held back.
class ReplaceStream : public DecodeStep {
 public:
  ReplaceStream(std::string text, std::string content) : text_(std::move(text)), content_(std::move(content)) {}
  void push(std::string_view token, const Emit& emit) override {
    held_ += token;
    std::string out;
    size_t at = 0;
    for (size_t found; (found = held_.find(text_, at)) != std::string::npos; at = found + text_.size())
      out += held_.substr(at, found - at) + content_;
    size_t keep = std::min(held_.size() - at, text_.size() - 1);
    while (keep > 0 && held_.compare(held_.size() - keep, keep, text_, 0, keep) != 0) --keep;
    out += held_.substr(at, held_.size() - at - keep);
    held_.erase(0, held_.size() - keep);
    emit(out);
  }
  void finish(const Emit& emit) override { emit(std::exchange(held_, {})); }

 private:
  std::string text_, content_, held_;
};

class BpeStep : public DecodeStep {
 public:
  explicit BpeStep(std::string suffix) : suffix_(std::move(suffix)) {}
  void push(std::string_view token, const Emit& emit) override {
    if (has_) emit(replaced(last_, suffix_, " "));
    last_ = token;
    has_ = true;
  }
  void finish(const Emit& emit) override {
    if (has_) emit(replaced(std::exchange(last_, {}), suffix_, ""));
    has_ = false;
  }

 private:
  std::string suffix_, last_;
  bool has_ = false;
};

class CtcStep : public DecodeStep {
 public:
  CtcStep(std::string pad, std::string delimiter, bool cleanup)
      : pad_(std::move(pad)), delimiter_(std::move(delimiter)), cleanup_(cleanup) {}
  void push(std::string_view token, const Emit& emit) override {
    if (has_ && token == last_) return;
    last_ = token;
    has_ = true;
    std::string text = replaced(std::string(token), pad_, "");
    if (cleanup_) text = replaced(cleaned(std::move(text)), delimiter_, " ");
    if (!text.empty()) emit(text);
  }

 private:
  std::string pad_, delimiter_, last_;
  bool cleanup_, has_ = false;
};

}  // namespace

TokenDecoder::Part byte_level_decoder() {
  return {[](DecodeMode mode, bool) { return std::make_unique<ByteLevelStep>(mode); }, true};
}

TokenDecoder::Part byte_fallback_decoder() {
  return {[](DecodeMode mode, bool) { return std::make_unique<ByteFallbackStep>(mode); }};
}

TokenDecoder::Part fuse_decoder() {
  return {[](DecodeMode mode, bool) { return std::make_unique<FuseStep>(mode); }, true};
}

TokenDecoder::Part metaspace_decoder(std::string replacement, bool prepended) {
  return each_token([replacement = std::move(replacement), prepended](std::string_view token, bool first) {
    return replaced(std::string(token), replacement, first && prepended ? "" : " ");
  });
}

TokenDecoder::Part word_piece_decoder(std::string prefix, bool cleanup) {
  return each_token([prefix = std::move(prefix), cleanup](std::string_view token, bool first) {
    std::string text(token);
    if (!first) text = token.starts_with(prefix) ? std::string(token.substr(prefix.size())) : " " + text;
    return cleanup ? cleaned(std::move(text)) : text;
  });
}

TokenDecoder::Part bpe_decoder(std::string suffix) {
  return {[suffix = std::move(suffix)](DecodeMode, bool) { return std::make_unique<BpeStep>(suffix); }};
}

TokenDecoder::Part ctc_decoder(std::string pad, std::string delimiter, bool cleanup) {
  return {[pad = std::move(pad), delimiter = std::move(delimiter), cleanup](DecodeMode, bool) {
    return std::make_unique<CtcStep>(pad, delimiter, cleanup);
  }};
}

TokenDecoder::Part strip_decoder(std::string character, size_t start, size_t stop) {
  return {[character = std::move(character), start, stop](DecodeMode mode, bool fused) -> std::unique_ptr<DecodeStep> {
    if (fused && mode == DecodeMode::stream) return std::make_unique<StripStream>(character, start, stop);
    return std::make_unique<EachToken>([character, start, stop](std::string_view token, bool) { return stripped(token, character, start, stop); });
  }};
}

TokenDecoder::Part replace_decoder(std::string text, std::shared_ptr<const Regex> regex, std::string content) {
  return {[text = std::move(text), regex = std::move(regex), content = std::move(content)](DecodeMode mode, bool fused) -> std::unique_ptr<DecodeStep> {
    if (!regex && fused && mode == DecodeMode::stream && !text.empty()) return std::make_unique<ReplaceStream>(text, content);
    if (!regex)
      return std::make_unique<EachToken>([text, content](std::string_view token, bool) { return replaced(std::string(token), text, content); });
    return std::make_unique<EachToken>([regex, content](std::string_view token, bool) {
      std::vector<Span> matches;
      const std::string whole = utf8_repair(token);
      regex->find_all(whole, matches);
      std::string result;
      size_t at = 0;
      for (const Span match : matches) {
        result += whole.substr(at, match.begin - at) + content;
        at = match.end;
      }
      return result + whole.substr(at);
    });
  }};
}

TokenDecoder::Part spaces_between() {
  return each_token([](std::string_view token, bool first) { return first ? std::string(token) : " " + std::string(token); });
}

DecodeRun::DecodeRun(const TokenDecoder& decoder, DecodeMode mode) {
  bool fused = false;
  for (size_t i = 0; i < decoder.parts.size(); ++i) {
    steps_.push_back(decoder.parts[i].make(mode, fused));
    fused |= decoder.parts[i].fuses;
    emits_.push_back([this, i](std::string_view token) { push_from(i + 1, token); });
  }
}

void DecodeRun::push_from(size_t step, std::string_view token) {
  if (step == steps_.size()) text_ += token;
  else steps_[step]->push(token, emits_[step]);
}

void DecodeRun::finish() {
  for (size_t i = 0; i < steps_.size(); ++i) steps_[i]->finish(emits_[i]);
}

}  // namespace switchyard
