// switchyard chat: a conversation on the terminal. Models without a chat template, such as those trained here, just write on
// from everything said so far.
#include <fmt/format.h>
#include <unistd.h>

#include <iostream>

#include "program/generation.h"
#include "program/verb.h"
#include "switchyard/base/error.h"
#include "switchyard/base/progress.h"

namespace switchyard::program {

namespace {

struct Arguments : GenerationArguments {
  std::string model;
};

/// Drops the oldest tokens so that `room` more fit.
void make_room(std::vector<int64_t>& ids, int64_t context, int64_t room) {
  const int64_t most = std::max<int64_t>(1, context - std::min(room, context / 2));
  if (static_cast<int64_t>(ids.size()) <= most) return;
  log_warning(fmt::format("the conversation outgrew the context of {} tokens; its beginning is forgotten", context));
  ids.erase(ids.begin(), ids.end() - most);
}

int chat(const Arguments& arguments) {
  const std::shared_ptr<const AdaptedModel> opened = open_model(arguments.model, arguments.dtype, arguments.adapters);
  const LanguageModel& model = *opened;
  GenerateOptions options = generate_options(arguments);
  model.check_generation();
  const bool terminal = ::isatty(STDIN_FILENO) != 0;
  if (terminal) print("Type a line; the model writes on. An empty line or Ctrl-D ends.\n");
  std::vector<int64_t> said;
  for (std::string line;;) {
    if (terminal) print("> ");
    if (!std::getline(std::cin, line) || line.empty() || interrupted()) return 0;
    const std::vector<int64_t> ids = said.empty() ? prompt_ids(model, line) : model.tokenizer()->encode("\n" + line);
    said.insert(said.end(), ids.begin(), ids.end());
    make_room(said, model.context(), options.max_tokens);
    const Continuation answer = generate(model, {said}, options, [](int64_t, std::string_view text) {
      print(text);
      return true;
    }).front();
    print("\n");
    said.insert(said.end(), answer.ids.begin(), answer.ids.end());
    ++options.seed;  // the same words a second time get another answer
  }
}

}  // namespace

Verb chat_verb() {
  return {.name = "chat",
          .summary = "talk with a model on the terminal",
          .example = "switchyard chat runs/quickstart --max-tokens 100",
          .computes = true,
          .setup = [](CLI::App& app) -> std::function<int()> {
            auto arguments = std::make_shared<Arguments>();
            app.add_option("model", arguments->model, "folder of a run, a checkpoint or a model")->required();
            add_generation_options(app, *arguments);
            return [arguments] { return chat(*arguments); };
          }};
}

}  // namespace switchyard::program
