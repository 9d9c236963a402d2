#include "switchyard/base/json.h"
#include "switchyard/formats/tokenizer.h"

#include <sentencepiece_processor.h>
#include <sys/stat.h>


#include "switchyard/base/files.h"
#include "switchyard/formats/tokenizers/byte_symbols.h"
#include "switchyard/formats/tokenizers/piece_table.h"
#include "switchyard/formats/tokenizers/regex.h"
#include "switchyard/formats/tokenizers/sentencepiece.h"
#include "switchyard/formats/tokenizers/unicode.h"
#include "switchyard/formats/utf8.h"
#include "tests/files.h"
#include "tests/support.h"

namespace switchyard {
namespace {

using testing::expect_error;
using testing::run_python;
using testing::TemporaryFolder;
using testing::write_text;

const char* const kGreek =
    "Ἐν ἀρχῇ ἦν ὁ λόγος, καὶ ὁ λόγος ἦν πρὸς τὸν θεόν, καὶ θεὸς ἦν ὁ λόγος.\nМама мыла раму. Мама мыла окно.\n"
    "漢字仮名交じり文は、日本語の表記法である。\n";

std::vector<std::string> training_texts() {
  const std::filesystem::path source(SWITCHYARD_SOURCE_DIR);
  return {read_file(source / "docs/design.md"), read_file(source / "switchyard/base/options.cpp"), kGreek};
}

std::function<bool(std::string&)> stream(std::vector<std::string> texts) {
  return [texts = std::move(texts), at = size_t{0}](std::string& text) mutable {
    if (at == texts.size()) return false;
    text = texts[at++];
    return true;
  };
}

std::shared_ptr<Tokenizer> trained(TokenizerKind kind) {
  static std::map<TokenizerKind, std::shared_ptr<Tokenizer>> known;
  auto& tokenizer = known[kind];
  if (!tokenizer) tokenizer = train_tokenizer({.kind = kind, .vocabulary = 900}, stream(training_texts()));
  return tokenizer;
}

/// Every kind of text that tends to break tokenizers.
std::vector<std::string> awkward_texts() {
  std::vector<std::string> texts = {
      "", " ", "  ", "\n", "\t", "a", "Hello, world!", " leading", "trailing ", "  two  and   three   ",
      "line one\nline two\r\nline three\r", "\n\n\n\n", "\t\tif (x) {\n\t\t\treturn y;\n\t\t}\n", "    def f(self):\n        return 1\n",
      "1234567890 3.14159 0x1F", "▁", "▁▁ ▁a▁", " ▁ ▁", "<0x0A>", "<0xE2><0x96>", "<unk><s></s>", "< |end|>",
      "naïve café coöperate", "Ωμέγα ἀρχῇ", "Быстрая лиса", "漢字とかな", "한국어", "العربية من اليمين", "עברית", "हिन्दी", "ไทย",
      "😀😁 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪", "e\xCC\x81 vs \xC3\xA9", "\xEF\xBB\xBF" "bom", "\xE2\x80\x8B\xE2\x80\x8D", "\xC2\xA0nbsp\xC2\xA0", "\xEF\xBF\xBD", "\xEF\xBF\xBD\xEF\xBF\xBD",
      "\xF4\x8F\xBF\xBF", std::string("nul\0inside", 10), "\x01\x02\x1B[0m\x7F", "for (int64_t i = 0; i < n; ++i) out[i] = a[i] * b[i];",
      "----------------------------------------", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "==== ==== === == =", "ababababababababababa", std::string(1000, ' '),
      std::string(300, '\n'), std::string(200, '-') + std::string(77, ' ') + "x", "<html>&amp;</s></html>", "\"quoted\" 'single' `back`", "C:\\path\\file",
  };
  // Random mixtures of scripts, spaces and code, the same each time.
  const std::vector<std::string> parts = {" ", "  ", "\n", "\t", "the", "mixture", "expert", "(", ");", "::", "->", "ἀρχῇ", "мама", "漢", "😀", "▁", "0x", "12",
                                          "<0x41>", "e", "E", "_", "std::vector", "\xC2\xA0", "\x07", "é", "=", "--", "a"};
  const at::Tensor draws = Streams(5).integers(static_cast<int64_t>(parts.size()), {200, 40}, {.purpose = "test"});
  for (int64_t i = 0; i < 200; ++i) {
    std::string text;
    for (int64_t j = 0; j < 40; ++j) text += parts[static_cast<size_t>(draws.const_data_ptr<int64_t>()[i * 40 + j])];
    texts.push_back(text);
  }
  for (const std::string& text : training_texts()) texts.push_back(text);
  return texts;
}

class TokenizerKinds : public ::testing::TestWithParam<TokenizerKind> {};
INSTANTIATE_TEST_SUITE_P(All, TokenizerKinds, ::testing::Values(TokenizerKind::bpe, TokenizerKind::unigram),
                         [](const auto& kind) { return std::string(kind.param == TokenizerKind::bpe ? "bpe" : "unigram"); });

TEST_P(TokenizerKinds, EveryTextComesBackAsItWas) {
  const auto tokenizer = trained(GetParam());
  EXPECT_EQ(tokenizer->vocabulary(), 900);
  for (const std::string& text : awkward_texts()) EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
}

TEST_P(TokenizerKinds, EveryByteHasAToken) {
  const auto tokenizer = trained(GetParam());
  for (int byte = 0; byte < 256; ++byte) {
    const auto id = tokenizer->id_of(byte_token(byte));
    ASSERT_TRUE(id) << byte;
    EXPECT_EQ(tokenizer->bytes({*id}), std::string(1, static_cast<char>(byte)));
  }
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("a\xFF" "b\xE6\xBC")), "a\xEF\xBF\xBD" "b\xEF\xBF\xBD");
}

