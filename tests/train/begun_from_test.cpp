// Runs that begin from a published folder: they learn, resume bit for bit, stand alone, and are given back as the same family.
#include <ATen/ATen.h>

#include "switchyard/base/files.h"
#include "switchyard/convert/export.h"
#include "switchyard/infer/named_outputs.h"
#include "switchyard/infer/network_model.h"
#include "switchyard/models/families/hub_keys.h"
#include "switchyard/train/run.h"
#include "switchyard/train/run_folder.h"
#include "tests/files.h"
#include "tests/support.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using testing::expect_error;
using testing::golden;
using testing::TemporaryFolder;
using testing::write_text;

/// The golden model of that name with a tokenizer of one token a character, which fits its vocabulary of 96.
void publish(const std::string& family, const fs::path& folder, int characters = 90) {
  fs::create_directories(folder);
  for (const char* name : {"config.json", "model.safetensors"}) fs::copy_file(golden(family + "/" + name), folder / name);
  std::string vocabulary = R"("<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3)", added;
  for (int i = 0; i < characters; ++i) {
    const char c = static_cast<char>(' ' + i);
    vocabulary += fmt::format(", \"{}{}\": {}", c == '"' || c == '\\' ? "\\" : "", c, 4 + i);
  }
  for (int i = 0; const char* token : {"<pad>", "<s>", "</s>", "<unk>"})
    added += fmt::format(R"({}{{"id": {}, "content": "{}", "special": true}})", i == 0 ? "" : ", ", i, token), ++i;
  write_text(folder / "tokenizer.json", fmt::format(R"({{"version": "1.0", "added_tokens": [{}], "model":
    {{"type": "BPE", "unk_token": "<unk>", "vocab": {{{}}}, "merges": []}}}})", added, vocabulary));
  write_text(folder / "tokenizer_config.json", R"({"eos_token": "</s>", "chat_template": "{{ messages[0].content }}"})");
  write_text(folder / "generation_config.json", R"({"eos_token_id": [2, 1]})");
}

fs::path text_in(const fs::path& folder) {
  std::string text;
  for (int i = 0; i < 200; ++i) text += fmt::format("{{\"text\": \"{} and {} make {}\"}}\n", i, i + 1, 2 * i + 1);
  write_text(folder / "numbers.jsonl", text);
  return folder / "numbers.jsonl";
}

/// A recipe that trains what `folder`/MODEL holds into `folder`/run.
Recipe recipe_in(const fs::path& folder, const std::string& model = "model", const std::vector<std::string>& overrides = {}) {
  write_text(folder / "recipe.yaml", fmt::format(R"(from: {0}/{2}
output: {0}/run
data: {{cache: {0}/cache, held_out: 0.1, sequence: 24, domains: [{{name: numbers, paths: [{1}]}}]}}
train: {{steps: 6, batch: 4, log_every: 1, evaluate_every: 0, checkpoint_every: 3, keep_last: 0, optimiser: {{lr: 0.003}}, schedule: {{warmup: 1}}}}
)", folder.string(), text_in(folder).string(), model));
  return load_recipe((folder / "recipe.yaml").string(), overrides);
}

/// The losses that a run logged.
std::vector<double> losses(const fs::path& run) {
  std::vector<double> all;
  const std::string text = read_file(run / "metrics.jsonl");
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1)
    all.push_back(number_at(parse_json(text.substr(begin, end - begin), "metrics"), "loss"));
  return all;
}

Node config_of(const fs::path& folder) { return parse_json(read_file(folder / "config.json"), "config"); }

at::Tensor some_logits(const fs::path& folder) {
  return named_outputs(NetworkModel(load_model(folder)), at::arange(34).view({2, 17}), {})[0].second;
}

void expect_equal_checkpoints(const fs::path& a, const fs::path& b) {
  for (const char* file : {"config.json", "model.safetensors", "training/optimiser.safetensors", "training/state.json"})
    EXPECT_TRUE(read_file(a / file) == read_file(b / file)) << file;
}

class BegunFrom : public ::testing::TestWithParam<const char*> {};

