#include "switchyard/inspect/tokenizer_description.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>

#include "switchyard/base/error.h"
#include "switchyard/base/files.h"
#include "switchyard/base/json.h"

namespace switchyard {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kLargest = uint64_t{1} << 30;

std::string type_of(const Json& json, const char* key) {
  const auto part = json.find(key);
  if (part == json.end() || !part->is_object()) return {};
  const auto type = part->find("type");
  return type != part->end() && type->is_string() ? type->get<std::string>() : std::string();
}

TokenizerDescription of_json(const std::string& text, const std::string& file) {
  const Json json = json_if_valid(text);
  check(json.is_object(), "show.tokenizer", "{} is no JSON object; it is damaged or no tokenizer", file);
  const auto model = json.find("model");
  check(model != json.end() && model->is_object(), "show.tokenizer", "{} has no model, so it is no tokenizer", file);
  TokenizerDescription description;
  description.kind = type_of(json, "model");
  if (description.kind.empty()) description.kind = model->contains("merges") ? "BPE" : "unknown";
  int64_t largest = -1, special = 0, added = 0;
  if (const auto vocabulary = model->find("vocab"); vocabulary != model->end() && (vocabulary->is_object() || vocabulary->is_array()))
    largest = static_cast<int64_t>(vocabulary->size()) - 1;
  if (const auto tokens = json.find("added_tokens"); tokens != json.end() && tokens->is_array()) {
    for (const Json& token : *tokens) {
      if (!token.is_object()) continue;
      ++added;
      const auto is_special = token.find("special");
      special += is_special != token.end() && is_special->is_boolean() && is_special->get<bool>();
      const auto id = token.find("id");
      if (id != token.end() && id->is_number_integer()) largest = std::max(largest, id->get<int64_t>());
    }
  }
  description.vocabulary = largest + 1;
  description.more.emplace_back("added tokens", fmt::format("{}, {} of them special", added, special));
  if (const auto merges = model->find("merges"); merges != model->end() && merges->is_array())
    description.more.emplace_back("merges", std::to_string(merges->size()));
  for (const char* key : {"normalizer", "pre_tokenizer", "post_processor", "decoder"})
    if (const std::string type = type_of(json, key); !type.empty()) description.more.emplace_back(key, type);
  return description;
}

/// The pieces of a sentencepiece model: length-delimited fields number 1 of its message, counted without reading them.
TokenizerDescription of_sentencepiece(std::string_view bytes, const std::string& file) {
  size_t at = 0;
  const auto varint = [&]() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      check(at < bytes.size(), "show.tokenizer", "{} ends inside a number; it is cut short or no sentencepiece model", file);
      const auto byte = static_cast<uint8_t>(bytes[at++]);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    fail("show.tokenizer", "{} has a number of more than 64 bits; it is no sentencepiece model", file);
  };
  TokenizerDescription description{.kind = "sentencepiece"};
  while (at < bytes.size()) {
    const uint64_t tag = varint();
    uint64_t skip = 0;
    if ((tag & 7) == 0) varint();
    else if ((tag & 7) == 1) skip = 8;
    else if ((tag & 7) == 5) skip = 4;
    else if ((tag & 7) == 2) skip = varint();
    else fail("show.tokenizer", "{} has a field of an unknown kind; it is no sentencepiece model", file);
    check(skip <= bytes.size() - at, "show.tokenizer", "{} ends inside a field; it is cut short or no sentencepiece model", file);
    description.vocabulary += tag == (1 << 3 | 2);
    const size_t end = at + skip;
    // How it was trained (field 2) is a message too; its field 3 is the kind.
    while (tag == (2 << 3 | 2) && at < end) {
      const uint64_t inner = varint();
      const uint64_t value = (inner & 7) == 0 || (inner & 7) == 2 ? varint() : 0;
      const uint64_t step = (inner & 7) == 2 ? value : (inner & 7) == 1 ? 8 : (inner & 7) == 5 ? 4 : 0;
      if (at > end || step > end - at) break;
      at += step;
      static constexpr std::array<const char*, 5> kKinds{"", "unigram", "bpe", "word", "char"};
      if (inner == 3 << 3 && value < kKinds.size()) description.more.emplace_back("model", kKinds[value]);
    }
    at = end;
  }
  check(description.vocabulary > 0, "show.tokenizer", "{} has no pieces, so it is no sentencepiece model", file);
  return description;
}

}  // namespace

TokenizerDescription describe_tokenizer(const std::filesystem::path& file) {
  const std::string text = read_file(file, kLargest);
  if (file.extension() == ".json") return of_json(text, file.string());
  // A file of ranks is lines of base64, a blank and a number; a sentencepiece model begins with a field's tag, a line end.
  const std::string_view line = std::string_view(text).substr(0, std::min<size_t>(text.find('\n'), 400));
  const size_t base64 = line.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=");
  const bool ranks = file.extension() == ".tiktoken" || (base64 != std::string_view::npos && base64 > 0 && line[base64] == ' ');
  if (!ranks) return of_sentencepiece(text, file.string());
  TokenizerDescription description{.kind = "tiktoken"};
  description.vocabulary = std::count(text.begin(), text.end(), '\n') + (!text.empty() && text.back() != '\n');
  return description;
}

}  // namespace switchyard
