#include "program/prompts.h"

#include <fmt/format.h>

#include <sstream>

#include "program/input.h"
#include "switchyard/base/error.h"
#include "switchyard/base/json.h"
#include "switchyard/infer/generate.h"

namespace switchyard::program {

namespace {

using nlohmann::json;

constexpr uint64_t kLargestFile = uint64_t{1} << 30;

bool is_prompt(const json& line) {
  return line.is_object() && (line.contains("prompt") || line.contains("ids") || line.contains("messages"));
}

std::vector<int64_t> ids_of(const json& list, const LanguageModel& model) {
  check(list.is_array() && !list.empty(), "program.prompts", "\"ids\" is no list of token ids");
  std::vector<int64_t> ids;
  for (const json& id : list) {
    check(id.is_number_integer() && id.get<double>() >= 0 && id.get<double>() < static_cast<double>(model.vocabulary()), "program.prompts",
          "\"ids\" holds {}; token ids are from 0 to {}", id.dump().substr(0, 40), model.vocabulary() - 1);
    ids.push_back(id.get<int64_t>());
  }
  return ids;
}

void say_by_template(json request, const LanguageModel& model, const PromptsOptions& options, PromptLine& line) {
  check(options.templates.has_value(), "program.prompts", "the model has no chat template, so messages cannot be said");
  check(model.tokenizer() != nullptr, "infer.tokenizer", "the model's folder has no tokenizer, so text cannot be read");
  request.erase("id");
  if (!request.contains("add_generation_prompt")) request["add_generation_prompt"] = true;
  line.text = options.templates->prompt(request.dump(-1, ' ', false, json::error_handler_t::replace)).text;
  line.ids = model.tokenizer()->encode(line.text, EncodeOptions{.add_special = false, .parse_special = true}).ids;
}

void read_text(const std::string& text, const LanguageModel& model, const PromptsOptions& options, PromptLine& line) {
  if (!options.chat) {
    line.text = text;
    line.ids = prompt_ids(model, text);
    return;
  }
  json messages = json::array();
  if (!options.system.empty()) messages.push_back({{"role", "system"}, {"content", options.system}});
  messages.push_back({{"role", "user"}, {"content", text}});
  say_by_template({{"messages", messages}}, model, options, line);
}

void read_object(const json& object, const LanguageModel& model, const PromptsOptions& options, PromptLine& line) {
  check(is_prompt(object), "program.prompts", "the line has none of \"prompt\", \"ids\" and \"messages\"");
  if (object.contains("id")) line.id = object["id"].dump(-1, ' ', false, json::error_handler_t::replace);
  if (object.contains("ids")) {
    line.ids = ids_of(object["ids"], model);
  } else if (object.contains("messages")) {
    say_by_template(object, model, options, line);
  } else {
    check(object["prompt"].is_string(), "program.prompts", "\"prompt\" is no text");
    read_text(object["prompt"].get<std::string>(), model, options, line);
  }
}

}  // namespace

std::vector<PromptLine> read_prompts(const std::string& file, const LanguageModel& model, const PromptsOptions& options) {
  std::istringstream input(read_input(file, kLargestFile));
  std::vector<PromptLine> prompts;
  std::optional<bool> objects;  // the first line decides, unless the file's name does
  if (file.ends_with(".jsonl")) objects = true;
  size_t number = 0;
  for (std::string text; std::getline(input, text);) {
    ++number;
    if (!text.empty() && text.back() == '\r') text.pop_back();
    if (text.find_first_not_of(" \t") == std::string::npos) continue;
    try {
      PromptLine line{.id = std::to_string(prompts.size()), .text = {}, .ids = {}};
      if (!objects) objects = is_prompt(json::parse(text, nullptr, /*allow_exceptions=*/false));
      if (*objects) read_object(json::parse(text), model, options, line);
      else read_text(text, model, options, line);
      prompts.push_back(std::move(line));
    } catch (const json::exception& error) {
      fail("program.prompts", "{}, line {}: {}", file, number, json_fault(error));
    } catch (const Error& error) {
      throw Error(error.code(), fmt::format("{}, line {}: {}", file, number, error.message()));
    }
  }
  check(!prompts.empty(), "program.prompts", "{} holds no prompt", file);
  return prompts;
}

}  // namespace switchyard::program