TEST_P(BegunFrom, LearnsResumesAndIsGivenBack) {
  const std::string family = GetParam();
  const TemporaryFolder folder;
  publish(family, folder / "model");
  const at::Tensor at_first = some_logits(folder / "model");
  train(recipe_in(folder.path()));
  const fs::path run = folder / "run";
  const std::vector<double> loss = losses(run);
  ASSERT_EQ(loss.size(), 6u);
  EXPECT_LT(loss.back(), loss.front() - 0.5);
  // What it began with is what the folder holds; packed weights become the numbers that they stand for.
  EXPECT_LT(testing::difference(some_logits(checkpoint_folder(run, 0)), at_first), 1e-5);

  fs::remove_all(folder / "model");  // the run stands alone
  const fs::path last = checkpoint_folder(run, 6);
  fs::rename(last, folder / "last");
  EXPECT_EQ(resume(run).step, 6);
  expect_equal_checkpoints(folder / "last", last);
  EXPECT_EQ(losses(run), loss);

  const Node published = config_of(golden(family)), given_back = config_of(last);
  EXPECT_EQ(text_at(given_back, "model_type"), text_at(published, "model_type"));
  EXPECT_EQ(find_at(given_back, "switchyard"), nullptr);
  if (const Node* loss = find_at(published, "router_aux_loss_coef")) {
    EXPECT_EQ(text_at(given_back, "router_aux_loss_coef"), loss->scalar());
  }
  EXPECT_EQ(find_at(given_back, "quantization_config"), nullptr);
  EXPECT_EQ(export_model(load_model(run), folder / "out"), text_at(published, "model_type"));
  for (const char* file : {"tokenizer.json", "tokenizer_config.json", "generation_config.json"})
    EXPECT_TRUE(fs::exists(folder / "out" / file)) << file;
  EXPECT_EQ(find_at(config_of(folder / "out"), "eos_token_id")->items().size(), 2u);
  EXPECT_TRUE(some_logits(folder / "out").equal(some_logits(run)));
  EXPECT_GT(testing::difference(some_logits(run), at_first), 1e-2);
}

INSTANTIATE_TEST_SUITE_P(Families, BegunFrom, ::testing::Values("mixtral", "qwen3", "gpt_oss_mxfp4"),
                         [](const auto& info) { return std::string(info.param); });

