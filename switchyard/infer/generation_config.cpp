#include "switchyard/infer/generation_config.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "switchyard/base/error.h"
#include "switchyard/base/files.h"

namespace switchyard {

namespace fs = std::filesystem;

namespace {

constexpr uint64_t kLargest = uint64_t{1} << 24;

class Reader {
 public:
  Reader(const nlohmann::json& config, std::string where) : config_(config), where_(std::move(where)) {}

  std::optional<double> number(const char* key, double lowest, double highest) const {
    const nlohmann::json* value = at(key);
    if (value == nullptr) return {};
    check(value->is_number() && value->get<double>() >= lowest && value->get<double>() <= highest, "model.config",
          "{}: {} is {}, not a number from {} to {}", where_, key, value->dump().substr(0, 60), lowest, highest);
    return value->get<double>();
  }
  std::optional<int64_t> integer(const char* key) const {
    const nlohmann::json* value = at(key);
    if (value == nullptr) return {};
    check(value->is_number_integer() && value->get<double>() >= 0 && value->get<double>() <= 1e9, "model.config",
          "{}: {} is {}, not a number of tokens", where_, key, value->dump().substr(0, 60));
    return value->get<int64_t>();
  }
  std::vector<std::string> texts(const char* key) const {
    const nlohmann::json* value = at(key);
    if (value == nullptr) return {};
    std::vector<std::string> list;
    for (const nlohmann::json& item : value->is_array() ? *value : nlohmann::json::array({*value})) {
      check(item.is_string(), "model.config", "{}: {} holds {}, which is no text", where_, key, item.dump().substr(0, 60));
      if (!item.get_ref<const std::string&>().empty()) list.push_back(item.get<std::string>());
    }
    return list;
  }
  std::optional<bool> flag(const char* key) const {
    const nlohmann::json* value = at(key);
    if (value == nullptr) return {};
    check(value->is_boolean(), "model.config", "{}: {} is neither true nor false", where_, key);
    return value->get<bool>();
  }
  /// Whether the key says something other than `neutral`.
  bool differs(const char* key, const nlohmann::json& neutral) const {
    const nlohmann::json* value = at(key);
    return value != nullptr && *value != neutral;
  }

 private:
  const nlohmann::json* at(const char* key) const {
    const auto found = config_.find(key);
    return found == config_.end() || found->is_null() ? nullptr : &*found;
  }
  const nlohmann::json& config_;
  std::string where_;
};

}  // namespace

GenerationConfig read_generation_config(const fs::path& folder) {
  GenerationConfig config;
  const fs::path path = folder / "generation_config.json";
  if (!fs::exists(path)) return config;
  const nlohmann::json json = nlohmann::json::parse(read_file(path, kLargest), nullptr, /*allow_exceptions=*/false);
  check(json.is_object(), "model.config", "{} is no JSON object", path.string());
  const Reader reader(json, path.string());
  const std::optional<bool> draws = reader.flag("do_sample");
  config.temperature = reader.number("temperature", 0, 100);
  config.top_k = reader.integer("top_k");
  config.top_p = reader.number("top_p", 0, 1);
  config.min_p = reader.number("min_p", 0, 1);
  config.typical = reader.number("typical_p", 0, 1);
  if (draws == false) {
    config.temperature = 0;  // the rest is for drawing
    config.top_k.reset();
    for (auto* filter : {&config.top_p, &config.min_p, &config.typical}) filter->reset();
  } else if (draws == true && !config.temperature) {
    config.temperature = 1;
  }
  config.repetition_penalty = reader.number("repetition_penalty", 1e-3, 1e3);
  config.max_tokens = reader.integer("max_new_tokens");
  config.stop = reader.texts("stop_strings");
  const std::pair<const char*, nlohmann::json> unsupported[]{
      {"num_beams", 1}, {"no_repeat_ngram_size", 0}, {"encoder_repetition_penalty", 1.0}, {"encoder_no_repeat_ngram_size", 0},
      {"epsilon_cutoff", 0.0}, {"eta_cutoff", 0.0}, {"bad_words_ids", nullptr}, {"sequence_bias", nullptr}, {"min_length", 0},
      {"min_new_tokens", nullptr}, {"forced_bos_token_id", nullptr}, {"forced_eos_token_id", nullptr}, {"suppress_tokens", nullptr},
      {"begin_suppress_tokens", nullptr}, {"exponential_decay_length_penalty", nullptr}, {"guidance_scale", 1.0},
      {"penalty_alpha", 0.0}, {"top_h", nullptr}};
  for (const auto& [key, neutral] : unsupported)
    if (reader.differs(key, neutral)) config.ignored.push_back(key);
  return config;
}

void GenerationConfig::apply(GenerateOptions& options) const {
  if (says_how_to_draw()) {
    options.temperature = temperature.value_or(1);
    options.top_k = top_k.value_or(0);
    options.top_p = top_p.value_or(1);
    options.min_p = min_p.value_or(0);
    options.typical = typical.value_or(1);
  }
  if (repetition_penalty) options.repetition_penalty = *repetition_penalty;
  if (max_tokens) options.max_tokens = *max_tokens;
  options.stop.insert(options.stop.end(), stop.begin(), stop.end());
}

}  // namespace switchyard
