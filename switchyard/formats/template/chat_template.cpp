#include "switchyard/formats/template/chat_template.h"

#include <time.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "switchyard/base/files.h"
#include "switchyard/formats/gguf_header.h"
#include "switchyard/formats/template/characters.h"
#include "switchyard/formats/template/evaluator.h"
#include "switchyard/formats/template/json_value.h"
#include "switchyard/formats/template/operations.h"
#include "switchyard/formats/template/parser.h"
#include "switchyard/formats/utf8.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using jinja::Value;

constexpr uint64_t kMaxFile = uint64_t{64} << 20;
constexpr std::string_view kOpenEnd = "CONTINUE_FINAL_MESSAGE_TAG ";

std::string located(const std::string& name, const jinja::Fault& fault) {
  std::string text = name;
  if (fault.line > 0) text += fmt::format(" line {}", fault.line);
  if (!fault.expression.empty()) text += fmt::format(", `{}`", fault.expression);
  return text + ": " + fault.reason;
}

jinja::Clock local_time() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  tm parts{};
  ::localtime_r(&now.tv_sec, &parts);
  return {parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
          static_cast<int>(now.tv_nsec / 1000)};
}

/// "2025-03-04", "2025-03-04T05:06", "2025-03-04 05:06:07.250".
jinja::Clock read_time(const std::string& text) {
  std::array<int, 6> parts{1970, 1, 1, 0, 0, 0};
  constexpr std::array<std::pair<int, int>, 6> kRanges{{{1, 9999}, {1, 12}, {1, 31}, {0, 23}, {0, 59}, {0, 60}}};
  const char *at = text.data(), *end = text.data() + text.size();
  size_t count = 0;
  bool good = true;
  int microsecond = 0;
  for (; good && count < parts.size() && at < end; ++count) {
    if (count > 0) {
      const char separator = *at++;
      good = count < 3 ? separator == '-' : count == 3 ? separator == 'T' || separator == ' ' : separator == ':';
    }
    const auto [rest, error] = std::from_chars(at, end, parts[count]);
    good = good && error == std::errc() && rest - at <= 4 && parts[count] >= kRanges[count].first && parts[count] <= kRanges[count].second;
    at = rest;
  }
  if (good && count == 6 && at < end && *at == '.') {
    int digits = 0;
    for (++at; at < end && *at >= '0' && *at <= '9'; ++at, ++digits)
      if (digits < 6) microsecond = microsecond * 10 + (*at - '0');
    for (; digits < 6; ++digits) microsecond *= 10;
  }
  const bool leap = parts[0] % 4 == 0 && (parts[0] % 100 != 0 || parts[0] % 400 == 0);
  good = good && parts[2] <= std::array{31, leap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}[static_cast<size_t>(parts[1]) - 1];
  check(good && at == end && (count == 3 || count >= 5), "template.request", "now is '{}', not a time such as 2025-03-04T05:06:07", text);
  return {parts[0], parts[1], parts[2], parts[3], parts[4], parts[5], microsecond};
}

using Entries = std::vector<std::pair<Value, Value>>;

Value object(const Entries& entries) {
  auto dict = std::make_shared<jinja::Dict>();
  dict->depth = 1;
  for (const auto& [key, value] : entries) {
    dict->depth = std::max(dict->depth, value.depth() + 1);
    dict->weight += jinja::weight_of(value);
    dict->set(key, value);
  }
  return {Value::Kind::dict, std::move(dict)};
}

Value list(std::vector<Value> items) {
  auto sequence = std::make_shared<jinja::Sequence>();
  sequence->depth = 1;
  for (const Value& item : items) {
    sequence->depth = std::max(sequence->depth, item.depth() + 1);
    sequence->weight += jinja::weight_of(item);
  }
  sequence->items = std::move(items);
  return {Value::Kind::list, std::move(sequence)};
}

Value with(const Value& dict, std::string_view key, Value value) {
  Entries entries = dict.dict().entries;
  const auto it = std::find_if(entries.begin(), entries.end(), [&](const auto& entry) { return entry.first.is_string() && entry.first.str() == key; });
  if (it != entries.end()) it->second = std::move(value);
  else entries.emplace_back(Value::text(std::string(key)), std::move(value));
  return object(entries);
}

constexpr std::array<std::string_view, 3> kReasoning{"reasoning_content", "thinking", "reasoning"};