TEST_P(TokenizerKinds, SpecialTokensInATextAreText) {
  const auto tokenizer = trained(GetParam());
  ASSERT_TRUE(tokenizer->begin_id() && tokenizer->end_id());
  for (const int64_t id : tokenizer->encode("<|begin|>a<|end|><|unknown|>")) EXPECT_GT(id, 2);
  EXPECT_EQ(tokenizer->decode({*tokenizer->begin_id(), *tokenizer->id_of("a"), *tokenizer->end_id()}), "a");
}

TEST_P(TokenizerKinds, TokensAreFoundByName) {
  const auto tokenizer = trained(GetParam());
  for (int64_t id = 0; id < tokenizer->vocabulary(); ++id) EXPECT_EQ(tokenizer->id_of(tokenizer->token(id)), id);
  EXPECT_EQ(tokenizer->token(*tokenizer->end_id()), "<|end|>");
  EXPECT_FALSE(tokenizer->id_of("no such token"));
  EXPECT_EQ(tokenizer->decode({900, *tokenizer->id_of("a"), 1 << 30}), "a");  // rows of a padded embedding have no text
  EXPECT_EQ(expect_error([&] { (void)tokenizer->decode({-1}); }).code(), "tokenizer.id");
  EXPECT_EQ(expect_error([&] { (void)tokenizer->token(-1); }).message(), "token id -1 is outside the vocabulary of 900");
}

TEST_P(TokenizerKinds, PiecesAreLearnt) {
  const auto tokenizer = trained(GetParam());
  // Frequent words of the text are one token; digits stand alone.
  EXPECT_EQ(tokenizer->encode(" the").size(), 1u);
  EXPECT_EQ(tokenizer->encode("2024").size(), 4u);
  const std::string text = training_texts()[1];
  EXPECT_LT(static_cast<double>(tokenizer->encode(text).size()), 0.5 * static_cast<double>(text.size()));
}

TEST_P(TokenizerKinds, TheSameTextGivesTheSameTokenizer) {
  const TokenizerOptions options{.kind = GetParam(), .vocabulary = 900};
  EXPECT_EQ(train_tokenizer(options, stream(training_texts()))->fingerprint(), trained(GetParam())->fingerprint());
  EXPECT_NE(train_tokenizer(options, stream({training_texts()[1]}))->fingerprint(), trained(GetParam())->fingerprint());
}

TEST_P(TokenizerKinds, TrainingStopsAtTheSample) {
  std::vector<std::string> texts = training_texts();
  int64_t bytes = 0;
  for (const std::string& text : texts) bytes += static_cast<int64_t>(text.size());
  texts.push_back("never read never read");
  int64_t asked = 0;
  auto next = stream(texts);
  const auto tokenizer = train_tokenizer({.kind = GetParam(), .vocabulary = 900, .sample_bytes = bytes}, [&](std::string& text) {
    ++asked;
    return next(text);
  });
  EXPECT_EQ(asked, 3);
  EXPECT_EQ(tokenizer->fingerprint(), trained(GetParam())->fingerprint());
}

