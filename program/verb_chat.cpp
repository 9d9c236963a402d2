// switchyard chat: a conversation on the terminal, by the model's chat template. Models without one, such as those trained here,
// just write on from everything said so far.
#include <fmt/format.h>
#include <unistd.h>

#include <iostream>

#include "program/conversation.h"
#include "program/generation.h"
#include "program/verb.h"
#include "switchyard/base/error.h"
#include "switchyard/base/progress.h"

namespace switchyard::program {

namespace {

struct Arguments : GenerationArguments {
  std::string model, system;
  bool raw = false;
};

int chat(const Arguments& arguments) {
  const std::shared_ptr<const AdaptedModel> opened = open_model(arguments.model, arguments);
  const LanguageModel& model = *opened;
  GenerateOptions options = generate_options(arguments, *opened);
  model.check_generation();
  const bool terminal = ::isatty(STDIN_FILENO) != 0;
  Conversation conversation(model, arguments.raw ? std::nullopt : chat_templates(arguments.model), arguments.system);
  if (terminal) print("Type a line; the model answers. An empty line or Ctrl-D ends.\n");
  for (std::string line;;) {
    if (terminal) print("> ");
    if (!std::getline(std::cin, line) || line.empty() || interrupted()) return 0;
    const std::vector<int64_t> ids = conversation.ask(line, options.max_tokens);
    GenerationTimes times;
    const auto show = [](int64_t, std::string_view text) {
      print(text);
      return true;
    };
    const Continuation answer = generate(model, {ids}, options, {.on_text = show, .on_end = {}, .times = &times}).front();
    print("\n");
    if (terminal && times.decoded > 0)
      log_info(fmt::format("first token after {:.2f} s, then {:.1f} tokens/s", times.first_token,
                           static_cast<double>(times.decoded) / std::max(times.decode, 1e-9)));
    conversation.answered(answer.text, answer.ids);
    ++options.seed;  // the same words a second time get another answer
  }
}

}  // namespace

Verb chat_verb() {
  return {.name = "chat",
          .summary = "talk with a model on the terminal",
          .example = "switchyard chat runs/quickstart --max-tokens 100",
          .computes = true,
          .setup = [](CommandLine& line) -> std::function<int()> {
            auto arguments = std::make_shared<Arguments>();
            line.option("model", arguments->model, "folder of a run, a checkpoint or a model").required();
            line.option("--system", arguments->system, "the system's message, at the beginning of the conversation");
            line.flag("--raw", arguments->raw, "without the model's chat template: write on from what is said");
            add_generation_options(line, *arguments);
            return [arguments] { return chat(*arguments); };
          }};
}

}  // namespace switchyard::program
