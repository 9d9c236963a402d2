// Likelihoods, perplexity and tasks, by hand and against transformers; verify and eval as a user runs them.
#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "switchyard/base/files.h"
#include "switchyard/evaluate/compare.h"
#include "switchyard/evaluate/likelihood.h"
#include "switchyard/evaluate/perplexity.h"
#include "switchyard/evaluate/tasks.h"
#include "switchyard/infer/network_model.h"
#include "tests/infer/small_run.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using testing::expect_error;
using testing::expect_refused;
using testing::Finished;
using testing::golden;
using testing::switchyard_output;
using testing::switchyard_program;
using testing::TemporaryFolder;
using testing::write_text;

class Evaluate : public testing::SmallRun {
 protected:
  static NetworkModel model() { return NetworkModel(load_model(run())); }
};

std::vector<int64_t> some_ids(int64_t count) {
  const at::Tensor ids = testing::some_ids(count, 300);
  return {ids.const_data_ptr<int64_t>(), ids.const_data_ptr<int64_t>() + count};
}

TEST(Windows, EveryTokenIsScoredOnce) {
  EXPECT_EQ(windows_over(10, 4, 2), (std::vector<Window>{{0, 4, 1}, {2, 6, 4}, {4, 8, 6}, {6, 10, 8}}));
  EXPECT_EQ(windows_over(9, 4, 3), (std::vector<Window>{{0, 4, 1}, {3, 7, 4}, {6, 9, 7}}));
  EXPECT_EQ(windows_over(4, 8, 4), (std::vector<Window>{{0, 4, 1}}));
  EXPECT_EQ(windows_over(2, 2, 1), (std::vector<Window>{{0, 2, 1}}));
  EXPECT_TRUE(windows_over(1, 4, 2).empty());
  // Windows that only touch: nothing stands before the first of each, and one token alone is no window.
  EXPECT_EQ(windows_over(9, 4, 4), (std::vector<Window>{{0, 4, 1}, {4, 8, 5}}));
  EXPECT_EQ(windows_over(10, 4, 4), (std::vector<Window>{{0, 4, 1}, {4, 8, 5}, {8, 10, 9}}));
  for (int64_t n = 2; n < 40; ++n)
    for (int64_t stride = 1; stride < 7; ++stride) {
      int64_t next = 1;
      for (const Window& window : windows_over(n, 7, stride)) {
        EXPECT_EQ(window.first, next);
        EXPECT_GT(window.first, window.begin);
        EXPECT_LE(window.end - window.begin, 7);
        next = window.end;
      }
      EXPECT_EQ(next, n);
    }
}

TEST_F(Evaluate, LikelihoodsAreThoseOfTheWholeLogits) {
  const NetworkModel network = model();
  std::vector<ScoreRequest> requests;
  for (int64_t length : {5, 33, 2, 17}) requests.push_back({.ids = some_ids(length), .first = length / 2});
  for (int64_t batch : {1, 3}) {
    const std::vector<TokenScores> scores = log_probabilities(network, requests, {.batch = batch});
    for (size_t r = 0; r < requests.size(); ++r) {
      const auto& [ids, first] = requests[r];
      const auto n = static_cast<int64_t>(ids.size());
      const at::Tensor log = network.logits(at::tensor(ids), Facts(Segments::single(n)), Phase::evaluate, nullptr, LanguageModel::Rows::all)
                                 .to(at::kDouble).log_softmax(1);
      ASSERT_EQ(scores[r].log_probability.size(), static_cast<size_t>(n - first));
      double sum = 0;
      bool greedy = true;
      for (int64_t i = first; i < n; ++i) {
        const double expected = log[i - 1][ids[static_cast<size_t>(i)]].item<double>();
        sum += expected;
        greedy = greedy && log[i - 1].argmax().item<int64_t>() == ids[static_cast<size_t>(i)];
        EXPECT_NEAR(scores[r].log_probability[static_cast<size_t>(i - first)], expected, 1e-4);
      }
      EXPECT_NEAR(scores[r].sum(), sum, 1e-3);
      EXPECT_EQ(scores[r].greedy, greedy);
    }
  }
  for (const ScoreRequest& wrong : {ScoreRequest{.ids = {1, 2}, .first = 0}, {.ids = {1, 2}, .first = 3}, {.ids = some_ids(65), .first = 1}})
    EXPECT_EQ(expect_error([&] { log_probabilities(network, {wrong}); }).code(), "evaluate.request");
}

