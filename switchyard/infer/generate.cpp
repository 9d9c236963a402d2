#include "switchyard/infer/generate.h"

#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <optional>

#include "switchyard/base/error.h"
#include "switchyard/base/progress.h"

namespace switchyard {
namespace {

/// Text that comes in pieces, watched for stop texts: what might be the beginning of one is held back.
class StopWatch {
 public:
  explicit StopWatch(const std::vector<std::string>& stops) : stops_(stops) {}

  /// Returns what is certain; sets `stopped` when a stop text was completed (and drops it and what follows).
  std::string push(std::string_view piece, bool& stopped) {
    held_ += piece;
    size_t first = std::string::npos;
    for (const std::string& stop : stops_)
      if (!stop.empty()) first = std::min(first, held_.find(stop));
    if (first != std::string::npos) {
      stopped = true;
      return take(first);
    }
    size_t keep = 0;
    for (const std::string& stop : stops_)
      for (size_t n = std::min(stop.size(), held_.size()); n > keep; --n)
        if (held_.ends_with(std::string_view(stop).substr(0, n))) keep = n;
    return take(held_.size() - keep);
  }
  std::string flush() { return take(held_.size()); }

 private:
  std::string take(size_t count) {
    std::string text = held_.substr(0, count);
    held_.erase(0, count);
    return text;
  }
  const std::vector<std::string>& stops_;
  std::string held_;
};

struct Sequence {
  int64_t index = 0;
  int64_t past = 0;                 ///< rows in the cache
  std::vector<int64_t> next;        ///< ids to feed
  std::optional<TextStream> stream;
  StopWatch watch;
  Continuation result;
  bool running = true;
};

class Writer {
 public:
  Writer(const LanguageModel& model, const GenerateOptions& options, const OnText& on_text)
      : model_(model), options_(options), on_text_(on_text), end_(model.end_ids()) {}

  void add(const std::vector<int64_t>& prompt) {
    check(!prompt.empty(), "infer.prompt", "prompt {} is empty: there is nothing to continue", sequences_.size());
    check(static_cast<int64_t>(prompt.size()) <= model_.context(), "infer.prompt",
          "prompt {} has {} tokens, but the model's context is {}; shorten it", sequences_.size(), prompt.size(),
          model_.context());
    Sequence sequence{.index = static_cast<int64_t>(sequences_.size()), .next = prompt, .stream = {},
                      .watch = StopWatch(options_.stop), .result = {}};
    if (model_.tokenizer()) sequence.stream.emplace(*model_.tokenizer(), true, prompt);
    sequences_.push_back(std::move(sequence));
  }

  std::vector<Continuation> finish() {
    while (step()) {}
    std::vector<Continuation> results;
    for (Sequence& sequence : sequences_) results.push_back(std::move(sequence.result));
    return results;
  }

 private:
  bool step() {
    std::vector<Sequence*> running;
    for (Sequence& sequence : sequences_) {
      if (sequence.running && interrupted()) end(sequence, StopReason::interrupted);
      if (sequence.running && static_cast<int64_t>(sequence.result.ids.size()) >= options_.max_tokens)
        end(sequence, StopReason::max_tokens);
      if (sequence.running) running.push_back(&sequence);
    }
    if (running.empty()) return false;
    const at::Tensor logits = forward(running);
    for (size_t i = 0; i < running.size(); ++i) {
      Sequence& sequence = *running[i];
      sequence.past += static_cast<int64_t>(sequence.next.size());
      const int64_t id = sample(logits.select(0, static_cast<int64_t>(i)), options_, sequence.index, sequence.past);
      take(sequence, id);
    }
    return true;
  }

  at::Tensor forward(const std::vector<Sequence*>& running) {
    Segments segments;
    std::vector<int64_t> ids;
    for (const Sequence* sequence : running) {
      ids.insert(ids.end(), sequence->next.begin(), sequence->next.end());
      segments.begin.push_back(static_cast<int64_t>(ids.size()));
      segments.sequence.push_back(sequence->index);
      segments.past.push_back(sequence->past);
    }
    Facts facts(std::move(segments));
    for (const auto& [name, value] : options_.facts)
      facts.set_segment(name, at::full({static_cast<int64_t>(running.size())}, value, at::kLong));
    return model_.logits(at::tensor(ids, at::kLong), facts, Phase::generate, &state_, LanguageModel::Rows::last);
  }