TEST_P(TokenizerKinds, ASmallTextGivesASmallVocabulary) {
  const auto tokenizer = train_tokenizer({.kind = GetParam(), .vocabulary = 4096}, stream({"one two three two three three"}));
  EXPECT_LT(tokenizer->vocabulary(), 400);
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("zwölf\n")), "zwölf\n");
}

TEST_P(TokenizerKinds, ManyCharactersLeaveRoomForPieces) {
  std::string text;
  for (char32_t code = 0x4E00; code < 0x5E00; ++code) utf8_append(text, code);
  const auto tokenizer = train_tokenizer({.kind = GetParam(), .vocabulary = 600}, stream({text, "abc abc abc abd abd"}));
  EXPECT_LE(tokenizer->vocabulary(), 600);
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
}

TEST_P(TokenizerKinds, ARunsFolderHasItsTokenizer) {
  const auto tokenizer = trained(GetParam());
  TemporaryFolder folder;
  std::filesystem::create_directory(folder / "tokenizer");
  tokenizer->save(folder / "tokenizer");
  EXPECT_EQ(load_tokenizer(folder.path())->fingerprint(), tokenizer->fingerprint());
  std::filesystem::remove_all(folder / "tokenizer");
  std::filesystem::create_directory_symlink(".", folder / "tokenizer");
  EXPECT_EQ(expect_error([&] { (void)load_tokenizer(folder.path()); }).code(), "tokenizer.missing");
}