TEST_F(Evaluate, PerplexityRefusesWindowsThatCannotBe) {
  const NetworkModel network = model();
  EXPECT_EQ(expect_error([&] { perplexity(network, some_ids(9), {.context = 65}); }).code(), "evaluate.context");
  EXPECT_EQ(expect_error([&] { perplexity(network, some_ids(9), {.context = 1}); }).code(), "evaluate.context");
  EXPECT_EQ(expect_error([&] { perplexity(network, some_ids(9), {.context = 4, .stride = 5}); }).code(), "evaluate.stride");
  EXPECT_EQ(expect_error([&] { perplexity(network, {3}); }).code(), "evaluate.text");
  const Perplexity some = perplexity(network, some_ids(40), {.context = 8, .stride = 4, .windows = 3});
  EXPECT_EQ(some.tokens, 15);
  EXPECT_NEAR(some.perplexity(), std::exp(some.sum / 15), 1e-9);
}

TEST(Shares, StandardErrorIsThatOfAMean) {
  Share share;
  for (bool hit : {true, false, true, true}) share.add(hit);
  EXPECT_DOUBLE_EQ(share.value(), 0.75);
  EXPECT_DOUBLE_EQ(share.standard_error(), std::sqrt((3 * 0.0625 + 0.5625) / 3 / 4));
  EXPECT_EQ(Share{}.standard_error(), 0);
}

TEST(Tasks, FilesAreReadLineByLine) {
  TemporaryFolder folder;
  const fs::path file = folder / "tasks.jsonl";
  const std::string lines = R"({"prompt": "Q: 1?", "answer": ["one", "1"], "stop": "x"})" "\n\n"
                            R"({"prompt": "2:", "choices": [" a", " b"], "answer": 1, "id": "second"})" "\n"
                            R"({"prompt": "3:", "answer": "c", "max_tokens": 5, "source": "kept by nobody"})" "\n";
  write_text(file, lines);
  const auto items = read_tasks(file);
  ASSERT_EQ(items.size(), 3u);
  EXPECT_EQ(items[0].answers, (std::vector<std::string>{"one", "1"}));
  EXPECT_EQ(items[0].stop, std::vector<std::string>{"x"});
  EXPECT_EQ(items[1].id, "\"second\"");
  EXPECT_EQ(items[1].right, 1);
  EXPECT_EQ(items[2].id, "2");
  EXPECT_EQ(items[2].max_tokens, 5);
  const auto shots = read_tasks(file, 2);
  ASSERT_EQ(shots.size(), 1u);
  EXPECT_EQ(shots[0].prompt, "Q: 1? one\n\n2: b\n\n3:");
  EXPECT_EQ(read_tasks(file, 0, 2).size(), 2u);
  EXPECT_EQ(expect_error([&] { read_tasks(file, 3); }).code(), "evaluate.task");
  for (const char* wrong : {"[]", "{", R"({"prompt": "a"})", R"({"answer": "a"})", R"({"prompt": 1, "answer": "a"})", R"({"prompt": "a", "answer": []})",
                            R"({"prompt": "a", "choices": ["b"], "answer": 0})", R"({"prompt": "a", "choices": ["b", "c"], "answer": 2})",
                            R"({"prompt": "a", "choices": ["b", "c"], "answer": "b"})", R"({"prompt": "a", "choices": ["b", ""], "answer": 0})",
                            R"({"prompt": "a", "choice": ["b", "c"], "answer": 0})", R"({"prompt": "a", "answer": "b", "stop": ""})",
                            R"({"prompt": "a", "answer": "b", "max_tokens": 0})"}) {
    write_text(file, lines + wrong + "\n");
    const Error error = expect_error([&] { read_tasks(file); });
    EXPECT_EQ(error.code(), "evaluate.task") << wrong;
    EXPECT_THAT(error.message(), HasSubstr("tasks.jsonl, line 5: ")) << wrong;
  }
}

