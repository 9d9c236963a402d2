// The figures of a run: one JSON object a line in metrics.jsonl and routing.jsonl, and the same scalars for TensorBoard.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "switchyard/base/node.h"
#include "switchyard/train/event_file.h"
#include "switchyard/train/scheme.h"

namespace switchyard {

using Scalars = std::vector<std::pair<std::string, double>>;

/// A text file that grows by whole lines, each handed to the system at once. Throws file.write.
class LineFile {
 public:
  /// Lines that a step after `last_step` wrote, and a line that was cut short, are dropped first; last_step < 0 keeps none.
  LineFile(const std::filesystem::path& path, int64_t last_step);
  ~LineFile();
  LineFile(const LineFile&) = delete;
  LineFile& operator=(const LineFile&) = delete;
  void add(const std::string& line);

 private:
  std::filesystem::path path_;
  std::FILE* file_ = nullptr;
};

/// What happened since the last line of metrics: sums, saved with a checkpoint so that a resumed run's lines are equal.
struct Interval {
  int64_t steps = 0, tokens = 0;
  double loss_sum = 0;  ///< over tokens
  Scalars term_sums;    ///< over steps
  std::vector<LayerLoad> loads;

  void add(const StepResult& result);
  double loss() const { return tokens ? loss_sum / static_cast<double>(tokens) : 0; }
  Node write() const;
  static Interval read(const Node& node);  ///< throws train.state
};

class MetricsLog {
 public:
  /// Goes on after step `last_step` (0 = a new run).
  MetricsLog(const std::filesystem::path& run, int64_t last_step);
  /// {"step": 10, "loss": ...}; every scalar also goes to TensorBoard under "train/".
  void step(int64_t step, const Scalars& scalars);
  /// {"step": 100, "eval": true, "loss": ..., "perplexity": ..., "domains": {...}}; under "eval/" in TensorBoard.
  void evaluation(int64_t step, double loss, int64_t tokens, const Scalars& domains);
  /// A line of routing.jsonl (train/run_folder.h).
  void routing(int64_t step, const std::vector<LayerLoad>& loads);

 private:
  LineFile metrics_, routing_;
  EventFile events_;
};

}  // namespace switchyard
