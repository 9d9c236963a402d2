// The verbs generate, chat, logits and convert export, run as a user runs them.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <nlohmann/json.hpp>
#include <sstream>

#include "switchyard/base/files.h"
#include "switchyard/formats/safetensors.h"
#include "tests/infer/small_run.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using testing::difference;
using testing::expect_refused;
using testing::Finished;
using testing::golden;
using testing::switchyard_output;
using testing::switchyard_program;
using testing::TemporaryFolder;
using testing::write_text;

class Verbs : public testing::SmallRun {};

TEST_F(Verbs, GenerateWritesOnAndRepeatsItselfBySeed) {
  const std::string call = "generate " + run() + " --prompt 'in the' --max-tokens 12 --quiet --seed ";
  const Finished first = switchyard_program(call + "1");
  ASSERT_EQ(first.status, 0) << first.output;
  EXPECT_TRUE(first.output.starts_with("in the")) << first.output;
  EXPECT_EQ(switchyard_program(call + "1").output, first.output);
  EXPECT_NE(switchyard_program(call + "2").output, first.output);
  const Finished spoken = switchyard_program("generate " + run() + " --prompt 'in the' --max-tokens 3");
  EXPECT_THAT(spoken.output, HasSubstr("tokens/s"));
}

TEST_F(Verbs, ChatAnswersEveryLine) {
  const Finished done = testing::run_command("printf 'in the\\nand the\\n' | " + std::string(SWITCHYARD_BINARY_DIR) +
                                             "/bin/switchyard chat " + run() + " --max-tokens 4 --quiet");
  EXPECT_EQ(done.status, 0) << done.output;
  EXPECT_GE(std::count(done.output.begin(), done.output.end(), '\n'), 2) << done.output;
}

TEST_F(Verbs, AChatTemplateSaysTheConversation) {
  TemporaryFolder folder;
  const std::string model = (folder / "model").string();
  ASSERT_EQ(switchyard_program("convert export " + run() + " " + model).status, 0);
  expect_refused("generate " + model + " --prompt a --chat", "program.usage");
  expect_refused("chat " + model + " --system a", "program.usage");
  testing::write_text(fs::path(model) / "chat_template.jinja",
                      "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
                      "{% if add_generation_prompt %}assistant:{% endif %}");
  const std::string options = " --temperature 0 --max-tokens 6 --quiet";
  const Finished chat = switchyard_program("generate " + model + " --chat --system be --prompt 'in the'" + options);
  ASSERT_EQ(chat.status, 0) << chat.output;
  // The begin token is what `generate` puts before a prompt too.
  const std::string prompt = "system: be\nuser: in the\nassistant:";
  const Finished plain = switchyard_program("generate " + model + " --prompt 'system: be\nuser: in the\nassistant:'" + options);
  EXPECT_EQ(prompt + chat.output, plain.output);
  const std::string program = std::string(SWITCHYARD_BINARY_DIR) + "/bin/switchyard ";
  const Finished talk = testing::run_command("printf 'in the\nand so\n' | " + program + "chat " + model + options);
  EXPECT_EQ(talk.status, 0) << talk.output;
  EXPECT_GE(std::count(talk.output.begin(), talk.output.end(), '\n'), 2) << talk.output;
  testing::write_text(fs::path(model) / "chat_template.jinja", "{{ raise_exception('no') }}");
  expect_refused("generate " + model + " --chat --prompt a", "template.raised");
  EXPECT_EQ(testing::run_command("printf 'in the\n' | " + program + "chat " + model + " --raw" + options).status, 0);
}

