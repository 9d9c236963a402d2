// tokenizer.json of the Hugging Face library. Every part is read whole or refused by name; truncation and padding belong to
// training scripts and are ignored with a notice.

#include <algorithm>

#include "switchyard/base/error.h"
#include "switchyard/base/json.h"
#include "switchyard/base/progress.h"
#include "switchyard/base/random.h"
#include "switchyard/formats/tokenizers/base64.h"
#include "switchyard/formats/tokenizers/long_lists.h"
#include "switchyard/formats/tokenizers/pipeline.h"
#include "switchyard/formats/utf8.h"

namespace switchyard {
namespace {

using Json = nlohmann::json;

constexpr int kDepth = 16;  // of sequences within sequences

/// A part of the file, with its place for messages.
class Part {
 public:
  Part(const Json& json, std::string place) : json_(json), place_(std::move(place)) {}
  const Json& json() const { return json_; }
  const std::string& place() const { return place_; }

  bool has(const char* key) const { return json_.is_object() && json_.contains(key) && !json_[key].is_null(); }
  Part at(const char* key) const {
    check(json_.is_object() && json_.contains(key), "tokenizer.format", "{} has no \"{}\"", place_, key);
    return {json_[key], place_ + "." + key};
  }
  std::string text() const {
    check(json_.is_string(), "tokenizer.format", "{} is {}, not a text", place_, shown());
    return json_.get<std::string>();
  }
  bool flag() const {
    check(json_.is_boolean(), "tokenizer.format", "{} is {}, neither true nor false", place_, shown());
    return json_.get<bool>();
  }
  uint64_t count(uint64_t most = uint64_t{1} << 31) const {
    check(json_.is_number_unsigned() && json_.get<uint64_t>() <= most, "tokenizer.format", "{} is {}, not a whole number up to {}", place_,
          shown(), most);
    return json_.get<uint64_t>();
  }
  bool flag(const char* key, bool otherwise) const { return has(key) ? at(key).flag() : otherwise; }
  std::string text(const char* key, const std::string& otherwise = "") const { return has(key) ? at(key).text() : otherwise; }
  std::string type() const { return has("type") ? at("type").text() : ""; }

  template <typename F>
  void for_each(F&& f) const {
    check(json_.is_array(), "tokenizer.format", "{} is {}, not a list", place_, shown());
    for (size_t i = 0; i < json_.size(); ++i) f(Part(json_[i], fmt::format("{}[{}]", place_, i)));
  }
  [[noreturn]] void unsupported() const {
    fail("tokenizer.unsupported", "{} of type \"{}\" is not supported", place_, type());
  }
  /// The value as a message may show it.
  std::string shown() const {
    if (json_.is_structured()) return json_.is_array() ? "a list" : "an object";
    const std::string all = json_text(json_);
    return all.size() <= 60 ? all : utf8_repair(all.substr(0, 57)) + "...";
  }