TEST_P(TokenizerKinds, SavedAndLoadedItIsTheSame) {
  const auto tokenizer = trained(GetParam());
  TemporaryFolder folder;
  tokenizer->save(folder.path());
  for (const char* file : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model"})
    EXPECT_TRUE(std::filesystem::exists(folder / file)) << file;
  const auto loaded = load_tokenizer(folder.path());
  EXPECT_EQ(loaded->fingerprint(), tokenizer->fingerprint());
  EXPECT_EQ(loaded->begin_id(), tokenizer->begin_id());
  EXPECT_EQ(loaded->end_id(), tokenizer->end_id());
  for (const std::string& text : awkward_texts()) EXPECT_EQ(loaded->encode(text), tokenizer->encode(text));
  TemporaryFolder again;
  loaded->save(again.path());
  for (const char* file : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model"})
    EXPECT_EQ(read_file(again / file), read_file(folder / file)) << file;
}

// The library that trained them is an oracle of its own for the search. (Where pieces overlap it has other rules for equals,
// and it takes "▁" for a space, so the texts here are ordinary, and unigram pieces are compared by their probability.)
TEST_P(TokenizerKinds, FindsThePiecesThatSentencepieceFinds) {
  const auto tokenizer = trained(GetParam());
  TemporaryFolder folder;
  tokenizer->save(folder.path());
  sentencepiece::SentencePieceProcessor processor;
  ASSERT_TRUE(processor.Load((folder / "tokenizer.model").string()).ok());
  for (const std::string& text : training_texts()) {
    for (std::string_view rest = text; !rest.empty();) {
      const std::string_view line = rest.substr(0, rest.find('\n'));
      rest.remove_prefix(std::min(line.size() + 1, rest.size()));
      if (line.find("──") != std::string_view::npos) continue;
      std::vector<int> expected;
      ASSERT_TRUE(processor.Encode(std::string(line), &expected).ok());
      const std::vector<int64_t> ids = tokenizer->encode(line);
      if (GetParam() == TokenizerKind::bpe) {
        EXPECT_EQ(ids, std::vector<int64_t>(expected.begin(), expected.end())) << line;
      } else {
        double ours = 0, theirs = 0;
        for (const int64_t id : ids) ours += processor.GetScore(static_cast<int>(id));
        for (const int id : expected) theirs += processor.GetScore(id);
        EXPECT_NEAR(ours, theirs, 1e-4) << line;
      }
    }
  }
}

TEST_P(TokenizerKinds, TransformersLoadsItAndAgrees) {
  SWITCHYARD_NEED_PYTHON(python, "transformers,tokenizers");
  const auto tokenizer = trained(GetParam());
  TemporaryFolder folder;
  tokenizer->save(folder.path());
  nlohmann::json cases = nlohmann::json::array();
  for (const std::string& text : awkward_texts()) cases.push_back({{"text", text}, {"ids", tokenizer->encode(text)}});
  // Ids in any order, where they make text.
  const at::Tensor draws = Streams(9).integers(tokenizer->vocabulary(), {300, 12}, {.purpose = "test"});
  nlohmann::json streams = nlohmann::json::array();
  for (int64_t i = 0; i < 300; ++i) {
    const int64_t* row = draws.const_data_ptr<int64_t>() + i * 12;
    const std::vector<int64_t> ids(row, row + 12);
    if (tokenizer->bytes(ids) == tokenizer->decode(ids)) streams.push_back({{"ids", ids}, {"text", tokenizer->decode(ids)}});
  }
  EXPECT_GT(streams.size(), 10u);
  write_text(folder / "cases.json", json_text(nlohmann::json({{"encode", cases}, {"decode", streams}})));
  write_text(folder / "config.json", R"({"model_type": "mixtral"})");  // a model folder: its family must not change the tokenizer
  const auto done = run_python(python, R"(
import json, sys
from transformers import AutoTokenizer
folder = sys.argv[1]
tokenizer = AutoTokenizer.from_pretrained(folder)
cases = json.load(open(folder + '/cases.json'))
assert len(tokenizer) == 900, len(tokenizer)
assert (tokenizer.bos_token, tokenizer.eos_token) == ('<|begin|>', '<|end|>')
for case in cases['encode']:
    ids = tokenizer.encode(case['text'], add_special_tokens=False)
    assert ids == case['ids'], (case['text'], ids, case['ids'])
    assert tokenizer.decode(ids) == case['text'], (case['text'], tokenizer.decode(ids))
    assert tokenizer(case['text']).input_ids == [tokenizer.bos_token_id] + ids
for case in cases['decode']:
    text = tokenizer.decode(case['ids'], skip_special_tokens=True)
    assert text == case['text'], (case['ids'], text, case['text'])
print('agreed on', len(cases['encode']), len(cases['decode']))
)", folder.path().string());
  EXPECT_EQ(done.status, 0) << done.output;
  EXPECT_NE(done.output.find("agreed on"), std::string::npos);
}

TEST_P(TokenizerKinds, AStreamNeverSplitsACharacter) {
  const auto tokenizer = trained(GetParam());
  const auto whole = [](std::string_view text) { return utf8_repair(text) == text; };
  for (const std::string& text : awkward_texts()) {
    TextStream stream(*tokenizer);
    std::string all;
    for (const int64_t id : tokenizer->encode(text)) {
      const std::string part = stream.push(id);
      EXPECT_TRUE(whole(part)) << part;
      all += part;
      EXPECT_TRUE(text.starts_with(all));
    }
    EXPECT_EQ(stream.flush(), "");
    EXPECT_EQ(all, text);
  }
  // Whatever a model says, the parts make up the decoded whole, as far as that is text.
  const at::Tensor draws = Streams(4).integers(400, {300, 20}, {.purpose = "test"});
  for (int64_t i = 0; i < 300; ++i) {
    const int64_t* row = draws.const_data_ptr<int64_t>() + i * 20;
    const std::vector<int64_t> ids(row, row + 20);
    TextStream stream(*tokenizer);
    std::string all;
    for (const int64_t id : ids) {
      const std::string part = stream.push(id);
      EXPECT_TRUE(whole(part));
      all += part;
    }
    all += stream.flush();
    if (const std::string bytes = tokenizer->bytes(ids); whole(bytes)) {
      EXPECT_EQ(all, bytes);
      EXPECT_EQ(all, tokenizer->decode(ids));
    }
  }
}

TEST(TextStream, HoldsACharacterUntilItIsWhole) {
  const auto tokenizer = trained(TokenizerKind::bpe);
  TextStream stream(*tokenizer);
  std::vector<std::string> parts;
  for (const char* name : {"a", "<0xF0>", "<0x9F>", "<0x98>", "<0x80>", "b", "<0xF0>", "<0x9F>", "b", "<0xE6>"})
    parts.push_back(stream.push(*tokenizer->id_of(name)));
  EXPECT_EQ(parts, (std::vector<std::string>{"a", "", "", "", "😀", "b", "", "", "\xEF\xBF\xBD\xEF\xBF\xBD" "b", ""}));
  EXPECT_EQ(stream.flush(), "\xEF\xBF\xBD");
  EXPECT_EQ(stream.flush(), "");
}

TEST(TokenizerTraining, RefusesNothing) {
  const Error error = expect_error([] { (void)train_tokenizer({}, stream({"", ""})); });
  EXPECT_EQ(error.code(), "tokenizer.train");
  EXPECT_EQ(error.message(), "there is no text to train the tokenizer on");
}

/// Bytes, then the given tokens; ids 0 to 2 are special.
PieceTable table_with(TokenizerKind kind, const std::vector<std::string>& pieces) {
  PieceTable table{.kind = kind, .tokens = {"<u>", "<b>", "<e>"}, .unknown = 0, .begin = 1, .end = 2};
  for (int byte = 0; byte < 256; ++byte) table.tokens.push_back(byte_token(byte));
  table.tokens.insert(table.tokens.end(), pieces.begin(), pieces.end());
  return table;
}

std::vector<std::string> pieces_of(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<std::string> pieces;
  for (const int64_t id : tokenizer.encode(text)) pieces.push_back(tokenizer.token(id));
  return pieces;
}

using Pieces = std::vector<std::string>;

TEST(Bpe, MergesByRankThenFromTheLeft) {
  PieceTable table = table_with(TokenizerKind::bpe, {"a", "b", "c", "ab", "bc", "abc", "aa", "aaa"});
  const int32_t a = 259, b = 260, c = 261, ab = 262, bc = 263, aa = 265;
  table.merges = {{b, c}, {a, b}, {a, bc}, {ab, c}, {a, a}, {aa, a}};
  const auto tokenizer = make_tokenizer(table);
  EXPECT_EQ(pieces_of(*tokenizer, "abc"), (Pieces{"abc"}));           // bc first, then a+bc
  EXPECT_EQ(pieces_of(*tokenizer, "abab"), (Pieces{"ab", "ab"}));
  EXPECT_EQ(pieces_of(*tokenizer, "aaaaa"), (Pieces{"aa", "aaa"}));    // aa aa a, then the leftmost aa+a there is
  EXPECT_EQ(pieces_of(*tokenizer, "aabc"), (Pieces{"a", "abc"}));
  EXPECT_EQ(pieces_of(*tokenizer, "é"), (Pieces{"<0xC3>", "<0xA9>"}));
  EXPECT_EQ(pieces_of(*tokenizer, "a b"), (Pieces{"a", "<0x20>", "b"}));
  EXPECT_EQ(pieces_of(*tokenizer, ""), Pieces{});
}

// Pieces with a space inside forbid cutting the text at spaces.
TEST(Bpe, PiecesMayHoldSpaces) {
  PieceTable table = table_with(TokenizerKind::bpe, {"a", " ", "a ", "a a"});
  const int32_t a = 259, space = 260, a_space = 261;
  table.merges = {{a, space}, {a_space, a}};
  const auto tokenizer = make_tokenizer(table);
  EXPECT_EQ(pieces_of(*tokenizer, "a a a"), (Pieces{"a ", "a a"}));  // both "a " first
}

TEST(Unigram, TakesTheMostProbablePieces) {
  PieceTable table = table_with(TokenizerKind::unigram, {"a", "b", "ab", "ba", "abab", "é"});
  table.scores.assign(259, -1e6);
  table.scores.insert(table.scores.end(), {-2, -2, -3, -1, -7, -5});
  const auto tokenizer = make_tokenizer(table);
  EXPECT_EQ(pieces_of(*tokenizer, "ab"), (Pieces{"ab"}));                // -3 against -4
  EXPECT_EQ(pieces_of(*tokenizer, "abab"), (Pieces{"a", "ba", "b"}));    // -5 against -6 and -7
  EXPECT_EQ(pieces_of(*tokenizer, "éab"), (Pieces{"é", "ab"}));
  EXPECT_EQ(pieces_of(*tokenizer, "aēb"), (Pieces{"a", "<0xC4>", "<0x93>", "b"}));
}

std::string edited(const std::function<void(nlohmann::ordered_json&)>& edit) {
  PieceTable table = table_with(TokenizerKind::bpe, {"a", "b", "ab"});
  table.merges = {{259, 260}};
  auto root = ordered_json_from(piece_table_files(table).at("tokenizer.json"));
  edit(root);
  return json_text(root);
}

TEST(TokenizerFiles, RefusesWhatItCannotRead) {
  struct Case { const char* name; std::string text, code, message; };
  const std::string format = "tokenizer.format", unsupported = "tokenizer.unsupported";
  const Case cases[] = {
      {"no JSON", "{", format, ""},
      {"a list", "[]", format, "F is no JSON object"},
      {"no model", "{}", format, "F has no \"model\""},
      {"another model", edited([](auto& r) { r["model"]["type"] = "Neural"; }), unsupported, "F.model of type \"Neural\" is not supported"},
      {"another normalizer", edited([](auto& r) { r["normalizer"] = {{"type", "Rot13"}}; }), unsupported,
       "F.normalizer of type \"Rot13\" is not supported"},
      {"another pre-tokenizer", edited([](auto& r) { r["pre_tokenizer"] = {{"type", "Rot13"}}; }), unsupported,
       "F.pre_tokenizer of type \"Rot13\" is not supported"},
      {"another decoder", edited([](auto& r) { r["decoder"] = {{"type", "Rot13"}}; }), unsupported, "F.decoder of type \"Rot13\" is not supported"},
      {"dropout", edited([](auto& r) { r["model"]["dropout"] = 0.1; }), unsupported,
       "F.model.dropout is 0.1: merges left out at random belong to training; set it to null"},
      {"an id far away", edited([](auto& r) { r["model"]["vocab"]["a"] = 1000000; }), format,
       "token \"a\" has id 1000000, but the vocabulary has 262 tokens"},
      {"an id that is none", edited([](auto& r) { r["model"]["vocab"]["a"] = -1; }), format, "F.model.vocab: the id of \"a\" is -1"},
      {"an id twice", edited([](auto& r) { r["model"]["vocab"]["b"] = 259; }), format, "id 259 is given to \"a\" and to \"b\""},
      {"a merge of strangers", edited([](auto& r) { r["model"]["merges"][0][0] = "q"; }), format,
       "merge 0 names \"q\", which is not in the vocabulary"},
      {"a merge that is no pair", edited([](auto& r) { r["model"]["merges"][0] = "ab"; }), format,
       "F.model.merges[0] is \"ab\", not two tokens with a space between"},
      {"a merge to nowhere", edited([](auto& r) { std::swap(r["model"]["merges"][0][0], r["model"]["merges"][0][1]); }), format,
       "merge 0 gives \"ba\", which is not in the vocabulary"},
      {"no merges", edited([](auto& r) { r["model"].erase("merges"); }), format, "F.model has no \"merges\""},
      {"a type that is none", edited([](auto& r) { r["added_tokens"][0]["id"] = "x"; }), format,
       "F.added_tokens[0].id is \"x\", not a whole number up to 2147483648"},
      {"a pattern that is none", edited([](auto& r) {
         r["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"Regex", "(a"}}}, {"behavior", "Isolated"}, {"invert", false}};
       }), "tokenizer.regex", "the regular expression (a cannot be used: missing closing parenthesis (at byte 2 of (a)"},
      {"a token of the template that is nowhere", edited([](auto& r) { r["post_processor"]["special_tokens"] = nlohmann::ordered_json::object(); }), format,
       "F.post_processor.single[0] names the special token \"<b>\", which special_tokens does not have"},
  };
  for (const Case& c : cases) {
    TemporaryFolder folder;
    const std::string file = (folder / "tokenizer.json").string();
    write_text(file, c.text);
    const Error error = expect_error([&] { (void)load_tokenizer(folder.path()); });
    EXPECT_EQ(error.code(), c.code) << c.name;
    std::string message = c.message;
    if (!message.empty()) message = file + (message.starts_with("F") ? message.substr(1) : ": " + message);
    if (message.empty()) {
      EXPECT_TRUE(error.message().starts_with(file)) << error.message();
    } else {
      EXPECT_EQ(error.message(), message) << c.name;
    }
  }
  const Error error = expect_error([] { (void)load_tokenizer("/nowhere"); });
  EXPECT_EQ(error.code(), "tokenizer.missing");
  EXPECT_EQ(error.message(), "/nowhere does not exist; a folder with tokenizer.json or a tokenizer file is wanted");
}

// What the library decodes with rules for decoded text: at once, and as the ids come.
TEST(TokenizerFiles, NoRegularFileIsNotReadFrom) {
  TemporaryFolder folder;
  ASSERT_EQ(::mkfifo((folder / "tokenizer.json").c_str(), 0600), 0);  // nobody writes into it
  EXPECT_EQ(expect_error([&] { (void)load_tokenizer(folder / "tokenizer.json"); }).code(), "tokenizer.missing");
  EXPECT_EQ(expect_error([&] { (void)load_tokenizer(folder.path()); }).code(), "tokenizer.missing");
}

TEST(TokenizerFiles, WhatATokenIsCalledMakesItSpecial) {
  TemporaryFolder folder;
  write_text(folder / "tokenizer.json", R"({"model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0], ["a", -1], ["<unk>", -2]]},
      "added_tokens": [{"id": 2, "content": "<unk>", "special": true, "normalized": false}]})");
  const auto tokenizer = load_tokenizer(folder.path());
  EXPECT_EQ(tokenizer->decode({1, 0, 2}, true), "a");
}

