// Tokenizer files of every kind against what the reference libraries of each recorded (tests/golden/tokenizers).

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "switchyard/base/files.h"
#include "switchyard/base/json.h"
#include "switchyard/formats/gguf_metadata.h"
#include "switchyard/formats/tokenizer.h"
#include "switchyard/formats/tokenizers/gguf_vocabulary.h"
#include "switchyard/formats/tokenizers/known_patterns.h"
#include "switchyard/formats/tokenizers/long_lists.h"
#include "switchyard/formats/tokenizers/pipeline.h"
#include "switchyard/formats/tokenizers/published_patterns.h"
#include "switchyard/formats/tokenizers/regex.h"
#include "switchyard/formats/tokenizers/sentencepiece.h"
#include "switchyard/formats/utf8.h"
#include "tests/files.h"
#include "tests/support.h"

namespace switchyard {
namespace {

using nlohmann::json;
using testing::expect_error;
using testing::golden;
using testing::TemporaryFolder;
using testing::write_text;

std::vector<json> lines_of(const std::filesystem::path& file) {
  std::vector<json> lines;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) lines.push_back(json_from(line));
  return lines;
}

std::string unhex(const std::string& digits) {
  std::string bytes;
  for (size_t i = 0; i < digits.size(); i += 2) bytes += static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16));
  return bytes;
}

std::string input_of(const json& row) { return row.contains("bytes_hex") ? unhex(row["bytes_hex"]) : row["text"].get<std::string>(); }

