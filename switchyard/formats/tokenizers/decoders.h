// Decoders: how tokens become text again. A decoder is a chain of steps; a chain runs over one list of tokens, either at
// once or as they come.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "switchyard/formats/tokenizers/regex.h"

namespace switchyard {

enum class DecodeMode {
  whole,   ///< all tokens are known before the text is read, as the reference library decodes
  stream,  ///< text is given out as soon as it is certain
  bytes    ///< as whole, but bytes that are no UTF-8 are left as they are
};

using Emit = std::function<void(std::string_view)>;

class DecodeStep {
 public:
  virtual ~DecodeStep() = default;
  virtual void push(std::string_view token, const Emit& emit) = 0;
  virtual void finish(const Emit&) {}
};

/// Makes a step for one run; `fused`: the steps before it make one token of all.
using DecodeStepMaker = std::function<std::unique_ptr<DecodeStep>(DecodeMode mode, bool fused)>;

struct TokenDecoder {
  struct Part {
    DecodeStepMaker make;
    bool fuses = false;
  };
  std::vector<Part> parts;
};

TokenDecoder::Part byte_level_decoder();
TokenDecoder::Part byte_fallback_decoder();
TokenDecoder::Part fuse_decoder();
TokenDecoder::Part metaspace_decoder(std::string replacement, bool prepended);
TokenDecoder::Part word_piece_decoder(std::string prefix, bool cleanup);
TokenDecoder::Part bpe_decoder(std::string suffix);
TokenDecoder::Part ctc_decoder(std::string pad, std::string delimiter, bool cleanup);
TokenDecoder::Part strip_decoder(std::string character, size_t start, size_t stop);
TokenDecoder::Part replace_decoder(std::string text, std::shared_ptr<const Regex> regex, std::string content);  ///< text, unless regex
TokenDecoder::Part spaces_between();  ///< where a tokenizer has no decoder

/// A decoder at work.
class DecodeRun {
 public:
  DecodeRun(const TokenDecoder& decoder, DecodeMode mode);
  void push(std::string_view token) { push_from(0, token); }
  void finish();
  std::string take() { return std::exchange(text_, {}); }  ///< the text since the last call

 private:
  void push_from(size_t step, std::string_view token);
  std::vector<std::unique_ptr<DecodeStep>> steps_;
  std::vector<Emit> emits_;
  std::string text_;
};

}  // namespace switchyard
