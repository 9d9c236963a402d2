#include "switchyard/inspect/history.h"

#include <algorithm>
#include <map>

#include "switchyard/base/error.h"
#include "switchyard/base/files.h"
#include "switchyard/base/json.h"

namespace switchyard {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kLargestExperts = 1 << 20;

/// The objects of a JSONL file, in order.
std::vector<Json> read_lines(const std::filesystem::path& file) {
  std::vector<Json> result;
  if (!std::filesystem::exists(file)) return result;
  const std::string text = read_file(file);
  size_t begin = 0;
  for (int64_t line = 1; begin < text.size(); ++line) {
    const size_t newline = text.find('\n', begin);
    const size_t end = newline == std::string::npos ? text.size() : newline;
    const std::string one = text.substr(begin, end - begin);
    begin = end + 1;
    if (one.find_first_not_of(" \t\r") == std::string::npos) continue;
    Json value = ordered_json_if_valid(one);
    if (value.is_discarded() && newline == std::string::npos) break;
    check(value.is_object() && value.contains("step") && value["step"].is_number(), "inspect.history",
          "{}:{} is not an object with a step; mend or remove the line", file.string(), line);
    result.push_back(std::move(value));
  }
  return result;
}

void flatten(const Json& value, const std::string& name, std::vector<std::pair<std::string, double>>& numbers) {
  if (value.is_object()) {
    for (const auto& [key, inner] : value.items()) flatten(inner, name.empty() ? key : name + "." + key, numbers);
  } else if (value.is_number()) {
    numbers.emplace_back(name, value.get<double>());
  }
}

std::vector<double> counts(const Json& layer, const char* key, int64_t experts, const std::string& where) {
  const auto found = layer.find(key);
  check(found != layer.end() && found->is_array() && static_cast<int64_t>(found->size()) == experts, "inspect.history",
        "{}: {} must list {} numbers, one an expert", where, key, experts);
  std::vector<double> values;
  for (const Json& value : *found) {
    check(value.is_number(), "inspect.history", "{}: {} holds something that is no number", where, key);
    values.push_back(value.get<double>());
  }
  return values;
}

void add(std::vector<double>& to, const std::vector<double>& from) {
  for (size_t i = 0; i < to.size(); ++i) to[i] += from[i];
}

void merge_windows(LoadHistory& history, int64_t windows) {
  const auto present = static_cast<int64_t>(history.step.size());
  if (present <= windows) return;
  LoadHistory merged{history.site, history.layer, history.experts, {}, {}, {}};
  for (int64_t i = 0; i < present; ++i) {
    const auto window = static_cast<size_t>(i * windows / present);
    const auto from = static_cast<size_t>(i);
    if (window == merged.step.size()) {
      merged.step.push_back(history.step[from]);
      merged.engaged.push_back(history.engaged[from]);
      merged.admitted.push_back(history.admitted[from]);
    } else {
      merged.step[window] = history.step[from];
      add(merged.engaged[window], history.engaged[from]);
      add(merged.admitted[window], history.admitted[from]);
    }
  }
  history = std::move(merged);
}

}  // namespace

std::vector<MetricSeries> read_metrics(const std::filesystem::path& file) {
  std::vector<MetricSeries> series;
  std::map<std::pair<std::string, bool>, size_t> index;
  for (const Json& line : read_lines(file)) {
    const auto step = line["step"].get<int64_t>();
    const auto flag = line.find("eval");
    const bool evaluation = flag != line.end() && flag->is_boolean() && flag->get<bool>();
    std::vector<std::pair<std::string, double>> numbers;
    flatten(line, "", numbers);
    for (const auto& [name, value] : numbers) {
      if (name == "step") continue;
      const auto [at, fresh] = index.try_emplace({name, evaluation}, series.size());
      if (fresh) series.push_back({name, evaluation, {}});
      auto& points = series[at->second].points;
      while (!points.empty() && points.back().first >= step) points.pop_back();
      points.emplace_back(step, value);
    }
  }
  return series;
}

std::vector<LoadHistory> read_load_history(const std::filesystem::path& file, int64_t windows) {
  std::vector<LoadHistory> histories;
  std::map<std::string, size_t> index;
  for (const Json& line : read_lines(file)) {
    const auto step = line["step"].get<int64_t>();
    const auto layers = line.find("layers");
    const std::string where = file.string() + ", step " + std::to_string(step);
    check(layers != line.end() && layers->is_array(), "inspect.history", "{}: no list of layers", where);
    for (const Json& layer : *layers) {
      const int64_t experts = layer.is_object() ? layer.value("experts", int64_t{0}) : 0;
      check(layer.is_object() && layer.contains("site") && layer["site"].is_string() && experts > 0 && experts <= kLargestExperts,
            "inspect.history", "{}: a layer without site or experts", where);
      const std::string site = layer["site"].get<std::string>();
      const auto [at, fresh] = index.try_emplace(site, histories.size());
      if (fresh) histories.push_back({site, layer.value("layer", int64_t{0}), experts, {}, {}, {}});
      LoadHistory& history = histories[at->second];
      while (!history.step.empty() && history.step.back() >= step) {
        history.step.pop_back();
        history.engaged.pop_back();
        history.admitted.pop_back();
      }
      std::vector<double> engaged = counts(layer, "engaged", history.experts, where);
      std::vector<double> admitted = layer.contains("admitted") ? counts(layer, "admitted", history.experts, where) : engaged;
      history.step.push_back(step);
      history.engaged.push_back(std::move(engaged));
      history.admitted.push_back(std::move(admitted));
    }
  }
  for (LoadHistory& history : histories) merge_windows(history, windows);
  return histories;
}

}  // namespace switchyard
