#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <set>
#include <unordered_map>

#include "switchyard/base/error.h"
#include "switchyard/base/files.h"
#include "switchyard/formats/tokenizer.h"
#include "switchyard/formats/tokenizers/byte_symbols.h"
#include "switchyard/formats/tokenizers/gguf_vocabulary.h"
#include "switchyard/formats/tokenizers/published_patterns.h"
#include "switchyard/formats/tokenizers/sentencepiece.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using Table = SentencePieceTable;  // the kinds of tokens are numbered alike

constexpr uint64_t kLargestFile = uint64_t{1} << 28;
constexpr int64_t kMostTokens = int64_t{1} << 24;

/// Names of pre-tokenizers that cut differently, frequent ones first; a name stands for all that cut as it does.
constexpr std::array kPreTokenizers{"gpt-2", "llama-bpe", "qwen2", "gpt-4o", "deepseek-v3", "dbrx", "hunyuan", "olmo", "starcoder", "tekken",
                                    "deepseek-llm", "deepseek-coder", "falcon", "seed-coder", "bailingmoe", "qwen35", "kimi-k2", "default", "minicpm5",
                                    "exaone-moe", "cohere2moe", "afmoe", "youtu", "jais-2", "spark2_5", "superbpe", "laguna", "bloom", "viking",
                                    "chameleon", "ufakzeka"};

/// Text on which any two of these cut differently: contractions in both cases, digits in runs, marks, ideographs, line ends,
/// punctuation before line ends and slashes, blanks before and after them.
constexpr const char* kProbe =
    "We'll I'M they'RE don't 7 42 365 1999 31415 271828 1234567 3.14 1,000 x2y10z\n\n \n\t\tif (a != b) {\r\n  return [c]/d; //e\n}\r\n\r\n   "
    "snake_case CamelCaseWord HTTPServer aB !!! ...?? ---\n=== \xE2\x80\xA6 \xC2\xAB" "deux\xC2\xBB \xC3\x89t\xC3\xA9 e\xCC\x81te\xCC\x81 "
    "\xD0\x9F\xD1\x80\xD0\xB8\xD0\xB2\xD0\xB5\xD1\x82, \xD0\xBC\xD0\xB8\xD1\x80! \xE6\x88\x91\xE5\x9C\xA8\xE5\x8C\x97\xE4\xBA\xAC" "2024\xE5\xB9\xB4"
    "\xE5\xB7\xA5\xE4\xBD\x9C\xE3\x80\x82 \xE3\x81\x93\xE3\x82\x8C\xE3\x81\xAF\xE3\x83\x86\xE3\x82\xB9\xE3\x83\x88 \xED\x95\x9C\xEA\xB5\xAD\xEC\x96\xB4 "
    "\xE0\xB8\x97\xE0\xB8\x94\xE0\xB8\xAA\xE0\xB8\xAD\xE0\xB8\x9A \xE0\xA4\xB9\xE0\xA4\xBF\xE0\xA4\xA8\xE0\xA5\x8D\xE0\xA4\xA6\xE0\xA5\x80 "
    "\xF0\x9F\x9A\x80\xF0\x9F\x98\xB6\xE2\x80\x8D\xF0\x9F\x8C\xAB\xEF\xB8\x8F \xD9\xA1\xD9\xA2\xD9\xA3 \xE2\x85\xA7 $5 #tag @x a+b=c `code` ~end  "
    "line one\n\nline two (10):\n  print(i)\nend.\n\n\n\tlast\r\n\r\nword";

struct Tokens {
  std::vector<std::string> texts;
  std::vector<int64_t> types;
  std::vector<double> scores;

  void grow(int64_t size) {
    check(size <= kMostTokens, "tokenizer.format", "the vocabulary has {} tokens; at most {} are written", size, kMostTokens);
    for (auto id = static_cast<int64_t>(texts.size()); id < size; ++id) {
      texts.push_back("[PAD" + std::to_string(id) + "]");
      types.push_back(Table::kUnused);
      scores.push_back(-10000);
    }
  }
  void put(int64_t id, std::string text, int64_t type, double score) {
    if (id < 0) return;
    grow(id + 1);
    const auto at = static_cast<size_t>(id);
    texts[at] = std::move(text);
    types[at] = type;
    scores[at] = score;
  }
};

/// Whether a part of that type is in the tree.
bool contains(const Json& tree, const char* type) {
  if (tree.is_object()) {
    if (tree.contains("type") && tree["type"] == type) return true;
    for (const auto& [key, value] : tree.items())
      if (contains(value, type)) return true;
  } else if (tree.is_array()) {
    for (const Json& item : tree)
      if (contains(item, type)) return true;
  }
  return false;
}

