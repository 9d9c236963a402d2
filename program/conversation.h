// A conversation as token ids: by the model's chat template where it has one, else everything said so far, line by line.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "switchyard/formats/template/chat_template.h"
#include "switchyard/infer/language_model.h"

namespace switchyard::program {

/// The chat templates of a model's folder or GGUF file; none when it has none.
std::optional<ChatTemplates> chat_templates(const std::string& model);

class Conversation {
 public:
  /// templates: none = the model just writes on. system: the first message, or empty; throws program.usage where there is no
  /// template to say it.
  Conversation(const LanguageModel& model, std::optional<ChatTemplates> templates, const std::string& system);
  ~Conversation();

  /// What the model reads when the user says `text`. The oldest messages are forgotten, with a warning, where they leave no room
  /// for `room` more tokens. Throws template.* when the template refuses the conversation, program.context when one message
  /// alone is too long.
  std::vector<int64_t> ask(const std::string& text, int64_t room);
  /// What the model answered.
  void answered(const std::string& text, const std::vector<int64_t>& ids);

 private:
  std::vector<int64_t> rendered() const;

  const LanguageModel& model_;
  std::optional<ChatTemplates> templates_;
  struct Messages;
  std::unique_ptr<Messages> messages_;
  std::vector<int64_t> said_;  ///< without a template
};

}  // namespace switchyard::program
