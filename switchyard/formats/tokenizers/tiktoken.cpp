// Rank files of the tiktoken library: a line for each token with its bytes in base64 and its rank, which is its id. The pair
// whose joined bytes have the lowest rank is merged first. The pattern that cuts words is not in the file; it follows from
// its name, its size or the model it belongs to.
#include <algorithm>
#include <array>
#include <charconv>

#include "switchyard/base/error.h"
#include "switchyard/base/random.h"
#include "switchyard/formats/tokenizers/base64.h"
#include "switchyard/formats/tokenizers/byte_symbols.h"
#include "switchyard/formats/tokenizers/pipeline.h"
#include "switchyard/formats/tokenizers/published_patterns.h"

namespace switchyard {
namespace {

struct Kind {
  const char* name;        ///< part of the file's name
  size_t tokens;           ///< in the published file
  const char* pattern;
  std::vector<std::pair<const char*, int64_t>> special;
};

const std::vector<Kind>& kinds() {
  static const std::vector<Kind> list = {
      {"o200k", 199998, patterns::kO200k, {{"<|endoftext|>", 199999}, {"<|endofprompt|>", 200018}}},
      {"cl100k", 100256, patterns::kCl100k,
       {{"<|endoftext|>", 100257}, {"<|fim_prefix|>", 100258}, {"<|fim_middle|>", 100259}, {"<|fim_suffix|>", 100260}, {"<|endofprompt|>", 100276}}},
      {"qwen", 151643, patterns::kQwen2, {}},
      {"p50k", 50280, patterns::kGpt2, {{"<|endoftext|>", 50256}}},
      {"r50k", 50256, patterns::kGpt2, {{"<|endoftext|>", 50256}}},
      {"llama", 128000, patterns::kLlama3, {}},
  };
  return list;
}

std::vector<std::pair<std::string, int64_t>> read_ranks(std::string_view text, const std::string& source) {
  std::vector<std::pair<std::string, int64_t>> tokens;
  size_t line_number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = text.substr(at, end - at);
    at = end + 1;
    ++line_number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    const size_t space = line.find(' ');
    int64_t rank = -1;
    const std::string_view number = space == std::string_view::npos ? std::string_view() : line.substr(space + 1);
    const auto [last, error] = std::from_chars(number.data(), number.data() + number.size(), rank);
    check(!number.empty() && error == std::errc() && last == number.data() + number.size() && rank >= 0, "tokenizer.format",
          "{}: line {} is no base64 with a rank", source, line_number);
    tokens.emplace_back(from_base64(line.substr(0, space), fmt::format("{}: line {}", source, line_number)), rank);
    check(!tokens.back().first.empty(), "tokenizer.format", "{}: line {} is a token without bytes", source, line_number);
  }
  check(!tokens.empty(), "tokenizer.format", "{} holds no tokens", source);
  return tokens;
}

/// Every way to make a token of two others.
std::vector<Merge> merges_of(const std::vector<std::pair<std::string, int64_t>>& tokens, const std::string& source) {
  constexpr size_t kLongest = 1024;  // bytes of a token; more would take long for nothing
  std::unordered_map<std::string_view, int32_t> ids;
  for (const auto& [token, id] : tokens) ids.emplace(token, static_cast<int32_t>(id));
  std::vector<Merge> merges;
  for (const auto& [token, id] : tokens) {
    check(token.size() <= kLongest, "tokenizer.format", "{}: token {} has {} bytes; up to {} are supported", source, id, token.size(), kLongest);
    for (size_t cut = 1; cut < token.size(); ++cut) {
      const auto left = ids.find(std::string_view(token).substr(0, cut)), right = ids.find(std::string_view(token).substr(cut));
      const auto rank = static_cast<int32_t>(id);
      if (left != ids.end() && right != ids.end()) merges.push_back({left->second, right->second, rank, rank});
    }
  }
  return merges;
}

const Kind* kind_of(const std::string& source, size_t tokens) {
  std::string name = source.substr(source.find_last_of('/') + 1);
  std::transform(name.begin(), name.end(), name.begin(), [](char c) { return static_cast<char>(std::tolower(c)); });
  for (const Kind& kind : kinds())
    if (name.find(kind.name) != std::string::npos) return &kind;
  for (const Kind& kind : kinds())
    if (kind.tokens == tokens) return &kind;
  return nullptr;
}

}  // namespace

bool is_rank_file(std::string_view bytes) {
  const std::string_view line = bytes.substr(0, bytes.find('\n'));
  return line.find(' ') != std::string_view::npos && line.size() < 4096 &&
         std::all_of(line.begin(), line.end(), [](char c) { return c == '\r' || (c >= ' ' && c <= '~'); });
}

TokenizerParts parts_from_tiktoken(std::string_view ranks, const std::map<std::string, std::string>& files, const std::string& source) {
  std::vector<std::pair<std::string, int64_t>> tokens = read_ranks(ranks, source);
  const auto count = tokens.size();
  const std::vector<Merge> merges = merges_of(tokens, source);
  std::array<bool, 256> bytes{};
  for (auto& [token, id] : tokens) {
    if (token.size() == 1) bytes[static_cast<unsigned char>(token[0])] = true;
    token = to_byte_symbols(token);
  }
  check(std::find(bytes.begin(), bytes.end(), false) == bytes.end(), "tokenizer.format",
        "{} has no token for the byte {}, so not every text could be encoded", source, std::find(bytes.begin(), bytes.end(), false) - bytes.begin());
  TokenizerParts parts;
  parts.model = make_bpe(Vocabulary(std::move(tokens)), merges, BpeOptions{.ignore_merges = true});
  const TokenizerConfig config = read_tokenizer_config(files, source);
  const bool kimi = config.tokenizer_class == "TikTokenTokenizer";
  const Kind* kind = kimi ? nullptr : kind_of(source, count);
  parts.pre_tokenizers.push_back(split(find_pattern(kind ? kind->pattern : patterns::kKimi), SplitBehavior::isolated));
  parts.pre_tokenizers.push_back(byte_level({.add_prefix_space = false, .use_regex = false}));
  parts.decoder.parts.push_back(byte_level_decoder());
  const auto add = [&](const std::string& content, int64_t id) {
    parts.added.add({.content = content, .normalised = false, .special = true}, *parts.model, {}, id);
  };
  for (const auto& [id, token] : config.added) add(token.content, id);
  if (kimi) {  // 256 ids after the ranks are special; those without a name are reserved
    for (auto id = static_cast<int64_t>(count); id < static_cast<int64_t>(count) + 256; ++id)
      if (!config.added.contains(id)) add(fmt::format("<|reserved_token_{}|>", id), id);
  }
  if (kind && config.added.empty() && kind->tokens == count)
    for (const auto& [content, id] : kind->special) add(content, id);
  const int32_t end = config.end_token ? parts.added.id(*config.end_token) : -1;
  if (end >= 0) parts.end = end;
  parts.fingerprint = stable_hash(ranks);
  return parts;
}

}  // namespace switchyard
