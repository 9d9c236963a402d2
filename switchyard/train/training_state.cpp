#include "switchyard/train/training_state.h"

#include "switchyard/base/error.h"
#include "switchyard/base/files.h"

namespace switchyard {
namespace {

constexpr uint64_t kLargestState = uint64_t{1} << 26;

/// The plain numbers of state.json.
struct Numbers {
  int64_t step = 0, seed = 0, tokens = 0, steps = 0;
  ScheduleOptions schedule;
  static void describe(Fields<Numbers>& f) {
    f.title("Training state");
    f("step", &Numbers::step, "optimiser steps done").range(0).required();
    f("seed", &Numbers::seed, "the recipe's").required();
    f("tokens", &Numbers::tokens, "predicted so far").range(0).required();
    f("steps", &Numbers::steps, "that the schedule runs towards").range(0).required();
    f("schedule", &Numbers::schedule, "the recipe's").required();
  }
};

}  // namespace

void save_training_state(const std::filesystem::path& training, const TrainingState& state, const Optimiser& optimiser) {
  write_safetensors(training / "optimiser.safetensors", optimiser.state());
  Node root = write_options(Numbers{state.step, state.seed, state.tokens, state.steps, state.schedule});
  root["position"] = state.position.write();
  root["interval"] = state.interval.write();
  write_file_atomically(training / "state.json", to_json(root) + "\n");
}

TrainingState load_training_state(const std::filesystem::path& training, Optimiser& optimiser) {
  const std::filesystem::path file = training / "state.json";
  Node root = parse_json(read_file(file, kLargestState), file.string());
  check(root.is_map(), "train.state", "{} holds no object", file.string());
  TrainingState state;
  Node numbers = Node::map();
  numbers.set_mark(root.mark());
  for (const auto& [key, value] : root.entries()) {
    if (key == "position") state.position = DataPosition::read(value);
    else if (key == "interval") state.interval = Interval::read(value);
    else numbers[key] = value;
  }
  check(root.find("position") && root.find("interval"), "train.state", "{} lacks position or interval", file.string());
  const auto read = read_options<Numbers>(numbers);
  state.step = read.step;
  state.seed = read.seed;
  state.tokens = read.tokens;
  state.steps = read.steps;
  state.schedule = read.schedule;
  optimiser.load(Safetensors(training / "optimiser.safetensors"), state.step);
  return state;
}

}  // namespace switchyard
