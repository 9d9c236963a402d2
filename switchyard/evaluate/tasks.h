// Questions with known answers, from a file of JSON lines (docs/evaluating.md): multiple choice by the likelihood of each choice, and
// answers that the model writes and must meet exactly.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "switchyard/infer/language_model.h"

namespace switchyard {

struct TaskItem {
  std::string id;                    ///< JSON: what the line calls itself, else its number, from 0
  std::string prompt;                ///< what stands before the answer, examples included
  std::vector<std::string> choices;  ///< multiple choice; else empty
  int64_t right = 0;                 ///< among the choices
  std::vector<std::string> answers;  ///< written answer: any of these is right
  std::vector<std::string> stop{"\n"};
  int64_t max_tokens = 64;
};

/// shots: so many lines from the beginning stand before every question with their answers and are not asked themselves. limit: of
/// items; 0 = all. Throws evaluate.task naming file and line, file.*.
std::vector<TaskItem> read_tasks(const std::filesystem::path& file, int64_t shots = 0, int64_t limit = 0);

struct TaskOptions {
  int64_t batch = 8;
  std::function<void(const char* what, int64_t done, int64_t total)> on_pass = {};
};

/// What became of one item.
struct TaskResult {
  std::vector<double> log_probability;  ///< of each choice
  std::vector<int64_t> tokens, bytes;   ///< of each choice
  std::string written;                  ///< the answer, white space around it left out
  bool right = false;                   ///< the most probable choice, or the answer written
  bool right_by_bytes = false, right_by_tokens = false;  ///< the choice of the highest log-probability a byte, a token
};

/// A share of items with its standard error (of a mean of zeros and ones).
struct Share {
  int64_t count = 0, hits = 0;
  void add(bool hit) { ++count, hits += hit; }
  double value() const;
  double standard_error() const;
};

struct TaskSummary {
  Share choice, choice_by_bytes, choice_by_tokens, exact;
  std::vector<TaskResult> results;  ///< in the order of the items
};

/// Prompts too long for the model lose their beginning. Ties go to the first choice. Throws evaluate.task when choices alone are
/// longer than the context, infer.tokenizer, evaluate.interrupted.
TaskSummary run_tasks(const LanguageModel& model, const std::vector<TaskItem>& items, const TaskOptions& options = {});

}  // namespace switchyard
