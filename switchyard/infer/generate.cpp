#include "switchyard/infer/generate.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <chrono>
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

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// Prompts are read together up to so many tokens.
constexpr int64_t kPrefillRows = 2048;

struct Sequence {
  int64_t index = 0;
  const std::vector<int64_t>* prompt = nullptr;
  int64_t past = 0;                 ///< rows in the cache; 0 = the prompt was not read yet
  std::vector<int64_t> source;       ///< what an encoder reads before the first step
  std::vector<int64_t> next;        ///< ids to feed
  std::optional<TextStream> stream;
  StopWatch watch;
  Continuation result;
  bool running = true;
};

class Writer {
 public:
  Writer(const LanguageModel& model, const GenerateOptions& options, const Listener& listener)
      : model_(model), options_(options), listener_(listener), end_(model.end_ids()),
        batch_(model.rows_stand_alone(Phase::generate) ? std::max<int64_t>(1, options.batch) : 1) {
    if (options.ignore_end) end_.clear();
    for (const std::string& stop : options.stop) {
      // A special token has no text; it is met by its id.
      const std::optional<int64_t> id = model.tokenizer()->id_of(stop);
      if (id && model.tokenizer()->special(*id)) stop_ids_.push_back(*id);
    }
  }

  void add(const std::vector<int64_t>& prompt) {
    check(!prompt.empty(), "infer.prompt", "prompt {} is empty: there is nothing to continue", sequences_.size());
    check(static_cast<int64_t>(prompt.size()) <= model_.context(), "infer.prompt",
          "prompt {} has {} tokens, but the model's context is {}; shorten it", sequences_.size(), prompt.size(),
          model_.context());
    Sequence sequence{.index = static_cast<int64_t>(sequences_.size()), .prompt = &prompt, .next = prompt, .stream = {},
                      .watch = StopWatch(options_.stop), .result = {}};
    if (const std::optional<int64_t> start = model_.start_id()) {
      sequence.source = prompt;
      begun_ = {*start};
      sequence.prompt = &begun_;
      sequence.next = begun_;
    }
    sequences_.push_back(std::move(sequence));
  }

  std::vector<Continuation> finish() {
    for (Sequence& sequence : sequences_)
      if (options_.max_tokens == 0) end(sequence, StopReason::max_tokens);
    while (step()) {}
    std::vector<Continuation> results;
    for (Sequence& sequence : sequences_) results.push_back(std::move(sequence.result));
    return results;
  }

 private:
  bool step() {
    std::vector<Sequence*> running, waiting;
    for (Sequence& sequence : sequences_) {
      if (sequence.running && interrupted()) end(sequence, StopReason::interrupted);
      if (sequence.running) (sequence.past > 0 ? running : waiting).push_back(&sequence);
    }
    if (running.empty() && waiting.empty()) return false;
    const bool room = static_cast<int64_t>(running.size()) < batch_ && !waiting.empty();
    if (room) {
      int64_t rows = 0;
      const int64_t places = batch_ - static_cast<int64_t>(running.size());
      running.clear();
      for (Sequence* sequence : waiting) {
        rows += static_cast<int64_t>(sequence->next.size() + sequence->source.size());
        if (static_cast<int64_t>(running.size()) == places || (rows > kPrefillRows && !running.empty())) break;
        if (model_.tokenizer()) sequence->stream.emplace(*model_.tokenizer(), true, *sequence->prompt);
        running.push_back(sequence);
      }
    }
    const auto begin = Clock::now();
    int64_t rows = read_beginnings(running);
    const at::Tensor logits = forward(running);
    for (size_t i = 0; i < running.size(); ++i) {
      Sequence& sequence = *running[i];
      rows += static_cast<int64_t>(sequence.next.size());
      sequence.past += static_cast<int64_t>(sequence.next.size());
      const int64_t id = sample(logits.select(0, static_cast<int64_t>(i)), options_, sequence.index, sequence.past,
                                {.prompt = *sequence.prompt, .written = sequence.result.ids});
      if (times_.first_token == 0) times_.first_token = seconds_since(start_);
      take(sequence, id);
    }
    (room ? times_.prefilled : times_.decoded) += rows;
    (room ? times_.prefill : times_.decode) += seconds_since(begin);
    if (listener_.times) *listener_.times = times_;
    return true;
  }

