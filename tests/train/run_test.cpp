// Whole runs: what they leave, and that a run which was stopped in any way ends as if it had not been.
#include "switchyard/base/json.h"
#include "switchyard/train/run.h"

#include <ATen/ATen.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "switchyard/base/files.h"
#include "switchyard/base/progress.h"
#include "switchyard/models/checkpoint.h"
#include "switchyard/train/run_folder.h"
#include "tests/files.h"
#include "tests/support.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using testing::expect_error;
using testing::TemporaryFolder;

constexpr const char* kProgram = SWITCHYARD_BINARY_DIR "/bin/switchyard";

/// Two domains of text that can be learnt, and a recipe of a few thousand parameters.
fs::path write_recipe(const fs::path& folder, const std::string& more = "") {
  std::string numbers, letters;
  for (int i = 0; i < 300; ++i) {
    numbers += fmt::format("{{\"text\": \"{} and {} make {}, and {} less {} is {}.\"}}\n", i, i + 1, 2 * i + 1, 2 * i, i, i);
    letters += fmt::format("{{\"text\": \"item {} comes before item {}, says line {} of this list\"}}\n", i, i + 1, i);
  }
  fs::create_directories(folder);
  testing::write_text(folder / "numbers.jsonl", numbers);
  testing::write_text(folder / "letters.jsonl", letters);
  testing::write_text(folder / "tiny.yaml", fmt::format(R"(output: {0}/run
seed: 3
tokenizer: {{vocabulary: 384, sample_bytes: 20000}}
data:
  cache: {0}/cache
  held_out: 0.1
  sequence: 32
  domains:
    - {{name: numbers, paths: [{0}/numbers.jsonl]}}
    - {{name: letters, paths: [{0}/letters.jsonl]}}
model:
  width: 16
  layers: 2
  context: 32
  attention: {{type: gqa, heads: 2}}
  feed_forward: {{type: feed-forward, hidden: 32}}
  mixtures:
    - experts: 4
      layers: {{list: [0]}}
      router: {{type: sparse-topk, k: 2}}
      expert: {{type: swiglu, hidden: 16}}
      losses: [lb-loss, router-z]
    - experts: 4
      layers: {{list: [1]}}
      router: {{type: sigmoid-topk, k: 2}}
      expert: {{type: swiglu, hidden: 16}}
      controllers: {{type: aux-free-bias, speed: 0.01}}
train:
  steps: 12
  batch: 4
  log_every: 4
  evaluate_every: 6
  evaluate_tokens: 512
  checkpoint_every: 5
  schedule: {{warmup: 2}}
{1}
)", folder.string(), more));
  return folder / "tiny.yaml";
}

Recipe recipe_in(const fs::path& folder, const std::vector<std::string>& overrides = {}) {
  return load_recipe(write_recipe(folder).string(), overrides);
}

std::vector<nlohmann::json> lines(const fs::path& file) {
  std::vector<nlohmann::json> all;
  const std::string text = read_file(file);
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1)
    all.push_back(json_from(text.substr(begin, end - begin)));
  return all;
}

/// Metrics without what depends on the clock.
std::vector<nlohmann::json> timeless(const fs::path& run) {
  std::vector<nlohmann::json> all = lines(run / "metrics.jsonl");
  for (nlohmann::json& line : all) {
    line.erase("tokens_per_second");
    line.erase("peak_share");
  }
  return all;
}

void expect_equal_runs(const fs::path& a, const fs::path& b) {
  EXPECT_EQ(timeless(a), timeless(b));
  EXPECT_EQ(read_file(a / "routing.jsonl"), read_file(b / "routing.jsonl"));
  const auto last_a = checkpoints(a), last_b = checkpoints(b);
  ASSERT_FALSE(last_a.empty());
  ASSERT_FALSE(last_b.empty());
  EXPECT_EQ(last_a.back().first, last_b.back().first);
  for (const char* file : {"model.safetensors", "training/optimiser.safetensors", "training/state.json"})
    EXPECT_TRUE(read_file(last_a.back().second / file) == read_file(last_b.back().second / file)) << file;
}

