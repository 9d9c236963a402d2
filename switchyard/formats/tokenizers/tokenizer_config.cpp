// tokenizer_config.json and special_tokens_map.json: which token is which.

#include "switchyard/base/error.h"
#include "switchyard/base/json.h"
#include "switchyard/formats/tokenizers/pipeline.h"

namespace switchyard {
namespace {

using Json = nlohmann::json;

/// A token is written as its text or as an object with it.
std::optional<std::string> token_of(const Json& root, const char* key) {
  if (!root.contains(key)) return std::nullopt;
  const Json& token = root[key];
  if (token.is_string()) return token.get<std::string>();
  if (token.is_object() && token.contains("content") && token["content"].is_string()) return token["content"].get<std::string>();
  return std::nullopt;
}

std::optional<bool> flag_of(const Json& root, const char* key) {
  return root.contains(key) && root[key].is_boolean() ? std::optional(root[key].get<bool>()) : std::nullopt;
}

void read_added(const Json& root, TokenizerConfig& config, const std::string& source) {
  if (!root.contains("added_tokens_decoder") || !root["added_tokens_decoder"].is_object()) return;
  for (const auto& [id, token] : root["added_tokens_decoder"].items()) {
    check(!id.empty() && id.size() <= 9 && id.find_first_not_of("0123456789") == std::string::npos && token.is_object(), "tokenizer.format",
          "{}: \"{}\" in added_tokens_decoder is no token id", source, id);
    const std::optional<std::string> content = token_of(Json{{"token", token}}, "token");
    check(content.has_value(), "tokenizer.format", "{}: token {} in added_tokens_decoder has no content", source, id);
    config.added[std::stoll(id)] = {.content = *content, .single_word = flag_of(token, "single_word").value_or(false),
                                    .left_strip = flag_of(token, "lstrip").value_or(false), .right_strip = flag_of(token, "rstrip").value_or(false),
                                    .normalised = flag_of(token, "normalized").value_or(true), .special = flag_of(token, "special").value_or(false)};
  }
}

}  // namespace

TokenizerConfig read_tokenizer_config(const std::map<std::string, std::string>& files, const std::string& source) {
  TokenizerConfig config;
  for (const char* name : {"special_tokens_map.json", "tokenizer_config.json"}) {
    const auto file = files.find(name);
    if (file == files.end()) continue;
    try {
      const Json root = json_from(file->second);
      check(root.is_object(), "tokenizer.format", "{} beside {} is no JSON object", name, source);
      for (const auto& [key, token] : {std::pair("bos_token", &config.begin_token), std::pair("eos_token", &config.end_token),
                                       std::pair("unk_token", &config.unknown_token), std::pair("pad_token", &config.padding_token)})
        if (const auto value = token_of(root, key)) *token = value;
      for (const auto& [key, flag] : {std::pair("add_bos_token", &config.add_begin), std::pair("add_eos_token", &config.add_end)})
        if (const auto value = flag_of(root, key)) *flag = value;
      if (root.contains("tokenizer_class") && root["tokenizer_class"].is_string()) config.tokenizer_class = root["tokenizer_class"];
      read_added(root, config, fmt::format("{} beside {}", name, source));
    } catch (const nlohmann::json::exception& error) {
      fail("tokenizer.format", "{} beside {}: {}", name, source, json_fault(error));
    }
  }
  return config;
}

}  // namespace switchyard