/// Folders that hold a file of cases.
std::vector<std::string> folders(const char* cases) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(golden("tokenizers")))
    if (std::filesystem::exists(entry.path() / cases)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

class GoldenTokenizers : public ::testing::TestWithParam<std::string> {
 protected:
  std::filesystem::path folder() const { return golden("tokenizers") / GetParam(); }
};
class GoldenSentencePiece : public GoldenTokenizers {};
class GoldenStreams : public GoldenTokenizers {};

std::string name_of(const ::testing::TestParamInfo<std::string>& folder) {
  std::string name = folder.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}
INSTANTIATE_TEST_SUITE_P(All, GoldenTokenizers, ::testing::ValuesIn(folders("cases.jsonl")), name_of);
INSTANTIATE_TEST_SUITE_P(All, GoldenSentencePiece, ::testing::ValuesIn(folders("sentencepiece_cases.jsonl")), name_of);
INSTANTIATE_TEST_SUITE_P(All, GoldenStreams, ::testing::ValuesIn(folders("stream.jsonl")), name_of);

void expect_encoding(const json& row, const Tokenizer& tokenizer) {
  const EncodeOptions options{.add_special = row["add_special"], .parse_special = row["parse_special"]};
  const Encoding encoding = row.contains("pair") ? tokenizer.encode_pair(input_of(row), row["pair"].get<std::string>(), options)
                                                 : tokenizer.encode(input_of(row), options);
  EXPECT_EQ(encoding.ids, row["ids"].get<std::vector<int64_t>>());
  if (row.contains("tokens")) {
    EXPECT_EQ(encoding.tokens, row["tokens"].get<std::vector<std::string>>());
  }
  if (row.contains("offsets")) {
    EXPECT_EQ(json(encoding.offsets), row["offsets"]);
  }
  if (row.contains("special_mask")) {
    EXPECT_EQ(json(encoding.special_mask), row["special_mask"]);
  }
  if (row.contains("type_ids")) {
    EXPECT_EQ(encoding.type_ids, row["type_ids"].get<std::vector<int64_t>>());
  }
  EXPECT_EQ(tokenizer.decode(encoding.ids, false), row["decode"].get<std::string>());
  if (row.contains("decode_skip_special")) {
    EXPECT_EQ(tokenizer.decode(encoding.ids), row["decode_skip_special"].get<std::string>());
  }
  // Ids alone are the same ids.
  if (!options.add_special && !options.parse_special) {
    EXPECT_EQ(tokenizer.encode(input_of(row)), encoding.ids);
  }
}

TEST_P(GoldenTokenizers, EncodeAndDecode) {
  const auto tokenizer = load_tokenizer(folder());
  for (const json& row : lines_of(folder() / "cases.jsonl")) {
    SCOPED_TRACE(json_text(row));
    if (row.contains("ids_in")) {
      const auto ids = row["ids_in"].get<std::vector<int64_t>>();
      EXPECT_EQ(tokenizer->decode(ids, false), row["decode"].get<std::string>());
      EXPECT_EQ(tokenizer->decode(ids), row["decode_skip_special"].get<std::string>());
    } else {
      expect_encoding(row, *tokenizer);
    }
  }
}

TEST_P(GoldenSentencePiece, ModelFile) {
  const auto tokenizer = load_tokenizer(folder() / "tokenizer.model");
  for (const json& row : lines_of(folder() / "sentencepiece_cases.jsonl")) {
    SCOPED_TRACE(json_text(row));
    if (row.contains("ids_in")) {
      EXPECT_EQ(tokenizer->decode(row["ids_in"].get<std::vector<int64_t>>()), row["decode"].get<std::string>());
      continue;
    }
    const Encoding encoding = tokenizer->encode(input_of(row), {.add_special = true, .parse_special = true});
    EXPECT_EQ(encoding.ids, row["ids"].get<std::vector<int64_t>>());
    EXPECT_EQ(encoding.tokens, row["pieces"].get<std::vector<std::string>>());
    EXPECT_EQ(tokenizer->decode(encoding.ids), row["decode"].get<std::string>());
  }
}

TEST_P(GoldenStreams, CharacterByCharacter) {
  const auto tokenizer = load_tokenizer(folder());
  for (const json& row : lines_of(folder() / "stream.jsonl")) {
    SCOPED_TRACE(json_text(row));
    const auto shown = row.contains("prompt_ids") ? row["prompt_ids"].get<std::vector<int64_t>>() : std::vector<int64_t>();
    TextStream stream(*tokenizer, row["skip_special"], shown);
    std::vector<std::string> parts;
    for (const int64_t id : row["ids"]) {
      parts.push_back(stream.push(id));
      EXPECT_TRUE(utf8_valid(parts.back()));
    }
    const std::string rest = stream.flush();
    const auto expected = row["emit"].get<std::vector<std::string>>();
    const auto joined = [](const std::vector<std::string>& texts) {
      std::string all;
      for (const std::string& text : texts) all += text;
      return all;
    };
    EXPECT_EQ(joined(parts) + rest, joined(expected) + row["flush"].get<std::string>());
    // When the replacement of broken bytes appears is free; everything else comes when it is certain.
    if (joined(expected).find("\xEF\xBF\xBD") == std::string::npos) {
      EXPECT_EQ(parts, expected);
    }
  }
}

// Each part that a tokenizer.json can name, with each of its options, in small tokenizers that are written as changes to one;
// results recorded with the tokenizers library 0.23.3 on texts drawn at random.
TEST(TokenizerParts, AllAndAllTheirOptions) {
  const std::vector<json> lines = lines_of(golden("tokenizer_parts.jsonl"));
  const json& base = lines.at(0).at("base");
  EXPECT_GT(lines.size(), 150u);
  for (size_t i = 1; i < lines.size(); ++i) {
    json tokenizer_json = base;
    for (const auto& [key, value] : lines[i]["patch"].items()) {
      if (key != "model" || value.contains("type")) {
        tokenizer_json[key] = json::object();
        tokenizer_json[key].merge_patch(value);
        continue;
      }
      for (const auto& [entry, changed] : value.items()) {
        if (entry == "vocab" && !value.contains("merges")) tokenizer_json["model"]["vocab"].merge_patch(changed);
        else tokenizer_json["model"][entry] = changed;
      }
    }
    const auto tokenizer = make_tokenizer(parts_from_json(json_text(tokenizer_json), {}, lines[i]["name"]));
    for (const json& row : lines[i]["cases"]) {
      SCOPED_TRACE(lines[i]["name"].get<std::string>() + " " + json_text(row));
      expect_encoding(row, *tokenizer);
    }
  }
}

/// The vocabulary of a tokenizer.json with merges, written as GGUF files hold it.
GgufMetadata gguf_vocabulary(const json& root, const char* model, const char* pre) {
  size_t size = root["model"]["vocab"].size();
  for (const json& added : root["added_tokens"]) size = std::max(size, added["id"].get<size_t>() + 1);
  std::vector<std::string> tokens(size), merges;
  std::vector<int64_t> types(size, 1);
  for (const auto& [token, id] : root["model"]["vocab"].items()) {
    tokens[id.get<size_t>()] = token;
    if (token.size() == 6 && token.starts_with("<0x")) types[id.get<size_t>()] = 6;
  }
  for (const json& added : root["added_tokens"]) {
    tokens[added["id"].get<size_t>()] = added["content"];
    types[added["id"].get<size_t>()] = added["special"].get<bool>() ? 3 : 4;
  }
  for (const json& merge : root["model"]["merges"])
    merges.push_back(merge.is_string() ? merge.get<std::string>() : merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  GgufMetadata metadata(pre);
  metadata.set("tokenizer.ggml.model", GgufValue::text(model));
  metadata.set("tokenizer.ggml.pre", GgufValue::text(pre));
  metadata.set("tokenizer.ggml.tokens", GgufValue::texts(tokens));
  metadata.set("tokenizer.ggml.token_type", GgufValue::ints(types));
  metadata.set("tokenizer.ggml.merges", GgufValue::texts(merges));
  return metadata;
}

// It gives the same ids.
TEST(GgufVocabulary, ByteLevelAsTheOriginal) {
  const std::pair<const char*, const char*> kinds[] = {{"gpt2", "gpt-2"}, {"llama3", "llama-bpe"}, {"qwen2", "qwen2"}, {"o200k", "gpt-4o"},
                                                       {"deepseek-v3", "deepseek-v3"}, {"deepseek-llm", "deepseek-llm"}, {"granite", "refact"}};
  for (const auto& [folder, pre] : kinds) {
    const json root = json_from(read_file(golden("tokenizers") / folder / "tokenizer.json"));
    const GgufMetadata metadata = gguf_vocabulary(root, "gpt2", pre);
    const auto read = make_tokenizer(parts_from_gguf(metadata));
    testing::TemporaryFolder saved;
    read->save(saved.path());
    const auto tokenizer = load_tokenizer(saved.path());  // what is written is the same
    int64_t compared = 0;
    for (const json& row : lines_of(golden("tokenizers") / folder / "cases.jsonl")) {
      if (row.contains("ids_in") || row.contains("pair") || row["add_special"]) continue;
      SCOPED_TRACE(std::string(folder) + json_text(row));
      const Encoding encoding = tokenizer->encode(input_of(row), {.add_special = false, .parse_special = row["parse_special"]});
      EXPECT_EQ(encoding.ids, row["ids"].get<std::vector<int64_t>>());
      EXPECT_EQ(tokenizer->decode(encoding.ids, false), row["decode"].get<std::string>());
      EXPECT_EQ(read->encode(input_of(row)), tokenizer->encode(input_of(row)));
      ++compared;
    }
    EXPECT_GT(compared, 60) << folder;
  }
}

// Merges of characters: Gemma 4 puts no blank before a text, as the recorded tokenizer does, so the text gets one here.
TEST(GgufVocabulary, PiecesByMerges) {
  const auto folder = golden("tokenizers") / "mixtral-legacy";
  const json root = json_from(read_file(folder / "tokenizer.json"));
  GgufMetadata metadata = gguf_vocabulary(root, "gemma4", "any");
  metadata.set("tokenizer.ggml.bos_token_id", GgufValue::u32(1));
  metadata.set("tokenizer.ggml.unknown_token_id", GgufValue::u32(0));
  const auto tokenizer = make_tokenizer(parts_from_gguf(metadata));
  EXPECT_EQ(tokenizer->encode("", {.add_special = true}).ids, std::vector<int64_t>{1});
  const auto plain = make_tokenizer(parts_from_gguf(gguf_vocabulary(root, "gpt2", "sarvam-moe")));
  int64_t compared = 0;
  for (const json& row : lines_of(folder / "cases.jsonl")) {
    if (row.contains("ids_in") || row.contains("pair") || row["add_special"] || row["ids"].empty()) continue;
    const std::string text = input_of(row);
    if (text.find("<s>") != std::string::npos || text.find("</s>") != std::string::npos || text.find("<unk>") != std::string::npos) continue;
    SCOPED_TRACE(json_text(row));
    for (const auto& one : {tokenizer, plain}) {
      EXPECT_EQ(one->encode(" " + text, {.add_special = false}).ids, row["ids"].get<std::vector<int64_t>>());
      EXPECT_EQ(one->decode(row["ids"], false), " " + row["decode"].get<std::string>());
    }
    ++compared;
  }
  EXPECT_GT(compared, 50);
}

TEST(GgufVocabulary, WordsBetweenBlanks) {
  GgufMetadata metadata("words");
  metadata.set("tokenizer.ggml.model", GgufValue::text("whitespace"));
  metadata.set("tokenizer.ggml.pre", GgufValue::text("whitespace"));
  metadata.set("tokenizer.ggml.tokens", GgufValue::texts({"<unk>", "a", "b", "ab", "\u00E9"}));
  metadata.set("tokenizer.ggml.merges", GgufValue::texts({"a b"}));
  metadata.set("tokenizer.ggml.unknown_token_id", GgufValue::u32(0));
  metadata.set("tokenizer.ggml.normalizer.lowercase", GgufValue::flag(true));
  EXPECT_EQ(make_tokenizer(parts_from_gguf(metadata))->encode("ab  aB\n\u00C9z a b"), (std::vector<int64_t>{3, 3, 4, 0, 1, 2}));
}

// Cut by the patterns that llama.cpp has for these names, with the tokenizers library 0.23.3.
TEST(GgufVocabulary, NamesOfPreTokenizers) {
  const auto cut = [](const std::string& name) {
    Words words;
    words.text.text = "Don't pay 1234567 or 12a\n\n    \u6F22\u5B57!ok";
    words.spans = {{0, static_cast<uint32_t>(words.text.text.size())}};
    for (const char* pattern : pre_tokenization(name)->patterns) split(find_pattern(pattern), SplitBehavior::isolated)(words);
    std::string found;
    for (size_t i = 0; i < words.spans.size(); ++i) (found += words.word(i)) += '|';
    return found;
  };
  EXPECT_EQ(cut("afmoe"), "Don|'t| pay| |1|234|567| or| |12|a|\n\n|    |\u6F22\u5B57|!ok|");
  EXPECT_EQ(cut("youtu"), "Don't| pay| |1|2|3|4|5|6|7| or| |1|2|a|\n\n|    |\u6F22\u5B57|!ok|");
  EXPECT_EQ(cut("jais-2"), "Don|'t| pay| |123|456|7| or| |12|a|\n\n|  | | \u6F22\u5B57|!ok|");
  EXPECT_EQ(cut("spark2_5"), "Don|'t| pay| |1|2|3|4|5|6|7| or| |1|2|a|\n|\n|    |\u6F22\u5B57|!ok|");
  EXPECT_EQ(cut("ufakzeka"), "Don|'t| pay| |1|2|3|4|5|6|7| or| |1|2|a|\n\n|   | \u6F22\u5B57|!ok|");
  EXPECT_EQ(cut("chameleon"), "Don|'|t| pay| |1|2|3|4|5|6|7| or| |1|2|a|\n|\n|    |\u6F22\u5B57|!|ok|");
  EXPECT_EQ(cut("superbpe"), "Don't pay |1|234|567| or |12|a\n\n    \u6F22\u5B57!ok|");
  EXPECT_EQ(cut("cohere2moe"), "Don't| pay| |1|234|567| or| |12|a|\n\n|   | \u6F22\u5B57|!ok|");
  EXPECT_EQ(pre_tokenization("no such name"), nullptr);
}

TEST(GgufVocabulary, SentencePieceAsTheModelFile) {
  const auto folder = golden("tokenizers") / "mixtral-legacy";
  const SentencePieceTable table = read_sentencepiece_model(read_file(folder / "tokenizer.model"), "tokenizer.model");
  GgufMetadata metadata("mixtral");
  metadata.set("tokenizer.ggml.model", GgufValue::text("llama"));
  metadata.set("tokenizer.ggml.tokens", GgufValue::texts(table.pieces));
  metadata.set("tokenizer.ggml.scores", GgufValue::floats({table.scores.begin(), table.scores.end()}));
  metadata.set("tokenizer.ggml.token_type", GgufValue::ints({table.types.begin(), table.types.end()}));
  metadata.set("tokenizer.ggml.bos_token_id", GgufValue::u32(1));
  metadata.set("tokenizer.ggml.eos_token_id", GgufValue::u32(2));
  const auto tokenizer = make_tokenizer(parts_from_gguf(metadata));
  EXPECT_EQ(tokenizer->begin_id(), 1);
  EXPECT_EQ(tokenizer->end_id(), 2);
  testing::TemporaryFolder saved;
  tokenizer->save(saved.path());
  const auto written = load_tokenizer(saved / "tokenizer.model");
  for (const json& row : lines_of(folder / "sentencepiece_cases.jsonl")) {
    if (row.contains("ids_in")) continue;
    SCOPED_TRACE(json_text(row));
    EXPECT_EQ(tokenizer->encode(input_of(row)), row["ids"].get<std::vector<int64_t>>());
    EXPECT_EQ(written->encode(input_of(row)), row["ids"].get<std::vector<int64_t>>());
    const std::vector<int64_t> begun = tokenizer->encode(input_of(row), {.add_special = true}).ids;
    ASSERT_FALSE(begun.empty());
    EXPECT_EQ(begun[0], 1);
  }
  metadata.set("tokenizer.ggml.model", GgufValue::text("rwkv"));
  EXPECT_EQ(expect_error([&] { (void)parts_from_gguf(metadata); }).message(), "mixtral: the tokenizer model \"rwkv\" is not supported");
}

// The hand-written matchers find what the engine finds. Characters that the engine's tables do not know yet are left out.
/// A tokenizer.json of whole words with the given parts.
std::shared_ptr<Tokenizer> word_tokenizer(const TemporaryFolder& folder, const std::string& pre_tokenizer, const std::vector<std::string>& words,
                                          const std::string& added = "[]") {
  json vocabulary = {{"[UNK]", 0}};
  for (const std::string& word : words) vocabulary[word] = vocabulary.size();
  write_text(folder / "tokenizer.json", R"({"pre_tokenizer": )" + pre_tokenizer + R"(, "added_tokens": )" + added +
                                            R"(, "model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": )" + json_text(vocabulary) + "}}");
  return load_tokenizer(folder.path());
}

TEST(TokenizerParts, PatternsMayHaveGroupsAndScriptsMayBeUnknown) {
  TemporaryFolder folder;
  const auto grouped = word_tokenizer(folder, R"({"type": "Split", "pattern": {"Regex": "(a|b)(c)?"}, "behavior": "Isolated", "invert": false})", {"ac", "b", "x"});
  EXPECT_EQ(grouped->encode("acbx", EncodeOptions{}).tokens, (std::vector<std::string>{"ac", "b", "x"}));
  // What no script has, as characters for private use, stays with the script before it.
  const auto scripts = word_tokenizer(folder, R"({"type": "UnicodeScripts"})", {"a\uE001" "b", "\u0436"});
  EXPECT_EQ(scripts->encode("a\uE001" "b\u0436", EncodeOptions{}).ids, (std::vector<int64_t>{1, 2}));
}

TEST(TokenizerParts, ATokenWhoseBlanksAreTakenIsNoSecondToken) {
  TemporaryFolder folder;
  const auto tokenizer = word_tokenizer(folder, "null", {"a", "b"},
                                        R"([{"id": 3, "content": "  ", "lstrip": true, "rstrip": true, "normalized": false, "special": false}])");
  EXPECT_EQ(tokenizer->encode("a     b", EncodeOptions{}).ids, (std::vector<int64_t>{1, 3, 2}));
}

TEST(TokenizerParts, LongListsAreWhatTheParserReads) {
  const auto lists = take_long_lists(R"( {"other": {"vocab": {"no": 1}}, "model": {"type": "BPE", "vocab": {"a\"\u00e9\ud83d\ude00": 0 , "\\" :12},
    "merges": ["a b", ["c d", "e"]], "more": [1, {"vocab": 2}]}, "end": "}]"} )");
  ASSERT_TRUE(lists && lists->ids && lists->merges && !lists->scores);
  EXPECT_EQ(*lists->ids, (std::vector<std::pair<std::string, int64_t>>{{"a\"\u00e9\U0001F600", 0}, {"\\", 12}}));
  EXPECT_EQ(*lists->merges, (std::vector<std::pair<std::string, std::string>>{{"a", "b"}, {"c d", "e"}}));
  EXPECT_EQ(json_from(lists->rest), json_from(R"({"other": {"vocab": {"no": 1}}, "model": {"type": "BPE", "vocab": {}, "merges": [], "more": [1, {"vocab": 2}]}, "end": "}]"})"));
  const auto scores = take_long_lists(R"({"model": {"vocab": [["a", -1.5e-3], ["b", 0]]}})");
  ASSERT_TRUE(scores && scores->scores);
  EXPECT_EQ(*scores->scores, (std::vector<std::pair<std::string, double>>{{"a", -1.5e-3}, {"b", 0}}));
  for (const char* doubtful : {R"({"model": {"vocab": {"a": 0}})", R"({"model": {"vocab": {"a": 0, }}})", R"({"model": {"vocab": {"a": 1.0}}})", R"({"model": {"vocab": {"a": 01}}})",
                               R"({"model": {"vocab": {"a": -1}}})", R"({"model": {"vocab": {"\ud800": 1}}})", "{\"model\": {\"vocab\": {\"\xff\": 1}}}",
                               R"({"model": {"vocab": {}, "vocab": {}}})", R"({"model": {}, "model": {}})", R"({"model": {"merges": ["ab"]}})", R"({"model": {"merges": [1]}})",
                               R"({"model": {"vocab": [["a", 1.]]}})", R"({"model": {"vocab": [["a", .5]]}})", R"({"model": {"vocab": [["a", inf]]}})", R"({"model": {}} x)",
                               "{\"model\": {\"vocab\": {\"a\nb\": 1}}}", "[]", ""})
    EXPECT_FALSE(take_long_lists(doubtful)) << doubtful;
}