/// The JSON lines of an output.
std::vector<nlohmann::json> json_lines(const std::string& text) {
  std::vector<nlohmann::json> lines;
  std::istringstream input(text);
  for (std::string line; std::getline(input, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

TEST_F(Verbs, PromptsOfAFileGiveALineEach) {
  TemporaryFolder folder;
  const std::string file = (folder / "prompts").string(), call = "generate " + run() + " --max-tokens 6 --prompts ";
  write_text(file, "in the\n\nword\r\nand the word\n");
  const Finished done = switchyard_output(call + file);
  ASSERT_EQ(done.status, 0) << done.output;
  const auto lines = json_lines(done.output);
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[1]["id"], 1);
  EXPECT_EQ(lines[1]["prompt"], "word");
  EXPECT_EQ(lines[2]["ids"].size(), 6u);
  EXPECT_EQ(lines[2]["finish_reason"], "max_tokens");
  // A prompt is written on as it is alone, however many are written together; the first of a file is what --prompt gives.
  EXPECT_EQ(switchyard_output(call + file + " --batch 1").output, done.output);
  EXPECT_EQ(switchyard_output("generate " + run() + " --max-tokens 6 --prompt 'in the'").output, "in the" + lines[0]["text"].get<std::string>() + "\n");
  write_text(file, R"({"prompt": "in the", "id": "x"})" "\n" R"({"ids": [5, 6, 7], "id": null})" "\n");
  ASSERT_EQ(switchyard_program(call + file + " --output " + (folder / "out").string()).status, 0);
  const auto written = json_lines(read_file(folder / "out"));
  EXPECT_EQ(written[0]["id"], "x");
  EXPECT_EQ(written[0]["text"], lines[0]["text"]);
  EXPECT_FALSE(written[1].contains("prompt"));
  for (const auto& [text, code] : {std::pair{R"({"prompt": "a"})" "\n[]", "program.prompts"}, {R"({"ids": []})", "program.prompts"},
                                   {R"({"ids": [999999]})", "program.prompts"}, {R"({"messages": []})", "program.prompts"}, {"\n", "program.prompts"}}) {
    write_text(file, text);
    expect_refused(call + file, code);
  }
  expect_refused("generate " + run() + " --prompt a --prompts " + file, "program.usage");
}

TEST_F(Verbs, GenerationConfigCountsUntilAnOptionIsGiven) {
  TemporaryFolder folder;
  const std::string model = (folder / "model").string();
  fs::copy(fs::path(run()) / "checkpoints/step-00000010", model, fs::copy_options::recursive);
  const auto written = [&](const std::string& config, const std::string& options) {
    write_text(fs::path(model) / "generation_config.json", config);
    const Finished done = switchyard_output("generate " + model + " --prompt 'in the' --max-tokens 12 " + options);
    EXPECT_EQ(done.status, 0) << config << options;
    return done.output;
  };
  const std::string greedy = written("{}", "--temperature 0 --ignore-end");
  EXPECT_EQ(written(R"({"do_sample": false, "top_k": 3, "temperature": 0.5})", "--ignore-end"), greedy);
  EXPECT_EQ(written(R"({"do_sample": true, "top_k": 1})", "--ignore-end"), greedy);
  EXPECT_NE(written(R"({"do_sample": true, "top_k": 1})", "--ignore-end --top-k 0"), greedy);
  EXPECT_EQ(written("{}", "--ignore-end"), written("{}", "--ignore-end --temperature 0.8 --top-p 0.95"));
  // Every token of the greedy text but the first is an end; several ids may be.
  write_text(folder / "prompts", "in the");
  const Finished first = switchyard_output("generate " + model + " --temperature 0 --max-tokens 1 --ignore-end --prompts - < " + (folder / "prompts").string());
  const nlohmann::json id = json_lines(first.output)[0]["ids"][0];
  EXPECT_EQ(written(R"({"eos_token_id": [399, )" + id.dump() + "]}", "--temperature 0"), "in the\n");
  const std::string forbidden = switchyard_output("generate " + model + " --prompt 'in the' --ignore-end --temperature 0 --max-tokens 12 --logit-bias " +
                                                  id.dump() + "=-inf").output;
  EXPECT_NE(forbidden, greedy);
  for (const char* config : {"[]", R"({"temperature": "hot"})", R"({"top_p": 2})", R"({"eos_token_id": "x"})", R"({"do_sample": 1})"}) {
    write_text(fs::path(model) / "generation_config.json", config);
    expect_refused("generate " + model + " --prompt a", "model.config");
  }
}

TEST_F(Verbs, BiasesAreGivenByIdOrText) {
  const std::string call = "generate " + run() + " --prompt 'in the' --temperature 0 --max-tokens 3 --ignore-end --quiet --logit-bias ";
  const Finished word = switchyard_program(call + "' word=100'");
  EXPECT_EQ(word.output, "in the word word word\n");
  for (const char* wrong : {"7", "=1", "7=", "7=nan", "7=inf", "99999=1", "'no single token=1'"}) expect_refused(call + wrong, "program.usage");
}

TEST_F(Verbs, GenerateRefusesBadInput) {
  expect_refused("generate " + run() + "/nowhere --prompt a", "model.folder");
  expect_refused("generate " + run() + " --prompt a --top-p 2", "program.usage");
  expect_refused("generate " + run() + " --prompt a --fact domain", "program.usage");
  expect_refused("generate " + run() + " --prompt a --stop ''", "program.usage");
  expect_refused("generate " + run() + " --prompt a --typical -1", "program.usage");
  expect_refused("generate " + run() + " --prompt a --output x", "program.usage");
  expect_refused("generate " + run() + " --prompt a --temperature nan", "program.usage");
  expect_refused("generate " + run() + " --prompt a --seed 99999999999999999999", "program.usage");
  TemporaryFolder folder;
  write_text(folder / "p.jsonl", "{\"prompt\": \"a\"\n");
  expect_refused("generate " + run() + " --prompts " + (folder / "p.jsonl").string(), "program.prompts");
  expect_refused("generate " + run() + " --prompt a --dtype int3", "model.dtype");
  expect_refused("generate " + run() + " --prompt-file " + run() + "/absent.txt", "file.missing");
  expect_refused("generate " + golden("mixtral").string() + " --prompt a", "infer.tokenizer");
  expect_refused("chat " + run() + "/nowhere", "model.folder");
}

TEST_F(Verbs, LogitsOfAPublishedModel) {
  TemporaryFolder folder;
  const std::string out = (folder / "out.safetensors").string();
  const Finished done = switchyard_program("logits " + golden("mixtral").string() + " --input " +
                                           golden("mixtral/golden.safetensors").string() + " --output " + out +
                                           " --with hidden,routing");
  ASSERT_EQ(done.status, 0) << done.output;
  const Safetensors got(out), recorded(golden("mixtral/golden.safetensors"));
  const at::Tensor valid = recorded.get("attention_mask").to(at::kBool);
  EXPECT_EQ(got.get("logits").scalar_type(), at::kFloat);
  EXPECT_LT(difference(got.get("logits").index({valid}), recorded.get("logits").index({valid})), 1e-4);
  for (const char* name : {"hidden_states.3", "topk_ids.2", "topk_weights.0", "router_logits.1"}) EXPECT_TRUE(got.has(name)) << name;
}

TEST_F(Verbs, LogitsRefusesBadInput) {
  TemporaryFolder folder;
  const std::string out = " --output " + (folder / "out").string(), in = (folder / "in").string();
  const std::string call = "logits " + golden("mixtral").string() + " --input ";
  expect_refused(call + in + out, "file.missing");
  write_text(in, "no safetensors");
  expect_refused(call + in + out, "formats.safetensors.size");
  write_safetensors(in, {{"input_id", at::zeros({1, 2}, at::kLong)}});
  expect_refused(call + in + out, "infer.input");
  write_safetensors(in, {{"input_ids", at::full({1, 2}, 96, at::kLong)}});
  expect_refused(call + in + out, "model.token_id");
  write_safetensors(in, {{"input_ids", at::zeros({1, 2}, at::kLong)}});
  expect_refused(call + in + out + " --with everything", "program.usage");
  EXPECT_FALSE(fs::exists(folder / "out"));
}

TEST_F(Verbs, ConvertExportWritesAFamilyOrRefuses) {
  TemporaryFolder folder;
  const std::string out = (folder / "out").string();
  const Finished done = switchyard_program("convert export " + run() + " " + out);
  ASSERT_EQ(done.status, 0) << done.output;
  EXPECT_THAT(done.output, HasSubstr("mixtral"));
  EXPECT_TRUE(fs::exists(folder / "out/tokenizer.json"));
  EXPECT_EQ(load_model(out).tokenizer->vocabulary(), load_model(run()).tokenizer->vocabulary());
  expect_refused("convert export " + run() + " " + out, "convert.export.exists");
  expect_refused("convert export " + run() + " " + (folder / "other").string() + " --family olmoe", "convert.export.option");
  expect_refused("convert export " + run() + " " + (folder / "other").string() + " --family none", "convert.export.family");
  expect_refused("convert", "program.usage");
  expect_refused("convert export " + run() + " " + (folder / "other.gguf").string(), "program.usage");
  EXPECT_FALSE(fs::exists(folder / "other"));
  EXPECT_FALSE(fs::exists(folder / "other.gguf"));
}

}  // namespace
}  // namespace switchyard
