// Prompts from a file: one a line, or JSON lines.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "switchyard/formats/template/chat_template.h"
#include "switchyard/infer/language_model.h"

namespace switchyard::program {

struct PromptLine {
  std::string id;    ///< JSON: what the line calls itself, else its place, from 0
  std::string text;  ///< empty when ids were given
  std::vector<int64_t> ids;
};

struct PromptsOptions {
  std::optional<ChatTemplates> templates;  ///< for lines with messages
  bool chat = false;                       ///< plain texts are a user's message
  std::string system;                      ///< with chat: the system's message before it
};

/// The lines of a file, empty ones left out; "-" = standard input. When the first line is a JSON object with one of these keys, all
/// lines are such objects: {"prompt": text}, {"ids": [...]} or {"messages": [...]} (with what else a chat template reads), and "id"
/// if wanted. Throws program.prompts naming the line, infer.tokenizer, template.*, file.*.
std::vector<PromptLine> read_prompts(const std::string& file, const LanguageModel& model, const PromptsOptions& options);

}  // namespace switchyard::program