TEST(MalformedTokenizers, VocabulariesAreText) {
  const auto code = [](const std::filesystem::path& file, const std::string& content) {
    write_text(file, content);
    const Error error = expect_error([&] { (void)load_tokenizer(file); });
    EXPECT_NE(error.message().find(file.string()), std::string::npos) << error.message();
    return error.code();
  };
  TemporaryFolder folder;
  EXPECT_EQ(code(folder / "tokenizer.json", "{\"model\": {\"type\": \"WordLevel\", \"unk_token\": \"a\", \"vocab\": {\"a\": 0, \"\xC3\": 1}}}"), "tokenizer.format");
  EXPECT_EQ(code(folder / "a.model", std::string("\x0a\x05\x0a\x01" "a\x18\x02" "\x0a\x03\x0a\x01\xC3", 12)), "tokenizer.format");
  GgufMetadata metadata("x.gguf");
  metadata.set("tokenizer.ggml.model", GgufValue::text("gpt2"));
  metadata.set("tokenizer.ggml.tokens", GgufValue::texts({"a", "\xC3"}));
  metadata.set("tokenizer.ggml.merges", GgufValue::texts({}));
  EXPECT_EQ(expect_error([&] { (void)parts_from_gguf(metadata); }).code(), "tokenizer.format");
  metadata.set("tokenizer.ggml.model", GgufValue::text("llama"));
  metadata.set("tokenizer.ggml.scores", GgufValue::floats({0, 0}));
  metadata.set("tokenizer.ggml.token_type", GgufValue::ints({2, 1}));
  EXPECT_EQ(expect_error([&] { (void)parts_from_gguf(metadata); }).code(), "tokenizer.format");
}