  void take(Sequence& sequence, int64_t id) {
    if (!options_.ignore_end && std::find(end_.begin(), end_.end(), id) != end_.end())
      return end(sequence, StopReason::end_token);
    sequence.result.ids.push_back(id);
    sequence.next = {id};
    if (sequence.stream) {
      bool stopped = false;
      const bool wanted = emit(sequence, sequence.watch.push(sequence.stream->push(id), stopped));
      if (stopped) return end(sequence, StopReason::stop_text);
      if (!wanted) return end(sequence, StopReason::interrupted);
    } else if (!emit(sequence, "")) {
      return end(sequence, StopReason::interrupted);
    }
    if (sequence.past >= model_.context()) end(sequence, StopReason::context);
  }

  bool emit(Sequence& sequence, const std::string& text) {
    sequence.result.text += text;
    return !on_text_ || on_text_(sequence.index, text);
  }

  void end(Sequence& sequence, StopReason reason) {
    sequence.running = false;
    sequence.result.reason = reason;
    state_.forget(sequence.index);
    if (!sequence.stream || reason == StopReason::stop_text) return;
    bool stopped = false;
    std::string rest = sequence.watch.push(sequence.stream->flush(), stopped);
    if (stopped) sequence.result.reason = StopReason::stop_text;
    else rest += sequence.watch.flush();
    if (!rest.empty()) emit(sequence, rest);
  }

  const LanguageModel& model_;
  const GenerateOptions& options_;
  const OnText& on_text_;
  std::vector<int64_t> end_;
  std::vector<Sequence> sequences_;
  ContiguousState state_;
};

}  // namespace

void GenerateOptions::describe(Fields<GenerateOptions>& f) {
  f.title("Generation", "How text is written on from a prompt.");
  SamplingOptions::describe_fields(f);
  f("max_tokens", &GenerateOptions::max_tokens, "tokens written at most").range(0);
  f("stop", &GenerateOptions::stop, "texts that end the writing; they are left out");
  f("ignore_end", &GenerateOptions::ignore_end, "write past the end token");
  f("facts", &GenerateOptions::facts, "facts that routers ask for, such as domain: 2");
}

const char* to_string(StopReason reason) {
  switch (reason) {
    case StopReason::end_token: return "end token";
    case StopReason::stop_text: return "stop text";
    case StopReason::max_tokens: return "max tokens";
    case StopReason::context: return "end of the context";
    case StopReason::interrupted: return "interrupted";
  }
  return "?";
}

std::vector<Continuation> generate(const LanguageModel& model, const std::vector<std::vector<int64_t>>& prompts,
                                   const GenerateOptions& options, const OnText& on_text) {
  check(options.stop.empty() || model.tokenizer() != nullptr, "infer.stop",
        "stop texts need a tokenizer, and the model's folder has none");
  model.check_generation();
  Writer writer(model, options, on_text);
  for (const auto& prompt : prompts) writer.add(prompt);
  return writer.finish();
}

std::vector<int64_t> prompt_ids(const LanguageModel& model, std::string_view text) {
  const Tokenizer* tokenizer = model.tokenizer();
  check(tokenizer != nullptr, "infer.tokenizer", "the model's folder has no tokenizer, so text cannot be read");
  std::vector<int64_t> ids = tokenizer->encode(text);
  if (const std::optional<int64_t> begin = tokenizer->begin_id()) ids.insert(ids.begin(), *begin);
  if (ids.empty())
    if (const std::optional<int64_t> end = tokenizer->end_id()) ids.push_back(*end);
  check(!ids.empty(), "infer.prompt", "the prompt is empty, and the tokenizer has no token that begins a text");
  return ids;
}

}  // namespace switchyard
