#include "switchyard/evaluate/tasks.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string_view>

#include "switchyard/base/error.h"
#include "switchyard/base/progress.h"
#include "switchyard/evaluate/likelihood.h"
#include "switchyard/infer/generate.h"

namespace switchyard {
namespace {

std::string_view trimmed(std::string_view text) {
  const char* space = " \t\r\n\f\v";
  const size_t first = text.find_first_not_of(space);
  return first == std::string_view::npos ? std::string_view() : text.substr(first, text.find_last_not_of(space) - first + 1);
}

/// A choice behind its prompt. Where the two are one token together, that token is the choice's.
ScoreRequest choice_request(const LanguageModel& model, const TaskItem& item, const std::vector<int64_t>& prompt, const std::string& choice) {
  ScoreRequest request;
  if (item.prompt.empty()) {  // after the token that begins a text
    request.ids = prompt;
    const std::vector<int64_t> ids = model.tokenizer()->encode(choice);
    request.ids.insert(request.ids.end(), ids.begin(), ids.end());
    request.first = static_cast<int64_t>(prompt.size());
  } else {
    request.ids = prompt_ids(model, item.prompt + choice);
    const auto same = std::mismatch(prompt.begin(), prompt.end(), request.ids.begin(), request.ids.end()).first - prompt.begin();
    request.first = std::min<int64_t>(same, static_cast<int64_t>(request.ids.size()) - 1);
  }
  check(request.first >= 1, "evaluate.task", "item {}: the choice \"{}\" has nothing before it; give the question a prompt", item.id, choice);
  const int64_t over = static_cast<int64_t>(request.ids.size()) - model.context();
  if (over > 0) {
    check(over < request.first, "evaluate.task", "item {}: the choice \"{}\" takes {} tokens, but the model's context is {}", item.id,
          choice.substr(0, 40), static_cast<int64_t>(request.ids.size()) - request.first, model.context());
    request.ids.erase(request.ids.begin(), request.ids.begin() + over);
    request.first -= over;
  }
  return request;
}

void score_choices(const LanguageModel& model, const std::vector<TaskItem>& items, const TaskOptions& options, TaskSummary& summary) {
  std::vector<ScoreRequest> requests;
  for (const TaskItem& item : items) {
    if (item.choices.empty()) continue;
    const std::vector<int64_t> prompt = prompt_ids(model, item.prompt);
    for (const std::string& choice : item.choices) requests.push_back(choice_request(model, item, prompt, choice));
  }
  if (requests.empty()) return;
  const auto total = static_cast<int64_t>(requests.size());
  const std::vector<TokenScores> scores = log_probabilities(
      model, requests, {.batch = options.batch, .on_pass = [&](int64_t done) { if (options.on_pass) options.on_pass("choices", done, total); }});
  size_t next = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    TaskResult& result = summary.results[i];
    if (items[i].choices.empty()) continue;
    for (const std::string& choice : items[i].choices) {
      const TokenScores& score = scores[next++];
      result.log_probability.push_back(score.sum());
      result.tokens.push_back(static_cast<int64_t>(score.log_probability.size()));
      result.bytes.push_back(static_cast<int64_t>(choice.size()));
    }
    const auto highest_is_right = [&](const std::vector<int64_t>* length) {
      std::vector<double> value = result.log_probability;
      for (size_t c = 0; length && c < value.size(); ++c) value[c] /= static_cast<double>((*length)[c]);
      return std::max_element(value.begin(), value.end()) - value.begin() == items[i].right;
    };
    summary.choice.add(result.right = highest_is_right(nullptr));
    summary.choice_by_bytes.add(result.right_by_bytes = highest_is_right(&result.bytes));
    summary.choice_by_tokens.add(result.right_by_tokens = highest_is_right(&result.tokens));
  }
}

void write_answers(const LanguageModel& model, const std::vector<TaskItem>& items, const TaskOptions& options, TaskSummary& summary) {
  std::map<std::pair<std::vector<std::string>, int64_t>, std::vector<size_t>> alike;  // what one call of generate can do
  int64_t total = 0, done = 0;
  for (size_t i = 0; i < items.size(); ++i)
    if (items[i].choices.empty()) alike[{items[i].stop, items[i].max_tokens}].push_back(i), ++total;
  for (const auto& [how, places] : alike) {
    GenerateOptions generation;
    generation.temperature = 0;
    generation.stop = how.first;
    generation.max_tokens = how.second;
    generation.batch = options.batch;
    std::vector<std::vector<int64_t>> prompts;
    const auto room = static_cast<size_t>(std::max<int64_t>(1, model.context() - std::min(how.second, model.context() / 2)));
    for (size_t i : places) {
      std::vector<int64_t> ids = prompt_ids(model, items[i].prompt);
      if (ids.size() > room) ids.erase(ids.begin(), ids.end() - static_cast<std::ptrdiff_t>(room));
      prompts.push_back(std::move(ids));
    }
    generate(model, prompts, generation, {.on_text = {}, .on_end = [&](int64_t at, const Continuation& written) {
      check(written.reason != StopReason::interrupted, "evaluate.interrupted", "interrupted after {} of {} answers", done, total);
      const size_t i = places[static_cast<size_t>(at)];
      TaskResult& result = summary.results[i];
      result.written = trimmed(written.text);
      result.right = std::any_of(items[i].answers.begin(), items[i].answers.end(),
                                 [&](const std::string& answer) { return trimmed(answer) == result.written; });
      summary.exact.add(result.right);
      if (options.on_pass) options.on_pass("answers", ++done, total);
    }});
  }
}

}  // namespace

double Share::value() const { return count > 0 ? static_cast<double>(hits) / static_cast<double>(count) : 0; }

double Share::standard_error() const {
  return count > 1 ? std::sqrt(value() * (1 - value()) / static_cast<double>(count - 1)) : 0;
}

TaskSummary run_tasks(const LanguageModel& model, const std::vector<TaskItem>& items, const TaskOptions& options) {
  check(model.tokenizer() != nullptr, "infer.tokenizer", "the model's folder has no tokenizer, so questions cannot be read");
  TaskSummary summary;
  summary.results.resize(items.size());
  score_choices(model, items, options, summary);
  write_answers(model, items, options, summary);
  return summary;
}

}  // namespace switchyard
