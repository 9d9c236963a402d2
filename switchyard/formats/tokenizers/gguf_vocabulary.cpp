#include "switchyard/formats/tokenizers/gguf_vocabulary.h"

#include <nlohmann/json.hpp>

#include <algorithm>

#include "switchyard/base/error.h"
#include "switchyard/base/random.h"
#include "switchyard/formats/tokenizers/published_patterns.h"
#include "switchyard/formats/tokenizers/sentencepiece.h"
#include "switchyard/formats/utf8.h"

namespace switchyard {
namespace {

using Json = nlohmann::json;
using Types = SentencePieceTable;  // the kinds of tokens are numbered alike

constexpr char kBlank[] = "\u2581";
constexpr char kLineBreak[] = R"([\r\n])", kOneDigit[] = R"(\p{N})", kDigits[] = R"(\p{N}+)";
constexpr char kBloom[] = " ?[^(\\s|.,!?\u2026\u3002\uFF0C\u3001\u0964\u06D4\u060C)]+";
constexpr char kYoutuScripts[] =
    "[\uAC00-\uD7A3\u3131-\u318E]+|[\uFF01\u2026\u201C\u201D\u2018\u2019\u2014\uFF1A\uFF1B\uFF0C\u3001-\u303F\uFE30-\uFE4F]+|[\u3105-\u312F]+|"
    "[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+";
constexpr char kAfmoeScripts[] =  // ideographs, kana, Thai, Lao, Khmer, Burmese, Hangul
    "[\u4E00-\u9FFF\u3400-\u4DBF\u8C48-\uFAFF\u3040-\u309F\u30A0-\u30FF\uFF65-\uFF9F\u2F00-\u2FDF\u0E40-\u0E7F\u0E80-\u0EFF\u1780-\u17FF"
    "\u1000-\u109F\uAA60-\uAA7F\uA9E0-\uA9FF\uAC00-\uD7AF\u1100-\u11FF]+";
constexpr char kDeepSeekHan[] = "[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+";

}  // namespace

const PreTokenization* pre_tokenization(const std::string& name) {
  static const std::map<std::string, PreTokenization> table = [] {
    std::map<std::string, PreTokenization> t;
    const PreTokenization gpt2{.patterns = {patterns::kGpt2}}, qwen2{.patterns = {patterns::kQwen2}, .nfc = true},
        llama3{.patterns = {patterns::kLlama3}, .ignore_merges = true, .add_begin = true}, cl100k{.patterns = {patterns::kLlama3}},
        o200k{.patterns = {patterns::kO200k}}, digits{.patterns = {kOneDigit, patterns::kGpt2}},
        deepseek3{.patterns = {patterns::kThreeDigits, patterns::kDeepSeekIdeographs, patterns::kDeepSeekV3}};
    for (const char* n : {"gpt-2", "phi-2", "mpt", "jais", "trillion", "granite-docling", "jina-es", "jina-de", "jina-v1-en", "jina-v2-code", "jina-v2-es",
                          "jina-v2-de", "roberta-bpe", "gigachat", "exaone4", "mellum", "a.x-4.0", "modern-bert"}) t[n] = gpt2;
    t["olmo"] = {.patterns = {patterns::kGpt2}, .nfc = true};
    for (const char* n : {"qwen2", "stablelm2", "deepseek-r1-qwen", "kormo", "megrez", "solar-open", "f2llmv2"}) t[n] = qwen2;
    for (const char* n : {"hunyuan", "grok-2"}) t[n] = {.patterns = {patterns::kQwen2}};
    for (const char* n : {"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"}) t[n] = llama3;
    for (const char* n : {"dbrx", "smaug-bpe", "chatglm-bpe"}) t[n] = cl100k;
    t["glm4"] = t["glm5"] = {.patterns = {patterns::kLlama3}, .ignore_merges = true};
    for (const char* n : {"gpt-4o", "llama4", "minimax-m2", "kanana2", "talkie"}) t[n] = o200k;
    t["granite-embed-multi-97m"] = {.patterns = {patterns::kO200k}, .ignore_merges = true};
    t["tiny_aya"] = t["cohere2moe"] = {.patterns = {patterns::kGroupsOfThree, patterns::kO200k}};
    for (const char* n : {"starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"}) t[n] = digits;
    for (const char* n : {"deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"}) t[n] = deepseek3;
    t["tekken"] = {.patterns = {patterns::kTekken}, .ignore_merges = true, .add_begin = true};
    t["kimi-k2"] = {.patterns = {patterns::kKimi}, .ignore_merges = true};
    t["deepseek-llm"] = {.patterns = {kLineBreak, patterns::kDeepSeekLetters, patterns::kDeepSeekMarks, patterns::kBlanksAtEnd, kDeepSeekHan, kOneDigit}};
    t["deepseek-coder"] = {.patterns = {kLineBreak, R"(\s?\p{L}+)", R"(\s?\p{P}+)", kDeepSeekHan, kOneDigit}};
    t["falcon"] = {.patterns = {R"([\p{P}\$\+<=>\^~\|`]+)", patterns::kGpt2, "[0-9][0-9][0-9]"}};
    t["default"] = {.patterns = {R"([\p{P}\$\+<=>\^~\|]+)", patterns::kGpt2, kDigits, "[0-9][0-9][0-9]"}};
    t["bailingmoe"] = t["bailingmoe2"] = t["llada-moe"] = {
        .patterns = {R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)"}};
    t["exaone-moe"] = {
        .patterns = {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|)"
                     R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+)"}};
    t["minicpm5"] = {
        .patterns = {patterns::kThreeDigits,
                     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
        .ignore_merges = true};
    t["laguna"] = {.patterns = {R"([^\n]+|[\n]+)", patterns::kQwen2}};
    for (const char* n : {"bloom", "poro-chat", "gpt3-finnish"}) t[n] = {.patterns = {kBloom}};
    t["viking"] = {.patterns = {kBloom, kOneDigit}};
    t["seed-coder"] = {
        .patterns = {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+)"}};
    t["qwen35"] = {
        .patterns = {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
        .nfc = true};
    t["ufakzeka"] = {.patterns = {R"([^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}};
    t["jais-2"] = {
        .patterns = {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|)"
                     R"(\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1})"}};
    t["spark2_5"] = {.patterns = {patterns::kThreeDigits, patterns::kDeepSeekIdeographs,
                                  R"([!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|)"
                                  R"( ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+)", kOneDigit}};
    t["youtu"] = {
        .patterns = {kYoutuScripts,
                     R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
                     R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
                     R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
        .ignore_merges = true};
    t["afmoe"] = {.patterns = {patterns::kNumbersInThrees, kAfmoeScripts, patterns::kDeepSeekV3}};
    t["superbpe"] = {.patterns = {kDigits, patterns::kBeforeThrees}};
    t["chameleon"] = {.patterns = {"<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", "([\\t\\n]|    |  )", kOneDigit,
                                   R"([\p{P}!-/:-@\[-`{-~])", patterns::kGpt2}, .add_begin = true};
    t["gemma4"] = t["granite-embed-multi-311m"] = {.add_begin = true, .form = PreTokenization::pieces};
    t["sarvam-moe"] = {.form = PreTokenization::pieces};
    t["whitespace"] = {.form = PreTokenization::words};
    return t;
  }();
  const auto found = table.find(name);
  return found == table.end() ? nullptr : &found->second;
}

namespace {

class Reader {
 public:
  explicit Reader(const GgufMetadata& metadata) : metadata_(metadata) {
    tokens_ = metadata.texts("tokenizer.ggml.tokens");
    types_.assign(tokens_.size(), Types::kNormal);
    if (metadata.has("tokenizer.ggml.token_type")) {
      const std::vector<int64_t> types = metadata.integers("tokenizer.ggml.token_type");
      check(types.size() == tokens_.size(), "tokenizer.format", "{}: {} token types for {} tokens", metadata.source(), types.size(), tokens_.size());
      for (size_t i = 0; i < types.size(); ++i) {
        check(types[i] >= 0 && types[i] <= Types::kByte, "tokenizer.format", "{}: token {} has type {}", metadata.source(), i, types[i]);
        types_[i] = static_cast<uint8_t>(std::max<int64_t>(types[i], Types::kNormal));
      }
    }
  }

  TokenizerParts read() {
    const std::string model = metadata_.text("tokenizer.ggml.model", "");
    TokenizerParts parts;
    if (metadata_.has("tokenizer.huggingface.json")) parts = original();
    else if (model == "gpt2" || model == "whitespace") parts = merged_pairs(metadata_.text("tokenizer.ggml.pre", "default"));
    else if (model == "gemma4") parts = merged_pairs(model);
    else if (model == "llama" || model == "t5") parts = sentencepiece(model == "t5");
    else if (model == "bert") parts = word_pieces();
    else fail("tokenizer.unsupported", "{}: the tokenizer model \"{}\" is not supported", metadata_.source(), model);
    if (known(end_)) parts.end = end_;
    std::string all;
    for (const std::string& token : tokens_) (all += token) += '\0';
    parts.fingerprint = stable_hash(all, stable_hash(model));
    return parts;
  }

 private:
  std::optional<int64_t> id_at(const char* key) const {
    return metadata_.has(key) ? std::optional(metadata_.integer(key)) : std::nullopt;
  }

  void read_ids() {
    begin_ = id_at("tokenizer.ggml.bos_token_id");
    end_ = id_at("tokenizer.ggml.eos_token_id");
  }

  /// What is written as JSON must be text.
  void check_text(std::string_view text) const {
    int64_t broken = 0;
    const std::string shown = utf8_repair(text, &broken);
    check(broken == 0, "tokenizer.format", "{}: \"{}\" in the vocabulary is not UTF-8", metadata_.source(), shown);
  }

  /// The tokenizer.json that the file was made from, where it holds it.
  TokenizerParts original() {
    read_ids();
    std::map<std::string, std::string> files = config_files();
    files["tokenizer.json"] = metadata_.text("tokenizer.huggingface.json");
    TokenizerParts parts = parts_from_json(files["tokenizer.json"], files, metadata_.source());
    parts.files = std::move(files);
    return parts;
  }

  /// How a text becomes symbols to merge, and ids a text again.
  void put_form(Json& root, const PreTokenization& pre) const {
    Json& normaliser = root["normalizer"] = Json();
    Json& cuts = root["pre_tokenizer"] = Json();
    Json& decoder = root["decoder"] = Json();
    if (pre.form == PreTokenization::bytes) {
      const Json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", metadata_.flag("tokenizer.ggml.add_space_prefix", false)},
                               {"trim_offsets", true}, {"use_regex", false}};
      if (pre.nfc) normaliser = {{"type", "NFC"}};
      Json list = Json::array();
      for (const char* pattern : pre.patterns)
        list.push_back({{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}});
      list.push_back(byte_level);
      cuts = {{"type", "Sequence"}, {"pretokenizers", list}};
      decoder = byte_level;
      return;
    }
    if (const auto id = id_at("tokenizer.ggml.unknown_token_id"); known(id)) root["model"]["unk_token"] = token(id);
    if (pre.form == PreTokenization::words) {
      if (metadata_.flag("tokenizer.ggml.normalizer.lowercase", false)) normaliser = {{"type", "Lowercase"}};
      cuts = {{"type", "WhitespaceSplit"}};
      return;
    }
    const auto replace = [](const char* from, const char* to) { return Json{{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}}; };
    normaliser = replace(" ", kBlank);
    decoder = {{"type", "Sequence"}, {"decoders", {replace(kBlank, " "), {{"type", "ByteFallback"}}, {{"type", "Fuse"}}}}};
    root["model"]["byte_fallback"] = root["model"]["fuse_unk"] = true;
  }

  /// Written as the tokenizer.json that the file was made from, so that it can be saved as one.
  TokenizerParts merged_pairs(const std::string& name) {
    const PreTokenization* pre = pre_tokenization(name);
    check(pre != nullptr, "tokenizer.unsupported", "{}: the pre-tokenizer \"{}\" is not known here; use the original tokenizer.json",
          metadata_.source(), name);
    read_ids();
    add_begin_ = metadata_.flag("tokenizer.ggml.add_bos_token", pre->add_begin);
    add_end_ = metadata_.flag("tokenizer.ggml.add_eos_token", false);
    Json added = Json::array(), vocabulary = Json::object(), merges = Json::array();
    for (size_t id = 0; id < tokens_.size(); ++id) {
      check_text(tokens_[id]);
      const bool fresh = vocabulary.emplace(tokens_[id], id).second;
      check(fresh, "tokenizer.format", "{}: token \"{}\" stands twice in the vocabulary", metadata_.source(), tokens_[id]);
      if (types_[id] != Types::kControl && types_[id] != Types::kUserDefined && types_[id] != Types::kUnknown) continue;
      added.push_back({{"id", id}, {"content", tokens_[id]}, {"single_word", false}, {"lstrip", false}, {"rstrip", false},
                       {"normalized", false}, {"special", types_[id] != Types::kUserDefined}});
    }
    for (const std::string& line : metadata_.texts("tokenizer.ggml.merges")) {
      check_text(line);
      const size_t space = line.find(' ', 1);  // a token may begin with a space
      check(space != std::string::npos, "tokenizer.format", "{}: the merge \"{}\" is no pair of tokens", metadata_.source(), line);
      merges.push_back(Json::array({line.substr(0, space), line.substr(space + 1)}));
    }
    Json root = {{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}, {"added_tokens", added},
                 {"post_processor", template_json()},
                 {"model", {{"type", "BPE"}, {"dropout", nullptr}, {"unk_token", nullptr}, {"continuing_subword_prefix", nullptr},
                            {"end_of_word_suffix", nullptr}, {"fuse_unk", false}, {"byte_fallback", false},
                            {"ignore_merges", pre->ignore_merges}, {"vocab", vocabulary}, {"merges", merges}}}};
    put_form(root, *pre);
    std::map<std::string, std::string> files = config_files();
    files["tokenizer.json"] = root.dump() + "\n";
    TokenizerParts parts = parts_from_json(files["tokenizer.json"], files, metadata_.source());
    parts.files = std::move(files);
    return parts;
  }

  /// BERT's: words begin with a blank sign there, where the original marks what goes on with "##".
  TokenizerParts word_pieces() {
    read_ids();
    const auto first = [&](std::initializer_list<const char*> keys) {
      std::optional<int64_t> id;
      for (const char* key : keys)
        if (!id) id = id_at(key);
      return id;
    };
    begin_ = first({"tokenizer.ggml.cls_token_id", "tokenizer.ggml.bos_token_id"});
    end_ = first({"tokenizer.ggml.seperator_token_id", "tokenizer.ggml.eos_token_id"});  // spelled so
    add_begin_ = metadata_.flag("tokenizer.ggml.add_bos_token", true);
    add_end_ = metadata_.flag("tokenizer.ggml.add_eos_token", true);
    Json vocabulary = Json::object(), added = Json::array();
    std::string unknown = "[UNK]";
    for (size_t id = 0; id < tokens_.size(); ++id) {
      check_text(tokens_[id]);
      const bool control = types_[id] == Types::kControl || types_[id] == Types::kUnknown;
      std::string& token = tokens_[id];
      if (!control) token = token.starts_with(kBlank) ? token.substr(std::string_view(kBlank).size()) : "##" + token;
      check(vocabulary.emplace(token, id).second, "tokenizer.format", "{}: token \"{}\" stands twice in the vocabulary", metadata_.source(), token);
      if (types_[id] == Types::kUnknown) unknown = token;
      if (control)
        added.push_back({{"id", id}, {"content", token}, {"single_word", false}, {"lstrip", false}, {"rstrip", false}, {"normalized", false}, {"special", true}});
    }
    if (const auto id = id_at("tokenizer.ggml.unknown_token_id"); known(id)) unknown = token(id);
    Json strip;
    if (metadata_.has("tokenizer.ggml.normalizer.strip_accents")) strip = metadata_.flag("tokenizer.ggml.normalizer.strip_accents");
    const Json root = {{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}, {"added_tokens", added},
                       {"normalizer", {{"type", "BertNormalizer"}, {"clean_text", true}, {"handle_chinese_chars", true}, {"strip_accents", strip},
                                       {"lowercase", metadata_.flag("tokenizer.ggml.normalizer.lowercase", true)}}},
                       {"pre_tokenizer", {{"type", "BertPreTokenizer"}}}, {"post_processor", template_json()},
                       {"decoder", {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}}},
                       {"model", {{"type", "WordPiece"}, {"unk_token", unknown}, {"continuing_subword_prefix", "##"}, {"max_input_chars_per_word", 100},
                                  {"vocab", vocabulary}}}};
    std::map<std::string, std::string> files = config_files();
    files["tokenizer.json"] = root.dump() + "\n";
    TokenizerParts parts = parts_from_json(files["tokenizer.json"], files, metadata_.source());
    parts.files = std::move(files);
    return parts;
  }

  bool known(std::optional<int64_t> id) const { return id && *id >= 0 && *id < static_cast<int64_t>(tokens_.size()); }
  const std::string& token(std::optional<int64_t> id) const { return tokens_[static_cast<size_t>(*id)]; }

  Json template_json() const {
    Json single = Json::array(), pair = Json::array(), special = Json::object();
    const auto add = [&](Json& list, std::optional<int64_t> id, bool wanted, int type) {
      if (!wanted || !known(id)) return;
      list.push_back({{"SpecialToken", {{"id", token(id)}, {"type_id", type}}}});
      special[token(id)] = {{"id", token(id)}, {"ids", {*id}}, {"tokens", {token(id)}}};
    };
    const bool bert = metadata_.text("tokenizer.ggml.model", "") == "bert";  // only a separator stands between two texts
    for (const int text : {0, 1}) {
      for (Json* list : {&single, &pair}) {
        if (text == 1 && list == &single) continue;
        add(*list, begin_, add_begin_ && !(text == 1 && bert), text);
        list->push_back({{"Sequence", {{"id", text == 0 ? "A" : "B"}, {"type_id", text}}}});
        add(*list, end_, add_end_, text);
      }
    }
    return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", special}};
  }

  std::map<std::string, std::string> config_files() const {
    Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"clean_up_tokenization_spaces", false}};
    if (known(begin_)) config["bos_token"] = token(begin_);
    if (known(end_)) config["eos_token"] = token(end_);
    return {{"tokenizer_config.json", config.dump(2) + "\n"}};
  }

  TokenizerParts sentencepiece(bool unigram) {
    SentencePieceTable table;
    table.kind = unigram ? SentencePieceTable::Kind::unigram : SentencePieceTable::Kind::bpe;
    table.pieces = tokens_;
    table.types = types_;
    for (const double score : metadata_.numbers("tokenizer.ggml.scores")) table.scores.push_back(static_cast<float>(score));
    table.byte_fallback = std::count(types_.begin(), types_.end(), Types::kByte) == 256;
    table.add_dummy_prefix = metadata_.flag("tokenizer.ggml.add_space_prefix", true);
    table.remove_extra_whitespaces = metadata_.flag("tokenizer.ggml.remove_extra_whitespaces", false);
    if (const GgufValue* map = metadata_.find("tokenizer.ggml.precompiled_charsmap"); map && map->type == GgufType::array)
      for (const int64_t byte : metadata_.integers("tokenizer.ggml.precompiled_charsmap")) table.character_map += static_cast<char>(byte);
    read_ids();
    if (!begin_ && !unigram) begin_ = 1;
    if (!end_) end_ = unigram ? 1 : 2;
    add_begin_ = metadata_.flag("tokenizer.ggml.add_bos_token", !unigram);
    add_end_ = metadata_.flag("tokenizer.ggml.add_eos_token", unigram);
    table.begin = known(begin_) ? *begin_ : -1;
    table.end = known(end_) ? *end_ : -1;
    const std::string model = write_sentencepiece_model(table);
    TokenizerParts parts = parts_of(std::move(table), metadata_.source());
    // Special tokens that stand in a text are found there, as programs that read these files do.
    for (size_t id = 0; id < tokens_.size(); ++id)
      if (types_[id] == Types::kControl) parts.added.add({.content = tokens_[id], .normalised = false, .special = true}, *parts.model, {});
    surround(parts);
    parts.begin = leading_token(parts.post_processors);
    parts.files = config_files();
    parts.files["tokenizer.model"] = model;
    return parts;
  }

  /// Begin and end tokens around texts, where the file says so.
  void surround(TokenizerParts& parts) const {
    std::vector<TemplatePart> single, pair;
    const auto add = [&](std::vector<TemplatePart>& list, std::optional<int64_t> id, bool wanted) {
      if (wanted && known(id)) list.push_back({.text = -1, .type_id = 0, .ids = {*id}, .tokens = {token(id)}});
    };
    for (const int text : {0, 1}) {
      for (std::vector<TemplatePart>* list : {&single, &pair}) {
        if (text == 1 && list == &single) continue;
        add(*list, begin_, add_begin_);
        list->push_back({.text = text, .type_id = text, .ids = {}, .tokens = {}});
        add(*list, end_, add_end_);
      }
    }
    parts.post_processors.push_back(template_processing(std::move(single), std::move(pair)));
  }

  const GgufMetadata& metadata_;
  std::vector<std::string> tokens_;
  std::vector<uint8_t> types_;
  std::optional<int64_t> begin_, end_;
  bool add_begin_ = false, add_end_ = false;
};

}  // namespace

TokenizerParts parts_from_gguf(const GgufMetadata& metadata) {
  check(metadata.has("tokenizer.ggml.tokens"), "tokenizer.missing", "{} holds no tokenizer", metadata.source());
  return Reader(metadata).read();
}

}  // namespace switchyard
