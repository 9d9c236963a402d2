// switchyard eval: perplexity of texts, and questions with known answers.
#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "program/generation.h"
#include "program/verb.h"
#include "switchyard/base/error.h"
#include "switchyard/base/files.h"
#include "switchyard/base/progress.h"
#include "switchyard/evaluate/perplexity.h"
#include "switchyard/evaluate/tasks.h"

namespace switchyard::program {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

struct Arguments : ModelArguments {
  std::string model, output;
  std::vector<std::string> texts, tasks;
  int64_t context = 0, stride = 0, batch = 8, limit = 0, shots = 0;
  bool json = false;
};

std::string compact(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

/// A text file is one document; JSON lines with "text" are one each.
std::vector<std::string> documents(const std::string& path) {
  const std::string whole = read_file(path);
  if (fs::path(path).extension() != ".jsonl") return {whole};
  std::vector<std::string> list;
  std::istringstream lines(whole);
  int64_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    check(json.is_object() && json.contains("text") && json["text"].is_string(), "evaluate.text", "{}, line {} is no object with a \"text\"",
          path, number);
    list.push_back(json["text"].get<std::string>());
  }
  return list;
}

Json as_json(const Perplexity& p) {
  return {{"tokens", p.tokens}, {"nats_per_token", p.mean()}, {"nats_stderr", p.standard_error()}, {"perplexity", p.perplexity()},
          {"bits_per_byte", p.bits_per_byte()}};
}

std::string as_text(const std::string& name, const Perplexity& p) {
  return fmt::format("{}: perplexity {:.4f} ({:.4f} ± {:.4f} nats a token, {:.4f} bits a byte) over {} tokens\n", name, p.perplexity(), p.mean(),
                     p.standard_error(), p.bits_per_byte(), p.tokens);
}

Perplexity of_file(const Arguments& arguments, const AdaptedModel& model, const std::string& path, std::string& details) {
  Perplexity all;
  int64_t left = arguments.limit;
  size_t short_ones = 0;
  const std::vector<std::string> texts = documents(path);
  for (size_t i = 0; i < texts.size(); ++i) {
    const std::vector<int64_t> ids = texts[i].empty() ? std::vector<int64_t>() : prompt_ids(model, texts[i]);
    if (ids.size() < 2) {
      ++short_ones;
      continue;
    }
    PerplexityOptions options{.context = arguments.context, .stride = arguments.stride, .windows = left, .batch = arguments.batch};
    options.on_pass = [&](int64_t done, int64_t total) {
      std::vector<std::pair<std::string, std::string>> values;
      if (texts.size() > 1) values.emplace_back("document", fmt::format("{} of {}", i + 1, texts.size()));
      reporter().progress("perplexity", done, total, values);
    };
    const Perplexity one = perplexity(model, ids, options);
    all += one;
    Json line = as_json(one);
    line["file"] = path;
    line["document"] = i;
    details += compact(line) + "\n";
    if (arguments.limit > 0) {
      const int64_t context = options.context > 0 ? options.context : std::min<int64_t>(model.context(), 2048);
      const int64_t stride = options.stride > 0 ? options.stride : std::max<int64_t>(1, context / 2);
      left -= static_cast<int64_t>(windows_over(static_cast<int64_t>(ids.size()), context, stride).size());
      if (left <= 0) break;
    }
  }
  reporter().finished("perplexity");
  if (short_ones > 0) log_warning(fmt::format("{}: {} documents have no token that could be scored", path, short_ones));
  check(all.tokens > 0, "evaluate.text", "{} has no token that could be scored", path);
  return all;
}

Json as_json(const Share& share) { return {{"value", share.value()}, {"stderr", share.standard_error()}}; }

std::string as_text(const std::string& name, const TaskSummary& summary) {
  std::string text;
  const auto share = [](const Share& s) { return fmt::format("{:.2f} ± {:.2f} %", 100 * s.value(), 100 * s.standard_error()); };
  if (summary.choice.count > 0)
    text += fmt::format("{}: right choice {}; by likelihood a byte {}, a token {}; {} questions\n", name, share(summary.choice),
                        share(summary.choice_by_bytes), share(summary.choice_by_tokens), summary.choice.count);
  if (summary.exact.count > 0) text += fmt::format("{}: exact answer {}; {} questions\n", name, share(summary.exact), summary.exact.count);
  return text;
}

Json as_json(const TaskSummary& summary) {
  Json json;
  if (summary.choice.count > 0)
    json["choice"] = {{"questions", summary.choice.count}, {"accuracy", as_json(summary.choice)},
                      {"accuracy_by_bytes", as_json(summary.choice_by_bytes)}, {"accuracy_by_tokens", as_json(summary.choice_by_tokens)}};
  if (summary.exact.count > 0) json["exact"] = {{"questions", summary.exact.count}, {"accuracy", as_json(summary.exact)}};
  return json;
}

TaskSummary of_tasks(const Arguments& arguments, const AdaptedModel& model, const std::string& path, std::string& details) {
  const std::vector<TaskItem> items = read_tasks(path, arguments.shots, arguments.limit);
  TaskSummary summary = run_tasks(model, items, {.batch = arguments.batch, .on_pass = [&](const char* what, int64_t done, int64_t total) {
    reporter().progress(what, done, total, {});
    if (done == total) reporter().finished(what);
  }});
  for (size_t i = 0; i < items.size(); ++i) {
    const TaskResult& result = summary.results[i];
    Json line{{"file", path}, {"id", Json::parse(items[i].id)}, {"right", result.right}};
    if (items[i].choices.empty()) line["written"] = result.written;
    else line.update({{"log_probability", result.log_probability}, {"tokens", result.tokens}, {"bytes", result.bytes},
                      {"right_by_bytes", result.right_by_bytes}, {"right_by_tokens", result.right_by_tokens}});
    details += compact(line) + "\n";
  }
  return summary;
}

int evaluate(const Arguments& arguments) {
  check(!arguments.texts.empty() || !arguments.tasks.empty(), "program.usage", "there is nothing to evaluate on; give --text or --tasks");
  for (const std::string& path : arguments.texts) check(fs::exists(path), "file.missing", "{} does not exist", path);
  // Task files are read whole before the model: what is wrong in them is said at once.
  for (const std::string& path : arguments.tasks) (void)read_tasks(path, arguments.shots, arguments.limit);
  const auto model = open_model(arguments.model, arguments);
  std::string details, text;
  Json json;
  Perplexity all;
  for (const std::string& path : arguments.texts) {
    const Perplexity one = of_file(arguments, *model, path, details);
    all += one;
    json["perplexity"][path] = as_json(one);
    text += as_text(path, one);
  }
  if (arguments.texts.size() > 1) {
    json["perplexity_all"] = as_json(all);
    text += as_text("all", all);
  }
  for (const std::string& path : arguments.tasks) {
    const TaskSummary summary = of_tasks(arguments, *model, path, details);
    json["tasks"][path] = as_json(summary);
    text += as_text(path, summary);
  }
  if (!arguments.output.empty()) write_file_atomically(arguments.output, details);
  print(arguments.json ? json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n" : text);
  return 0;
}

}  // namespace

Verb eval_verb() {
  return {.name = "eval",
          .summary = "perplexity on texts, multiple choice and exact answers on task files",
          .example = "switchyard eval DIR --text held-out.txt --tasks questions.jsonl --shots 2",
          .computes = true,
          .setup = [](CommandLine& line) -> std::function<int()> {
            auto arguments = std::make_shared<Arguments>();
            line.option("model", arguments->model, "folder of a run, a checkpoint or a model, or a GGUF file").required();
            line.option("--text", arguments->texts, "a text whose perplexity is wanted; in a .jsonl file every line's \"text\" is a document "
                        "(may be given several times)").repeatable();
            line.option("--tasks", arguments->tasks, "JSON lines: {\"prompt\", \"choices\", \"answer\": place} or {\"prompt\", \"answer\": text} "
                        "(may be given several times)").repeatable();
            line.option("--context", arguments->context, "tokens of a window; 0 = the model's context, at most 2048")
                .between(0, 1 << 24);
            line.option("--stride", arguments->stride, "from one window to the next; 0 = half a window").between(0, 1 << 24);
            line.option("--shots", arguments->shots, "so many lines of a task file stand before each question as examples, and are not asked")
                .between(0, 1 << 16);
            line.option("--limit", arguments->limit, "at most so many questions or windows of each file; 0 = all").not_negative();
            line.option("--batch", arguments->batch, "sequences computed together; changes no result").between(1, 1 << 16);
            line.option("--output", arguments->output, "JSON lines to write: what became of each document and question");
            line.option("--dtype", arguments->dtype, "type of the weights in memory: float32, bfloat16, float16; default as stored");
            add_activations_option(line, arguments->activations);
            add_set_option(line, arguments->set);
            line.flag("--json", arguments->json, "the result as JSON");
            add_adapter_options(line, arguments->adapters);
            return [arguments] { return evaluate(*arguments); };
          }};
}

}  // namespace switchyard::program