// As Oniguruma and Rust of today see characters, whatever the tables of this machine's libraries.
TEST(Characters, OfUnicode15And16) {
  using unicode::is;
  EXPECT_TRUE(is(0x31350, unicode::kLetter)) << "an ideograph of extension H";
  EXPECT_TRUE(is(0xA7CB, unicode::kUpper) && is(0xA7CD, unicode::kLower) && is(0x16130, unicode::kNumber) && is(0x1E4F0, unicode::kNumber));
  EXPECT_TRUE(is(0x897, unicode::kMark) && is(0x1B4E, unicode::kPunctuation) && is(0x2427, unicode::kSymbol));
  EXPECT_FALSE(is(0x323B0, 0xFF)) << "came later";
  EXPECT_TRUE(unicode::is_word(0x16131));
  EXPECT_FALSE(unicode::is_punctuation(0x1B4E) || unicode::is_combining_mark(0x897)) << "these rules have older tables";
  std::vector<Edit> lower;
  for (const char32_t c : {U'\uA7CB', U'\uA7DA', U'\U00010D50', U'\u0130', U'\u0394'}) unicode::append_lower(lower, c);
  std::u32string text;
  for (const Edit& edit : lower) text += edit.character;
  EXPECT_EQ(text, U"\u0264\uA7DB\U00010D70i\u0307\u03B4");
  std::vector<Span> found;
  const auto matches = [&](const char* pattern, std::string_view in) {
    Regex(pattern, RegexDialect::ruby).find_all(in, found);
    std::vector<std::string> texts;
    for (const Span& span : found) texts.emplace_back(in.substr(span.begin, span.end - span.begin));
    return texts;
  };
  using Texts = std::vector<std::string>;
  EXPECT_EQ(matches(R"(\p{L}+)", "a\U00031350\u1C89 1"), (Texts{"a\U00031350\u1C89"}));
  EXPECT_EQ(matches(R"(\p{Han}+)", "a\U00031350\u4E00b"), (Texts{"\U00031350\u4E00"}));
  EXPECT_EQ(matches(R"([^\s\p{L}\p{N}]+)", "\uE000\U00011399\uE001\U0001CCF0\u2427"), (Texts{"\uE000", "\uE001", "\u2427"}));
  EXPECT_EQ(matches(R"(\w+)", "\u00B2\u00BDx\u00D7\u2074"), (Texts{"\u00B2\u00BDx"})) << "Oniguruma's words of Latin-1 hold its fractions";
  const auto normal = [](std::string text, unicode::Form form) {
    AlignedText aligned{.text = std::move(text), .origins = {}, .base = 0, .tracked = false};
    unicode::normalise(aligned, form);
    return aligned.text;
  };
  EXPECT_EQ(normal("\u32FE\u32FF\u1E30\U0001E030", unicode::Form::nfkd), "\u30F2\u32FFK\u0301\U0001E030") << "normal forms stand at Unicode 9";
  EXPECT_EQ(normal("a\u1AC1\u0334", unicode::Form::nfd), "a\u1AC1\u0334");
  EXPECT_EQ(normal("a\u0301\u0334", unicode::Form::nfd), "a\u0334\u0301");
}

