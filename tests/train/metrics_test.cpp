#include "switchyard/base/json.h"
#include "switchyard/train/metrics.h"

#include <ATen/ATen.h>


#include "switchyard/base/files.h"
#include "switchyard/train/event_file.h"
#include "switchyard/train/run_folder.h"
#include "tests/files.h"
#include "tests/support.h"

namespace switchyard {
namespace {

using testing::expect_error;
using testing::TemporaryFolder;

TEST(EventFile, Crc32cOfTheStandardsTestVectors) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);              // the check value of the polynomial
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);    // RFC 3720, B.4
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  EXPECT_EQ(crc32c(""), 0u);
}

constexpr const char* kReadBack = R"(
import sys, json
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
a = EventAccumulator(sys.argv[1], purge_orphaned_data=True)
a.Reload()
print(json.dumps({tag: [[e.step, e.value] for e in a.Scalars(tag)] for tag in a.Tags()["scalars"]}))
)";

nlohmann::json read_back(const std::string& python, const std::filesystem::path& folder) {
  const testing::Finished finished = testing::run_python(python, kReadBack, folder.string());
  const size_t begin = finished.output.rfind("\n{");
  const auto json = json_if_valid(begin == std::string::npos ? finished.output : finished.output.substr(begin));
  EXPECT_TRUE(json.is_object()) << finished.output;
  return json;
}

TEST(EventFile, TensorBoardReadsTheScalars) {
  SWITCHYARD_NEED_PYTHON(python, "tensorboard");
  TemporaryFolder folder;
  {
    EventFile events(folder.path());
    events.add(1, {{"train/loss", 2.5}, {"train/lr", 1e-3}});
    events.add(300, {{"train/loss", 1.25}});
  }
  const nlohmann::json tags = read_back(python, folder.path());
  EXPECT_EQ(tags["train/loss"], (nlohmann::json{{1, 2.5}, {300, 1.25}}));
  EXPECT_NEAR(tags["train/lr"][0][1].get<double>(), 1e-3, 1e-9);
}

TEST(EventFile, AResumedRunReplacesLaterSteps) {
  SWITCHYARD_NEED_PYTHON(python, "tensorboard");
  TemporaryFolder folder;
  {
    EventFile events(folder.path());
    for (int64_t step : {10, 20, 30}) events.add(step, {{"loss", static_cast<double>(step)}});
  }
  {
    EventFile events(folder.path(), 20);
    events.add(30, {{"loss", 3.0}});
  }
  EXPECT_EQ(read_back(python, folder.path())["loss"], (nlohmann::json{{10, 10.0}, {20, 20.0}, {30, 3.0}}));
}

TEST(LineFile, DropsWhatCameAfterTheStepAndABrokenEnd) {
  TemporaryFolder folder;
  const auto path = folder / "metrics.jsonl";
  testing::write_text(path, "{\"step\":1}\n{\"step\":2}\nnonsense\n{\"step\":3}\n{\"ste");
  { LineFile(path, 2).add("{\"step\":3,\"again\":true}"); }
  EXPECT_EQ(read_file(path), "{\"step\":1}\n{\"step\":2}\n{\"step\":3,\"again\":true}\n");
  { LineFile fresh(path, -1); }
  EXPECT_EQ(read_file(path), "");
}

TEST(LineFile, SaysWhyItCannotBeWritten) {
  const Error error = expect_error([] { LineFile file("/nowhere/metrics.jsonl", -1); });
  EXPECT_EQ(error.code(), "file.write");
  EXPECT_NE(error.message().find("/nowhere/metrics.jsonl"), std::string::npos) << error.message();
}

TEST(MetricsLog, WritesLinesThatReportsRead) {
  TemporaryFolder folder;
  MetricsLog log(folder.path(), -1);
  log.step(10, {{"loss", 2.5}, {"lb-loss", 1.0}});
  log.evaluation(10, 2.0, 4096, {{"c", 1.5}});
  log.routing(10, {{"layers.1.feed_forward", 1, {at::tensor({3, 5}, at::kLong), at::tensor({3, 4}, at::kLong), 4}}});
  const std::string metrics = read_file(folder / "metrics.jsonl");
  EXPECT_EQ(metrics.substr(0, metrics.find('\n')), R"({"step":10,"loss":2.5,"lb-loss":1.0})");
  const auto eval = json_from(metrics.substr(metrics.find('\n') + 1));
  EXPECT_EQ(eval["eval"], true);
  EXPECT_EQ(eval["domains"]["c"], 1.5);
  EXPECT_NEAR(eval["perplexity"].get<double>(), std::exp(2.0), 1e-12);
  EXPECT_EQ(read_file(folder / "routing.jsonl"),
            "{\"step\":10,\"layers\":[{\"site\":\"layers.1.feed_forward\",\"layer\":1,\"experts\":2,\"engaged\":[3,5],"
            "\"admitted\":[3,4],\"rows\":4}]}\n");
}

TEST(Interval, SurvivesACheckpointExactly) {
  StepResult step{.loss = 1.0 / 3, .terms = {{"lb-loss", 0.1}, {"router-z", 7e-9}}, .tokens = 7, .gradient_norm = 1,
                  .loads = {{"layers.0.feed_forward", 0, {at::tensor({1, 2}, at::kLong), at::tensor({1, 1}, at::kLong), 3}}}};
  Interval interval;
  interval.add(step);
  interval.add(step);
  const Interval again = Interval::read(parse_json(to_json(interval.write()), "state.json"));
  EXPECT_EQ(again.steps, 2);
  EXPECT_EQ(again.loss_sum, interval.loss_sum);
  EXPECT_EQ(again.term_sums, interval.term_sums);
  ASSERT_EQ(again.loads.size(), 1u);
  EXPECT_TRUE(at::equal(again.loads[0].load.engaged, at::tensor({2, 4}, at::kLong)));
  EXPECT_EQ(again.loads[0].load.rows, 6);
  EXPECT_EQ(expect_error([] { Interval::read(parse_json("{\"steps\": \"many\"}", "state.json")); }).code(), "train.state");
}

TEST(StepLoad, ImbalanceAndDrops) {
  std::vector<LayerLoad> loads{{"a", 0, {at::tensor({6, 2, 0, 0}, at::kLong), at::tensor({4, 2, 0, 0}, at::kLong), 8}},
                               {"b", 1, {at::tensor({2, 2, 2, 2}, at::kLong), at::tensor({2, 2, 2, 2}, at::kLong), 8}}};
  EXPECT_DOUBLE_EQ(imbalance(loads), (3.0 + 1.0) / 2);
  EXPECT_DOUBLE_EQ(dropped(loads), 2.0 / 16);
  EXPECT_EQ(imbalance({}), 0);
  EXPECT_EQ(dropped({}), 0);
}

TEST(RunFolder, ListsOnlyCompleteCheckpoints) {
  TemporaryFolder folder;
  EXPECT_TRUE(checkpoints(folder.path()).empty());
  for (const char* name : {"step-00000020", "step-00000005", ".step-00000030.tmp-host-1-0", "step-x", "step-7x"})
    std::filesystem::create_directories(folder / "checkpoints" / name);
  testing::write_text(folder / "checkpoints" / "step-00000009", "a file");
  const auto found = checkpoints(folder.path());
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].first, 5);
  EXPECT_EQ(found[1].second, checkpoint_folder(folder.path(), 20));
}

}  // namespace
}  // namespace switchyard