/// Reasoning under the names that templates read: transformers fills in `thinking` and `reasoning_content` from what is there.
Value with_reasoning(const Value& message) {
  for (std::string_view field : kReasoning) {
    const Value* value = message.dict().find(field);
    if (!value || value->is_none()) continue;
    Entries entries{{Value::text("thinking"), *value}};
    for (const auto& [key, other] : message.dict().entries) {
      if (key.str() == "thinking") entries[0].second = other;
      else entries.emplace_back(key, other);
    }
    return with(object(entries), "reasoning_content", *value);
  }
  return message;
}

struct OpenEnd {
  std::vector<Value> messages;
  std::string text;  ///< of the message that is continued
};

/// Marks the end of the last message, so that the prompt can be cut there.
OpenEnd mark_end(std::vector<Value> messages, std::string field, const std::string& source) {
  check(!messages.empty(), "template.request", "continue_final_message is set, but there are no messages");
  Value last = messages.back();
  const Value* content = last.dict().find(field);
  check(content && !content->is_none(), "template.request", "continue_final_message is set, but the last message has no '{}' to continue", field);
  std::vector<std::string> fields{field};
  if (std::find(kReasoning.begin(), kReasoning.end(), field) != kReasoning.end()) {
    fields.clear();
    for (std::string_view name : kReasoning)
      if (const Value* other = last.dict().find(name); other && jinja::equal(*other, *content)) fields.emplace_back(name);
  }
  const bool read = std::any_of(fields.begin(), fields.end(), [&](const std::string& name) { return source.find(name) != std::string::npos; });
  check(read, "template.request", "continue_final_message is '{}', which this chat template does not read", field);
  OpenEnd open;
  if (content->is(Value::Kind::list)) {
    std::vector<Value> parts = content->items();
    const auto it = std::find_if(parts.rbegin(), parts.rend(), [](const Value& part) {
      const Value* text = part.is(Value::Kind::dict) ? part.dict().find("text") : nullptr;
      return text && text->is_string();
    });
    check(it != parts.rend(), "template.request", "continue_final_message is set, but the last message has no text to continue");
    open.text = it->dict().find("text")->str();
    *it = with(*it, "text", Value::text(open.text + std::string(kOpenEnd)));
    last = with(last, field, list(std::move(parts)));
  } else {
    check(content->is_string(), "template.request", "continue_final_message is set, but '{}' of the last message is no text", field);
    open.text = content->str();
    for (const std::string& name : fields) last = with(last, name, Value::text(open.text + std::string(kOpenEnd)));
  }
  messages.back() = last;
  open.messages = std::move(messages);
  return open;
}

/// Cuts the prompt where the last message ends.
std::string cut_end(const std::string& text, const std::string& message) {
  const std::string_view mark = kOpenEnd.substr(0, kOpenEnd.size() - 1);
  const size_t at = text.rfind(mark);
  const std::string_view kept = jinja::strip(message, nullptr, jinja::Ends::both);
  check(at != std::string::npos && text.find(kept) != std::string::npos, "template.request",
        "continue_final_message is set, but the last message does not appear in the prompt: the chat template drops a part of it");
  if (text.compare(at, kOpenEnd.size(), kOpenEnd) == 0) return text.substr(0, at);
  return std::string(jinja::strip(std::string_view(text).substr(0, at), nullptr, jinja::Ends::right));
}

const Value* found(const jinja::Dict& dict, std::string_view key) {
  const Value* value = dict.find(key);
  return value && !value->is_none() ? value : nullptr;
}

}  // namespace

TemplateError::TemplateError(const std::string& name, const jinja::Fault& fault) : Error(fault.code, located(name, fault)), fault_(fault) {}

ChatTemplate ChatTemplate::parse(std::string_view text, std::string name) {
  ChatTemplate chat;
  chat.name_ = std::move(name);
  try {
    chat.syntax_ = jinja::parse(text);
  } catch (const jinja::Fault& fault) {
    throw TemplateError(chat.name_, fault);
  }
  return chat;
}

RenderedChat ChatTemplate::render(const Value& variables, const RenderOptions& options) const {
  check(variables.is(Value::Kind::dict), "template.request", "the variables of a chat template are an object, not {}", jinja::type_name(variables));
  try {
    jinja::Output output = jinja::evaluate(*syntax_, variables, options.limits, options.now ? *options.now : local_time());
    return {std::move(output.text), std::move(output.generations)};
  } catch (const jinja::Fault& fault) {
    throw TemplateError(name_, fault);
  }
}

const std::string& ChatTemplate::source() const { return syntax_->source; }