 private:
  const Json& json_;
  std::string place_;
};

/// Calls f for a part, or for each part of a Sequence.
template <typename F>
void flatten(const Part& part, const char* list, int depth, F&& f) {
  if (part.json().is_null()) return;
  check(depth < kDepth, "tokenizer.format", "{}: sequences are nested more than {} deep", part.place(), kDepth);
  if (part.type() != "Sequence") return f(part);
  part.at(list).for_each([&](const Part& inner) { flatten(inner, list, depth + 1, f); });
}

/// {"String": ...} or {"Regex": ...}
struct Pattern {
  std::string text;
  bool regex = false;
};
Pattern pattern_of(const Part& part) {
  const Part pattern = part.at("pattern");
  if (pattern.json().is_string()) return {pattern.text(), false};
  if (pattern.has("String")) return {pattern.at("String").text(), false};
  return {pattern.at("Regex").text(), true};
}

std::string one_character(const Part& part) {
  std::string text = part.text();
  check(!text.empty() && utf8_length(text[0]) == text.size(), "tokenizer.format", "{} is \"{}\", not one character", part.place(), text);
  return text;
}

// --- normalizer ----------------------------------------------------------------------------------------------------

Normaliser read_normaliser(const Part& part) {
  const std::string type = part.type();
  if (type == "NFC") return normal_form(unicode::Form::nfc);
  if (type == "NFD") return normal_form(unicode::Form::nfd);
  if (type == "NFKC") return normal_form(unicode::Form::nfkc);
  if (type == "NFKD") return normal_form(unicode::Form::nfkd);
  if (type == "Lowercase") return lowercase();
  if (type == "StripAccents") return strip_accents();
  if (type == "Strip") return strip(part.at("strip_left").flag(), part.at("strip_right").flag());
  if (type == "Prepend") return prepend_text(part.at("prepend").text());
  if (type == "Nmt") return nmt();
  if (type == "ByteLevel") return byte_level_normaliser();
  if (type == "Replace") {
    const Pattern pattern = pattern_of(part);
    const std::string content = part.at("content").text();
    if (!pattern.regex) return replace_text(pattern.text, content);
    return replace_matches(std::make_shared<Regex>(pattern.text, RegexDialect::ruby), content);
  }
  if (type == "Precompiled") {
    if (!part.has("precompiled_charsmap") || part.at("precompiled_charsmap").text().empty()) return [](AlignedText&) {};
    return mapped(std::make_shared<CharacterMap>(from_base64(part.at("precompiled_charsmap").text(), part.place())));
  }
  if (type == "BertNormalizer") {
    BertNormalisation options{.clean_text = part.at("clean_text").flag(), .chinese_characters = part.at("handle_chinese_chars").flag(),
                              .lowercase = part.at("lowercase").flag(), .strip_accents = {}};
    if (part.has("strip_accents")) options.strip_accents = part.at("strip_accents").flag();
    return bert_normaliser(options);
  }
  part.unsupported();
}

// --- pre_tokenizer -------------------------------------------------------------------------------------------------

SplitBehavior behavior_of(const Part& part) {
  const std::string name = part.text();
  if (name == "Removed") return SplitBehavior::removed;
  if (name == "Isolated") return SplitBehavior::isolated;
  if (name == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
  if (name == "MergedWithNext") return SplitBehavior::merged_with_next;
  if (name == "Contiguous") return SplitBehavior::contiguous;
  fail("tokenizer.format", "{} is \"{}\", which is no behavior", part.place(), name);
}

PrependScheme scheme_of(const Part& part) {
  const std::string name = part.text("prepend_scheme", "always");
  check(name == "always" || name == "first" || name == "never", "tokenizer.format", "{}.prepend_scheme is \"{}\"", part.place(), name);
  if (!part.flag("add_prefix_space", true)) {
    check(name == "never" || !part.has("prepend_scheme"), "tokenizer.format", "{}: add_prefix_space is false, but prepend_scheme is \"{}\"",
          part.place(), name);
    return PrependScheme::never;
  }
  return name == "always" ? PrependScheme::always : name == "first" ? PrependScheme::first : PrependScheme::never;
}

void read_pre_tokenizer(const Part& part, TokenizerParts& parts) {
  const auto add = [&](PreTokenizer pre_tokenizer) { parts.pre_tokenizers.push_back(std::move(pre_tokenizer)); };
  const std::string type = part.type();
  if (type == "ByteLevel")
    return add(byte_level({.add_prefix_space = part.at("add_prefix_space").flag(), .use_regex = part.flag("use_regex", true)}));
  if (type == "Metaspace") {
    const PrependScheme scheme = scheme_of(part);
    parts.needs_origins |= scheme == PrependScheme::first && (!parts.normalisers.empty() || !parts.pre_tokenizers.empty());
    return add(metaspace(one_character(part.at("replacement")), scheme, part.flag("split", true)));
  }
  if (type == "Split") {
    const Pattern pattern = pattern_of(part);
    Finder finder = pattern.regex ? find_pattern(pattern.text) : find_text(pattern.text);
    return add(split(std::move(finder), behavior_of(part.at("behavior")), part.flag("invert", false)));
  }
  if (type == "BertPreTokenizer") return add(bert_pre_tokenizer());
  if (type == "Whitespace") return add(whitespace());
  if (type == "WhitespaceSplit") return add(whitespace_split());
  if (type == "UnicodeScripts") return add(unicode_scripts());
  if (type == "Digits") return add(digits(part.at("individual_digits").flag()));
  if (type == "Punctuation") return add(punctuation(part.has("behavior") ? behavior_of(part.at("behavior")) : SplitBehavior::isolated));
  if (type == "CharDelimiterSplit" || type == "Delimiter") return add(split(find_text(one_character(part.at("delimiter"))), SplitBehavior::removed));
  if (type == "FixedLength") {
    const uint64_t length = part.has("length") ? part.at("length").count() : 5;
    check(length > 0, "tokenizer.format", "{}.length is 0", part.place());
    return add(fixed_length(length));
  }
  part.unsupported();
}

// --- model ---------------------------------------------------------------------------------------------------------

/// lists: with the vocabulary, when it was taken out of the JSON before.
Vocabulary read_vocabulary(const Part& part, LongLists& lists) {
  if (lists.ids) return Vocabulary(std::move(*lists.ids));
  check(part.json().is_object(), "tokenizer.format", "{} is {}, not an object of tokens and ids", part.place(), part.shown());
  std::vector<std::pair<std::string, int64_t>> tokens;
  tokens.reserve(part.json().size());
  for (const auto& [token, id] : part.json().items()) {
    check(id.is_number_unsigned() && id.get<uint64_t>() < uint64_t{1} << 31, "tokenizer.format", "{}: the id of \"{}\" is {}", part.place(), token,
          Part(id, "").shown());
    tokens.emplace_back(token, id.get<int64_t>());
  }
  return Vocabulary(std::move(tokens));
}

std::vector<std::pair<std::string, std::string>> read_merges(const Part& part) {
  std::vector<std::pair<std::string, std::string>> merges;
  merges.reserve(part.json().size());
  part.for_each([&](const Part& merge) {
    if (merge.json().is_string()) {
      const std::string line = merge.text();
      if (line.starts_with("#version")) return;
      const size_t space = line.find(' ');
      check(space != std::string::npos && line.find(' ', space + 1) == std::string::npos, "tokenizer.format",
            "{} is \"{}\", not two tokens with a space between", merge.place(), line);
      merges.emplace_back(line.substr(0, space), line.substr(space + 1));
      return;
    }
    check(merge.json().is_array() && merge.json().size() == 2 && merge.json()[0].is_string() && merge.json()[1].is_string(),
          "tokenizer.format", "{} is no pair of tokens", merge.place());
    merges.emplace_back(merge.json()[0].get<std::string>(), merge.json()[1].get<std::string>());
  });
  return merges;
}

std::unique_ptr<TokenModel> read_bpe(const Part& part, LongLists& lists) {
  if (part.has("dropout")) {
    const Json& dropout = part.json()["dropout"];
    check(dropout.is_number() && dropout.get<double>() == 0, "tokenizer.unsupported",
          "{}.dropout is {}: merges left out at random belong to training; set it to null", part.place(), part.at("dropout").shown());
  }
  const BpeOptions options{.unknown_token = part.text("unk_token"), .continuing_prefix = part.text("continuing_subword_prefix"),
                           .end_suffix = part.text("end_of_word_suffix"), .fuse_unknown = part.flag("fuse_unk", false),
                           .byte_fallback = part.flag("byte_fallback", false), .ignore_merges = part.flag("ignore_merges", false)};
  return make_bpe(read_vocabulary(part.at("vocab"), lists), lists.merges ? std::move(*lists.merges) : read_merges(part.at("merges")), options);
}

std::unique_ptr<TokenModel> read_unigram(const Part& part, LongLists& lists) {
  std::vector<std::string> tokens;
  std::vector<double> scores;
  if (lists.scores) {
    for (auto& [token, score] : *lists.scores) {
      tokens.push_back(std::move(token));
      scores.push_back(score);
    }
  } else {
    part.at("vocab").for_each([&](const Part& item) {
      const Json& json = item.json();
      check(json.is_array() && json.size() == 2 && json[0].is_string() && json[1].is_number(), "tokenizer.format",
            "{} is no pair of token and score", item.place());
      tokens.push_back(json[0].get<std::string>());
      scores.push_back(json[1].get<double>());
    });
  }
  UnigramOptions options{.unknown = {}, .byte_fallback = part.flag("byte_fallback", false)};
  if (part.has("unk_id")) options.unknown = static_cast<int64_t>(part.at("unk_id").count());
  return make_unigram(Vocabulary::of_list_with_repeats(std::move(tokens)), std::move(scores), options);
}

std::unique_ptr<TokenModel> read_model(const Part& part, LongLists& lists) {
  std::string type = part.type();
  if (type.empty()) {  // old files do not say
    if (part.has("merges")) type = "BPE";
    else if (part.has("max_input_chars_per_word")) type = "WordPiece";
    else type = part.has("vocab") && part.json()["vocab"].is_array() ? "Unigram" : "WordLevel";
  }
  if (type == "BPE") return read_bpe(part, lists);
  if (type == "Unigram") return read_unigram(part, lists);
  if (type == "WordPiece")
    return make_word_piece(read_vocabulary(part.at("vocab"), lists),
                           {.unknown_token = part.at("unk_token").text(), .continuing_prefix = part.at("continuing_subword_prefix").text(),
                            .longest_word = part.at("max_input_chars_per_word").count()});
  if (type == "WordLevel") return make_word_level(read_vocabulary(part.at("vocab"), lists), part.at("unk_token").text());
  part.unsupported();
}

// --- post_processor ------------------------------------------------------------------------------------------------

std::vector<TemplatePart> read_template(const Part& list, const Part& tokens) {
  std::vector<TemplatePart> parts;
  list.for_each([&](const Part& item) {
    if (item.has("Sequence")) {
      const std::string which = item.at("Sequence").at("id").text();
      check(which == "A" || which == "B", "tokenizer.format", "{} names the text \"{}\", not A or B", item.place(), which);
      parts.push_back({.text = which == "A" ? 0 : 1, .type_id = static_cast<int64_t>(item.at("Sequence").at("type_id").count()), .ids = {}, .tokens = {}});
      return;
    }
    const Part special = item.at("SpecialToken");
    const std::string name = special.at("id").text();
    check(tokens.has(name.c_str()), "tokenizer.format", "{} names the special token \"{}\", which special_tokens does not have", item.place(), name);
    const Part token = tokens.at(name.c_str());
    TemplatePart part{.text = -1, .type_id = static_cast<int64_t>(special.at("type_id").count()), .ids = {}, .tokens = {}};
    token.at("ids").for_each([&](const Part& id) { part.ids.push_back(static_cast<int64_t>(id.count())); });
    token.at("tokens").for_each([&](const Part& text) { part.tokens.push_back(text.text()); });
    check(part.ids.size() == part.tokens.size(), "tokenizer.format", "{} has {} ids and {} tokens", token.place(), part.ids.size(), part.tokens.size());
    parts.push_back(std::move(part));
  });
  return parts;
}

SpecialToken special_of(const Part& part) {
  check(part.json().is_array() && part.json().size() == 2, "tokenizer.format", "{} is no pair of token and id", part.place());
  return {Part(part.json()[0], part.place()).text(), static_cast<int64_t>(Part(part.json()[1], part.place()).count())};
}

PostProcessor read_post_processor(const Part& part) {
  const std::string type = part.type();
  if (type == "TemplateProcessing") {
    const Part tokens = part.at("special_tokens");
    std::vector<TemplatePart> single = read_template(part.at("single"), tokens);
    return template_processing(std::move(single), read_template(part.at("pair"), tokens));
  }
  if (type == "ByteLevel") {
    if (!part.at("trim_offsets").flag()) return [](std::vector<Encoding>&, bool) {};
    return trim_byte_level_offsets(part.at("add_prefix_space").flag());
  }
  if (type == "BertProcessing") return bert_processing(special_of(part.at("cls")), special_of(part.at("sep")));
  if (type == "RobertaProcessing")
    return roberta_processing(special_of(part.at("cls")), special_of(part.at("sep")), part.flag("trim_offsets", true),
                              part.flag("add_prefix_space", true));
  part.unsupported();
}

// --- decoder -------------------------------------------------------------------------------------------------------

TokenDecoder::Part read_decoder(const Part& part) {
  const std::string type = part.type();
  if (type == "ByteLevel") return byte_level_decoder();
  if (type == "ByteFallback") return byte_fallback_decoder();
  if (type == "Fuse") return fuse_decoder();
  if (type == "Metaspace") return metaspace_decoder(one_character(part.at("replacement")), scheme_of(part) != PrependScheme::never);
  if (type == "WordPiece") return word_piece_decoder(part.at("prefix").text(), part.flag("cleanup", true));
  if (type == "BPEDecoder") return bpe_decoder(part.at("suffix").text());
  if (type == "CTC") return ctc_decoder(part.at("pad_token").text(), part.at("word_delimiter_token").text(), part.flag("cleanup", true));
  if (type == "Strip") return strip_decoder(one_character(part.at("content")), part.at("start").count(), part.at("stop").count());
  if (type == "Replace") {
    const Pattern pattern = pattern_of(part);
    std::shared_ptr<const Regex> regex;
    if (pattern.regex) regex = std::make_shared<Regex>(pattern.text, RegexDialect::ruby);
    return replace_decoder(pattern.text, regex, part.at("content").text());
  }
  part.unsupported();
}

AddedToken read_added_token(const Part& part) {
  return {.content = part.at("content").text(), .single_word = part.flag("single_word", false), .left_strip = part.flag("lstrip", false),
          .right_strip = part.flag("rstrip", false), .normalised = part.flag("normalized", !part.flag("special", false)),
          .special = part.flag("special", false)};
}

Part optional_part(const Part& root, const char* key) {
  static const Json absent;
  return root.has(key) ? root.at(key) : Part(absent, root.place() + "." + key);
}

TokenizerParts read_parts(const Part& root, LongLists& lists) {
  check(root.json().is_object(), "tokenizer.format", "{} is no JSON object", root.place());
  for (const char* ignored : {"truncation", "padding"})
    if (root.has(ignored)) log_info(fmt::format("{}: \"{}\" is ignored; texts are encoded whole", root.place(), ignored));
  TokenizerParts parts;
  flatten(optional_part(root, "normalizer"), "normalizers", 0, [&](const Part& part) { parts.normalisers.push_back(read_normaliser(part)); });
  flatten(optional_part(root, "pre_tokenizer"), "pretokenizers", 0, [&](const Part& part) { read_pre_tokenizer(part, parts); });
  parts.model = read_model(root.at("model"), lists);
  flatten(optional_part(root, "post_processor"), "processors", 0,
          [&](const Part& part) { parts.post_processors.push_back(read_post_processor(part)); });
  flatten(optional_part(root, "decoder"), "decoders", 0, [&](const Part& part) { parts.decoder.parts.push_back(read_decoder(part)); });
  if (!root.has("decoder")) parts.decoder.parts.push_back(spaces_between());
  if (root.has("added_tokens"))
    root.at("added_tokens").for_each([&](const Part& part) {
      const AddedToken token = read_added_token(part);
      const uint64_t id = part.at("id").count();
      parts.added.add(token, *parts.model, parts.normalisers);
      if (const int32_t given = parts.added.id(token.content); given >= 0 && static_cast<uint64_t>(given) != id)
        log_warning(fmt::format("{}: \"{}\" asks for id {}, but has id {} by its place in the vocabulary", part.place(), token.content, id, given));
    });
  return parts;
}

TokenizerParts read_parts(std::string_view json, const std::string& source) {
  if (std::optional<LongLists> lists = take_long_lists(json)) {
    try {
      return read_parts(Part(json_from(lists->rest), source), *lists);
    } catch (const std::exception&) {  // the whole text gives the message
    }
  }
  LongLists none;
  return read_parts(Part(json_from(json), source), none);
}

}  // namespace

TokenizerParts parts_from_json(std::string_view json, const std::map<std::string, std::string>& files, const std::string& source) {
  try {
    TokenizerParts parts = read_parts(json, source);
    const TokenizerConfig config = read_tokenizer_config(files, source);
    for (const auto& [id, token] : config.added)  // some were added after tokenizer.json was written
      if (parts.added.id(token.content) < 0 && parts.model->vocabulary().id(token.content) < 0)
        parts.added.add(token, *parts.model, parts.normalisers, id);
    const auto id_of = [&](const std::optional<std::string>& token) -> std::optional<int64_t> {
      if (!token) return std::nullopt;
      int32_t id = parts.added.id(*token);
      if (id < 0) id = parts.model->vocabulary().id(*token);
      return id < 0 ? std::nullopt : std::optional<int64_t>(id);
    };
    parts.begin = leading_token(parts.post_processors);
    parts.end = id_of(config.end_token);
    parts.fingerprint = stable_hash(json);
    return parts;
  } catch (const nlohmann::json::exception& error) {
    fail("tokenizer.format", "{}: {}", source, json_fault(error));
  } catch (const Error& error) {  // what a part says of itself does not name the file
    if (error.message().find(source) != std::string::npos) throw;
    fail(error.code(), "{}: {}", source, error.message());
  }
}

}  // namespace switchyard