TEST(GgufVocabulary, RanksBecomeMerges) {
  const std::filesystem::path folder = golden("tokenizers") / "kimi-tiktoken";
  GgufMetadata metadata("kimi.gguf");
  std::vector<std::string> notices;
  put_vocabulary(metadata, folder, Node::map(), notices);
  EXPECT_TRUE(notices.empty()) << notices.front();
  EXPECT_EQ(metadata.text("tokenizer.ggml.pre"), "kimi-k2");
  const auto ranks = load_tokenizer(folder), merges = make_tokenizer(parts_from_gguf(metadata));
  EXPECT_EQ(merges->vocabulary(), ranks->vocabulary());
  for (const json& row : lines_of(folder / "cases.jsonl")) {
    if (!row.contains("text")) continue;
    const EncodeOptions options{.parse_special = row.value("parse_special", true)};
    const std::string text = row["text"];
    EXPECT_EQ(merges->encode(text, options).ids, ranks->encode(text, options).ids) << text;
    EXPECT_EQ(merges->decode(ranks->encode(text), false), ranks->decode(ranks->encode(text), false)) << text;
  }
}

TEST(KnownPatterns, MatchAsPcre2Does) {
  const std::vector<std::string> parts = {" ", "  ", "\n", "\r", "\t", "\r\n", "a", "B", "Ab", "aB", "é", "E\xCC\x81", "\xCC\x81", "ʰ", "漢", "あ", "ǅ", "ª", "1",
      "23", "456", "٣", "½", "'", "'s", "'S", "'ll", "'LL", "'\xC5\xBF", "'re", "/", ".", "!!", "$", "+", "_", "-", "\xC2\xA0", "\xE2\x80\xA8", "\xE2\x80\x8D",
      "\x01", "😀", "\xE1\xA0\x8E", "ß", "Ω", "İ", "ः", "न", "्"};
  const Regex unassigned(R"(\p{Cn})", RegexDialect::perl);
  uint64_t state = 1;
  const auto draw = [&](uint64_t below) { return (state = state * 6364136223846793005ULL + 1442695040888963407ULL, (state >> 33) % below); };
  for (const char* pattern : {patterns::kGpt2, patterns::kLlama3, patterns::kQwen2, patterns::kO200k, patterns::kTekken, patterns::kThreeDigits,
                              patterns::kDeepSeekIdeographs, patterns::kDeepSeekV3, patterns::kBlanksAtEnd, patterns::kGroupsOfThree,
                              patterns::kNumbersInThrees, patterns::kBeforeThrees}) {
    const Finder finder = known_pattern(pattern);
    ASSERT_TRUE(finder) << pattern;
    const Regex regex(pattern, RegexDialect::ruby);
    for (int round = 0; round < 3000; ++round) {
      std::string text;
      for (uint64_t n = 1 + draw(12); n > 0; --n) {
        if (draw(8) == 0) text.append(draw(12), '7');
        else if (draw(8) > 0) text += parts[draw(parts.size())];
        else utf8_append(text, static_cast<char32_t>(draw(0x1F000)));
      }
      std::vector<Span> own, engine;
      unassigned.find_all(text, engine);
      if (!engine.empty()) continue;
      finder(text, own);
      regex.find_all(text, engine);
      ASSERT_EQ(own == engine, true) << pattern << " on " << json_text(json(text));
    }
  }
}