bool ChatTemplates::present(const fs::path& folder) {
  if (fs::exists(folder / "chat_template.jinja") || fs::exists(folder / "chat_template.json")) return true;
  const fs::path config = folder / "tokenizer_config.json";
  if (!fs::exists(config)) return false;
  const Value value = jinja::from_json(read_file(config, kMaxFile), config.string());
  return value.is(Value::Kind::dict) && found(value.dict(), "chat_template");
}

void ChatTemplates::add(const std::string& name, std::string_view text, const std::string& file) {
  for (const auto& [other, existing] : templates_)
    if (other == name) return;
  templates_.emplace_back(name, ChatTemplate::parse(text, file));
}

void ChatTemplates::read_tokens(const jinja::Dict& config) {
  static constexpr std::array<std::string_view, 7> kTokens{"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"};
  for (std::string_view name : kTokens) {
    const Value* value = found(config, name);
    if (value && value->is(Value::Kind::dict)) value = found(value->dict(), "content");
    const auto same = [&](const auto& entry) { return entry.first == name; };
    if (value && value->is_string() && std::none_of(tokens_.begin(), tokens_.end(), same)) tokens_.emplace_back(name, *value);
  }
}

void ChatTemplates::read_config(const fs::path& file) {
  if (!fs::exists(file)) return;
  const Value config = jinja::from_json(read_file(file, kMaxFile), file.string());
  check(config.is(Value::Kind::dict), "template.config", "{} is no JSON object", file.string());
  read_tokens(config.dict());
  const Value* chat = found(config.dict(), "chat_template");
  if (!chat) return;
  if (chat->is_string()) return add("default", chat->str(), file.string());
  check(chat->is(Value::Kind::list), "template.config", "{}: chat_template is neither a text nor a list of named templates", file.string());
  for (const Value& entry : chat->items()) {
    const Value* name = entry.is(Value::Kind::dict) ? found(entry.dict(), "name") : nullptr;
    const Value* text = entry.is(Value::Kind::dict) ? found(entry.dict(), "template") : nullptr;
    check(name && text && name->is_string() && text->is_string(), "template.config",
          "{}: an entry of chat_template has no name and template", file.string());
    add(name->str(), text->str(), file.string() + " (" + name->str() + ")");
  }
}

void ChatTemplates::read_gguf(const fs::path& file) {
  const MappedFile map(file);
  const GgufMetadata metadata = gguf::read_header(map.data(), map.size(), file.string()).metadata;
  constexpr std::string_view kKey = "tokenizer.chat_template";
  for (const auto& [key, value] : metadata.entries()) {
    if (!key.starts_with(kKey) || value.type != GgufType::text) continue;
    // Further templates stand as tokenizer.chat_template.NAME.
    const std::string name = key == kKey ? "default" : key.substr(kKey.size() + 1);
    add(name, metadata.text(key), file.string());
  }
  if (!metadata.has("tokenizer.ggml.tokens")) return;
  const std::vector<std::string>& words = metadata.texts("tokenizer.ggml.tokens");
  static constexpr std::array<std::pair<const char*, const char*>, 4> kTokens{
      {{"bos_token", "bos"}, {"eos_token", "eos"}, {"unk_token", "unknown"}, {"pad_token", "padding"}}};
  for (const auto& [name, word] : kTokens) {
    const int64_t id = metadata.integer(fmt::format("tokenizer.ggml.{}_token_id", word), -1);
    if (id < 0 || id >= static_cast<int64_t>(words.size())) continue;
    const std::string& token = words[static_cast<size_t>(id)];
    int64_t broken = 0;
    utf8_repair(token, &broken);
    if (broken == 0) tokens_.emplace_back(name, Value::text(token));
  }
}

