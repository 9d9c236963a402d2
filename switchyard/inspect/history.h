// What a run wrote while it trained: metrics.jsonl and routing.jsonl (train/run_folder.h says the format), read for
// reports. A last line cut off by a killed process is left out; any other broken line is an error.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace switchyard {

/// One number over steps. `name` is the key, nested keys joined by dots ("domains.c").
struct MetricSeries {
  std::string name;
  bool evaluation = false;   ///< from lines with "eval": true
  std::vector<std::pair<int64_t, double>> points;
};

/// Loads of one place over training.
struct LoadHistory {
  std::string site;
  int64_t layer = 0, experts = 0;
  std::vector<int64_t> step;                        ///< the last step of each window
  std::vector<std::vector<double>> engaged, admitted;  ///< [windows][E]
};

/// Empty when there is no such file. Throws inspect.history naming file and line.
std::vector<MetricSeries> read_metrics(const std::filesystem::path& file);
/// At most `windows` windows: neighbours are merged by adding their counts. A run that went back to an earlier step (resumed)
/// has its later lines replaced.
std::vector<LoadHistory> read_load_history(const std::filesystem::path& file, int64_t windows = 120);

}  // namespace switchyard