std::optional<int64_t> id_in(const Node& config, const char* key) {
  const Node* node = config.is_map() ? config.find(key) : nullptr;
  if (node == nullptr || !node->is_scalar() || node->quoted()) return {};
  const std::string& text = node->scalar();
  if (text.empty() || text.size() > 9 || text.find_first_not_of("0123456789") != std::string::npos) return {};
  return std::stoll(text);
}

class Writer {
 public:
  Writer(GgufMetadata& metadata, const fs::path& folder, const Node& config, std::vector<std::string>& notices)
      : metadata_(metadata), folder_(folder), config_(config), notices_(notices) {
    for (const char* name : {"tokenizer.json", "tokenizer.model", "spiece.model", "tokenizer_config.json", "special_tokens_map.json"})
      if (fs::is_regular_file(folder / name)) files_[name] = read_file(folder / name, kLargestFile);
  }

  void write() {
    std::string pieces = files_.contains("tokenizer.model") ? files_["tokenizer.model"] : files_.contains("spiece.model") ? files_["spiece.model"] : "";
    const bool ranks = has_ranks() || is_rank_file(pieces);
    if (ranks) pieces.clear();
    if (!files_.contains("tokenizer.json") && pieces.empty() && !ranks) {
      notices_.push_back("the folder has no tokenizer.json, no sentencepiece model and no tiktoken ranks, so the file holds no vocabulary");
      metadata_.set("tokenizer.ggml.model", GgufValue::text("none"));
      return common();
    }
    tokenizer_ = load_tokenizer(folder_);  // checks the files too
    if (!files_.contains("tokenizer.json") && ranks) return write_ranks();
    if (!files_.contains("tokenizer.json")) return write_pieces(pieces);
    const Json root = Json::parse(files_["tokenizer.json"]);
    const std::string kind = root["model"].value("type", root["model"].contains("merges") ? "BPE" : "");
    const bool bytes = contains(root.value("pre_tokenizer", Json()), "ByteLevel") || contains(root.value("decoder", Json()), "ByteLevel");
    if (kind == "BPE" && bytes) write_byte_level(root);
    else if (!pieces.empty() && (kind == "BPE" || kind == "Unigram")) write_pieces(pieces);
    else if (kind == "BPE") write_scored(root);
    else if (kind == "Unigram") write_unigram(root);
    else {
      metadata_.set("tokenizer.ggml.model", GgufValue::text("none"));
      notices_.push_back("a tokenizer of type " + kind + " has no form in the container other than its own file");
      common();
    }
    metadata_.set("tokenizer.huggingface.json", GgufValue::text(files_["tokenizer.json"]));
  }

 private:
  void put_added(Tokens& tokens, const Json& root) const {
    for (const Json& token : root.value("added_tokens", Json::array()))
      tokens.put(token["id"].get<int64_t>(), token["content"].get<std::string>(),
                 token.value("special", false) ? Table::kControl : Table::kUserDefined, -1000);
  }

  void put_tokens(const Tokens& tokens, const char* model, const char* pre, bool scored) {
    metadata_.set("tokenizer.ggml.model", GgufValue::text(model));
    metadata_.set("tokenizer.ggml.pre", GgufValue::text(pre));
    metadata_.set("tokenizer.ggml.tokens", GgufValue::texts(tokens.texts));
    if (scored) metadata_.set("tokenizer.ggml.scores", GgufValue::floats(tokens.scores));
    metadata_.set("tokenizer.ggml.token_type", GgufValue::ints(tokens.types));
    common();
  }

