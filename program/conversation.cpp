#include "program/conversation.h"

#include <fmt/format.h>

#include <filesystem>

#include "switchyard/base/error.h"
#include "switchyard/base/json.h"
#include "switchyard/base/progress.h"
#include "switchyard/infer/generate.h"
#include "switchyard/models/checkpoint.h"

namespace switchyard::program {

namespace fs = std::filesystem;

struct Conversation::Messages {
  nlohmann::json list = nlohmann::json::array();
  size_t kept = 0;  ///< messages at the beginning that are never forgotten: the system's
};

std::optional<ChatTemplates> chat_templates(const std::string& model) {
  const fs::path file = gguf_of(model);
  if (fs::is_directory(model) && file.empty()) return ChatTemplates::present(model) ? std::optional(ChatTemplates::load(model)) : std::nullopt;
  if (file.extension() != ".gguf") return std::nullopt;
  try {
    return ChatTemplates::load(file);
  } catch (const Error& error) {
    if (error.code() != "template.missing") throw;
    return std::nullopt;
  }
}

Conversation::Conversation(const LanguageModel& model, std::optional<ChatTemplates> templates, const std::string& system)
    : model_(model), templates_(std::move(templates)), messages_(std::make_unique<Messages>()) {
  if (system.empty()) return;
  check(templates_.has_value(), "program.usage", "the model has no chat template, so --system has no place to stand");
  messages_->list.push_back({{"role", "system"}, {"content", system}});
  messages_->kept = 1;
}

Conversation::~Conversation() = default;

std::vector<int64_t> Conversation::rendered() const {
  const nlohmann::json request{{"messages", messages_->list}, {"add_generation_prompt", true}};
  const std::string prompt = templates_->prompt(json_text(request)).text;
  // The template writes the special tokens itself.
  return model_.tokenizer()->encode(prompt, EncodeOptions{.add_special = false, .parse_special = true}).ids;
}

std::vector<int64_t> Conversation::ask(const std::string& text, int64_t room) {
  const int64_t most = std::max<int64_t>(1, model_.context() - std::min(room, model_.context() / 2));
  const auto forget = [&] {
    log_warning(fmt::format("the conversation outgrew the context of {} tokens; its beginning is forgotten", model_.context()));
  };
  if (!templates_) {
    const std::vector<int64_t> ids = said_.empty() ? prompt_ids(model_, text) : model_.tokenizer()->encode("\n" + text);
    said_.insert(said_.end(), ids.begin(), ids.end());
    if (static_cast<int64_t>(said_.size()) > most) {
      forget();
      said_.erase(said_.begin(), said_.end() - most);
    }
    return said_;
  }
  nlohmann::json& list = messages_->list;
  list.push_back({{"role", "user"}, {"content", text}});
  bool warned = false;
  for (;;) {
    std::vector<int64_t> ids = rendered();
    if (static_cast<int64_t>(ids.size()) <= most) return ids;
    // A user's message goes with the answer to it, so that the turns still alternate.
    const auto first = static_cast<std::ptrdiff_t>(messages_->kept);
    check(static_cast<std::ptrdiff_t>(list.size()) > first + 2, "program.context",
          "the message takes {} tokens, and the model's context is {}, of which {} are kept for the answer", ids.size(),
          model_.context(), model_.context() - most);
    if (!warned) forget();
    warned = true;
    list.erase(list.begin() + first, list.begin() + first + 2);
  }
}

void Conversation::answered(const std::string& text, const std::vector<int64_t>& ids) {
  if (templates_) messages_->list.push_back({{"role", "assistant"}, {"content", text}});
  else said_.insert(said_.end(), ids.begin(), ids.end());
}

}  // namespace switchyard::program
