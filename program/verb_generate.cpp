// switchyard generate: writes on from a prompt, or from every prompt of a file.
#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>

#include "program/conversation.h"
#include "program/generation.h"
#include "program/input.h"
#include "program/prompts.h"
#include "program/verb.h"
#include "switchyard/base/error.h"
#include "switchyard/base/files.h"
#include "switchyard/base/progress.h"

namespace switchyard::program {

namespace {

struct Arguments : GenerationArguments {
  std::string model, prompt, prompt_file, prompts, output, system;
  int64_t batch = 32;
  bool chat = false;
};

std::string prompt_text(const Arguments& arguments) {
  return arguments.prompt_file.empty() ? arguments.prompt : read_input(arguments.prompt_file, uint64_t{1} << 28);
}

double rate(int64_t tokens, double seconds) { return static_cast<double>(tokens) / std::max(seconds, 1e-9); }

/// loaded: seconds from the start of the process until the model was asked.
void report_times(const GenerationTimes& times, double loaded, const std::string& ended) {
  std::string text = fmt::format("first token {:.2f} s after the start", loaded + times.first_token);
  text += fmt::format("; read {} tokens at {:.1f} tokens/s", times.prefilled, rate(times.prefilled, times.prefill));
  if (times.decoded > 0) text += fmt::format("; wrote {} after the first at {:.1f} tokens/s", times.decoded, rate(times.decoded, times.decode));
  log_info(text + ended);
}

/// Lines of JSON in the order of the prompts, each as soon as those before it are there.
class Lines {
 public:
  Lines(const std::vector<PromptLine>& prompts, const std::string& output) : prompts_(prompts) {
    if (!output.empty()) file_.emplace(output);
  }
  void add(int64_t place, const Continuation& continuation) {
    const PromptLine& prompt = prompts_[static_cast<size_t>(place)];
    nlohmann::ordered_json line;
    line["id"] = nlohmann::ordered_json::parse(prompt.id);
    if (!prompt.text.empty()) line["prompt"] = prompt.text;
    line["text"] = continuation.text;
    line["ids"] = continuation.ids;
    line["finish_reason"] = finish_name(continuation.reason);
    waiting_[place] = line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
    for (auto it = waiting_.begin(); it != waiting_.end() && it->first == next_; it = waiting_.erase(it), ++next_) {
      if (file_) file_->write(it->second);
      else print(it->second);
    }
    reporter().progress("generate", ++done_, static_cast<int64_t>(prompts_.size()), {});
  }
  void finish() {
    reporter().finished("generate");
    if (file_) file_->commit();
  }

 private:
  const std::vector<PromptLine>& prompts_;
  std::optional<AtomicFile> file_;
  std::map<int64_t, std::string> waiting_;
  int64_t next_ = 0, done_ = 0;
};

int generate_file(const Arguments& arguments, const AdaptedModel& model, const GenerateOptions& options) {
  const std::vector<PromptLine> prompts = read_prompts(
      arguments.prompts, model, {.templates = chat_templates(arguments.model), .chat = arguments.chat, .system = arguments.system});
  std::vector<std::vector<int64_t>> ids;
  for (const PromptLine& prompt : prompts) ids.push_back(prompt.ids);
  Lines lines(prompts, arguments.output);
  GenerationTimes times;
  const double loaded = seconds_since_start();
  generate(model, ids, options, {.on_text = {}, .on_end = [&](int64_t place, const Continuation& continuation) { lines.add(place, continuation); },
                                 .times = &times});
  lines.finish();
  report_times(times, loaded, fmt::format("; {} prompts", prompts.size()));
  return 0;
}

int generate_text(const Arguments& arguments) {
  const std::shared_ptr<const AdaptedModel> model = open_model(arguments.model, arguments);
  GenerateOptions options = generate_options(arguments, *model);
  options.batch = arguments.batch;
  model->check_generation();
  check(arguments.system.empty() || arguments.chat, "program.usage", "--system says something only with --chat");
  if (!arguments.prompts.empty()) return generate_file(arguments, *model, options);
  check(arguments.output.empty(), "program.usage", "--output holds the lines of --prompts; one text is printed");
  const std::string prompt = prompt_text(arguments);
  std::vector<int64_t> ids;
  if (arguments.chat) {
    std::optional<ChatTemplates> templates = chat_templates(arguments.model);
    check(templates.has_value(), "program.usage", "{} has no chat template; leave --chat out", arguments.model);
    ids = Conversation(*model, std::move(templates), arguments.system).ask(prompt, options.max_tokens);
  } else {
    ids = prompt_ids(*model, prompt);
    if (!model->start_id()) print(prompt);  // behind an encoder the text is another one, not the prompt's continuation
  }
  const auto show = [](int64_t, std::string_view text) {
    print(text);
    return true;
  };
  GenerationTimes times;
  const double loaded = seconds_since_start();
  const Continuation written = generate(*model, {ids}, options, {.on_text = show, .on_end = {}, .times = &times}).front();
  print("\n");
  report_times(times, loaded, fmt::format("; ended by {}", to_string(written.reason)));
  return 0;
}

}  // namespace

Verb generate_verb() {
  return {.name = "generate",
          .summary = "write on from a prompt, or from each of a file",
          .example = "switchyard generate runs/quickstart --prompt \"In the beginning\" --temperature 0.7 --seed 1",
          .computes = true,
          .setup = [](CommandLine& line) -> std::function<int()> {
            auto arguments = std::make_shared<Arguments>();
            line.option("model", arguments->model, "folder of a run, a checkpoint or a model, or a GGUF file").required();
            const Argument prompt = line.option("--prompt", arguments->prompt, "the text to continue");
            const Argument file = line.option("--prompt-file", arguments->prompt_file,
                                              "a file with the text to continue; - reads standard input").excludes(prompt);
            line.option("--prompts", arguments->prompts,
                        "a file of prompts, one a line, or JSON lines with \"prompt\", \"ids\" or \"messages\"; - reads standard "
                        "input. Prints a JSON line for each: id, prompt, text, ids, finish_reason").excludes(prompt).excludes(file);
            line.option("--output", arguments->output, "with --prompts: the file to write instead of printing");
            line.option("--batch", arguments->batch, "with --prompts: how many are written at once; their number changes no text")
                .between(1, 1 << 16);
            line.flag("--chat", arguments->chat, "the prompt is a user's message, said by the model's chat template");
            line.option("--system", arguments->system, "with --chat: the system's message before it");
            add_generation_options(line, *arguments);
            return [arguments] { return generate_text(*arguments); };
          }};
}

}  // namespace switchyard::program