TEST(SentencePieceFiles, DecodedTextIsChangedAsTheLibraryDoes) {
  SentencePieceTable table = read_sentencepiece_model(read_file(testing::golden("tokenizers/t5/tokenizer.model")), "t5");
  for (const bool blanks : {false, true}) {
    auto rules = std::make_shared<SentencePieceTable>();
    rules->character_map = table.character_map;  // compatibility forms, letters with their marks, blanks of every kind
    rules->add_dummy_prefix = rules->remove_extra_whitespaces = blanks;
    rules->escape_whitespaces = false;
    table.denormaliser = rules;
    for (const char* piece : {"e", "\xCC\x81", "\xEF\xAC\x81", "\xE2\x91\xA0"})  // e, acute, fi, 1 in a circle
      if (std::find(table.pieces.begin(), table.pieces.end(), piece) == table.pieces.end()) {
        table.pieces.push_back(piece);
        table.scores.push_back(-20);
        table.types.push_back(SentencePieceTable::kUserDefined);
      }
    TemporaryFolder folder;
    const std::string model = write_sentencepiece_model(table);
    write_text(folder / "x.model", model);
    const auto ours = load_tokenizer(folder / "x.model");
    sentencepiece::SentencePieceProcessor library;
    ASSERT_TRUE(library.LoadFromSerializedProto(model).ok());
    const auto size = static_cast<int64_t>(table.pieces.size());
    for (uint64_t round = 0; round < 100; ++round) {
      const at::Tensor draw = Streams(round).integers(24, {12}, {.purpose = "ids"});
      std::vector<int64_t> ids;
      std::vector<int> same;
      for (int64_t i = 0; i < 12; ++i) {  // half of them among the last pieces
        const int64_t n = draw[i].item<int64_t>();
        ids.push_back(n < 12 ? size - 1 - n % 6 : 3 + (n * 37 + i * 11) % (size - 3));
        same.push_back(static_cast<int>(ids.back()));
      }
      std::string wanted;
      ASSERT_TRUE(library.Decode(same, &wanted).ok());
      EXPECT_EQ(ours->decode(ids, false), wanted);
      TextStream stream(*ours, false);
      std::string together;
      for (const int64_t id : ids) together += stream.push(id);
      EXPECT_EQ(together + stream.flush(), wanted);
    }
  }
}

