#include <fmt/format.h>

#include <sstream>

#include "switchyard/base/error.h"
#include "switchyard/base/files.h"
#include "switchyard/base/json.h"
#include "switchyard/base/options.h"
#include "switchyard/evaluate/tasks.h"

namespace switchyard {
namespace {

using nlohmann::json;

constexpr uint64_t kLargestFile = uint64_t{1} << 30;

std::string text_of(const json& value, const char* key) {
  check(value.is_string(), "evaluate.task", "\"{}\" is no text", key);
  return value.get<std::string>();
}

/// A text or a list of texts.
std::vector<std::string> texts_of(const json& value, const char* key) {
  std::vector<std::string> list;
  if (!value.is_array()) return {text_of(value, key)};
  for (const json& item : value) list.push_back(text_of(item, key));
  return list;
}

TaskItem item_of(const json& line) {
  check(line.is_object(), "evaluate.task", "the line is no object");
  const std::vector<std::string> known{"id", "prompt", "choices", "answer", "stop", "max_tokens"};
  for (const auto& [key, value] : line.items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    const std::string near = nearest(key, known);
    check(near.empty(), "evaluate.task", "\"{}\" is no key of a task; did you mean \"{}\"?", key, near);
  }
  for (const char* key : {"prompt", "answer"}) check(line.contains(key), "evaluate.task", "the line has no \"{}\"", key);
  TaskItem item;
  if (line.contains("id")) item.id = line["id"].dump(-1, ' ', false, json::error_handler_t::replace);
  item.prompt = text_of(line["prompt"], "prompt");
  const json& answer = line["answer"];
  if (line.contains("choices")) {
    item.choices = texts_of(line["choices"], "choices");
    check(line["choices"].is_array() && item.choices.size() >= 2, "evaluate.task", "\"choices\" is no list of two or more texts");
    for (const std::string& choice : item.choices) check(!choice.empty(), "evaluate.task", "a choice is empty");
    check(answer.is_number_integer() && answer.get<double>() >= 0 && answer.get<double>() < static_cast<double>(item.choices.size()),
          "evaluate.task", "\"answer\" is {}, not the place of one of {} choices, from 0", answer.dump().substr(0, 40), item.choices.size());
    item.right = answer.get<int64_t>();
    return item;
  }
  item.answers = texts_of(answer, "answer");
  check(!item.answers.empty(), "evaluate.task", "\"answer\" is an empty list");
  if (line.contains("stop")) item.stop = texts_of(line["stop"], "stop");
  for (const std::string& stop : item.stop) check(!stop.empty(), "evaluate.task", "a stop text is empty");
  if (line.contains("max_tokens")) {
    const json& most = line["max_tokens"];
    check(most.is_number_integer() && most.get<double>() >= 1 && most.get<double>() <= 1e6, "evaluate.task",
          "\"max_tokens\" is {}, not a number of tokens", most.dump().substr(0, 40));
    item.max_tokens = most.get<int64_t>();
  }
  return item;
}

/// A question with its answer, as an example.
std::string shown(const TaskItem& item) {
  if (!item.choices.empty()) return item.prompt + item.choices[static_cast<size_t>(item.right)];
  const std::string& answer = item.answers.front();
  const bool apart = !item.prompt.empty() && !answer.empty() && !std::isspace(static_cast<unsigned char>(item.prompt.back())) &&
                     !std::isspace(static_cast<unsigned char>(answer.front()));
  return item.prompt + (apart ? " " : "") + answer;
}

}  // namespace

std::vector<TaskItem> read_tasks(const std::filesystem::path& file, int64_t shots, int64_t limit) {
  std::istringstream input(read_file(file, kLargestFile));
  std::vector<TaskItem> items;
  std::string examples;
  int64_t line_number = 0, found = 0;
  for (std::string text; std::getline(input, text);) {
    ++line_number;
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    if (limit > 0 && static_cast<int64_t>(items.size()) >= limit) break;
    try {
      TaskItem item = item_of(json::parse(text));
      if (item.id.empty()) item.id = std::to_string(found);
      ++found;
      if (found <= shots) {
        examples += shown(item) + "\n\n";
        continue;
      }
      item.prompt.insert(0, examples);
      items.push_back(std::move(item));
    } catch (const json::exception& error) {
      fail("evaluate.task", "{}, line {}: {}", file.string(), line_number, json_fault(error));
    } catch (const Error& error) {
      throw Error(error.code(), fmt::format("{}, line {}: {}", file.string(), line_number, error.message()));
    }
  }
  check(!items.empty(), "evaluate.task", "{} holds {} lines, of which {} are examples; none is left to ask", file.string(), found,
        std::min(found, shots));
  return items;
}

}  // namespace switchyard