TEST(Tasks, TheDocumentedExampleIsRead) {
  const std::string page = read_file(fs::path(SWITCHYARD_SOURCE_DIR) / "docs/evaluating.md"), fence = "```json\n";
  const size_t begin = page.find(fence) + fence.size();
  TemporaryFolder folder;
  write_text(folder / "tasks.jsonl", page.substr(begin, page.find("```", begin) - begin));
  const auto items = read_tasks(folder / "tasks.jsonl");
  ASSERT_EQ(items.size(), 2u);
  EXPECT_EQ(items[0].choices.size(), 3u);
  EXPECT_EQ(items[1].answers.size(), 2u);
}

/// transformers on the exported model: nats a token over sliding windows, and the log-probability of each choice.
constexpr const char* kPeer = R"PY(
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, text, tasks, context, stride = sys.argv[1:4] + [int(v) for v in sys.argv[4:]]
model, tok = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(folder)
encode = lambda s: ([tok.bos_token_id] if tok.bos_token_id is not None else []) + tok(s, add_special_tokens=False).input_ids
ids = torch.tensor([encode(open(text).read())])
total, count, before = 0.0, 0, 0
with torch.no_grad():
    for begin in range(0, ids.size(1), stride):
        end = min(begin + context, ids.size(1))
        part, labels = ids[:, begin:end], ids[:, begin:end].clone()
        labels[:, : -(end - before)] = -100
        scored = (labels[:, 1:] != -100).sum().item()
        total += model(part, labels=labels).loss.item() * scored if scored else 0
        count, before = count + scored, end
        if end == ids.size(1):
            break
    choices = []
    for line in open(tasks):
        line = json.loads(line)
        head = len(encode(line["prompt"]))
        for choice in line.get("choices", []):
            one = torch.tensor([encode(line["prompt"] + choice)])
            log = model(one).logits[0].log_softmax(-1)
            choices.append(sum(log[i - 1, one[0, i]].item() for i in range(head, one.size(1))))
print("RESULT " + json.dumps({"nats": total / count, "tokens": count, "choices": choices}))
)PY";

TEST_F(Evaluate, PerplexityAndChoicesAreThoseOfTransformers) {
  SWITCHYARD_NEED_PYTHON(python, "torch,transformers,safetensors");
  TemporaryFolder folder;
  const std::string model = (folder / "model").string(), text = (folder / "text.txt").string(), tasks = (folder / "tasks.jsonl").string(),
                    details = (folder / "details.jsonl").string();
  ASSERT_EQ(switchyard_program("convert export " + run() + " " + model).status, 0);
  std::string words;
  for (int i = 0; i < 60; ++i) words += i % 7 == 3 ? "and the people were " : i % 5 == 1 ? "with number " + std::to_string(i) + "\n" : "in the beginning ";
  write_text(text, words);
  write_text(tasks, R"({"prompt": "in the", "choices": [" beginning", " word and the people"], "answer": 0})" "\n"
                    R"({"prompt": "number", "choices": [" 1", " 2", " 31"], "answer": 2})" "\n");
  const auto peer = [&](const std::string& windows) {
    const Finished done = testing::run_python(python, kPeer, model + " " + text + " " + tasks + " " + windows);
    EXPECT_EQ(done.status, 0) << done.output;
    return nlohmann::json::parse(done.output.substr(done.output.find("RESULT ") + 7));
  };
  const auto theirs = peer("24 10"), apart = peer("24 24");
  const auto whole = nlohmann::json::parse(switchyard_output("eval " + model + " --text " + text + " --context 24 --stride 24 --json").output);
  EXPECT_EQ(whole["perplexity"][text]["tokens"], apart["tokens"]);
  EXPECT_NEAR(whole["perplexity"][text]["nats_per_token"].get<double>(), apart["nats"].get<double>(), 1e-4);
  for (const char* batch : {"1", "7"}) {
    const Finished done = switchyard_output("eval " + model + " --text " + text + " --tasks " + tasks + " --context 24 --stride 10 --json --batch " +
                                            batch + " --output " + details);
    ASSERT_EQ(done.status, 0) << done.output;
    const auto ours = nlohmann::json::parse(done.output);
    EXPECT_EQ(ours["perplexity"][text]["tokens"], theirs["tokens"]);
    EXPECT_NEAR(ours["perplexity"][text]["nats_per_token"].get<double>(), theirs["nats"].get<double>(), 1e-4);
    EXPECT_EQ(ours["tasks"][tasks]["choice"]["questions"], 2);
    std::vector<double> choices;
    std::istringstream lines(read_file(details));
    for (std::string line; std::getline(lines, line);)
      for (double value : nlohmann::json::parse(line).value("log_probability", std::vector<double>())) choices.push_back(value);
    ASSERT_EQ(choices.size(), 5u);
    for (size_t i = 0; i < 5; ++i) EXPECT_NEAR(choices[i], theirs["choices"][i].get<double>(), 1e-3) << i;
  }
}

