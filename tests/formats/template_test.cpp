#include "switchyard/base/json.h"
#include "switchyard/formats/template/chat_template.h"

#include <gtest/gtest.h>

#include <fstream>

#include "switchyard/base/files.h"
#include "switchyard/formats/gguf.h"
#include "switchyard/formats/template/json_value.h"
#include "tests/files.h"

namespace switchyard {
namespace {

using Json = nlohmann::ordered_json;
using testing::golden;
using testing::TemporaryFolder;
using testing::write_text;

constexpr jinja::Clock kNow{2025, 3, 4, 5, 6, 7, 0};

std::vector<Json> rows(const std::string& name) {
  std::ifstream file(golden("templates/" + name));
  std::vector<Json> all;
  for (std::string line; std::getline(file, line);) all.push_back(ordered_json_from(line));
  return all;
}

std::string rendered(const std::string& text, const std::string& variables = "{}", const jinja::Limits& limits = {}) {
  return ChatTemplate::parse(text).render(jinja::from_json(variables, "variables"), {.now = kNow, .limits = limits}).text;
}

/// The error of a template that must fail; an empty one when it does not.
TemplateError failure(const std::string& text, const std::string& variables = "{}", const jinja::Limits& limits = {}) {
  try {
    ADD_FAILURE() << text.substr(0, 300) << " gives " << rendered(text, variables, limits).substr(0, 200);
  } catch (const TemplateError& error) {
    return error;
  }
  return {"", {}};
}

TEST(Templates, PublishedTemplatesRenderAsInTransformers) {
  const Json inputs = ordered_json_from(read_file(golden("templates/inputs.json")));
  std::map<std::string, Json> by_name;
  for (const Json& input : inputs["inputs"]) by_name[input["name"]] = input;
  TemporaryFolder folder;
  int64_t exact = 0;
  std::map<std::string, ChatTemplates> loaded;
  for (const Json& row : rows("cases.jsonl")) {
    const std::string file = row["template"];
    if (!loaded.contains(file)) {
      std::filesystem::create_directory(folder / file);
      std::filesystem::copy_file(golden("templates/" + file), folder / file / "chat_template.jinja");
      write_text(folder / file / "tokenizer_config.json", json_text(inputs["variables"]));
      loaded.emplace(file, ChatTemplates::load(folder / file));
    }
    Json request = by_name.at(row["input"]);
    request.erase("name");
    const Json extra = request.value("extra", Json::object());
    request.erase("extra");
    request.update(extra);
    request["now"] = inputs["now"];
    const std::string label = file + " with " + row["input"].get<std::string>();
    try {
      const RenderedChat chat = loaded.at(file).prompt(json_text(request));
      ASSERT_TRUE(row.contains("output")) << label << " must fail";
      EXPECT_EQ(chat.text, row["output"].get<std::string>()) << label;
      const Json spans = row.value("generation_spans", Json::array());
      EXPECT_EQ(Json(chat.generations), spans) << label;
    } catch (const TemplateError& error) {
      ASSERT_TRUE(row.contains("error")) << label << ": " << error.what();
      if (!row["error"]["message_exact"].get<bool>()) continue;
      EXPECT_EQ(error.code(), "template.raised") << label;
      EXPECT_EQ(error.reason(), row["error"]["message"].get<std::string>()) << label;
      ++exact;
    }
  }
  EXPECT_GE(exact, 9);
}

TEST(Templates, EveryFeatureBehavesAsInJinja) {
  const std::string first = json_text(ordered_json_from(read_file(golden("templates/snippet_context.json")))["context"]);
  // Read as it stands: it has numbers that this test's own reader would round.
  const std::string second = read_file(golden("templates/more_context.json"));
  for (const auto& [file, context] : {std::pair("snippets.jsonl", first), {"more_snippets.jsonl", second}}) {
    for (const Json& row : rows(file)) {
      const std::string text = row["template"];
      try {
        const std::string output = rendered(text, context);
        ASSERT_TRUE(row.contains("output")) << text << " must fail with " << row["error"] << " and gives " << output;
        EXPECT_EQ(output, row["output"].get<std::string>()) << text;
      } catch (const TemplateError& error) {
        ASSERT_TRUE(row.contains("error")) << text << ": " << error.what();
        const bool exact = row["error"].value("message_exact", false);
        EXPECT_TRUE(!exact || error.reason() == row["error"]["message"].get<std::string>()) << text << ": " << error.reason();
      }
    }
  }
}

TEST(Templates, TheLastMessageCanBeLeftOpen) {
  TemporaryFolder folder;
  write_text(folder / "tokenizer_config.json", R"({"bos_token": "<s>", "eos_token": {"content": "</s>"}})");
  for (Json row : rows("continue.jsonl")) {
    std::filesystem::copy_file(golden("templates/" + row["template"].get<std::string>()), folder / "chat_template.jinja",
                               std::filesystem::copy_options::overwrite_existing);
    const std::string expected = row["output"];
    row.erase("template");
    row.erase("output");
    EXPECT_EQ(ChatTemplates::load(folder.path()).prompt(json_text(row)).text, expected) << row;
  }
}

TEST(Templates, ErrorsNameLineAndExpression) {
  const TemplateError undefined = failure("a\n{% if true %}\n  {{ 'x' ~ message.role }}\n{% endif %}");
  EXPECT_EQ(undefined.code(), "template.undefined");
  EXPECT_EQ(undefined.reason(), "'message' is undefined");
  EXPECT_EQ(undefined.line(), 3);
  EXPECT_EQ(undefined.expression(), "message.role");
  EXPECT_EQ(undefined.message(), "chat template line 3, `message.role`: 'message' is undefined");
  const TemplateError unpacked = failure("\n\n{% for a, b in [[1, 2, 3]] %}{% endfor %}");
  EXPECT_EQ(unpacked.line(), 3);
  EXPECT_EQ(unpacked.expression(), "for a, b in [[1, 2, 3]]");
  const TemplateError syntax = failure("{{ 1 }}\n{% for x in y %}\n");
  EXPECT_EQ(syntax.code(), "template.syntax");
  EXPECT_EQ(syntax.line(), 2);
  EXPECT_NE(syntax.reason().find("'for' of line 2 is still open"), std::string::npos) << syntax.reason();
  EXPECT_EQ(failure("{{ raise_exception('No ' ~ 1) }}").reason(), "No 1");
  EXPECT_EQ(failure("{{ n|nofilter }}").code(), "template.name");
  EXPECT_EQ(failure("{{ [].append(1) }}").code(), "template.security");
  EXPECT_EQ(failure("{{ 1 / 0 }}").code(), "template.zero");
  EXPECT_EQ(failure("{% include 'x' %}").code(), "template.unsupported");
  EXPECT_EQ(failure("\xff").code(), "template.encoding");
}

/// Each must stop with a limit's error, at once and without eating memory.
TEST(Templates, HostileTemplatesAreStopped) {
  const auto stopped = [](const std::string& text, const std::string& words, const std::string& code = "template.limit") {
    const TemplateError error = failure(text, "{}", {.steps = words == "steps" ? 1'500'000 : jinja::Limits().steps});
    EXPECT_EQ(error.code(), code) << text.substr(0, 300) << ": " << error.reason();
    EXPECT_NE(error.reason().find(words), std::string::npos) << error.reason();
  };
  const std::string far = "{% for a in range(100000) %}{% for b in range(100000) %}";
  stopped(far + "{% endfor %}{% endfor %}", "steps");
  stopped(far + "{{ 'x' * 10000 }}{% endfor %}{% endfor %}", "writes more than");
  stopped("{{ 'x' * 10 ** 12 }}", "a text of more than");
  stopped("{{ [1] * 10 ** 12 }}", "more than memory allows");
  stopped("{{ range(1000000) }}", "Range too big");
  stopped("{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}", "a text of more than");
  stopped("{% set ns = namespace(s='x' * 1000000, l=[]) %}{% for i in range(99999) %}{% set ns.l = ns.l + [ns.s ~ i] %}{% endfor %}", "memory");
  stopped("{% set ns = namespace(l=[1]) %}{% for i in range(99) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}", "holds more than");
  stopped("{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = [ns.l] %}{% endfor %}", "nest more than");
  stopped("{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = [ns.l.index] %}{% endfor %}", "nest more than");
  stopped("{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = ns.l|map('string') %}{% endfor %}", "nest more than");
  stopped("{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = []|map('default', ns.l) %}{% endfor %}", "nest more than");
  stopped("{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% for x in [ns.l] %}{% set ns.l = loop %}{{ loop.index }}{% endfor %}{% endfor %}",
          "nest more than");
  stopped("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "nests more than");
  stopped("{% macro m() %}{{ caller is defined }}{% call m() %}{% endcall %}{% endmacro %}{{ m() }}", "nests more than");
  stopped("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", "nests more than");
  stopped("{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}", "nests more than");
  stopped("{{ 'x'.center(10 ** 12) }}", "a text of more than");
  stopped("{{ 'x'|indent(10 ** 12) }}", "a text of more than");
  stopped("{{ '%999999999999d' % 1 }}", "a text of more than");
  stopped("{{ '%.999999999999f' % 1 }}", "a text of more than");
  stopped("{{ '{:999999999999}'.format(1) }}", "a text of more than");
  stopped("{{ 'a\tb'.expandtabs(10 ** 12) }}", "a text of more than");
  stopped("{{ ('x' * 100000).replace('', 'y' * 100000) }}", "a text of more than");
  stopped("{{ ('x' * 10000000).join(range(99)|map('string')) }}", "a text of more than");
  stopped("{{ [1]|batch(10 ** 12, 0)|list }}", "more than memory allows");
  stopped("{{ [1]|slice(10 ** 12)|list }}", "steps");
  stopped("{{ 2 ** 10000 }}", "128 bits", "template.integer");
  stopped("{{ " + std::string(10000, '(') + "1" + std::string(10000, ')') + " }}", "nests more than", "template.depth");
  stopped("{{ " + std::string(10000, '[') + std::string(10000, ']') + " }}", "nests more than", "template.depth");
  stopped("{{ " + std::string(10000, '-') + "1 }}", "nests more than", "template.depth");
  std::string sum = "1", blocks, opposite = "1";
  for (int i = 0; i < 10000; ++i) {
    sum += " + 1";
    blocks += "{% if 1 %}";
    opposite = "not " + opposite;
  }
  stopped("{{ " + sum + " }}", "nests more than", "template.depth");
  stopped("{{ " + opposite + " }}", "nests more than", "template.depth");
  stopped(blocks, "nest more than", "template.depth");
  stopped(std::string(5 << 20, 'x'), "bytes", "template.size");
  // Work that grows with the square of a text must be paid for.
  stopped("{% set s = 'a' * 1000000 %}{% for i in range(99999) %}{{ (s ~ i) in (s ~ 'b') }}{% endfor %}", "steps");
  stopped("{% set s = 'é' * 1000000 %}{% for i in range(99999) %}{% set c = s[-1] %}{% endfor %}", "steps");
}

TEST(Templates, LimitsCanBeSet) {
  EXPECT_EQ(failure("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}").code(), "template.limit");
  EXPECT_EQ(rendered("{% for i in range(50) %}.{% endfor %}").size(), 50u);
  EXPECT_EQ(failure("{% for i in range(50) %}.{% endfor %}", "{}", {.steps = 40}).code(), "template.limit");
  EXPECT_EQ(failure("{% for i in range(50) %}.{% endfor %}", "{}", {.text = 40}).code(), "template.limit");
  EXPECT_EQ(failure("{{ range(50) }}", "{}", {.range = 40}).code(), "template.limit");
  EXPECT_EQ(failure("{{ [[[[1]]]] }}", "{}", {.depth = 3}).code(), "template.limit");
  EXPECT_EQ(failure("{{ ('x' * 1000)|length }}", "{}", {.memory = 800}).code(), "template.limit");
}

TEST(Templates, InputsKeepTheirNumbersAndOrder) {
  const std::string values = R"({"x": {"z": 1, "a": 2.0, "big": 123456789012345678901234567890123456789012345678, "e": 1e20, "n": -0.0, "t": [true, null]}})";
  EXPECT_EQ(rendered("{{ x|tojson }}", values),
            R"({"z": 1, "a": 2.0, "big": 123456789012345678901234567890123456789012345678, "e": 1e+20, "n": -0.0, "t": [true, null]})");
  EXPECT_EQ(failure("{{ x.big + 1 }}", values).code(), "template.integer");
  const auto code = [](const std::string& text) {
    try {
      jinja::from_json(text, "input");
    } catch (const Error& error) {
      return error.code();
    }
    return std::string("none");
  };
  EXPECT_EQ(code("{\"a\": "), "template.json");
  EXPECT_EQ(code(std::string(100000, '[')), "template.json");
  EXPECT_EQ(code("\"\xff\""), "template.json");
  EXPECT_EQ(code("[1" + std::string(5000, '0') + "]"), "template.json");
}

TEST(Templates, AModelFolderGivesTemplatesAndTokens) {
  TemporaryFolder folder;
  const auto write = [&](const Json& config) { write_text(folder / "tokenizer_config.json", json_text(config)); };
  const auto prompt = [&](const std::string& request) { return ChatTemplates::load(folder.path()).prompt(request).text; };
  const auto code = [&](const std::string& request) {
    try {
      prompt(request);
    } catch (const Error& error) {
      return error.code();
    }
    return std::string("none");
  };
  EXPECT_FALSE(ChatTemplates::present(folder.path()));
  write({{"bos_token", "<s>"}});
  EXPECT_FALSE(ChatTemplates::present(folder.path()));
  EXPECT_EQ(code("{}"), "template.missing");
  write({{"bos_token", "<s>"}, {"eos_token", {{"content", "</s>"}}}, {"pad_token", nullptr},
         {"chat_template", Json::array({{{"name", "default"}, {"template", "D{{ bos_token }}{{ eos_token }}{{ pad_token is defined }}{{ tools }}"}},
                                        {{"name", "tool_use"}, {"template", "T{{ tools|length }}"}},
                                        {{"name", "rag"}, {"template", "R{{ documents[0].text }}{{ extra }}"}}})}});
  EXPECT_TRUE(ChatTemplates::present(folder.path()));
  EXPECT_EQ(prompt(R"({"messages": []})"), "D<s></s>FalseNone");
  EXPECT_EQ(prompt(R"({"messages": [], "tools": [1, 2]})"), "T2");
  EXPECT_EQ(prompt(R"({"messages": [], "template": "rag", "documents": [{"text": "x"}], "extra": 5})"), "Rx5");
  EXPECT_EQ(code(R"({"template": "other"})"), "template.request");
  EXPECT_EQ(code(R"({"messages": 5})"), "template.request");
  EXPECT_EQ(code(R"({"messages": ["x"]})"), "template.request");
  EXPECT_EQ(code(R"({"now": "yesterday"})"), "template.request");
  EXPECT_EQ(code(R"({"messages": [], "continue_final_message": true})"), "template.request");
  EXPECT_EQ(code("[]"), "template.request");
  // The file of its own wins over the config.
  write_text(folder / "chat_template.jinja", "F{{ bos_token }}{{ strftime_now('%d %b %Y') }}");
  EXPECT_EQ(prompt(R"({"now": "2025-03-04"})"), "F<s>04 Mar 2025");
  EXPECT_EQ(ChatTemplates::load(folder / "chat_template.jinja").prompt(R"({"now": "2025-03-04 05:06"})").text, "F<s>04 Mar 2025");
}

TEST(Templates, AGgufBringsItsTemplates) {
  TemporaryFolder folder;
  GgufMetadata metadata;
  metadata.set("general.architecture", GgufValue::text("llama"));
  metadata.set("tokenizer.ggml.tokens", GgufValue::texts({"<unk>", "<s>", "</s>"}));
  metadata.set("tokenizer.ggml.bos_token_id", GgufValue::u32(1));
  metadata.set("tokenizer.ggml.eos_token_id", GgufValue::u32(9));
  write_gguf(folder / "plain.gguf", metadata, {});
  EXPECT_THROW(ChatTemplates::load(folder / "plain.gguf"), Error);
  metadata.set("tokenizer.chat_template", GgufValue::text("{{ bos_token }}{{ eos_token is defined }}{{ messages[0].content }}"));
  metadata.set("tokenizer.chat_template.tool_use", GgufValue::text("T"));
  write_gguf(folder / "plain.gguf", metadata, {});
  const std::string request = R"({"messages": [{"role": "user", "content": "hi"}]})";
  EXPECT_EQ(ChatTemplates::load(folder / "plain.gguf").prompt(request).text, "<s>Falsehi");
  EXPECT_EQ(ChatTemplates::load(folder.path()).prompt(R"({"messages": [], "tools": [1]})").text, "T");
}

TEST(Templates, TheProgramRendersLines) {
  TemporaryFolder folder;
  write_text(folder / "t.jinja", "{% if not messages %}{{ raise_exception('No messages!') }}{% endif %}{{ messages[0].content.x.y or 'é' }}");
  write_text(folder / "in.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": {\"x\": {\"y\": \"ö\"}}}]}\n\n{\"messages\": []}\n{\"messages\": [{}]}\n");
  const std::string program = std::string(SWITCHYARD_BINARY_DIR) + "/bin/switchyard template ";
  const std::string files = " --input " + (folder / "in.jsonl").string() + " --output " + (folder / "out.jsonl").string();
  const testing::Finished finished = testing::run_command(program + (folder / "t.jinja").string() + files);
  ASSERT_EQ(finished.status, 0) << finished.output;
  EXPECT_EQ(read_file(folder / "out.jsonl"),
            "{\"text\":\"ö\"}\n"
            "{\"error\":\"No messages!\",\"code\":\"template.raised\",\"line\":1,\"expression\":\"raise_exception('No messages!')\"}\n"
            "{\"error\":\"" + (folder / "t.jinja").string() + " line 1, `messages[0].content.x`: 'dict object' has no attribute 'content'\","
            "\"code\":\"template.undefined\",\"line\":1,\"expression\":\"messages[0].content.x\"}\n");
  write_text(folder / "t.jinja", "{{ ");
  const testing::Finished broken = testing::run_command(program + (folder / "t.jinja").string() + files);
  EXPECT_EQ(broken.status, 2);
  EXPECT_NE(broken.output.find("[template.syntax]"), std::string::npos) << broken.output;
  EXPECT_NE(read_file(folder / "out.jsonl").find("{\"error\":"), std::string::npos);
}

}  // namespace
}  // namespace switchyard
