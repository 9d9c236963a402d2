// Chat templates: the Jinja programs that models ship to turn messages into a prompt, rendered exactly as transformers does
// (trim_blocks, lstrip_blocks, loop controls, an immutable sandbox, its own tojson). Templates are hostile input: steps,
// memory, output and depth are bounded (template/budget.h).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "switchyard/base/error.h"
#include "switchyard/formats/template/budget.h"
#include "switchyard/formats/template/runtime.h"
#include "switchyard/formats/template/value.h"

namespace switchyard {

namespace jinja {
struct Syntax;
}

/// What a template ran into. Codes: template.syntax, .name (no such filter or test), .undefined, .type, .value, .key, .zero,
/// .argument, .security, .integer, .limit, .depth, .size, .encoding, .unsupported, and .raised, when the template itself refuses
/// what it was given. The message names template, line and expression.
class TemplateError : public Error {
 public:
  TemplateError(const std::string& name, const jinja::Fault& fault);
  const std::string& reason() const { return fault_.reason; }  ///< alone; for template.raised exactly the template's words
  int line() const { return fault_.line; }                     ///< 0 = unknown
  const std::string& expression() const { return fault_.expression; }

 private:
  jinja::Fault fault_;
};

struct RenderedChat {
  std::string text;
  /// What stands in {% generation %} blocks, as [begin, end) in characters of text: what an assistant wrote.
  std::vector<std::pair<int64_t, int64_t>> generations;
};

struct RenderOptions {
  std::optional<jinja::Clock> now;  ///< for strftime_now; none = the local time
  jinja::Limits limits;
};

class ChatTemplate {
 public:
  /// name: of the file, for messages. Throws TemplateError.
  static ChatTemplate parse(std::string_view text, std::string name = "chat template");
  /// variables: an object, such as jinja::from_json gives. Throws TemplateError.
  RenderedChat render(const jinja::Value& variables, const RenderOptions& options = {}) const;
  const std::string& name() const { return name_; }
  const std::string& source() const;

 private:
  std::string name_;
  std::shared_ptr<const jinja::Syntax> syntax_;
};

/// The templates of a model (one, or several by name) with the special tokens they write.
class ChatTemplates {
 public:
  /// A model folder (chat_template.jinja, chat_template.json, or chat_template in tokenizer_config.json; special tokens from
  /// tokenizer_config.json and special_tokens_map.json; else its .gguf file), a single .jinja file, or a GGUF file. Throws
  /// template.missing, template.config, formats.gguf.*, TemplateError.
  static ChatTemplates load(const std::filesystem::path& path);
  /// Does this folder hold a chat template?
  static bool present(const std::filesystem::path& folder);

  /// The prompt for a conversation. request: an object with messages and, as wanted, tools, documents, add_generation_prompt,
  /// continue_final_message (the last message is left open), now ("2025-03-04T05:06:07"), template (a name), and any other
  /// variable. What a request does not name has transformers' defaults. Throws template.request, TemplateError.
  RenderedChat prompt(const jinja::Value& request, const jinja::Limits& limits = {}) const;
  RenderedChat prompt(std::string_view request_json) const;

  const std::vector<std::pair<std::string, ChatTemplate>>& named() const { return templates_; }

 private:
  const ChatTemplate& chosen(const jinja::Dict& request, bool tools) const;
  void add(const std::string& name, std::string_view text, const std::string& file);
  void read_config(const std::filesystem::path& file);
  void read_tokens(const jinja::Dict& config);
  void read_gguf(const std::filesystem::path& file);

  std::filesystem::path path_;
  std::vector<std::pair<std::string, ChatTemplate>> templates_;
  std::vector<std::pair<std::string, jinja::Value>> tokens_;  ///< "bos_token" and so on
};

}  // namespace switchyard