/// Asks for a stop when a step is reached.
class StopAt : public Reporter {
 public:
  explicit StopAt(int64_t step) : step_(step) {}
  void message(Level, std::string_view text) override { said += std::string(text) + "\n"; }
  void progress(std::string_view task, int64_t done, int64_t, const std::vector<std::pair<std::string, std::string>>& values) override {
    if (task != "train") return;
    shown = values;
    if (done == step_) request_interrupt();
  }
  void finished(std::string_view) override {}
  std::string said;
  std::vector<std::pair<std::string, std::string>> shown;

 private:
  int64_t step_;
};

struct Reporting {
  explicit Reporting(int64_t stop = -1) : reporter(std::make_shared<StopAt>(stop)), before(set_reporter(reporter)) {}
  ~Reporting() {
    set_reporter(before);
    clear_interrupt();
  }
  std::shared_ptr<StopAt> reporter;
  std::shared_ptr<Reporter> before;
};

TEST(Run, LeavesWhatItPromises) {
  TemporaryFolder folder;
  const Reporting reporting;
  const RunResult result = train(recipe_in(folder.path()));
  const fs::path run = folder / "run";
  EXPECT_EQ(result.step, 12);
  EXPECT_FALSE(result.interrupted);
  EXPECT_GT(result.parameters, result.active_parameters);

  const auto metrics = lines(run / "metrics.jsonl");
  std::vector<std::pair<int64_t, bool>> written;
  for (const auto& line : metrics) written.emplace_back(line["step"].get<int64_t>(), line.value("eval", false));
  EXPECT_EQ(written, (std::vector<std::pair<int64_t, bool>>{{4, false}, {6, true}, {8, false}, {12, false}, {12, true}}));
  EXPECT_LT(metrics[3]["loss"].get<double>(), metrics[0]["loss"].get<double>());
  for (const char* key : {"loss", "lb-loss", "router-z", "lr", "gradient_norm", "tokens", "imbalance", "dropped", "tokens_per_second", "peak_share"})
    EXPECT_TRUE(metrics[0].contains(key)) << key;
  EXPECT_TRUE(metrics[1]["domains"].contains("numbers"));
  EXPECT_TRUE(metrics[1]["domains"].contains("letters"));
  EXPECT_NEAR(result.held_out, metrics[4]["loss"].get<double>(), 0);

  const auto routing = lines(run / "routing.jsonl");
  ASSERT_EQ(routing.size(), 3u);
  int64_t pairs = 0;
  for (const auto& count : routing[0]["layers"][0]["engaged"]) pairs += count.get<int64_t>();
  EXPECT_EQ(pairs, 2 * routing[0]["layers"][0]["rows"].get<int64_t>());
  EXPECT_EQ(routing[0]["layers"][0]["rows"].get<int64_t>(), 4 * 4 * 32);

  const auto kept = checkpoints(run);  // 5, 10, 12, of which two are kept
  ASSERT_EQ(kept.size(), 2u);
  EXPECT_EQ(kept[0].first, 10);
  EXPECT_EQ(kept[1].first, 12);
  const LoadedModel loaded = load_model(run);
  ASSERT_TRUE(loaded.tokenizer);
  EXPECT_EQ(loaded.decoder->options().vocabulary, loaded.tokenizer->vocabulary());
  EXPECT_EQ(load_recipe((run / "recipe.yaml").string()).train.steps, 12);

  const auto shown = reporting.reporter->shown;
  std::vector<std::string> names;
  for (const auto& [name, value] : shown) names.push_back(name);
  EXPECT_EQ(names, (std::vector<std::string>{"loss", "tok/s", "of peak", "imbalance", "drops", "held-out"}));
}

