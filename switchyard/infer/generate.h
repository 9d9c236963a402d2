// Writing on from prompts: prefill once, then one token a step for every sequence that still runs. When one ends, the next
// prompt takes its place.
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
  std::vector<std::string> stop;          ///< texts that end a sequence; they are not part of the result. Special tokens too.
  bool ignore_end = false;                ///< write past the end token
  std::map<std::string, int64_t> facts;   ///< facts of the sequences that routers ask for ("domain": 2)
  int64_t batch = 32;                     ///< sequences that run at once, where their number changes nothing; else one
  int64_t prefill_rows = 1024;            ///< of a prompt that are read in one pass, where that changes nothing but rounding: bounds the memory of long ones
  static void describe(Fields<GenerateOptions>& f);
};

enum class StopReason { end_token, stop_text, max_tokens, context, interrupted };
const char* to_string(StopReason reason);    ///< "end token"
const char* finish_name(StopReason reason);  ///< "end_token", for files

struct Continuation {
  std::vector<int64_t> ids;   ///< written, the end token or special stop token left out
  std::string text;           ///< empty without a tokenizer
  StopReason reason = StopReason::max_tokens;
};

/// Told about text as soon as it is certain (whole characters, no part of a stop text); returns false to stop that sequence.
using OnText = std::function<bool(int64_t sequence, std::string_view text)>;

/// How long it took. A step reads prompts or writes tokens, never both, so the two are known apart.
struct GenerationTimes {
  double first_token = 0;  ///< seconds until the first token was chosen
  int64_t prefilled = 0;   ///< tokens of prompts
  double prefill = 0;      ///< seconds; the first token of each sequence comes with them
  int64_t decoded = 0;     ///< tokens written after the first of each
  double decode = 0;
};

/// What a caller wants to hear.
struct Listener {
  OnText on_text;
  std::function<void(int64_t sequence, const Continuation&)> on_end;  ///< as soon as a sequence has ended
  GenerationTimes* times = nullptr;
};

/// Continues every prompt (token ids); a model with an encoder reads the prompt there and writes from its start token. Results do not
/// depend on which other prompts there are, as far as the model's own rows do not: where a layer lets sequences compete for places,
/// they run one after another. Throws routing.generation, infer.prompt (empty, or longer than the context), infer.stop (stop texts
/// without a tokenizer).
std::vector<Continuation> generate(const LanguageModel& model, const std::vector<std::vector<int64_t>>& prompts,
                                   const GenerateOptions& options, const Listener& listener);
std::vector<Continuation> generate(const LanguageModel& model, const std::vector<std::vector<int64_t>>& prompts,
                                   const GenerateOptions& options, const OnText& on_text = {});

/// Ids of a prompt's text with the begin token where the tokenizer has one; for an empty text the begin or the end token alone. For a
/// model with an encoder: with all that the tokenizer puts around a text, and the end token.
/// Throws infer.tokenizer, infer.prompt.
std::vector<int64_t> prompt_ids(const LanguageModel& model, std::string_view text);

}  // namespace switchyard
