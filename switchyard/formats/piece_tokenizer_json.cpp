// Piece tokenizers in Hugging Face layout: tokenizer.json, tokenizer_config.json, special_tokens_map.json,
// tokenizer.model. Vocabulary entries have real spaces, so that a "▁" in a text is not mistaken for one.
#include <nlohmann/json.hpp>

#include "switchyard/base/error.h"
#include "switchyard/base/files.h"
#include "switchyard/formats/piece_tokenizer.h"

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

/// The entry, or an error that names file and key.
const Json& entry(const Json& object, const char* key, const std::string& source) {
  check(object.is_object() && object.contains(key), "tokenizer.format", "{} has no \"{}\"", source, key);
  return object.at(key);
}

[[noreturn]] void unsupported(const std::string& source, const std::string& what) {
  fail("tokenizer.format",
       "{}: {} is not supported; this version reads byte-fallback BPE and Unigram tokenizers without normalizer and "
       "pre-tokenizer, such as it trains itself", source, what);
}

std::string type_of(const Json& part) {
  return part.is_object() && part.contains("type") && part["type"].is_string() ? part["type"].get<std::string>() : "of unknown type";
}

void refuse_other_kinds(const Json& root, const std::string& source) {
  for (const char* part : {"normalizer", "pre_tokenizer"})
    if (root.contains(part) && !root[part].is_null()) unsupported(source, fmt::format("{} {}", part, type_of(root[part])));
  const Json& model = entry(root, "model", source);
  const std::string type = type_of(model);
  if (type != "BPE" && type != "Unigram") unsupported(source, fmt::format("model {}", type));
  if (!model.value("byte_fallback", false)) unsupported(source, fmt::format("model {} without byte_fallback", type));
  if (type == "BPE") {
    for (const char* part : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"})
      if (model.contains(part) && !model[part].is_null() && model[part] != "") unsupported(source, fmt::format("BPE with {}", part));
    if (model.value("ignore_merges", false)) unsupported(source, "BPE with ignore_merges");
  }
  const Json& decoder = entry(root, "decoder", source);
  if (decoder != Json{{"type", "Sequence"}, {"decoders", Json::array({Json{{"type", "ByteFallback"}}, Json{{"type", "Fuse"}}})}})
    unsupported(source, fmt::format("decoder {}", type_of(decoder)));
}

void read_bpe(const Json& model, PieceTable& table, const std::string& source) {
  const Json& vocabulary = entry(model, "vocab", source);
  check(vocabulary.is_object(), "tokenizer.format", "{}: \"vocab\" is no object", source);
  table.tokens.resize(vocabulary.size());
  std::vector<bool> seen(vocabulary.size());
  std::unordered_map<std::string, int32_t> ids;
  for (const auto& [token, id] : vocabulary.items()) {
    check(id.is_number_unsigned() && id.get<uint64_t>() < seen.size() && !seen[id.get<size_t>()], "tokenizer.format",
          "{}: token \"{}\" has id {}; ids must run from 0 to {}", source, token, id.dump(), seen.size() - 1);
    seen[id.get<size_t>()] = true;
    table.tokens[id.get<size_t>()] = token;
    ids.emplace(token, id.get<int32_t>());
  }
  const auto id_of = [&](const Json& token) {
    const auto found = token.is_string() ? ids.find(token.get<std::string>()) : ids.end();
    check(found != ids.end(), "tokenizer.format", "{}: a merge names {}, which is not in the vocabulary", source, token.dump());
    return found->second;
  };
  for (const Json& merge : entry(model, "merges", source)) {
    check(merge.is_array() && merge.size() == 2, "tokenizer.format", "{}: merge {} is no pair of tokens", source, merge.dump());
    table.merges.emplace_back(id_of(merge[0]), id_of(merge[1]));
  }
  const Json& unknown = entry(model, "unk_token", source);
  table.unknown = id_of(unknown);
}

void read_unigram(const Json& model, PieceTable& table, const std::string& source) {
  for (const Json& item : entry(model, "vocab", source)) {
    check(item.is_array() && item.size() == 2 && item[0].is_string() && item[1].is_number(), "tokenizer.format",
          "{}: vocabulary entry {} is no pair of token and score", source, item.dump());
    table.tokens.push_back(item[0].get<std::string>());
    table.scores.push_back(item[1].get<double>());
  }
  const Json& unknown = entry(model, "unk_id", source);
  check(unknown.is_number_unsigned(), "tokenizer.format", "{}: unk_id is {}", source, unknown.dump());
  table.unknown = unknown.get<int64_t>();
}

}  // namespace

std::string piece_table_to_json(const PieceTable& table) {
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

PieceTable piece_table_from_json(std::string_view json, const std::string& source) {
  Json root;
  try {
    root = Json::parse(json);
    check(root.is_object(), "tokenizer.format", "{} is no JSON object", source);
    refuse_other_kinds(root, source);
    PieceTable table;
    const Json& model = root["model"];
    table.kind = model["type"] == "BPE" ? TokenizerKind::bpe : TokenizerKind::unigram;
    if (table.kind == TokenizerKind::bpe) read_bpe(model, table, source);
    else read_unigram(model, table, source);
    // The template puts the begin token; the one special token that is neither it nor the unknown one ends a document.
    const Json& processor = root.contains("post_processor") ? root["post_processor"] : Json();
    if (!processor.is_null()) {
      if (type_of(processor) != "TemplateProcessing") unsupported(source, fmt::format("post_processor {}", type_of(processor)));
      table.begin = processor.at("single").at(0).at("SpecialToken").at("id").get<std::string>() ==
                            processor.at("special_tokens").begin().key()
                        ? std::optional(processor.at("special_tokens").begin().value().at("ids").at(0).get<int64_t>())
                        : std::nullopt;
    }
    for (const Json& added : entry(root, "added_tokens", source)) {
      const auto id = added.at("id").get<int64_t>();
      if (id == table.unknown || id == table.begin) continue;
      if (table.end) unsupported(source, fmt::format("further added token {}", added.at("content").dump()));
      table.end = id;
    }
    return table;
  } catch (const nlohmann::json::exception& error) {
    fail("tokenizer.format", "{}: {}", source, error.what());
  }
}

void PieceTokenizer::save(const std::filesystem::path& folder) const {
  const auto token = [&](std::optional<int64_t> id) { return id ? Json(table_.tokens[static_cast<size_t>(*id)]) : Json(); };
  Json special = Json::object();
  if (table_.begin) special["bos_token"] = token(table_.begin);
  if (table_.end) special["eos_token"] = token(table_.end);
  special["unk_token"] = token(table_.unknown);
  Json config = special;
  config["tokenizer_class"] = "PreTrainedTokenizerFast";
  config["clean_up_tokenization_spaces"] = false;
  write_file_atomically(folder / "tokenizer.json", piece_table_to_json(table_));
  write_file_atomically(folder / "tokenizer_config.json", config.dump(2) + "\n");
  write_file_atomically(folder / "special_tokens_map.json", special.dump(2) + "\n");
  if (!table_.sentencepiece.empty()) write_file_atomically(folder / "tokenizer.model", table_.sentencepiece);
}

}  // namespace switchyard
