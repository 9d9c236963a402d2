// Writing on from prompts: prefill once, then one token a step for every sequence that still runs.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "switchyard/infer/language_model.h"
#include "switchyard/infer/sampling.h"

namespace switchyard {

struct GenerateOptions : SamplingOptions {
  int64_t max_tokens = 256;               ///< written at most, a sequence
  std::vector<std::string> stop;          ///< texts that end a sequence; they are not part of the result
  bool ignore_end = false;                ///< write past the end token
  std::map<std::string, int64_t> facts;   ///< facts of the sequences that routers ask for ("domain": 2)
  static void describe(Fields<GenerateOptions>& f);
};

enum class StopReason { end_token, stop_text, max_tokens, context, interrupted };
const char* to_string(StopReason reason);

struct Continuation {
  std::vector<int64_t> ids;   ///< written, the end token left out
  std::string text;           ///< empty without a tokenizer
  StopReason reason = StopReason::max_tokens;
};

/// Told about text as soon as it is certain (whole characters, no part of a stop text); returns false to stop that sequence.
using OnText = std::function<bool(int64_t sequence, std::string_view text)>;

/// Continues every prompt (token ids). Results do not depend on which other prompts there are, as far as the model's own rows
/// do not. Throws routing.generation, infer.prompt (empty, or longer than the context), infer.stop (stop texts without a
/// tokenizer).
std::vector<Continuation> generate(const LanguageModel& model, const std::vector<std::vector<int64_t>>& prompts,
                                   const GenerateOptions& options, const OnText& on_text = {});

/// Ids of a prompt's text with the begin token where the tokenizer has one; for an empty text the begin or the end token alone.
/// Throws infer.tokenizer, infer.prompt.
std::vector<int64_t> prompt_ids(const LanguageModel& model, std::string_view text);

}  // namespace switchyard