// As sentencepiece 0.2.3 has it: a text cannot spell a control token, even where its name is a word or a character.
TEST(SentencePieceFiles, ControlTokensAreNotFoundInTexts) {
  using Table = SentencePieceTable;
  for (const Table::Kind kind : {Table::Kind::bpe, Table::Kind::unigram, Table::Kind::character, Table::Kind::word}) {
    const Table table{.kind = kind, .pieces = {"<unk>", "<s>", "</s>", "Q", "a", "b"}, .scores = {0, 0, 0, 0, -1, -2},
                      .types = {Table::kUnknown, Table::kControl, Table::kControl, Table::kControl, Table::kNormal, Table::kNormal},
                      .add_dummy_prefix = false};
    TemporaryFolder folder;
    write_text(folder / "x.model", write_sentencepiece_model(table));
    const auto tokenizer = load_tokenizer(folder / "x.model");
    using Ids = std::vector<int64_t>;
    EXPECT_EQ(tokenizer->encode("Q"), (Ids{0})) << static_cast<int>(kind);
    EXPECT_EQ(tokenizer->encode("</s>"), (Ids{0})) << static_cast<int>(kind);
    EXPECT_EQ(tokenizer->encode("aQb"), kind == Table::Kind::word ? (Ids{0}) : (Ids{4, 0, 5})) << static_cast<int>(kind);
  }
}

TEST(TokenizerFiles, WithoutBeginOrEnd) {
  PieceTable table = table_with(TokenizerKind::bpe, {"a"});
  table.begin.reset();
  table.end.reset();
  TemporaryFolder folder;
  make_tokenizer(table)->save(folder.path());
  const auto loaded = load_tokenizer(folder.path());
  EXPECT_FALSE(loaded->begin_id());
  EXPECT_FALSE(loaded->end_id());
}

}  // namespace
}  // namespace switchyard
