#include "switchyard/train/train_options.h"

#include <cmath>
#include <numbers>

#include "switchyard/base/options.h"
#include "switchyard/train/optimiser.h"
#include "tests/support.h"

namespace switchyard {
namespace {

TEST(Schedule, RisesLinearlyThenKeepsItsShape) {
  ScheduleOptions s{.shape = ScheduleShape::constant, .warmup = 4};
  EXPECT_DOUBLE_EQ(s.at(0, 10), 0.25);
  EXPECT_DOUBLE_EQ(s.at(2, 10), 0.75);
  for (int64_t step = 3; step < 10; ++step) EXPECT_DOUBLE_EQ(s.at(step, 10), 1);
}

TEST(Schedule, CosineEndsAtTheFloor) {
  ScheduleOptions s{.shape = ScheduleShape::cosine, .warmup = 2, .floor = 0.1};
  EXPECT_DOUBLE_EQ(s.at(1, 10), 1);
  EXPECT_DOUBLE_EQ(s.at(3, 10), 0.1 + 0.9 * 0.5 * (1 + std::cos(std::numbers::pi * 0.25)));
  EXPECT_DOUBLE_EQ(s.at(5, 10), 0.55);
  EXPECT_DOUBLE_EQ(s.at(9, 10), 0.1);
}

TEST(Schedule, LinearFallsEvenly) {
  ScheduleOptions s{.shape = ScheduleShape::linear, .warmup = 0, .floor = 0};
  EXPECT_DOUBLE_EQ(s.at(0, 4), 0.75);
  EXPECT_DOUBLE_EQ(s.at(3, 4), 0);
}

TEST(Schedule, WsdIsLevelUntilItsDecay) {
  ScheduleOptions s{.shape = ScheduleShape::wsd, .warmup = 2, .floor = 0.2, .decay = 0.4};
  EXPECT_DOUBLE_EQ(s.at(0, 10), 0.5);
  EXPECT_DOUBLE_EQ(s.at(5, 10), 1);     // six steps done
  EXPECT_DOUBLE_EQ(s.at(6, 10), 0.8);   // then a quarter of the fall a step
  EXPECT_DOUBLE_EQ(s.at(9, 10), 0.2);
}

TEST(Schedule, WarmupLongerThanTheRunOnlyRises) {
  for (const auto shape : {ScheduleShape::cosine, ScheduleShape::linear, ScheduleShape::wsd}) {
    ScheduleOptions s{.shape = shape, .warmup = 100};
    EXPECT_DOUBLE_EQ(s.at(9, 10), 0.1);
  }
}

TEST(TrainOptions, ReadsWhatItWritesAndRefusesNonsense) {
  const auto options = read_options<TrainOptions>(
      parse_yaml("steps: 20\nprecision: bfloat16\nschedule: {shape: wsd, decay: 0.5}\noptimiser: {router_lr: 0.1}\n", "t.yaml"));
  EXPECT_EQ(options.precision, Precision::bfloat16);
  EXPECT_EQ(options.schedule.shape, ScheduleShape::wsd);
  EXPECT_EQ(to_yaml(write_options(options)), to_yaml(write_options(read_options<TrainOptions>(write_options(options)))));
  const Error error = testing::expect_error([] { read_options<TrainOptions>(parse_yaml("steps: 20\nlog_evry: 3\n", "t.yaml")); });
  EXPECT_EQ(error.code(), "options.unknown_key");
  EXPECT_NE(error.message().find("t.yaml:2"), std::string::npos) << error.message();
  EXPECT_NE(error.message().find("log_every"), std::string::npos) << error.message();
  EXPECT_EQ(testing::expect_error([] { read_options<TrainOptions>(parse_yaml("scheme: orignal-scheme", "t.yaml")); }).code(),
            "registry.unknown");
  EXPECT_EQ(testing::expect_error([] { read_options<TrainOptions>(parse_yaml("schedule: {floor: 2}", "t.yaml")); }).code(),
            "options.range");
}

TEST(Optimiser, GroupsByRole) {
  const OptimiserOptions o{.weight_decay = 0.1, .router_lr = 0.5, .router_weight_decay = 0.02};
  const auto group = [&](Role role, std::vector<int64_t> shape) {
    return group_of({.name = "p", .shape = std::move(shape), .role = role, .init = {}}, o);
  };
  EXPECT_EQ(group(Role::projection, {4, 4}).weight_decay, 0.1);
  EXPECT_EQ(group(Role::expert, {8, 4, 4}).weight_decay, 0.1);
  EXPECT_EQ(group(Role::embedding, {9, 4}).weight_decay, 0.1);
  EXPECT_EQ(group(Role::norm, {4}).weight_decay, 0);
  EXPECT_EQ(group(Role::bias, {8, 4}).weight_decay, 0);
  EXPECT_EQ(group(Role::embedding, {4}).weight_decay, 0);
  EXPECT_EQ(group(Role::router, {8, 4}).weight_decay, 0.02);
  EXPECT_EQ(group(Role::router, {8, 4}).rate, 0.5);
  EXPECT_EQ(group(Role::expert, {8, 4, 4}).rate, 1);
}

}  // namespace
}  // namespace switchyard