// Long texts without a place to cut. Quadratic work would take minutes here.
TEST(TokenizerWork, IsLinearInTheText) {
  constexpr size_t kBytes = 60000;
  const auto repeated = [](std::string_view part) {
    std::string text;
    while (text.size() < kBytes) text += part;
    return text;
  };
  const std::string texts[] = {repeated("a"), repeated(" ") + "x", repeated("\n"), repeated("ab"), repeated("A"), repeated("\xCC\x81"), repeated("漢"),
                               repeated("'"), repeated("1"), repeated("<s>"), repeated("<"), repeated("▁"), repeated("\xFF"), repeated(" \n")};
  for (const char* folder : {"gpt2", "o200k", "deepseek-v3", "deepseek-llm", "kimi-tiktoken", "mixtral-legacy", "t5", "bert-uncased", "spm-bpe-nobyte"}) {
    const auto tokenizer = load_tokenizer(golden("tokenizers") / folder);
    for (const std::string& text : texts) {
      const Encoding encoding = tokenizer->encode(text, {.add_special = true, .parse_special = true});
      EXPECT_EQ(encoding.offsets.size(), encoding.ids.size());
      (void)tokenizer->decode(encoding.ids);
    }
  }
}

TEST(MalformedTokenizers, EachIsOneClearError) {
  const std::pair<const char*, const char*> files[] = {
      {"tok-merge-unknown.json", "merge 1 gives \"aba\", which is not in the vocabulary"},
      {"tok-no-model.json", "has no \"model\""},
      {"tok-truncated.json", "parse error"},
      {"tok-unigram-unk.json", "unk_id is 7, but the vocabulary has 2 tokens"},
  };
  for (const auto& [name, text] : files) {
    const Error error = expect_error([&] { (void)load_tokenizer(golden("malformed") / name); });
    EXPECT_EQ(error.code(), "tokenizer.format") << name;
    EXPECT_NE(error.message().find(text), std::string::npos) << error.message();
    EXPECT_NE(error.message().find(name), std::string::npos) << error.message();
  }
}

}  // namespace
}  // namespace switchyard