TEST(Run, StoppedAndResumedEqualsUninterrupted) {
  TemporaryFolder whole, parts;
  const Reporting quiet;
  train(recipe_in(whole.path()));
  {
    const Reporting reporting(7);  // between a line of metrics and the next, off every checkpoint
    const RunResult stopped = train(recipe_in(parts.path()));
    EXPECT_TRUE(stopped.interrupted);
    EXPECT_EQ(stopped.step, 7);
  }
  const RunResult result = resume(parts / "run");
  EXPECT_EQ(result.step, 12);
  expect_equal_runs(whole / "run", parts / "run");
  // Once more has nothing to do, and further steps may be asked for.
  EXPECT_EQ(resume(parts / "run").step, 12);
  EXPECT_EQ(resume(parts / "run", {"train.steps=14"}).step, 14);
  EXPECT_EQ(load_recipe((parts / "run" / "recipe.yaml").string()).train.steps, 14);
}

TEST(Run, SameSeedSameRunAnotherSeedAnother) {
  TemporaryFolder a, b, c;
  train(recipe_in(a.path(), {"train.steps=4"}));
  train(recipe_in(b.path(), {"train.steps=4"}));
  train(recipe_in(c.path(), {"train.steps=4", "seed=4"}));
  expect_equal_runs(a / "run", b / "run");
  EXPECT_NE(timeless(a / "run"), timeless(c / "run"));
}

TEST(Run, RefusesAFolderInUseOrTaken) {
  TemporaryFolder folder;
  const Recipe recipe = recipe_in(folder.path(), {"train.steps=1"});
  fs::create_directories(folder / "run");
  {
    const FolderLock lock(folder / "run");
    EXPECT_EQ(expect_error([&] { train(recipe); }).code(), "file.locked");
  }
  train(recipe);
  const Error again = expect_error([&] { train(recipe); });
  EXPECT_EQ(again.code(), "train.run_exists");
  EXPECT_NE(again.message().find("switchyard resume " + (folder / "run").string()), std::string::npos) << again.message();
  EXPECT_NE(again.message().find("output="), std::string::npos) << again.message();
  {
    const FolderLock lock(folder / "run");
    EXPECT_EQ(expect_error([&] { resume(folder / "run"); }).code(), "file.locked");
  }
  Recipe other = recipe;
  other.output = folder.path().string();  // holds the texts
  const Error taken = expect_error([&] { train(other); });
  EXPECT_EQ(taken.code(), "train.output");
  EXPECT_EQ(expect_error([&] { resume(folder / "nothing"); }).code(), "train.no_run");
  const Error touched = expect_error([&] { resume(folder / "run", {"model.width=32"}); });
  EXPECT_EQ(touched.code(), "train.override");
  EXPECT_NE(touched.message().find("model.width=32"), std::string::npos);
}

TEST(Run, AFailedStartLeavesTheFolderUsable) {
  TemporaryFolder folder;
  Recipe recipe = recipe_in(folder.path(), {"train.steps=1", "model.attention.heads=5"});
  EXPECT_THROW(train(recipe), Error);
  EXPECT_EQ(train(recipe_in(folder.path(), {"train.steps=1"})).step, 1);
}

TEST(Run, ATruncatedCheckpointIsNamed) {
  TemporaryFolder folder;
  train(recipe_in(folder.path()));
  const fs::path newest = checkpoints(folder / "run").back().second;
  for (const char* file : {"training/optimiser.safetensors", "training/state.json", "model.safetensors"}) {
    const std::string bytes = read_file(newest / file);
    testing::write_text(newest / file, bytes.substr(0, bytes.size() / 2));
    const Error error = expect_error([&] { resume(folder / "run", {"train.steps=13"}); });
    EXPECT_EQ(error.code(), "train.checkpoint") << file;
    EXPECT_NE(error.message().find(newest.string()), std::string::npos) << error.message();
    EXPECT_NE(error.message().find("remove that folder"), std::string::npos) << error.message();
    testing::write_text(newest / file, bytes);
  }
  fs::remove_all(newest);
  EXPECT_EQ(resume(folder / "run").step, 12);  // from step 10
}

