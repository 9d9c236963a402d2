// `switchyard inspect` as a user meets it, on a small run made here: two checkpoints of an untrained model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>


#include "switchyard/base/files.h"
#include "switchyard/base/json.h"
#include "switchyard/base/node.h"
#include "switchyard/models/checkpoint.h"
#include "switchyard/train/recipe.h"
#include "tests/files.h"
#include "tests/models/decoder_support.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using testing::Finished;
using testing::TemporaryFolder;
using testing::make_decoder;
using testing::run_command;
using testing::write_text;

const std::string kProgram = std::string(SWITCHYARD_BINARY_DIR) + "/bin/switchyard";

std::string quoted(const fs::path& path) { return "'" + path.string() + "'"; }
Finished inspect(const std::string& arguments) { return run_command(kProgram + " inspect --quiet " + arguments); }

/// A run folder as training leaves it.
class InspectVerb : public ::testing::Test {
 protected:
  fs::path run() const { return folder_.path() / "run"; }

  std::shared_ptr<Tokenizer> write_texts() {
    for (const char* domain : {"code", "verse"}) {
      fs::create_directories(folder_.path() / domain);
      for (int i = 0; i < 12; ++i) {
        std::string text;
        for (int j = 0; j < 30; ++j)
          text += std::string(domain) == "code" ? "int f" + std::to_string(i * j % 17) + "(int x) { return x + " + std::to_string(j) + "; }\n"
                                                : "and it came to pass in the " + std::to_string(i + j) + "th day, that they went\n";
        write_text(folder_.path() / domain / (std::to_string(i) + ".txt"), text + std::to_string(i));
      }
    }
    int64_t next = 0;
    return train_tokenizer({.vocabulary = 420}, [&](std::string& text) {
      if (next >= 24) return false;
      const fs::path file = folder_.path() / (next < 12 ? "code" : "verse") / (std::to_string(next % 12) + ".txt");
      text = read_file(file);
      ++next;
      return true;
    });
  }

  /// `mixture`: a line of the model's YAML, or empty for a dense one.
  void make_run(const std::string& mixture, const std::vector<int64_t>& steps = {10, 20}) {
    const std::shared_ptr<Tokenizer> tokenizer = write_texts();
    const std::string model = "vocabulary: " + std::to_string(tokenizer->vocabulary()) +
                              "\nwidth: 32\nlayers: 2\ncontext: 64\nattention: {type: gqa, heads: 2}\n" + mixture;
    for (const int64_t step : steps) {
      const auto decoder = make_decoder(model, at::kFloat, static_cast<double>(step));
      const std::string digits = std::to_string(step);
      const fs::path checkpoint = run() / "checkpoints" / ("step-" + std::string(8 - digits.size(), '0') + digits);
      fs::create_directories(checkpoint);
      save_model(checkpoint, *decoder, tokenizer.get());
    }
    Recipe recipe;
    recipe.model = testing::model_options(model);
    recipe.data.sequence = 32;
    recipe.data.held_out = 0.4;
    recipe.data.cache = (folder_.path() / "cache").string();
    for (const char* domain : {"code", "verse"}) {
      DomainOptions one;
      one.name = domain;
      one.paths = {(folder_.path() / domain).string()};
      recipe.data.domains.push_back(one);
    }
    write_text(run() / "recipe.yaml", to_yaml(write_options(recipe)));
    write_text(run() / "metrics.jsonl", "{\"step\":10,\"loss\":5.5}\n{\"step\":20,\"loss\":5.1}\n{\"step\":20,\"eval\":true,\"loss\":5.2}\n");
    write_text(run() / "routing.jsonl", R"({"step":20,"layers":[{"site":"layers.1.feed_forward","layer":1,"experts":4,"engaged":[5,3,2,2],"admitted":[5,3,2,2],"rows":6}]})" "\n");
  }

  TemporaryFolder folder_;
};

const char* kMixture = "mixtures: [{experts: 4, router: {type: sparse-topk, k: 2}, expert: {type: swiglu, hidden: 32}}]\n";