TEST_F(Evaluate, AnswersAreMetExactly) {
  TemporaryFolder folder;
  const std::string tasks = (folder / "tasks.jsonl").string();
  // What the model writes is asked of generate first.
  write_text(folder / "prompts", "in the\nand the word\n");
  const Finished written = switchyard_output("generate " + run() + " --temperature 0 --max-tokens 4 --prompts " + (folder / "prompts").string());
  std::istringstream lines(written.output);
  std::string first;
  std::getline(lines, first);
  const std::string answer = nlohmann::json::parse(first)["text"];
  write_text(tasks, nlohmann::json{{"prompt", "in the"}, {"answer", {"not this", " " + answer + " "}}, {"max_tokens", 4}}.dump() + "\n" +
                        nlohmann::json{{"prompt", "and the word"}, {"answer", "never written"}, {"max_tokens", 4}}.dump() + "\n");
  const Finished done = switchyard_output("eval " + run() + " --json --tasks " + tasks);
  ASSERT_EQ(done.status, 0) << done.output;
  EXPECT_EQ(nlohmann::json::parse(done.output)["tasks"][tasks]["exact"]["accuracy"]["value"], 0.5);
  EXPECT_THAT(switchyard_output("eval " + run() + " --tasks " + tasks).output, HasSubstr("exact answer 50.00 ± 50.00 %; 2 questions"));
}

TEST_F(Evaluate, EvalRefusesBadInput) {
  TemporaryFolder folder;
  const std::string file = (folder / "file").string();
  expect_refused("eval " + run(), "program.usage");
  expect_refused("eval " + run() + " --text " + file, "file.missing");
  expect_refused("eval " + run() + " --tasks " + file, "file.missing");
  write_text(file, "in the beginning was the word");
  expect_refused("eval " + run() + " --tasks " + file, "evaluate.task");
  expect_refused("eval " + run() + " --text " + file + " --context 8 --stride 9", "evaluate.stride");
  expect_refused("eval " + run() + " --text " + file + " --context 100", "evaluate.context");
  expect_refused("eval " + golden("mixtral").string() + " --text " + file, "infer.tokenizer");
  write_text(folder / "lines.jsonl", R"({"text": "in the"})" "\n" R"({"txt": "in the"})" "\n");
  expect_refused("eval " + run() + " --text " + (folder / "lines.jsonl").string(), "evaluate.text");
}

TEST(Compare, NumbersAreThoseOfTheDefinition) {
  const at::Tensor a = at::tensor({0.5, 0.25, 0.25, 0.1, 0.1, 0.8}, at::kDouble).log().view({1, 2, 3});
  const at::Tensor b = at::tensor({0.25, 0.5, 0.25, 0.1, 0.1, 0.8}, at::kDouble).log().view({1, 2, 3});
  const at::Tensor same = at::tensor({1, 2, 3, 0}).view({2, 2}), other = at::tensor({2, 1, 0, 2}).view({2, 2});
  Comparer comparer;
  comparer.add({{"logits", a}, {"topk_ids.0", same}, {"hidden_states.0", at::ones({1, 2, 4})}, {"hidden_states.10", at::ones({1, 2, 4})},
                {"hidden_states.2", at::ones({1, 2, 4})}},
               {{"logits", b}, {"topk_ids.0", other}, {"hidden_states.0", at::ones({1, 2, 4})}, {"hidden_states.10", at::zeros({1, 2, 4})},
                {"hidden_states.2", at::ones({1, 2, 4}) + 1e-3}});
  const Comparison c = comparer.result();
  EXPECT_EQ(c.positions, 2);
  EXPECT_NEAR(c.largest, std::log(2), 1e-12);
  EXPECT_NEAR(c.mean, 2 * std::log(2) / 6, 1e-12);
  EXPECT_NEAR(c.divergence, (0.5 - 0.25) * std::log(2) / 2, 1e-12);
  EXPECT_NEAR(c.largest_divergence, 0.25 * std::log(2), 1e-12);
  EXPECT_EQ(c.same_top, 0.5);
  EXPECT_EQ(c.at.position, 0);
  EXPECT_EQ(c.routing[0].rows, 2);
  EXPECT_EQ(c.routing[0].same, 1);  // the order of a token's experts does not count
  EXPECT_EQ(c.first_different(1e-4), "2");
  EXPECT_EQ(c.first_different(1e-2), "10");
  EXPECT_FALSE(c.first_different(2).has_value());
  EXPECT_TRUE(c.equal(0.7));
  EXPECT_FALSE(c.equal(0.6));
  EXPECT_FALSE(Comparison{}.equal(1));
  Comparer broken;
  broken.add({{"logits", a}}, {{"logits", at::full({1, 2, 3}, NAN, at::kDouble)}});
  EXPECT_FALSE(broken.result().equal(1e30));
  EXPECT_EQ(expect_error([&] { broken.add({{"logits", a}}, {{"logits", a.narrow(2, 0, 2)}}); }).code(), "evaluate.shape");
  EXPECT_EQ(expect_error([&] { broken.add({{"logits", a}}, {}); }).code(), "evaluate.shape");
}