TEST(Recipe, ErrorsNameFileAndLine) {
  TemporaryFolder folder;
  const fs::path file = write_recipe(folder.path());
  const std::string text = read_file(file);
  testing::write_text(file, text + "trian: {}\n");
  const Error unknown = expect_error([&] { load_recipe(file.string()); });
  EXPECT_EQ(unknown.code(), "options.unknown_key");
  EXPECT_NE(unknown.message().find("tiny.yaml:"), std::string::npos) << unknown.message();
  EXPECT_NE(unknown.message().find("train"), std::string::npos) << unknown.message();
  testing::write_text(file, text);
  EXPECT_EQ(expect_error([&] { load_recipe((folder / "absent.yaml").string()); }).code(), "file.missing");
  const Error type = expect_error([&] { load_recipe(file.string(), {"train.steps=many"}); });
  EXPECT_EQ(type.code(), "options.type");
  EXPECT_NE(type.message().find("train.steps=many"), std::string::npos) << type.message();
  EXPECT_EQ(expect_error([&] { load_recipe(file.string(), {"train.accumulate=3"}); }).code(), "train.accumulate");
  EXPECT_EQ(expect_error([&] { load_recipe(file.string(), {"data.sequence=64"}); }).code(), "train.sequence");
  EXPECT_EQ(expect_error([&] { train(load_recipe(file.string(), {"model.vocabulary=7"})); }).code(), "train.vocabulary");
  EXPECT_EQ(expect_error([&] { train(load_recipe(file.string(), {"data.domains.0.paths=[/nowhere/*.txt]"})); }).code(), "data.missing");
  testing::write_text(folder / "child.yaml", "include: tiny.yaml\ntrain: {steps: 5}\n");
  const Recipe child = load_recipe((folder / "child.yaml").string());
  EXPECT_EQ(child.train.steps, 5);
  EXPECT_EQ(child.train.batch, 4);
}

// --- the program, killed -----------------------------------------------------------------------