TEST_F(InspectVerb, WritesPageAndNumbersOfARun) {
  make_run(kMixture);
  const Finished done = inspect(quoted(run()));
  ASSERT_EQ(done.status, 0) << done.output;
  EXPECT_THAT(done.output, HasSubstr("report.html"));
  const auto report = json_from(read_file(run() / "report.json"));
  ASSERT_EQ(report["layers"].size(), 2u);
  EXPECT_EQ(report["domains"], (nlohmann::json{"code", "verse"}));
  EXPECT_GT(report["tokens"].get<int64_t>(), 300);
  EXPECT_EQ(report["checkpoints"], (nlohmann::json{10, 20}));
  EXPECT_EQ(report["layers"][1]["saturation"][1]["overlap"], 1);
  EXPECT_EQ(report["layers"][0]["history"], nullptr);
  EXPECT_EQ(report["layers"][1]["history"]["steps"], (nlohmann::json{20}));
  EXPECT_NEAR(report["layers"][0]["experts_per_token"].get<double>(), 2, 1e-9);
  EXPECT_NE(report["loss_by_domain"][0], nullptr);
  // The sample's pieces add up to held-out text of the domain.
  std::string text;
  for (const auto& piece : report["samples"][1]["pieces"]) text += piece.get<std::string>();
  EXPECT_THAT(text, HasSubstr("it came to pass"));
  EXPECT_THAT(read_file(run() / "report.html"), HasSubstr("\"layers.1.feed_forward\""));
}

TEST_F(InspectVerb, LooksAtFilesAndAtAModelAlone) {
  make_run(kMixture, {10});
  const fs::path model = run() / "checkpoints" / "step-00000010";
  const Finished done = inspect(quoted(model) + " --data " + quoted(folder_.path() / "verse" / "*.txt") + " " + quoted(folder_.path() / "code") +
                                " --output " + quoted(folder_.path() / "here.html"));
  ASSERT_EQ(done.status, 0) << done.output;
  const auto report = json_from(read_file(folder_.path() / "here.json"));
  EXPECT_EQ(report["domains"].size(), 2u);
  EXPECT_EQ(report["domains"][1], "code");
  EXPECT_EQ(report["checkpoints"].size(), 0u);
  EXPECT_FALSE(fs::exists(model / "report.html"));
}

TEST_F(InspectVerb, JsonPrintsTheNumbersAndWritesNothing) {
  make_run(kMixture, {10});
  const Finished done = run_command("(" + kProgram + " inspect --json " + quoted(run()) + " 2>/dev/null)");
  ASSERT_EQ(done.status, 0) << done.output;
  EXPECT_EQ(json_from(done.output)["layers"].size(), 2u);
  EXPECT_FALSE(fs::exists(run() / "report.html"));
}

TEST_F(InspectVerb, ADenseModelHasNoRouting) {
  make_run("");
  const Finished done = inspect(quoted(run()));
  ASSERT_EQ(done.status, 0) << done.output;
  EXPECT_THAT(done.output, HasSubstr("no routed layer"));
  EXPECT_TRUE(json_from(read_file(run() / "report.json"))["layers"].empty());
}

TEST_F(InspectVerb, SaysWhatIsMissing) {
  make_run(kMixture, {10});
  const auto expect = [](const Finished& done, const char* code, const char* text) {
    EXPECT_EQ(done.status, 2) << done.output;
    EXPECT_THAT(done.output, HasSubstr(std::string("[") + code + "]"));
    EXPECT_THAT(done.output, HasSubstr(text));
  };
  expect(inspect(quoted(folder_.path() / "nowhere")), "model.folder", "does not exist");
  expect(inspect(quoted(folder_.path() / "code")), "model.folder", "neither a model folder");
  expect(inspect(quoted(run()) + " --data " + quoted(folder_.path() / "absent.txt")), "data.missing", "absent.txt");
  fs::create_directories(folder_.path() / "white");
  write_text(folder_.path() / "white" / "space.txt", " \n\n \n");
  expect(inspect(quoted(run()) + " --data " + quoted(folder_.path() / "white")), "inspect.data_empty", "hold no text");
  expect(inspect(quoted(run()) + " --output " + quoted(folder_.path() / "numbers.json")), "inspect.output", "ends in .html");
  fs::copy(run() / "checkpoints" / "step-00000010", folder_.path() / "alone", fs::copy_options::recursive);
  expect(inspect(quoted(folder_.path() / "alone")), "inspect.no_recipe", "--data");
  for (const auto& entry : fs::directory_iterator(folder_.path() / "alone"))
    if (entry.path().filename().string().starts_with("token")) fs::remove(entry.path());
  expect(inspect(quoted(folder_.path() / "alone")), "inspect.tokenizer", "no tokenizer");
  write_text(run() / "routing.jsonl", "{\"step\":1,\"layers\":[{\"site\":\"a\",\"experts\":4,\"engaged\":[1]}]}\n");
  expect(inspect(quoted(run())), "inspect.history", "engaged must list 4 numbers");
}

}  // namespace
}  // namespace switchyard