  /// Leaves prefill_rows of each prompt at most: what stands before passes first, piece by piece. Returns how many rows that was.
  int64_t read_beginnings(const std::vector<Sequence*>& running) {
    const auto most = static_cast<size_t>(options_.prefill_rows);
    int64_t rows = 0;
    for (Sequence* sequence : running) {
      if (sequence->next.size() <= most || !model_.reads_in_pieces()) continue;
      std::vector<int64_t> whole = std::move(sequence->next);
      size_t first = 0;
      for (; whole.size() - first > most; first += most) {
        sequence->next.assign(whole.begin() + static_cast<int64_t>(first), whole.begin() + static_cast<int64_t>(first + most));
        forward({sequence});
        sequence->past += static_cast<int64_t>(most);
      }
      sequence->next.assign(whole.begin() + static_cast<int64_t>(first), whole.end());
      rows += static_cast<int64_t>(first);
    }
    return rows;
  }

  at::Tensor forward(const std::vector<Sequence*>& running) {
    const c10::InferenceMode inference;  // views and results then keep no track of one another, which nobody would ask for
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
    if (model_.start_id() && running.front()->past == 0) set_memory(facts, encoded(running));
    return model_.logits(at::tensor(ids, at::kLong), facts, Phase::generate, &state_, LanguageModel::Rows::last);
  }

  /// What the encoder makes of the prompts, each read alone.
  Memory encoded(const std::vector<Sequence*>& running) const {
    std::vector<at::Tensor> rows;
    Memory all{.rows = {}, .segments = {}};
    for (const Sequence* sequence : running) {
      Facts facts(Segments::single(static_cast<int64_t>(sequence->source.size()), false));
      for (const auto& [name, value] : options_.facts) facts.set_segment(name, at::full({1}, value, at::kLong));
      rows.push_back(model_.encode(at::tensor(sequence->source, at::kLong), facts).rows);
      all.segments.begin.push_back(all.segments.rows() + rows.back().size(0));
    }
    all.rows = at::cat(rows, 0);
    return all;
  }

  void take(Sequence& sequence, int64_t id) {
    const auto among = [id](const std::vector<int64_t>& ids) { return std::find(ids.begin(), ids.end(), id) != ids.end(); };
    if (among(end_)) return end(sequence, StopReason::end_token);
    if (among(stop_ids_)) return end(sequence, StopReason::stop_text);
    sequence.result.ids.push_back(id);
    sequence.next = {id};
    if (sequence.stream) {
      bool stopped = false;
      const bool wanted = emit(sequence, sequence.watch.push(sequence.stream->push(id), stopped));
      if (stopped) return end(sequence, StopReason::stop_text, /*held=*/false);
      if (!wanted) return end(sequence, StopReason::interrupted);
    } else if (!emit(sequence, "")) {
      return end(sequence, StopReason::interrupted);
    }
    if (static_cast<int64_t>(sequence.result.ids.size()) >= options_.max_tokens) return end(sequence, StopReason::max_tokens);
    if (sequence.past >= model_.context()) end(sequence, StopReason::context);
  }

  bool emit(Sequence& sequence, const std::string& text) {
    sequence.result.text += text;
    return !listener_.on_text || listener_.on_text(sequence.index, text);
  }