/// The program in a child process, its output in a file.
class Child {
 public:
  Child(const std::vector<std::string>& arguments, const fs::path& output) : output_(output) {
    std::vector<std::string> words{kProgram};
    words.insert(words.end(), arguments.begin(), arguments.end());
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    process_ = ::fork();
    if (process_ == 0) {
      const int file = ::open(output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
      ::dup2(file, 1);
      ::dup2(file, 2);
      ::execv(kProgram, argv.data());
      ::_exit(127);
    }
  }
  ~Child() {
    if (process_ > 0) {
      kill(SIGKILL);
      wait();
    }
  }
  void kill(int signal) const { ::kill(process_, signal); }
  /// Exit status, or 128 + signal.
  int wait() {
    int status = 0;
    ::waitpid(process_, &status, 0);
    process_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  /// Polls until `happened` or the process has ended (or two minutes passed); true when it happened.
  bool until(const std::function<bool()>& happened) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(2);
    while (std::chrono::steady_clock::now() < end) {
      if (happened()) return true;
      siginfo_t info{};
      if (::waitid(P_PID, process_, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0) return happened();
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    return false;
  }
  std::string output() const { return read_file(output_); }

 private:
  fs::path output_;
  pid_t process_ = -1;
};

bool temporary_checkpoint(const fs::path& run) {
  std::error_code error;
  for (fs::directory_iterator it(run / "checkpoints", error), end; !error && it != end; it.increment(error))
    if (it->path().filename().string().starts_with(".step-")) return true;
  return false;
}

#define NEED_PROGRAM() \
  if (!fs::exists(kProgram)) GTEST_SKIP() << "needs the program at " << kProgram

/// Long enough that a kill finds it running.
const std::vector<std::string> kLong{"train.steps=60", "train.checkpoint_every=10", "train.evaluate_every=0"};

void kill_and_compare(const std::function<bool(const fs::path& run)>& moment) {
  TemporaryFolder whole, parts;
  train(load_recipe(write_recipe(whole.path()).string(), kLong));
  std::vector<std::string> arguments{"train", write_recipe(parts.path()).string()};
  arguments.insert(arguments.end(), kLong.begin(), kLong.end());
  const fs::path run = parts / "run";
  Child child(arguments, parts / "output");
  ASSERT_TRUE(child.until([&] { return moment(run); })) << child.output();
  child.kill(SIGKILL);
  EXPECT_EQ(child.wait(), 128 + SIGKILL);
  for (const auto& [step, folder] : checkpoints(run))  // what has its final name is whole
    EXPECT_NO_THROW(load_model(folder)) << step;
  Child again({"resume", run.string()}, parts / "output2");
  EXPECT_EQ(again.wait(), 0) << again.output();
  EXPECT_FALSE(temporary_checkpoint(run));
  expect_equal_runs(whole / "run", run);
}

TEST(RunKilled, MidRun) {
  NEED_PROGRAM();
  kill_and_compare([](const fs::path& run) {
    const auto found = checkpoints(run);
    return !found.empty() && found.back().first >= 20 && fs::file_size(run / "metrics.jsonl") > 1500;
  });
}

TEST(RunKilled, BeforeTheFirstCheckpoint) {
  NEED_PROGRAM();
  kill_and_compare([](const fs::path& run) { return fs::exists(run / "metrics.jsonl") && fs::file_size(run / "metrics.jsonl") > 10; });
}

TEST(RunKilled, MidSave) {
  NEED_PROGRAM();
  kill_and_compare([](const fs::path& run) { return checkpoints(run).size() >= 1 && temporary_checkpoint(run); });
}

TEST(RunKilled, CtrlCSavesAndSaysHowToGoOn) {
  NEED_PROGRAM();
  TemporaryFolder folder;
  Child child({"train", write_recipe(folder.path()).string(), "train.steps=100000", "train.checkpoint_every=0"}, folder / "output");
  const fs::path run = folder / "run";
  ASSERT_TRUE(child.until([&] { return fs::exists(run / "metrics.jsonl") && fs::file_size(run / "metrics.jsonl") > 10; })) << child.output();
  child.kill(SIGINT);
  EXPECT_EQ(child.wait(), 130) << child.output();
  EXPECT_NE(child.output().find("go on with: switchyard resume " + run.string()), std::string::npos) << child.output();
  EXPECT_EQ(checkpoints(run).size(), 1u);
}

TEST(RunKilled, DiskFullKeepsTheLastCheckpoint) {
  NEED_PROGRAM();
  TemporaryFolder folder;
  const fs::path disk = folder / "disk";
  fs::create_directories(disk);
  if (::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=2m") != 0) GTEST_SKIP() << "needs the right to mount a tmpfs";
  struct Unmount {
    fs::path at;
    ~Unmount() { ::umount2(at.c_str(), MNT_DETACH); }
  } unmount{disk};
  // A checkpoint takes some 400 kB; keeping all of them fills the disk.
  Child child({"train", write_recipe(folder.path()).string(), "output=" + (disk / "run").string(), "train.steps=1000", "train.log_every=50",
               "train.evaluate_every=0", "train.checkpoint_every=2", "train.keep_last=0"}, folder / "output");
  EXPECT_EQ(child.wait(), 2) << child.output();
  EXPECT_NE(child.output().find("[file.write]"), std::string::npos) << child.output();
  EXPECT_NE(child.output().find("No space left"), std::string::npos) << child.output();
  EXPECT_FALSE(temporary_checkpoint(disk / "run"));
  const auto kept = checkpoints(disk / "run");
  ASSERT_GE(kept.size(), 2u);
  for (size_t i = 0; i + 1 < kept.size(); ++i) fs::remove_all(kept[i].second);
  Child again({"resume", (disk / "run").string(), fmt::format("train.steps={}", kept.back().first + 2), "train.keep_last=1"}, folder / "output2");
  EXPECT_EQ(again.wait(), 0) << again.output();
}

}  // namespace
}  // namespace switchyard
