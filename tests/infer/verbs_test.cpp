// The verbs generate, chat, logits and convert export, run as a user runs them.
#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include "switchyard/base/files.h"
#include "switchyard/formats/safetensors.h"
#include "switchyard/formats/tokenizer.h"
#include "switchyard/models/checkpoint.h"
#include "tests/files.h"
#include "tests/models/decoder_support.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using testing::difference;
using testing::Finished;
using testing::golden;
using testing::TemporaryFolder;
using testing::write_text;

Finished switchyard_program(const std::string& arguments) {
  return testing::run_command(std::string(SWITCHYARD_BINARY_DIR) + "/bin/switchyard " + arguments);
}

void expect_refused(const std::string& arguments, const std::string& code) {
  const Finished done = switchyard_program(arguments);
  EXPECT_EQ(done.status, 2) << arguments << "\n" << done.output;
  EXPECT_THAT(done.output, HasSubstr("[" + code + "]")) << arguments;
  EXPECT_EQ(std::count(done.output.begin(), done.output.end(), '\n'), 1) << done.output;
}

/// A run folder with a small model that was never trained, and its tokenizer.
class Verbs : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    run_ = new TemporaryFolder;
    int left = 200;
    const auto tokenizer = train_tokenizer({.vocabulary = 400, .sample_bytes = 1 << 16}, [&](std::string& text) {
      text = "in the beginning was the word and the word was with the people number " + std::to_string(left % 7);
      return left-- > 0;
    });
    const auto decoder = testing::make_decoder(fmt::format(R"(
vocabulary: {}
width: 16
layers: 2
context: 64
attention: {{type: gqa, heads: 2}}
tied_embeddings: false
mixtures: [{{experts: 4, expert: {{type: swiglu, hidden: 8}}, router: {{type: sparse-topk, k: 2}}}}]
)", tokenizer->vocabulary()), at::kFloat);
    fs::create_directories(*run_ / "checkpoints/step-00000010");
    save_model(*run_ / "checkpoints/step-00000010", *decoder, tokenizer.get());
  }
  static void TearDownTestSuite() { delete run_; }
  static std::string run() { return run_->path().string(); }
  static TemporaryFolder* run_;
};
TemporaryFolder* Verbs::run_ = nullptr;

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

TEST_F(Verbs, GenerateRefusesBadInput) {
  expect_refused("generate " + run() + "/nowhere --prompt a", "model.folder");
  expect_refused("generate " + run() + " --prompt a --top-p 2", "program.usage");
  expect_refused("generate " + run() + " --prompt a --fact domain", "program.usage");
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
  expect_refused(call + in + out, "formats.safetensors.missing");
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
  EXPECT_FALSE(fs::exists(folder / "other"));
}

}  // namespace
}  // namespace switchyard