  /// held: text that was kept back, because it might have begun a stop text, is part of the result.
  void end(Sequence& sequence, StopReason reason, bool held = true) {
    sequence.running = false;
    sequence.result.reason = reason;
    state_.forget(sequence.index);
    if (sequence.stream && held) {
      bool stopped = false;
      std::string rest = sequence.watch.push(sequence.stream->flush(), stopped);
      if (stopped) sequence.result.reason = StopReason::stop_text;
      else rest += sequence.watch.flush();
      if (!rest.empty()) emit(sequence, rest);
    }
    sequence.stream.reset();
    if (listener_.on_end) listener_.on_end(sequence.index, sequence.result);
  }

  const LanguageModel& model_;
  const GenerateOptions& options_;
  const Listener& listener_;
  std::vector<int64_t> end_, stop_ids_;
  int64_t batch_;
  std::vector<Sequence> sequences_;
  std::vector<int64_t> begun_;  ///< what a decoder behind an encoder begins with
  ContiguousState state_;
  Clock::time_point start_ = Clock::now();
  GenerationTimes times_;
};

}  // namespace

void GenerateOptions::describe(Fields<GenerateOptions>& f) {
  f.title("Generation", "How text is written on from a prompt.");
  SamplingOptions::describe_fields(f);
  f("max_tokens", &GenerateOptions::max_tokens, "tokens written at most").range(0);
  f("stop", &GenerateOptions::stop, "texts that end the writing; they are left out");
  f("ignore_end", &GenerateOptions::ignore_end, "write past the end token");
  f("batch", &GenerateOptions::batch, "sequences that run at once, where their number changes nothing").range(1);
  f("prefill_rows", &GenerateOptions::prefill_rows, "of a prompt that are read in one pass, where that changes nothing but rounding").range(1).unit("tokens");
  f("facts", &GenerateOptions::facts, "facts that routers ask for, such as domain: 2");
}

const char* finish_name(StopReason reason) {
  switch (reason) {
    case StopReason::end_token: return "end_token";
    case StopReason::stop_text: return "stop_text";
    case StopReason::max_tokens: return "max_tokens";
    case StopReason::context: return "context";
    case StopReason::interrupted: return "interrupted";
  }
  return "?";
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
                                   const GenerateOptions& options, const Listener& listener) {
  check(options.stop.empty() || model.tokenizer() != nullptr, "infer.stop",
        "stop texts need a tokenizer, and the model's folder has none");
  for (const std::string& stop : options.stop) check(!stop.empty(), "infer.stop", "a stop text is empty; nothing would be written");
  model.check_generation();
  Writer writer(model, options, listener);
  for (const auto& prompt : prompts) writer.add(prompt);
  return writer.finish();
}

std::vector<Continuation> generate(const LanguageModel& model, const std::vector<std::vector<int64_t>>& prompts,
                                   const GenerateOptions& options, const OnText& on_text) {
  return generate(model, prompts, options, Listener{.on_text = on_text, .on_end = {}});
}

std::vector<int64_t> prompt_ids(const LanguageModel& model, std::string_view text) {
  const Tokenizer* tokenizer = model.tokenizer();
  check(tokenizer != nullptr, "infer.tokenizer", "the model's folder has no tokenizer, so text cannot be read");
  if (model.start_id()) {  // an encoder reads what the tokenizer makes of a whole text, its end with it
    std::vector<int64_t> ids = tokenizer->encode(text, EncodeOptions{.add_special = true}).ids;
    if (const std::optional<int64_t> end = tokenizer->end_id(); end && (ids.empty() || ids.back() != *end)) ids.push_back(*end);
    check(!ids.empty(), "infer.prompt", "the prompt is empty, and the tokenizer has no token that ends a text");
    return ids;
  }
  std::vector<int64_t> ids = tokenizer->encode(text);
  if (const std::optional<int64_t> begin = tokenizer->begin_id()) ids.insert(ids.begin(), *begin);
  if (ids.empty())
    if (const std::optional<int64_t> end = tokenizer->end_id()) ids.push_back(*end);
  check(!ids.empty(), "infer.prompt", "the prompt is empty, and the tokenizer has no token that begins a text");
  return ids;
}

}  // namespace switchyard