  /// Ids of special tokens, and which of them go around texts.
  void common() {
    const TokenizerConfig own = read_tokenizer_config(files_, (folder_ / "tokenizer_config.json").string());
    const auto id_of = [&](const char* key, const std::optional<std::string>& token) {
      if (const auto id = id_in(config_, key)) return id;
      return token && tokenizer_ ? tokenizer_->id_of(*token) : std::nullopt;
    };
    std::vector<int64_t> ends;
    if (const Node* list = config_.is_map() ? config_.find("eos_token_id") : nullptr; list != nullptr && list->is_list()) {
      for (const Node& item : list->items()) {
        Node one = Node::map();
        one["id"] = item;
        if (const auto id = id_in(one, "id")) ends.push_back(*id);
      }
    } else if (const auto id = id_of("eos_token_id", own.end_token)) {
      ends.push_back(*id);
    }
    const auto begin = id_of("bos_token_id", own.begin_token);
    const auto set = [&](const std::string& name, std::optional<int64_t> id) {
      if (id && *id >= 0) metadata_.set("tokenizer.ggml." + name + "_token_id", GgufValue::u32(static_cast<uint32_t>(*id)));
    };
    set("bos", begin);
    for (size_t i = 0; i < ends.size() && i < 3; ++i) set(std::array{"eos", "eot", "eom"}[i], ends[i]);
    set("unknown", id_of("unk_token_id", own.unknown_token));
    set("padding", id_of("pad_token_id", own.padding_token));
    if (!tokenizer_) return;
    const std::vector<int64_t> around = tokenizer_->encode("a", EncodeOptions{.add_special = true}).ids;
    metadata_.set("tokenizer.ggml.add_bos_token", GgufValue::flag(begin && !around.empty() && around.front() == *begin));
    metadata_.set("tokenizer.ggml.add_eos_token",
                  GgufValue::flag(around.size() > 1 && std::find(ends.begin(), ends.end(), around.back()) != ends.end()));
  }

  void write_byte_level(const Json& root) {
    const Json& model = root["model"];
    Tokens tokens;
    for (const auto& [text, id] : model["vocab"].items()) tokens.put(id.get<int64_t>(), text, Table::kNormal, 0);
    put_added(tokens, root);
    tokens.grow(id_in(config_, "vocab_size").value_or(0));
    std::vector<std::string> merges;
    for (const Json& merge : model.value("merges", Json::array())) {
      if (merge.is_string()) {
        if (!merge.get_ref<const std::string&>().starts_with("#version")) merges.push_back(merge.get<std::string>());
      } else {
        merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
      }
    }
    metadata_.set("tokenizer.ggml.merges", GgufValue::texts(std::move(merges)));
    metadata_.set("tokenizer.ggml.add_space_prefix", GgufValue::flag(prefixed(root.value("pre_tokenizer", Json()))));
    put_tokens(tokens, "gpt2", "default", false);
    name_pre_tokenizer(root);
  }

  bool has_ranks() const {
    for (const auto& entry : fs::directory_iterator(folder_))
      if (entry.path().extension() == ".tiktoken" || entry.path().filename() == "tiktoken.model") return true;
    return false;
  }

  /// Rank files have no merges. A token's is found by merging its own bytes with the tokens before it until two are left.
  void write_ranks() {
    constexpr size_t kLongest = 256;  // bytes of a token; published ones have up to 128
    Tokens tokens;
    std::vector<std::pair<std::string, int64_t>> ordinary;
    for (int64_t id = 0; id < tokenizer_->vocabulary(); ++id) {
      const std::string text = tokenizer_->token(id);
      if (text.empty()) continue;
      tokens.put(id, text, tokenizer_->special(id) ? Table::kControl : Table::kNormal, 0);
      if (!tokenizer_->special(id)) ordinary.emplace_back(from_byte_symbols(text), id);
    }
    std::unordered_map<std::string_view, int64_t> rank_of;
    for (const auto& [bytes, id] : ordinary) rank_of.emplace(bytes, id);
    std::vector<std::string> merges;
    int64_t unreachable = 0;
    for (const auto& [bytes, id] : ordinary) {
      if (bytes.size() == 1) continue;
      check(bytes.size() <= kLongest, "tokenizer.unsupported", "{}: token {} has {} bytes; up to {} are turned into merges", folder_.string(), id,
            bytes.size(), kLongest);
      const std::vector<std::string_view> parts = merged_before(bytes, id, rank_of);
      if (parts.size() == 2) merges.push_back(to_byte_symbols(parts[0]) + " " + to_byte_symbols(parts[1]));
      else ++unreachable;
    }
    if (unreachable > 0) notices_.push_back(fmt::format("{} tokens are no pair of others, and stand only for whole words", unreachable));
    tokens.grow(id_in(config_, "vocab_size").value_or(0));
    metadata_.set("tokenizer.ggml.merges", GgufValue::texts(std::move(merges)));
    metadata_.set("tokenizer.ggml.add_space_prefix", GgufValue::flag(false));
    put_tokens(tokens, "gpt2", "default", false);
    Json root{{"model", {{"ignore_merges", true}}}};
    const auto settings = files_.find("tokenizer_config.json");  // small vocabularies do not tell the rules apart
    if (settings != files_.end() && settings->second.find("\"TikTokenTokenizer\"") != std::string::npos)
      root["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"Regex", patterns::kKimi}}}};
    name_pre_tokenizer(root);
  }

  /// What a token's bytes become when only tokens of lower rank exist.
  static std::vector<std::string_view> merged_before(std::string_view bytes, int64_t rank,
                                                     const std::unordered_map<std::string_view, int64_t>& rank_of) {
    std::vector<std::string_view> parts;
    for (size_t i = 0; i < bytes.size(); ++i) parts.push_back(bytes.substr(i, 1));
    while (parts.size() > 2) {
      int64_t best = rank;
      size_t at = 0;
      for (size_t i = 0; i + 1 < parts.size(); ++i) {
        const auto found = rank_of.find(std::string_view(parts[i].data(), parts[i].size() + parts[i + 1].size()));
        if (found != rank_of.end() && found->second < best) best = found->second, at = i;
      }
      if (best == rank) break;
      parts[at] = std::string_view(parts[at].data(), parts[at].size() + parts[at + 1].size());
      parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(at) + 1);
    }
    return parts;
  }