ChatTemplates ChatTemplates::load(const fs::path& path) {
  ChatTemplates loaded;
  loaded.path_ = path;
  check(fs::exists(path), "template.missing", "{} does not exist", path.string());
  fs::path folder = path;
  if (!fs::is_directory(path) && path.extension() == ".gguf") {
    loaded.read_gguf(path);
    check(!loaded.templates_.empty(), "template.missing", "{} has no tokenizer.chat_template", path.string());
    return loaded;
  }
  if (!fs::is_directory(path)) {
    check(fs::is_regular_file(path), "template.missing", "{} is no regular file", path.string());
    loaded.add("default", read_file(path, kMaxFile), path.string());
    folder = path.parent_path();
    // The tokens of the model that the file lies beside; a template alone has none.
    if (path.filename() != "chat_template.jinja") return loaded;
  }
  if (const fs::path file = folder / "chat_template.jinja"; fs::exists(file)) loaded.add("default", read_file(file, kMaxFile), file.string());
  if (const fs::path more = folder / "additional_chat_templates"; fs::is_directory(more)) {
    std::vector<fs::path> files;
    for (const fs::directory_entry& entry : fs::directory_iterator(more))
      if (entry.path().extension() == ".jinja") files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    for (const fs::path& file : files) loaded.add(file.stem().string(), read_file(file, kMaxFile), file.string());
  }
  loaded.read_config(folder / "chat_template.json");
  loaded.read_config(folder / "tokenizer_config.json");
  if (const fs::path map = folder / "special_tokens_map.json"; fs::exists(map)) {
    const Value tokens = jinja::from_json(read_file(map, kMaxFile), map.string());
    if (tokens.is(Value::Kind::dict)) loaded.read_tokens(tokens.dict());
  }
  if (loaded.templates_.empty())
    if (const fs::path file = gguf::file_in(folder); !file.empty()) loaded.read_gguf(file);
  check(!loaded.templates_.empty(), "template.missing",
        "{} has no chat template: neither chat_template.jinja nor chat_template in tokenizer_config.json, nor in a GGUF file", path.string());
  return loaded;
}

const ChatTemplate& ChatTemplates::chosen(const jinja::Dict& request, bool tools) const {
  const auto named = [&](std::string_view name) -> const ChatTemplate* {
    for (const auto& [other, chat] : templates_)
      if (other == name) return &chat;
    return nullptr;
  };
  std::string names;
  for (const auto& [name, chat] : templates_) names += (names.empty() ? "" : ", ") + name;
  if (const Value* name = found(request, "template")) {
    const ChatTemplate* chat = name->is_string() ? named(name->str()) : nullptr;
    check(chat, "template.request", "{} has no chat template of the name that the request gives; there are {}", path_.string(), names);
    return *chat;
  }
  if (const ChatTemplate* chat = tools ? named("tool_use") : nullptr) return *chat;
  if (const ChatTemplate* chat = named("default")) return *chat;
  check(templates_.size() == 1, "template.request", "{} has no default chat template; name one of {} as \"template\"", path_.string(), names);
  return templates_.front().second;
}

RenderedChat ChatTemplates::prompt(const Value& request, const jinja::Limits& limits) const {
  check(request.is(Value::Kind::dict), "template.request", "a request is an object with messages, not {}", jinja::type_name(request));
  const jinja::Dict& given = request.dict();
  const Value* tools = found(given, "tools");
  const ChatTemplate& chat = chosen(given, tools != nullptr);

  std::vector<Value> messages;
  if (const Value* list_of = found(given, "messages")) {
    check(list_of->is(Value::Kind::list), "template.request", "messages is {}, not a list", jinja::type_name(*list_of));
    for (const Value& message : list_of->items()) {
      check(message.is(Value::Kind::dict), "template.request", "a message is {}, not an object with role and content", jinja::type_name(message));
      messages.push_back(with_reasoning(message));
    }
  }
  RenderOptions options{.limits = limits};
  if (const Value* now = found(given, "now")) {
    check(now->is_string(), "template.request", "now is no text such as 2025-03-04T05:06:07");
    options.now = read_time(now->str());
  }
  std::optional<OpenEnd> open;
  if (const Value* field = found(given, "continue_final_message"); field && jinja::truth(*field)) {
    const Value* prompted = found(given, "add_generation_prompt");
    check(!prompted || !jinja::truth(*prompted), "template.request",
          "continue_final_message and add_generation_prompt exclude each other: one leaves the last message open, the other begins a new one");
    open = mark_end(std::move(messages), field->is_string() ? field->str() : "content", chat.source());
    messages = open->messages;
  }

  Entries variables;
  for (const auto& [name, token] : tokens_) variables.emplace_back(Value::text(name), token);
  variables.emplace_back(Value::text("tools"), Value::none());
  variables.emplace_back(Value::text("documents"), Value::none());
  variables.emplace_back(Value::text("add_generation_prompt"), Value::boolean(false));
  for (const auto& [name, value] : given.entries)
    if (name.str() != "now" && name.str() != "continue_final_message" && name.str() != "template") variables.emplace_back(name, value);
  variables.emplace_back(Value::text("messages"), list(std::move(messages)));
  RenderedChat rendered = chat.render(object(variables), options);
  if (open) rendered.text = cut_end(rendered.text, open->text);
  return rendered;
}

RenderedChat ChatTemplates::prompt(std::string_view request_json) const { return prompt(jinja::from_json(request_json, "request")); }

}  // namespace switchyard
