#include "switchyard/formats/tokenizers/piece_table.h"

#include <nlohmann/json.hpp>

#include "switchyard/base/error.h"
#include "switchyard/formats/tokenizers/pipeline.h"

namespace switchyard {
namespace {

using Json = nlohmann::ordered_json;

/// begin, then the text, as training sees a document; nullptr without a begin token.
Json post_processor(const PieceTable& table) {
  if (!table.begin) return nullptr;
  const std::string& begin = table.tokens[static_cast<size_t>(*table.begin)];
  const auto special = [&](int type) { return Json{{"SpecialToken", {{"id", begin}, {"type_id", type}}}}; };
  const auto text = [](const char* which, int type) { return Json{{"Sequence", {{"id", which}, {"type_id", type}}}}; };
  return {{"type", "TemplateProcessing"},
          {"single", Json::array({special(0), text("A", 0)})},
          {"pair", Json::array({special(0), text("A", 0), special(1), text("B", 1)})},
          {"special_tokens", {{begin, {{"id", begin}, {"ids", Json::array({*table.begin})}, {"tokens", Json::array({begin})}}}}}};
}

Json added_tokens(const PieceTable& table) {
  Json added = Json::array();
  for (const std::optional<int64_t> id : {std::optional(table.unknown), table.begin, table.end})
    if (id)
      added.push_back({{"id", *id}, {"content", table.tokens[static_cast<size_t>(*id)]}, {"single_word", false},
                       {"lstrip", false}, {"rstrip", false}, {"normalized", false}, {"special", true}});
  return added;
}

Json model_of(const PieceTable& table) {
  if (table.kind == TokenizerKind::unigram) {
    Json vocabulary = Json::array();
    for (size_t id = 0; id < table.tokens.size(); ++id) vocabulary.push_back(Json::array({table.tokens[id], table.scores[id]}));
    return {{"type", "Unigram"}, {"unk_id", table.unknown}, {"vocab", std::move(vocabulary)}, {"byte_fallback", true}};
  }
  Json vocabulary = Json::object(), merges = Json::array();
  for (size_t id = 0; id < table.tokens.size(); ++id) vocabulary[table.tokens[id]] = id;
  for (const auto& [left, right] : table.merges)
    merges.push_back(Json::array({table.tokens[static_cast<size_t>(left)], table.tokens[static_cast<size_t>(right)]}));
  return {{"type", "BPE"}, {"dropout", nullptr}, {"unk_token", table.tokens[static_cast<size_t>(table.unknown)]},
          {"continuing_subword_prefix", nullptr}, {"end_of_word_suffix", nullptr}, {"fuse_unk", false},
          {"byte_fallback", true}, {"ignore_merges", false}, {"vocab", std::move(vocabulary)}, {"merges", std::move(merges)}};
}

std::string to_json(const PieceTable& table) {
  const Json root = {{"version", "1.0"},
                     {"truncation", nullptr},
                     {"padding", nullptr},
                     {"added_tokens", added_tokens(table)},
                     {"normalizer", nullptr},
                     {"pre_tokenizer", nullptr},
                     {"post_processor", post_processor(table)},
                     {"decoder", {{"type", "Sequence"}, {"decoders", Json::array({{{"type", "ByteFallback"}}, {{"type", "Fuse"}}})}}},
                     {"model", model_of(table)}};
  return root.dump(1) + "\n";
}

}  // namespace

std::map<std::string, std::string> piece_table_files(const PieceTable& table) {
  const auto size = static_cast<int64_t>(table.tokens.size());
  for (const std::optional<int64_t> special : {std::optional(table.unknown), table.begin, table.end})
    check(!special || (*special >= 0 && *special < size), "tokenizer.format", "special token {} is outside the vocabulary of {}",
          special.value_or(-1), size);
  const auto token = [&](int64_t id) { return Json(table.tokens[static_cast<size_t>(id)]); };
  Json special = Json::object();
  if (table.begin) special["bos_token"] = token(*table.begin);
  if (table.end) special["eos_token"] = token(*table.end);
  special["unk_token"] = token(table.unknown);
  Json config = special;
  config["tokenizer_class"] = "PreTrainedTokenizerFast";
  config["clean_up_tokenization_spaces"] = false;
  std::map<std::string, std::string> files = {{"tokenizer.json", to_json(table)},
                                              {"tokenizer_config.json", config.dump(2) + "\n"},
                                              {"special_tokens_map.json", special.dump(2) + "\n"}};
  if (!table.sentencepiece.empty()) files["tokenizer.model"] = table.sentencepiece;
  return files;
}

std::shared_ptr<Tokenizer> make_tokenizer(const PieceTable& table) {
  std::map<std::string, std::string> files = piece_table_files(table);
  TokenizerParts parts = parts_from_json(files["tokenizer.json"], files, "the trained tokenizer");
  parts.files = std::move(files);
  return make_tokenizer(std::move(parts));
}

}  // namespace switchyard
