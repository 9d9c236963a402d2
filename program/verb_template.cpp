// switchyard template: messages to the prompt that a model expects, by its own chat template.
#include <fmt/format.h>

#include "program/input.h"
#include "program/verb.h"
#include "switchyard/base/error.h"
#include "switchyard/base/files.h"
#include "switchyard/base/json.h"
#include "switchyard/formats/template/chat_template.h"
#include "switchyard/formats/template/json_value.h"

namespace switchyard::program {

namespace {

using Json = nlohmann::ordered_json;

struct Arguments {
  std::string model, input = "-", output = "-";
};

std::string line_of(const Json& row) { return json_text(row) + "\n"; }

/// A template's own refusal is given word for word; everything else with its place.
Json error_row(const TemplateError& error) {
  const bool own_words = error.code() == "template.raised";
  Json row{{"error", own_words ? error.reason() : error.message()}, {"code", error.code()}};
  if (error.line() > 0) row["line"] = error.line();
  if (!error.expression().empty()) row["expression"] = error.expression();
  return row;
}

Json rendered_row(const ChatTemplates& templates, const std::string& line, const std::string& where) {
  const jinja::Value request = jinja::from_json(line, where);
  try {
    const RenderedChat chat = templates.prompt(request);
    Json row{{"text", chat.text}};
    if (!chat.generations.empty()) row["generations"] = chat.generations;
    return row;
  } catch (const TemplateError& error) {
    return error_row(error);
  } catch (const Error& error) {
    return {{"error", error.message()}, {"code", error.code()}};
  }
}

std::vector<std::string> lines_of(const std::string& path) {
  const std::string text = read_input(path, uint64_t{1} << 30);
  std::vector<std::string> lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

void write(const std::string& path, const std::string& text) {
  if (path == "-") print(text);
  else write_file_atomically(path, text);
}

int render_lines(const Arguments& arguments) {
  const std::vector<std::string> lines = lines_of(arguments.input);
  const auto blank = [](const std::string& line) { return line.find_first_not_of(" \t\r") == std::string::npos; };
  std::string out;
  try {
    const ChatTemplates templates = ChatTemplates::load(arguments.model);
    for (size_t i = 0; i < lines.size(); ++i)
      if (!blank(lines[i])) out += line_of(rendered_row(templates, lines[i], fmt::format("{} line {}", arguments.input, i + 1)));
  } catch (const TemplateError& error) {
    // No line can be rendered with a template that is broken itself.
    for (const std::string& line : lines)
      if (!blank(line)) out += line_of(error_row(error));
    write(arguments.output, out);
    throw;
  }
  write(arguments.output, out);
  return 0;
}

}  // namespace

Verb template_verb() {
  return {.name = "template",
          .summary = "messages to the prompt that a model expects, by its chat template",
          .example = "switchyard template DIR --input chats.jsonl --output prompts.jsonl",
          .setup = [](CommandLine& line) -> std::function<int()> {
            auto arguments = std::make_shared<Arguments>();
            line.option("model", arguments->model, "folder of a model, a .jinja file, or a GGUF file").required();
            line.option("--input", arguments->input,
                        "JSON lines with messages and, as wanted, tools, documents, add_generation_prompt, "
                        "continue_final_message, now (2025-03-04T05:06:07) and any other variable; - reads standard input");
            line.option("--output", arguments->output,
                        "JSON lines to write, one for one: {\"text\"} or {\"error\"}; - writes to standard output");
            return [arguments] { return render_lines(*arguments); };
          }};
}

}  // namespace switchyard::program
