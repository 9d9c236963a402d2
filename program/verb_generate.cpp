// switchyard generate: writes on from a prompt.
#include <fmt/format.h>

#include <chrono>
#include <iostream>
#include <iterator>

#include "program/conversation.h"
#include "program/generation.h"
#include "program/verb.h"
#include "switchyard/base/error.h"
#include "switchyard/base/files.h"
#include "switchyard/base/progress.h"

namespace switchyard::program {

namespace {

struct Arguments : GenerationArguments {
  std::string model, prompt, prompt_file, system;
  bool chat = false;
};

std::string prompt_text(const Arguments& arguments) {
  if (arguments.prompt_file.empty()) return arguments.prompt;
  if (arguments.prompt_file == "-") return {std::istreambuf_iterator<char>(std::cin), {}};
  return read_file(arguments.prompt_file, uint64_t{1} << 28);
}

int generate_text(const Arguments& arguments) {
  const std::shared_ptr<const AdaptedModel> opened = open_model(arguments.model, arguments.dtype, arguments.adapters);
  const LanguageModel& model = *opened;
  const std::string prompt = prompt_text(arguments);
  const GenerateOptions options = generate_options(arguments);
  model.check_generation();
  std::vector<int64_t> ids;
  if (arguments.chat) {
    std::optional<ChatTemplates> templates = chat_templates(arguments.model);
    check(templates.has_value(), "program.usage", "{} has no chat template; leave --chat out", arguments.model);
    ids = Conversation(model, std::move(templates), arguments.system).ask(prompt, options.max_tokens);
  } else {
    check(arguments.system.empty(), "program.usage", "--system says something only with --chat");
    ids = prompt_ids(model, prompt);
    print(prompt);
  }
  const auto start = std::chrono::steady_clock::now();
  const std::vector<Continuation> written = generate(model, {ids}, options, [](int64_t, std::string_view text) {
    print(text);
    return true;
  });
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  print("\n");
  log_info(fmt::format("{} tokens in {:.1f} s ({:.1f} tokens/s); ended by {}", written[0].ids.size(), seconds.count(),
                       static_cast<double>(written[0].ids.size()) / std::max(seconds.count(), 1e-9), to_string(written[0].reason)));
  return 0;
}

}  // namespace

Verb generate_verb() {
  return {.name = "generate",
          .summary = "write on from a prompt",
          .example = "switchyard generate runs/quickstart --prompt \"In the beginning\" --temperature 0.7 --seed 1",
          .computes = true,
          .setup = [](CLI::App& app) -> std::function<int()> {
            auto arguments = std::make_shared<Arguments>();
            app.add_option("model", arguments->model, "folder of a run, a checkpoint or a model")->required();
            auto* prompt = app.add_option("--prompt", arguments->prompt, "the text to continue");
            app.add_option("--prompt-file", arguments->prompt_file, "a file with the text to continue; - reads standard input")
                ->excludes(prompt);
            app.add_flag("--chat", arguments->chat, "the prompt is a user's message, said by the model's chat template");
            app.add_option("--system", arguments->system, "with --chat: the system's message before it");
            add_generation_options(app, *arguments);
            return [arguments] { return generate_text(*arguments); };
          }};
}

}  // namespace switchyard::program
