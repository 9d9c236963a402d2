#include "switchyard/train/metrics.h"

#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <system_error>

#include "switchyard/base/error.h"
#include "switchyard/base/files.h"
#include "switchyard/base/json.h"

namespace switchyard {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

/// JSON has no NaN.
Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

std::vector<int64_t> counts(const at::Tensor& t) {
  const int64_t* data = t.const_data_ptr<int64_t>();
  return {data, data + t.numel()};
}

template <typename T>
T parsed(const Node& node, std::string_view key) {
  const Node* found = node.find(key);
  T value{};
  if (found && found->is_scalar()) {
    const std::string& text = found->scalar();
    if (const auto [rest, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
        failed == std::errc() && rest == text.data() + text.size())
      return value;
  }
  fail("train.state", "{}: '{}' should be a number", node.where(), key);
}

Node list_of(const at::Tensor& t) {
  Node list = Node::list();
  for (int64_t count : counts(t)) list.append(Node(fmt::format("{}", count)));
  return list;
}

at::Tensor tensor_of(const Node& node, std::string_view key) {
  const Node* found = node.find(key);
  check(found && found->is_list(), "train.state", "{}: '{}' should be a list of numbers", node.where(), key);
  std::vector<int64_t> values;
  for (const Node& item : found->items()) {
    Node one = Node::map();
    one["count"] = item;
    values.push_back(parsed<int64_t>(one, "count"));
  }
  return at::tensor(values, at::kLong);
}

}  // namespace

LineFile::LineFile(const fs::path& path, int64_t last_step) : path_(path) {
  std::string kept;
  if (last_step >= 0 && fs::exists(path)) {
    const std::string text = read_file(path);
    for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
      const std::string_view line(text.data() + begin, end - begin);
      const Json object = ordered_json_if_valid(line);
      if (!object.is_object() || !object.contains("step") || !object["step"].is_number_integer()) continue;
      if (object["step"].get<int64_t>() <= last_step) kept.append(line).push_back('\n');
    }
  }
  write_file_atomically(path, kept);
  file_ = std::fopen(path.c_str(), "abe");
  if (file_ == nullptr) fail("file.write", "{} cannot be opened: {}", path.string(), std::generic_category().message(errno));
}

LineFile::~LineFile() {
  if (file_) std::fclose(file_);
}

void LineFile::add(const std::string& line) {
  const std::string whole = line + "\n";
  if (std::fwrite(whole.data(), 1, whole.size(), file_) != whole.size() || std::fflush(file_) != 0)
    fail("file.write", "{} was not written: {}", path_.string(), std::generic_category().message(errno));
}

void Interval::add(const StepResult& result) {
  ++steps;
  tokens += result.tokens;
  loss_sum += result.loss * static_cast<double>(result.tokens);
  for (const auto& [name, value] : result.terms) {
    auto known = std::find_if(term_sums.begin(), term_sums.end(), [&](const auto& term) { return term.first == name; });
    if (known == term_sums.end()) term_sums.emplace_back(name, value);
    else known->second += value;
  }
  add_loads(loads, result.loads);
}

Node Interval::write() const {
  Node node = Node::map();
  node["steps"] = Node(fmt::format("{}", steps));
  node["tokens"] = Node(fmt::format("{}", tokens));
  node["loss_sum"] = Node(fmt::format("{}", loss_sum));
  Node terms = Node::list(), layers = Node::list();
  for (const auto& [name, value] : term_sums) {
    Node term = Node::map();
    term["name"] = Node(name);
    term["sum"] = Node(fmt::format("{}", value));
    terms.append(std::move(term));
  }
  for (const LayerLoad& one : loads) {
    Node layer = Node::map();
    layer["site"] = Node(one.site);
    layer["layer"] = Node(fmt::format("{}", one.layer));
    layer["engaged"] = list_of(one.load.engaged);
    layer["admitted"] = list_of(one.load.admitted);
    layer["rows"] = Node(fmt::format("{}", one.load.rows));
    layers.append(std::move(layer));
  }
  node["terms"] = std::move(terms);
  node["layers"] = std::move(layers);
  return node;
}

Interval Interval::read(const Node& node) {
  Interval interval{.steps = parsed<int64_t>(node, "steps"), .tokens = parsed<int64_t>(node, "tokens"),
                    .loss_sum = parsed<double>(node, "loss_sum"), .term_sums = {}, .loads = {}};
  const auto items = [&](std::string_view key) -> const std::vector<Node>& {
    static const std::vector<Node> none;
    const Node* found = node.find(key);
    return found ? found->items() : none;
  };
  const auto text = [](const Node& item, std::string_view key) {
    const Node* found = item.find(key);
    check(found && found->is_scalar(), "train.state", "{}: '{}' is missing", item.where(), key);
    return found->scalar();
  };
  for (const Node& term : items("terms")) interval.term_sums.emplace_back(text(term, "name"), parsed<double>(term, "sum"));
  for (const Node& layer : items("layers"))
    interval.loads.push_back({text(layer, "site"), parsed<int64_t>(layer, "layer"),
                              {tensor_of(layer, "engaged"), tensor_of(layer, "admitted"), parsed<int64_t>(layer, "rows")}});
  return interval;
}

MetricsLog::MetricsLog(const fs::path& run, int64_t last_step)
    : metrics_(run / "metrics.jsonl", last_step), routing_(run / "routing.jsonl", last_step), events_(run, std::max<int64_t>(last_step, 0)) {}

void MetricsLog::step(int64_t step, const Scalars& scalars) {
  Json line{{"step", step}};
  Scalars tagged;
  for (const auto& [name, value] : scalars) {
    line[name] = number(value);
    tagged.emplace_back("train/" + name, value);
  }
  metrics_.add(json_text(line));
  events_.add(step, tagged);
}

void MetricsLog::evaluation(int64_t step, double loss, int64_t tokens, const Scalars& domains) {
  Json line{{"step", step}, {"eval", true}, {"loss", number(loss)}, {"perplexity", number(std::exp(loss))}, {"tokens", tokens}};
  Scalars tagged{{"eval/loss", loss}};
  line["domains"] = Json::object();
  for (const auto& [name, value] : domains) {
    line["domains"][name] = number(value);
    tagged.emplace_back("eval/loss/" + name, value);
  }
  metrics_.add(json_text(line));
  events_.add(step, tagged);
}

void MetricsLog::routing(int64_t step, const std::vector<LayerLoad>& loads) {
  Json line{{"step", step}, {"layers", Json::array()}};
  for (const LayerLoad& one : loads)
    line["layers"].push_back({{"site", one.site}, {"layer", one.layer}, {"experts", one.load.engaged.size(0)},
                              {"engaged", counts(one.load.engaged)}, {"admitted", counts(one.load.admitted)},
                              {"rows", one.load.rows}});
  routing_.add(json_text(line));
}

}  // namespace switchyard