TEST_F(Evaluate, VerifyHoldsAModelAgainstItsRecording) {
  for (const char* family : {"mixtral", "qwen3_moe", "jetmoe", "llama4", "deepseek_v3", "vit"}) {
    const std::string folder = golden(family).string();
    const Finished done = switchyard_output("verify " + folder + " " + folder + "/golden.safetensors --json");
    ASSERT_EQ(done.status, 0) << family << done.output;
    const auto json = nlohmann::json::parse(done.output);
    EXPECT_TRUE(json["equal"]);
    EXPECT_TRUE(json["first_different_layer"].is_null()) << done.output;
    EXPECT_EQ(json["routing"].empty(), std::string(family) == "vit") << family;
    if (std::string(family) == "vit") {
      EXPECT_EQ(json["positions"], 2);  // a row of classes an image
    }
    for (const auto& [layer, routing] : json["routing"].items()) EXPECT_EQ(routing["rows"], routing["same"]) << family << layer;
  }
  const Finished words = switchyard_output("verify " + golden("mixtral/golden.safetensors").string() + " " + golden("mixtral").string());
  EXPECT_EQ(words.status, 0);
  EXPECT_THAT(words.output, HasSubstr("equal within 0.0001"));
  EXPECT_EQ(switchyard_output("verify " + golden("mixtral").string() + " " + golden("mixtral/golden.safetensors").string() + " --tolerance 0").status, 1);
}

TEST_F(Evaluate, VerifyNamesTheLayerThatDiffers) {
  TemporaryFolder folder;
  const std::string changed = (folder / "changed").string();
  fs::create_directory(changed);
  fs::copy(golden("mixtral/config.json"), changed);
  const Safetensors weights(golden("mixtral/model.safetensors"));
  NamedTensors tensors;
  for (const TensorInfo& info : weights.tensors()) tensors.emplace_back(info.name, weights.get(info.name).clone());
  write_safetensors(fs::path(changed) / "model.safetensors", tensors);
  const std::string call = "verify " + golden("mixtral").string() + " " + changed;
  EXPECT_EQ(switchyard_program(call).status, 0);
  for (auto& [name, tensor] : tensors)
    if (name == "model.layers.1.self_attn.o_proj.weight") tensor.mul_(1.5);
  write_safetensors(fs::path(changed) / "model.safetensors", tensors);
  const Finished differs = switchyard_output(call + " --json");
  EXPECT_EQ(differs.status, 1) << differs.output;
  const auto json = nlohmann::json::parse(differs.output);
  EXPECT_FALSE(json["equal"]);
  EXPECT_EQ(json["first_different_layer"], "2");
  EXPECT_EQ(json["routing"]["0"]["rows"], json["routing"]["0"]["same"]);
  EXPECT_GT(json["kl"]["mean"], 0);
  EXPECT_THAT(switchyard_output(call).output, HasSubstr("first different at hidden state 2: "));
  EXPECT_EQ(switchyard_program(call + " --tolerance 1000").status, 0);
  // A recording is one whatever its name; another file is none.
  const std::string renamed = (folder / "recording.st").string();
  fs::copy_file(golden("mixtral/golden.safetensors"), renamed);
  EXPECT_EQ(switchyard_program("verify " + golden("mixtral").string() + " " + renamed).status, 0);
  expect_refused("verify " + golden("mixtral").string() + " " + golden("mixtral/config.json").string(), "formats.safetensors.size");
  // A recording of one sequence without a batch around it; quantised weights are not those that they were made of.
  const std::string quantised = "verify " + golden("gguf/mixtral-mixed.gguf").string() + " ";
  EXPECT_EQ(switchyard_program(quantised + golden("gguf/mixtral-mixed.logits.safetensors").string() + " --tolerance 2e-3").status, 0);
  EXPECT_EQ(switchyard_program(quantised + golden("gguf/mixtral.logits.safetensors").string() + " --tolerance 2e-3").status, 1);
}