  static bool prefixed(const Json& tree) {
    if (tree.is_object() && tree.value("type", "") == "ByteLevel") return tree.value("add_prefix_space", false);
    if (tree.is_object() && tree.contains("pretokenizers") && tree["pretokenizers"].is_array())
      for (const Json& item : tree["pretokenizers"])
        if (prefixed(item)) return true;
    return false;
  }

  /// The patterns that words are cut by, in order.
  static void collect_patterns(const Json& part, std::vector<std::string>& patterns) {
    const std::string type = part.is_object() ? part.value("type", "") : "";
    if (type == "Sequence") {
      for (const Json& item : part.value("pretokenizers", Json::array())) collect_patterns(item, patterns);
    } else if (type == "Split" && part.value("pattern", Json()).contains("Regex")) {
      patterns.push_back(part["pattern"]["Regex"].get<std::string>());
    } else if (type == "Digits") {
      patterns.push_back(part.value("individual_digits", false) ? R"(\p{N})" : R"(\p{N}+)");
    } else if (type == "ByteLevel" && part.value("use_regex", true)) {
      patterns.push_back(patterns::kGpt2);
    }
  }

  /// The name whose patterns are the tokenizer's, or else the first under which the file gives the tokens that it gives.
  void name_pre_tokenizer(const Json& root) {
    std::vector<std::string> wanted;
    collect_patterns(root.value("pre_tokenizer", Json()), wanted);
    const bool nfc = contains(root.value("normalizer", Json()), "NFC"), whole = root["model"].value("ignore_merges", false);
    std::vector<const char*> names;
    for (const bool same : {true, false})
      for (const char* name : kPreTokenizers) {
        const PreTokenization& pre = *pre_tokenization(name);
        const bool equal = std::equal(pre.patterns.begin(), pre.patterns.end(), wanted.begin(), wanted.end(),
                                      [](const char* a, const std::string& b) { return a == b; }) && pre.nfc == nfc && pre.ignore_merges == whole;
        if (equal == same) names.push_back(name);
      }
    const std::vector<int64_t> ids = tokenizer_->encode(kProbe);
    for (const char* name : names) {
      metadata_.set("tokenizer.ggml.pre", GgufValue::text(name));
      if (make_tokenizer(parts_from_gguf(metadata_))->encode(kProbe) == ids) return;
    }
    metadata_.set("tokenizer.ggml.pre", GgufValue::text("default"));
    notices_.push_back("no pre-tokenizer that the container has a name for cuts words as this tokenizer does; llama.cpp will cut otherwise");
  }

  void put_layout(bool prefix, bool strip, const std::string& map) {
    metadata_.set("tokenizer.ggml.add_space_prefix", GgufValue::flag(prefix));
    metadata_.set("tokenizer.ggml.remove_extra_whitespaces", GgufValue::flag(strip));
    if (!map.empty()) metadata_.set("tokenizer.ggml.precompiled_charsmap", GgufValue::bytes(map));
  }

  void write_pieces(const std::string& bytes) {
    const Table table = read_sentencepiece_model(bytes, folder_.string());
    check(table.kind == Table::Kind::bpe || table.kind == Table::Kind::unigram, "tokenizer.unsupported",
          "{}: a sentencepiece model of words or characters has no form in a GGUF file", folder_.string());
    Tokens tokens;
    for (size_t id = 0; id < table.pieces.size(); ++id)
      tokens.put(static_cast<int64_t>(id), table.pieces[id], table.types[id], static_cast<double>(table.scores[id]));
    if (files_.contains("tokenizer.json")) put_missing(tokens, Json::parse(files_["tokenizer.json"]));
    for (const auto& [id, token] : read_tokenizer_config(files_, folder_.string()).added)
      if (id >= static_cast<int64_t>(table.pieces.size())) tokens.put(id, token.content, token.special ? Table::kControl : Table::kUserDefined, -1000);
    tokens.grow(id_in(config_, "vocab_size").value_or(0));
    put_layout(table.add_dummy_prefix, table.remove_extra_whitespaces, table.character_map);
    if (table.denormaliser) notices_.push_back("the container has no key for the rules by which the tokenizer changes decoded text (denormalizer_spec)");
    put_tokens(tokens, table.kind == Table::Kind::bpe ? "llama" : "t5", "default", true);
  }

