#include "switchyard/base/node.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>

#include "switchyard/base/files.h"
#include "tests/files.h"
#include "tests/support.h"

namespace switchyard {
namespace {

using testing::expect_error;
using ::testing::HasSubstr;
using testing::TemporaryFolder;

Error yaml_error(const std::string& text) {
  return expect_error([&] { (void)parse_yaml(text, "recipe.yaml"); });
}
Error json_error(const std::string& text) {
  return expect_error([&] { (void)parse_json(text, "config.json"); });
}

/// Equal in kind, text and order; marks and quotes aside.
bool same(const Node& a, const Node& b) {
  if (a.kind() != b.kind() || a.scalar() != b.scalar() || a.items().size() != b.items().size() ||
      a.entries().size() != b.entries().size())
    return false;
  for (size_t i = 0; i < a.items().size(); ++i)
    if (!same(a.items()[i], b.items()[i])) return false;
  for (size_t i = 0; i < a.entries().size(); ++i)
    if (a.entries()[i].first != b.entries()[i].first || !same(a.entries()[i].second, b.entries()[i].second))
      return false;
  return true;
}

TEST(Yaml, KeepsKindsTextOrderAndLines) {
  const Node root =
      parse_yaml("steps: 100\nname: \"5\"\nnothing: ~\nempty:\nlist: [1, two]\nmap:\n  b: 1\n  a: 2\n", "recipe.yaml");
  ASSERT_TRUE(root.is_map());
  EXPECT_EQ(root.find("steps")->scalar(), "100");
  EXPECT_FALSE(root.find("steps")->quoted());
  EXPECT_TRUE(root.find("name")->quoted());
  EXPECT_TRUE(root.find("nothing")->is_null());
  EXPECT_TRUE(root.find("empty")->is_null());
  EXPECT_EQ(root.find("list")->items().size(), 2u);
  EXPECT_EQ(root.find("map")->entries()[0].first, "b");
  EXPECT_EQ(root.find("map")->find("a")->where(), "recipe.yaml:8");
  EXPECT_EQ(root.find("absent"), nullptr);
}

TEST(Yaml, AnEmptyTextIsNull) {
  EXPECT_TRUE(parse_yaml("", "x").is_null());
  EXPECT_TRUE(parse_yaml("# only a remark\n", "x").is_null());
}

TEST(Yaml, RefusesDuplicateKeysNamingBothLines) {
  const Error error = yaml_error("a: 1\nb: 2\na: 3\n");
  EXPECT_EQ(error.code(), "yaml.duplicate_key");
  EXPECT_EQ(error.message(), "recipe.yaml:3: 'a' appears twice (first at line 1); keep one");
  EXPECT_EQ(yaml_error("{a: 1, a: 1}").code(), "yaml.duplicate_key");
}

TEST(Yaml, RefusesSyntaxErrorsWithTheirLine) {
  const Error error = yaml_error("a: 1\nb: [1, 2\nc: 3\n");
  EXPECT_EQ(error.code(), "yaml.syntax");
  EXPECT_THAT(error.message(), HasSubstr("recipe.yaml:"));
  EXPECT_EQ(yaml_error("a: 1\n---\nb: 2\n").code(), "yaml.syntax");
  EXPECT_EQ(yaml_error("a: \"unfinished").code(), "yaml.syntax");
  EXPECT_EQ(yaml_error("\t- a").code(), "yaml.syntax");
  EXPECT_EQ(yaml_error("a: *nowhere").code(), "yaml.syntax");
}

TEST(Yaml, RefusesKeysThatAreNoText) {
  EXPECT_EQ(yaml_error("? [1, 2]\n: 3\n").code(), "yaml.key");
  EXPECT_EQ(yaml_error("? {a: 1}\n: 3\n").code(), "yaml.key");
  EXPECT_EQ(yaml_error("~: 3\n").code(), "yaml.key");
}

TEST(Yaml, RefusesTagsThatAskForObjects) {
  const Error error = yaml_error("a: !!python/object:os.system ls\n");
  EXPECT_EQ(error.code(), "yaml.tag");
  EXPECT_THAT(error.message(), HasSubstr("recipe.yaml:1"));
  EXPECT_EQ(yaml_error("!mine {a: 1}").code(), "yaml.tag");
  EXPECT_TRUE(parse_yaml("a: !!str 5", "x").find("a")->quoted());
}

TEST(Yaml, AliasesStandForTheirValue) {
  const Node root = parse_yaml("base: &b {k: 2}\nmine: *b\n", "x");
  EXPECT_TRUE(same(*root.find("base"), *root.find("mine")));
  EXPECT_EQ(root.find("mine")->mark().line, 2);
  EXPECT_EQ(yaml_error("a: &a [1, *a]\n").code(), "yaml.alias");
}

TEST(Yaml, RefusesAliasesThatMultiply) {
  // Nine levels of nine: 9^9 values from a few hundred bytes.
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n";
  for (int level = 1; level <= 9; ++level) {
    const std::string below = "*a" + std::to_string(level - 1);
    bomb += "a" + std::to_string(level) + ": &a" + std::to_string(level) + " [" + below;
    for (int i = 1; i < 9; ++i) bomb += ", " + below;
    bomb += "]\n";
  }
  EXPECT_EQ(yaml_error(bomb).code(), "yaml.size");
}

TEST(Yaml, RefusesAnchorsThatMultiply) {
  std::string deep, end;
  for (int level = 0; level < 60; ++level) {
    deep += "&a" + std::to_string(level) + " [";
    end += "]";
  }
  for (int i = 0; i < 50000; ++i) deep += "1,";
  EXPECT_EQ(yaml_error(deep + "1" + end).code(), "yaml.size");
}

TEST(Yaml, RefusesDepthAndSize) {
  EXPECT_EQ(yaml_error(std::string(100, '[') + std::string(100, ']')).code(), "yaml.depth");
  EXPECT_EQ(yaml_error(std::string(200000, '[') + std::string(200000, ']')).code(), "yaml.depth");
  std::string maps;
  for (int i = 0; i < 100000; ++i) maps += "{a: ";
  EXPECT_EQ(yaml_error(maps + std::string(100000, '}')).code(), "yaml.depth");
  std::string indented;
  for (int i = 0; i < 200; ++i) indented += std::string(static_cast<size_t>(i), ' ') + "a:\n";
  EXPECT_EQ(yaml_error(indented).code(), "yaml.depth");
  EXPECT_EQ(yaml_error(std::string(17u << 20, ' ')).code(), "yaml.size");
  std::string many = "[";
  for (int i = 0; i < 300000; ++i) many += "1,";
  EXPECT_EQ(yaml_error(many + "1]").code(), "yaml.size");
}

TEST(Yaml, RefusesRubbishWithoutCrashing) {
  Streams random(3);
  const char alphabet[] = "ab:-?[]{},&*!|>'\"%@`#\n\t 01~\\\xc3\xff";
  for (int64_t trial = 0; trial < 3000; ++trial) {
    const at::Tensor draw = random.integers(sizeof alphabet - 1, {40}, {.purpose = "rubbish", .step = trial});
    std::string text;
    for (int i = 0; i < 40; ++i) text += alphabet[draw.data_ptr<int64_t>()[i]];
    try {
      const Node node = parse_yaml(text, "x");
      (void)to_json(node);
    } catch (const Error& error) {
      EXPECT_TRUE(error.code().starts_with("yaml.")) << error.what();
    }
  }
}

/// A random tree with texts that are awkward to write.
Node random_tree(const Streams& random, int64_t trial, int64_t& counter, int depth) {
  auto draw = [&](int64_t n) {
    return random.integers(n, {1}, {.purpose = "tree", .step = trial, .micro = counter++}).data_ptr<int64_t>()[0];
  };
  static const std::vector<std::string> kTexts{
      "plain",     "",        "null",       "~",           "true",       "1e5",
      "0x10",      "- dash",  "a: b",       "# no remark", "  spaces  ", "two\nlines",
      "tab\there", "'quote'", "\"double\"", "\\",          "ünïcode ☃",  "*star",
      "&and",      "!tag",    "%percent",   "@at",         "[",          "{",
      ",",         "?",       "-",          ":",           "|",          ">",
      "=",         "1.0",     "...",        "---",         "<<",         std::string("nul\0byte", 8),
      "\x7f",      "\x1b[0m"};
  const int64_t kind = depth == 0 ? 0 : draw(4);
  if (kind <= 1) {
    Node scalar(kTexts[static_cast<size_t>(draw(static_cast<int64_t>(kTexts.size())))]);
    scalar.set_quoted(true);
    return scalar;
  }
  Node node = kind == 2 ? Node::list() : Node::map();
  for (int64_t i = draw(4); i > 0; --i) {
    Node below = random_tree(random, trial, counter, depth - 1);
    if (kind == 2)
      node.append(std::move(below));
    else
      node[kTexts[static_cast<size_t>(draw(static_cast<int64_t>(kTexts.size())))]] = std::move(below);
  }
  return node;
}

TEST(Yaml, WritesWhatItReads) {
  const Streams random(11);
  for (int64_t trial = 0; trial < 400; ++trial) {
    int64_t counter = 0;
    const Node tree = random_tree(random, trial, counter, 4);
    const std::string text = to_yaml(tree);
    EXPECT_TRUE(same(tree, parse_yaml(text, "written"))) << text;
    EXPECT_TRUE(same(tree, parse_json(to_json(tree), "written"))) << to_json(tree);
    EXPECT_TRUE(same(tree, parse_json(to_json(tree, -1), "written")));
  }
}

TEST(Yaml, QuotesSurviveWriting) {
  const Node root = parse_yaml("a: \"1\"\nb: 1\nc: ~\nd: \"null\"\n", "x");
  EXPECT_EQ(to_json(root, -1), R"({"a":"1","b":1,"c":null,"d":"null"})");
  EXPECT_EQ(to_json(parse_yaml(to_yaml(root), "x"), -1), to_json(root, -1));
}

TEST(Json, KeepsNumbersAsTheyWereWritten) {
  const Node root =
      parse_json(R"({"eps": 1e-05, "big": 18446744073709551615, "neg": -3, "f": 0.10, "b": true, "t": "5"})", "x");
  EXPECT_EQ(root.find("eps")->scalar(), "1e-05");
  EXPECT_EQ(root.find("big")->scalar(), "18446744073709551615");
  EXPECT_EQ(root.find("f")->scalar(), "0.10");
  EXPECT_EQ(to_json(root, -1), R"({"eps":1e-05,"big":18446744073709551615,"neg":-3,"f":0.10,"b":true,"t":"5"})");
}

TEST(Json, RefusesHostileInput) {
  EXPECT_EQ(json_error("{\"a\": 1,\n \"b\": }").code(), "json.syntax");
  EXPECT_THAT(json_error("{\"a\": 1,\n \"b\": }").message(), HasSubstr("config.json:2"));
  EXPECT_EQ(json_error("").code(), "json.syntax");
  EXPECT_EQ(json_error("{} {}").code(), "json.syntax");
  EXPECT_EQ(json_error("{\"a\": \"\xff\"}").code(), "json.syntax");
  EXPECT_EQ(json_error("{\"a\": 1, \"a\": 2}").code(), "json.duplicate_key");
  EXPECT_EQ(json_error(std::string(1000000, '[')).code(), "json.depth");
}

TEST(Json, MarksLines) {
  const Node root = parse_json("{\n\"a\": 1,\n\"b\": {\n\"c\": 2}\n}", "config.json");
  EXPECT_EQ(root.find("b")->find("c")->where(), "config.json:4");
}

TEST(Yaml, IncludesLieBelowTheFilesOwnKeys) {
  const TemporaryFolder folder;
  write_file_atomically(folder / "base.yaml", "train: {steps: 10, batch: 4}\nrouter: {type: a, k: 2}\n");
  write_file_atomically(folder / "other.yaml", "train: {batch: 8}\nextra: 1\n");
  std::filesystem::create_directory(folder / "sub");
  write_file_atomically(folder / "sub/own.yaml",
                        "include: [../base.yaml, ../other.yaml]\ntrain: {steps: 20}\nrouter: {type: b, j: 3}\n");
  const Node root = load_yaml((folder / "sub/own.yaml").string());
  EXPECT_EQ(to_json(root, -1), R"({"train":{"steps":20,"batch":8},"router":{"type":"b","j":3},"extra":1})");
  EXPECT_THAT(root.find("train")->find("batch")->where(), HasSubstr("other.yaml:1"));
}

TEST(Yaml, IncludesThatFailSayWhere) {
  const TemporaryFolder folder;
  write_file_atomically(folder / "a.yaml", "include: b.yaml\n");
  write_file_atomically(folder / "b.yaml", "\ninclude: a.yaml\n");
  const Error cycle = expect_error([&] { (void)load_yaml((folder / "a.yaml").string()); });
  EXPECT_EQ(cycle.code(), "yaml.include_cycle");
  EXPECT_THAT(cycle.message(), HasSubstr("b.yaml:2"));
  write_file_atomically(folder / "c.yaml", "x: 1\ninclude: nowhere.yaml\n");
  const Error missing = expect_error([&] { (void)load_yaml((folder / "c.yaml").string()); });
  EXPECT_EQ(missing.code(), "file.missing");
  EXPECT_THAT(missing.message(), HasSubstr("c.yaml:2"));
  write_file_atomically(folder / "d.yaml", "include: {a: 1}\n");
  EXPECT_EQ(expect_error([&] { (void)load_yaml((folder / "d.yaml").string()); }).code(), "yaml.include");
  write_file_atomically(folder / "list.yaml", "[1, 2]\n");
  write_file_atomically(folder / "e.yaml", "include: list.yaml\n");
  EXPECT_EQ(expect_error([&] { (void)load_yaml((folder / "e.yaml").string()); }).code(), "yaml.include");
  EXPECT_EQ(expect_error([&] { (void)load_yaml((folder / "none.yaml").string()); }).code(), "file.missing");
}

TEST(Yaml, IncludesCannotMultiply) {
  const TemporaryFolder folder;
  write_file_atomically(folder / "0.yaml", "x: 1\n");
  for (int i = 1; i <= 30; ++i) {
    const std::string below = std::to_string(i - 1) + ".yaml";
    write_file_atomically(folder / (std::to_string(i) + ".yaml"), "include: [" + below + ", " + below + "]\n");
  }
  EXPECT_EQ(expect_error([&] { (void)load_yaml((folder / "30.yaml").string()); }).code(), "yaml.include");
}

struct Case {
  std::string before, override_text, after;
};

TEST(Override, SetsValuesByPath) {
  const std::vector<Case> cases{
      {"{train: {steps: 1}}", "train.steps=100", R"({"train":{"steps":100}})"},
      {"{}", "a.b.c=x", R"({"a":{"b":{"c":"x"}}})"},
      {"{}", "a=", R"({"a":null})"},
      {"{}", "a=b=c", R"({"a":"b=c"})"},
      {"{}", "a=[1, {b: 2}]", R"({"a":[1,{"b":2}]})"},
      {"{}", "a=\"1\"", R"({"a":"1"})"},
      {"{m: [{k: 1}, {k: 2}]}", "m.1.k=9", R"({"m":[{"k":1},{"k":9}]})"},
      {"{m: [1]}", "m.1=2", R"({"m":[1,2]})"},
      {"{}", "m.0.k=2", R"({"m":[{"k":2}]})"},
      {"{router: switch-top1}", "router.jitter=0.1", R"({"router":{"type":"switch-top1","jitter":0.1}})"},
      {"{router: {type: a, k: 1}}", "router=b", R"({"router":"b"})"},
  };
  for (const Case& c : cases) {
    Node root = parse_yaml(c.before, "recipe.yaml");
    apply_override(root, c.override_text);
    EXPECT_EQ(to_json(root, -1), c.after) << c.override_text;
  }
}

TEST(Override, RefusesWhatNamesNothing) {
  for (const char* text : {"train.steps", "=5", "train..steps=5", "m.2=1", "m.x=1", "m.99999999999=1", "n.k=1"}) {
    Node root = parse_yaml("{m: [1], n: 5}", "recipe.yaml");
    EXPECT_EQ(expect_error([&] { apply_override(root, text); }).code(), "options.override") << text;
  }
  Node root = parse_yaml("{}", "recipe.yaml");
  const Error open = expect_error([&] { apply_override(root, "a=[1"); });
  EXPECT_EQ(open.code(), "yaml.key");  // yaml-cpp takes the open list for a key
  EXPECT_THAT(open.message(), HasSubstr("is its bracket closed?"));
}

TEST(Override, IsNamedInLaterErrors) {
  Node root = parse_yaml("{train: {steps: 1}}", "recipe.yaml");
  apply_override(root, "train.steps=ten");
  EXPECT_EQ(root.find("train")->find("steps")->where(), "override 'train.steps=ten'");
}

}  // namespace
}  // namespace switchyard