TEST_F(Evaluate, VerifyComparesTwoModelsOfEveryKind) {
  TemporaryFolder folder;
  for (const std::string family : {"t5", "switch_transformers", "nllb_moe", "bert", "vit"}) {
    const std::string there = golden(family).string(), changed = (folder / family).string();
    fs::create_directory(changed);
    fs::copy(golden(family + "/config.json"), changed);
    const Safetensors weights(golden(family + "/model.safetensors"));
    NamedTensors tensors;
    for (const TensorInfo& info : weights.tensors()) tensors.emplace_back(info.name, weights.get(info.name).clone());
    write_safetensors(fs::path(changed) / "model.safetensors", tensors);
    const Finished same = switchyard_output("verify " + there + " " + changed + " --json");
    ASSERT_EQ(same.status, 0) << family << same.output;
    const auto json = nlohmann::json::parse(same.output);
    EXPECT_EQ(json["logits"]["largest"], 0) << family;
    EXPECT_EQ(json["positions"], family == "vit" ? 4 : 1 + 7 + 32 + 61) << family;
    for (auto& [name, tensor] : tensors)
      if (name.find("orm") != std::string::npos) tensor.add_(0.1);  // BERT's have a capital
    write_safetensors(fs::path(changed) / "model.safetensors", tensors);
    EXPECT_EQ(switchyard_output("verify " + there + " " + changed).status, 1) << family;
  }
  expect_refused("verify " + golden("t5").string() + " " + golden("llama").string(), "verify.kind");
  expect_refused("verify " + golden("vit").string() + " " + golden("llama").string(), "verify.vocabulary");
}

TEST_F(Evaluate, VerifyReadsPromptsAndRefusesOtherTokens) {
  TemporaryFolder folder;
  const std::string prompts = (folder / "prompts").string(), exported = (folder / "model").string();
  ASSERT_EQ(switchyard_program("convert export " + run() + " " + exported).status, 0);
  write_text(prompts, "in the beginning\nword\n");
  const Finished done = switchyard_output("verify " + run() + " " + exported + " --json --prompts " + prompts);
  ASSERT_EQ(done.status, 0) << done.output;
  EXPECT_EQ(nlohmann::json::parse(done.output)["logits"]["largest"], 0);
  expect_refused("verify " + run() + " " + golden("mixtral").string(), "verify.vocabulary");
  expect_refused("verify " + run() + " " + golden("mixtral/golden.safetensors").string(), "verify.vocabulary");
  expect_refused("verify " + run() + " " + run() + "/nowhere", "model.folder");
  expect_refused("verify " + golden("mixtral").string() + " " + golden("mixtral").string() + " --prompts " + prompts, "infer.tokenizer");
  expect_refused("verify " + golden("mixtral/golden.safetensors").string() + " " + golden("qwen3_moe/golden.safetensors").string(), "program.usage");
  expect_refused("verify " + golden("mixtral").string() + " " + golden("mixtral/model.safetensors").string(), "formats.safetensors.missing");
  // The same number of tokens, other ones.
  std::string tokenizer = read_file(fs::path(exported) / "tokenizer.json");
  const size_t at = tokenizer.find("\"b\":"), then = tokenizer.find("\"c\":");
  ASSERT_TRUE(at != std::string::npos && then != std::string::npos);
  tokenizer[at + 1] = 'c';
  tokenizer[then + 1] = 'b';
  write_text(fs::path(exported) / "tokenizer.json", tokenizer);
  expect_refused("verify " + run() + " " + exported, "verify.tokenizer");
}

}  // namespace
}  // namespace switchyard