  /// Added tokens that the model file knows nothing of.
  void put_missing(Tokens& tokens, const Json& root) const {
    Tokens added;
    put_added(added, root);
    for (size_t id = tokens.texts.size(); id < added.texts.size(); ++id)
      if (added.types[id] != Table::kUnused) tokens.put(static_cast<int64_t>(id), added.texts[id], added.types[id], -1000);
  }

  static bool is_byte(const std::string& token) { return token.size() == 6 && token.starts_with("<0x") && token.back() == '>'; }

  /// BPE over characters, by merges: readers merge by score instead, which falls with the rank here.
  void write_scored(const Json& root) {
    const Json& model = root["model"];
    std::map<std::string, double> ranks;
    double rank = 0;
    for (const Json& merge : model.value("merges", Json::array())) {
      std::string joined;
      if (merge.is_string()) {
        joined = merge.get<std::string>();
        if (const size_t space = joined.find(' '); space != std::string::npos) joined.erase(space, 1);
      } else {
        joined = merge[0].get<std::string>() + merge[1].get<std::string>();
      }
      ranks.emplace(std::move(joined), -++rank);
    }
    Tokens tokens;
    const bool fallback = model.value("byte_fallback", false);
    for (const auto& [text, id] : model["vocab"].items()) {
      const auto found = ranks.find(text);
      tokens.put(id.get<int64_t>(), text, fallback && is_byte(text) ? Table::kByte : Table::kNormal, found == ranks.end() ? 0 : found->second);
    }
    put_added(tokens, root);
    put_unknown(tokens, model.contains("unk_token") && model["unk_token"].is_string() ? tokenizer_->id_of(model["unk_token"].get<std::string>()) : std::nullopt);
    tokens.grow(id_in(config_, "vocab_size").value_or(0));
    const Json normaliser = root.value("normalizer", Json()), cuts = root.value("pre_tokenizer", Json());
    const bool prefix = contains(normaliser, "Prepend") || (contains(cuts, "Metaspace") && cuts.dump().find("\"never\"") == std::string::npos);
    put_layout(prefix, false, "");
    put_tokens(tokens, "llama", "default", true);
  }

  void write_unigram(const Json& root) {
    const Json& model = root["model"];
    Tokens tokens;
    int64_t next = 0;
    const bool fallback = model.value("byte_fallback", false);
    for (const Json& entry : model["vocab"]) {
      const auto text = entry[0].get<std::string>();
      tokens.put(next++, text, fallback && is_byte(text) ? Table::kByte : Table::kNormal, entry[1].get<double>());
    }
    put_added(tokens, root);
    put_unknown(tokens, model.contains("unk_id") && model["unk_id"].is_number_integer() ? std::optional(model["unk_id"].get<int64_t>()) : std::nullopt);
    tokens.grow(id_in(config_, "vocab_size").value_or(0));
    put_layout(root.value("pre_tokenizer", Json()).dump().find("\"never\"") == std::string::npos, true, "");
    put_tokens(tokens, "t5", "default", true);
    if (contains(root.value("normalizer", Json()), "Precompiled"))
      notices_.push_back("the normaliser's character map stands only in the file's own tokenizer.json");
  }

  static void put_unknown(Tokens& tokens, std::optional<int64_t> id) {
    if (id && *id >= 0 && *id < static_cast<int64_t>(tokens.types.size())) tokens.types[static_cast<size_t>(*id)] = Table::kUnknown;
  }

  GgufMetadata& metadata_;
  const fs::path& folder_;
  const Node& config_;
  std::vector<std::string>& notices_;
  std::map<std::string, std::string> files_;
  std::shared_ptr<const Tokenizer> tokenizer_;
};

}  // namespace

void put_vocabulary(GgufMetadata& metadata, const fs::path& folder, const Node& config, std::vector<std::string>& notices) {
  Writer(metadata, folder, config, notices).write();
}

}  // namespace switchyard