TEST_F(BegunFrom, ARunIsABeginningToo) {
  const TemporaryFolder folder;
  write_text(folder / "small.yaml", fmt::format(R"(output: {0}/first
tokenizer: {{vocabulary: 384, sample_bytes: 20000}}
data: {{cache: {0}/cache, held_out: 0.1, sequence: 24, domains: [{{name: numbers, paths: [{1}]}}]}}
model: {{width: 16, layers: 1, context: 32, attention: {{type: gqa, heads: 2}}, mixtures: [{{experts: 4, expert: {{type: swiglu, hidden: 16}}, losses: [lb-loss]}}]}}
train: {{steps: 3, batch: 4, log_every: 1, evaluate_every: 0, optimiser: {{lr: 0.003}}, schedule: {{warmup: 1}}}}
)", folder.path().string(), text_in(folder.path()).string()));
  train(load_recipe((folder / "small.yaml").string()));
  train(recipe_in(folder.path(), "first", {"train.losses=[router-z]"}));
  const LoadedModel first = load_model(folder / "first"), second = load_model(checkpoint_folder(folder / "run", 0));
  for (const Parameter& parameter : second.decoder->schema().all())
    EXPECT_TRUE(parameter.tensor().equal(first.decoder->schema().find(parameter.name()).tensor())) << parameter.name();
  EXPECT_NE(find_at(config_of(second.folder), "switchyard"), nullptr);
  const std::string metrics = read_file(folder / "run" / "metrics.jsonl");
  EXPECT_NE(metrics.find("lb-loss"), std::string::npos);  // its own
  EXPECT_EQ(metrics.find("router-z"), std::string::npos);
}

TEST_F(BegunFrom, OptionsCanBeSet) {
  const TemporaryFolder folder;
  publish("mixtral", folder / "model");
  const std::string before = text_at(config_of(folder / "model"), "num_experts_per_tok");
  ASSERT_NE(before, "3");
  train(recipe_in(folder.path(), "model", {"set=[mixtures.0.router.k=3]", "train.steps=1"}));
  for (const int64_t step : {0, 1}) EXPECT_EQ(text_at(config_of(checkpoint_folder(folder / "run", step)), "num_experts_per_tok"), "3");
  const NetworkModel changed(load_model(folder / "model", {}, {"mixtures.0.router.k=3"}));
  EXPECT_TRUE(some_logits(checkpoint_folder(folder / "run", 0)).equal(named_outputs(changed, at::arange(34).view({2, 17}), {})[0].second));
  EXPECT_EQ(resume(folder / "run").step, 1);

  fs::remove_all(folder / "run");
  EXPECT_EQ(expect_error([&] { train(recipe_in(folder.path(), "model", {"set=[mixtures.0.router.j=1]"})); }).code(), "options.unknown_key");
  write_text(folder / "nowhere.yaml", "set: [mixtures.0.router.k=3]\n");
  EXPECT_EQ(expect_error([&] { load_recipe((folder / "nowhere.yaml").string()); }).code(), "train.from");
}

TEST_F(BegunFrom, MixturesGetTheRecipesLossesAndControllers) {
  const TemporaryFolder folder;
  publish("deepseek_v3", folder / "model");
  const std::vector<std::string> balance{"train.losses=[lb-loss]", "train.controllers={type: aux-free-bias, speed: 0.01}"};
  train(recipe_in(folder.path(), "model", balance));
  EXPECT_NE(read_file(folder / "run" / "metrics.jsonl").find("lb-loss"), std::string::npos);
  const fs::path last = checkpoint_folder(folder / "run", 6);
  const Safetensors before(checkpoint_folder(folder / "run", 0)), after(last);
  const char* bias = "model.layers.1.mlp.gate.e_score_correction_bias";
  const at::Tensor moved = (after.get(bias) - before.get(bias)).abs();
  EXPECT_GT(moved.max().item<double>(), 0.005);
  EXPECT_LT(moved.max().item<double>(), 0.061);  // six steps of 0.01
  fs::rename(last, folder / "last");
  resume(folder / "run");
  expect_equal_checkpoints(folder / "last", last);
  EXPECT_EQ(expect_error([&] { resume(folder / "run", {"train.losses=[]"}); }).code(), "train.override");
}

TEST_F(BegunFrom, AStartThatFailedOrWasKilledBeginsAgain) {
  const TemporaryFolder folder, whole;
  publish("qwen3", folder / "model");
  publish("qwen3", whole / "model");
  train(recipe_in(whole.path()));
  // Another tokenizer, kept by a start that failed, is not this run's.
  publish("qwen3", folder / "other", 40);
  EXPECT_THROW(train(recipe_in(folder.path(), "other", {"data.domains.0.paths=[/nowhere/*.txt]"})), Error);
  train(recipe_in(folder.path()));
  EXPECT_TRUE(read_file(folder / "run/tokenizer/tokenizer.json") == read_file(folder / "model/tokenizer.json"));
  // One that no start left is somebody's.
  fs::create_directories(folder / "mine" / "tokenizer");
  EXPECT_EQ(expect_error([&] { train(recipe_in(folder.path(), "model", {"output=" + (folder / "mine").string()})); }).code(), "train.output");
  // Killed after its recipe was written and before the first checkpoint was.
  fs::remove_all(folder / "run" / "checkpoints");
  EXPECT_EQ(resume(folder / "run").step, 6);
  expect_equal_checkpoints(checkpoint_folder(whole / "run", 6), checkpoint_folder(folder / "run", 6));
}

TEST_F(BegunFrom, RefusesWhatDoesNotFit) {
  const TemporaryFolder folder;
  publish("mixtral", folder / "model");
  const auto code = [&](const std::string& model, const std::vector<std::string>& overrides) {
    return expect_error([&] { train(recipe_in(folder.path(), model, overrides)); }).code();
  };
  EXPECT_EQ(code("model", {"model.width=16"}), "train.from");
  EXPECT_EQ(code("model", {"data.sequence=65"}), "train.sequence");
  EXPECT_EQ(code("nowhere", {}), "model.folder");
  publish("mixtral", folder / "wide", 93);
  EXPECT_EQ(code("wide", {}), "train.vocabulary");
  fs::remove(folder / "wide" / "tokenizer.json");
  EXPECT_EQ(code("wide", {}), "train.tokenizer");
  EXPECT_EQ(code("model", {"train.controllers=[aux-free-bias]"}), "routing.controller");
  publish("vit", folder / "images");
  EXPECT_EQ(code("images", {"data.sequence=2"}), "train.objective");
  EXPECT_FALSE(fs::exists(folder / "run" / "recipe.yaml"));
  // Another tokenizer in place of the one that is missing.
  EXPECT_EQ(train(recipe_in(folder.path(), "wide", {"tokenizer.from=" + (folder / "model").string(), "train.steps=1"})).step, 1);
}

TEST(Recipe, AnIncludedModelIsTakenBackForOneFromElsewhere) {
  const TemporaryFolder folder;
  write_text(folder / "base.yaml", "model: {width: 16, context: 8}\ntrain: {steps: 5}\ndata: {sequence: 512}\n");
  write_text(folder / "child.yaml", "include: base.yaml\nfrom: somewhere\n");
  EXPECT_EQ(expect_error([&] { load_recipe((folder / "child.yaml").string()); }).code(), "train.from");
  write_text(folder / "child.yaml", "include: base.yaml\nfrom: somewhere\nmodel: null\n");
  EXPECT_EQ(load_recipe((folder / "child.yaml").string()).train.steps, 5);
}

}  // namespace
}  // namespace switchyard
