#include "switchyard/formats/peft/adapter_config.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>
#include <set>

#include "switchyard/base/error.h"
#include "switchyard/base/files.h"
#include "switchyard/base/options.h"
#include "switchyard/base/progress.h"
#include "switchyard/formats/peft/name_pattern.h"

namespace switchyard::peft {
namespace {

constexpr uint64_t kLargestConfig = uint64_t{1} << 26;
constexpr int64_t kLargestRank = int64_t{1} << 20;
constexpr const char* kAllLinear = "all-linear";

/// Options that change what an adapter computes, and that nothing here computes. Null, false and empty are no options.
constexpr std::pair<const char*, const char*> kRefused[]{
    {"alora_invocation_tokens", "an adapter that begins at an invocation (aLoRA)"},
    {"arrow_config", "routing among adapters by Arrow"},
    {"kasa_config", "KaSA"},
    {"layer_replication", "layers that stand in the model several times"},
    {"monteclora_config", "MonteCLoRA's sampling"},
    {"use_bdlora", "block-diagonal LoRA"},
    {"use_qalora", "QA-LoRA's pooled input"},
    {"velora_config", "VeLoRA's compressed activations"}};

/// Keys that say nothing about what is computed from a finished adapter.
constexpr std::array kInert{
    "auto_mapping", "base_model_name_or_path", "revision", "task_type", "inference_mode", "peft_version", "lora_dropout",
    "loftq_config", "eva_config", "corda_config", "lora_ga_config", "megatron_config", "megatron_core", "qalora_group_size",
    "runtime_config", "init_ia3_weights", "fan_in_fan_out", "xlora_dropout_p", "use_trainable_adapters", "ensure_weight_tying",
    "bias", "init_lora_weights", "peft_type", "target_modules", "exclude_modules", "feedforward_modules", "target_parameters",
    "modules_to_save", "trainable_token_indices", "layers_to_transform", "layers_pattern", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora",
    "use_dora", "lora_bias", "hidden_size", "adapters", "enable_softmax", "enable_softmax_topk", "softmax_temperature",
    "layerwise_scalings", "top_k_lora", "xlora_depth", "xlora_size", "scaling_pass_value", "global_scaling_weight"};

/// The starts that leave the base as it is; the trained factors hold all that there is.
constexpr std::array kPlainStarts{"true", "false", "gaussian", "eva", "orthogonal", "mica"};
constexpr std::array kResidualStarts{"pissa", "olora"};

/// Values of the config by key; null and absent are the same.
class Reader {
 public:
  explicit Reader(const Node& document) : document_(document) {}

  const Node* find(const char* key) const {
    const Node* value = document_.find(key);
    return value && !value->is_null() ? value : nullptr;
  }
  bool truthy(const char* key) const {
    const Node* value = find(key);
    if (value == nullptr) return false;
    if (value->is_list()) return !value->items().empty();
    if (value->is_map()) return !value->entries().empty();
    return value->quoted() ? !value->scalar().empty() : value->scalar() != "false" && value->scalar() != "0";
  }

  int64_t integer(const char* key, int64_t otherwise, int64_t least, int64_t most) const {
    const Node* value = find(key);
    return value ? integer_of(*value, key, least, most) : otherwise;
  }
  double number(const char* key, double otherwise) const {
    const Node* value = find(key);
    return value ? number_of(*value, key) : otherwise;
  }
  bool flag(const char* key, bool otherwise = false) const {
    const Node* value = find(key);
    if (value == nullptr) return otherwise;
    if (value->is_scalar() && !value->quoted() && value->scalar() == "true") return true;
    if (value->is_scalar() && !value->quoted() && value->scalar() == "false") return false;
    wrong(*value, key, "true or false");
  }
  std::string text(const char* key, std::string otherwise) const {
    const Node* value = find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_scalar()) wrong(*value, key, "text");
    return value->scalar();
  }
  /// A list of texts, or one text.
  std::vector<std::string> texts(const char* key) const {
    const Node* value = find(key);
    if (value == nullptr) return {};
    if (value->is_scalar()) return {value->scalar()};
    if (!value->is_list()) wrong(*value, key, "a list of names");
    std::vector<std::string> list;
    for (const Node& item : value->items()) {
      if (!item.is_scalar()) wrong(item, key, "a list of names");
      list.push_back(item.scalar());
    }
    return list;
  }
  ModuleRule rule(const char* key) const {
    const Node* value = find(key);
    if (value && value->is_scalar()) return {.names = {}, .pattern = value->scalar()};
    return {.names = texts(key), .pattern = {}};
  }

  [[noreturn]] static void wrong(const Node& value, const char* key, std::string_view wanted) {
    fail("formats.peft.config", "{}: {} must be {}", value.where(), key, wanted);
  }
  static int64_t integer_of(const Node& value, const char* key, int64_t least, int64_t most) {
    int64_t number = 0;
    const std::string& digits = value.scalar();
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    if (!value.is_scalar() || value.quoted() || digits.empty() || error != std::errc() || end != digits.data() + digits.size() ||
        number < least || number > most)
      wrong(value, key, fmt::format("a whole number from {} to {}", least, most));
    return number;
  }
  static double number_of(const Node& value, const char* key) {
    double number = 0;
    const std::string& digits = value.scalar();
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    if (!value.is_scalar() || value.quoted() || digits.empty() || error != std::errc() || end != digits.data() + digits.size() ||
        !std::isfinite(number))
      wrong(value, key, "a finite number");
    return number;
  }

 private:
  const Node& document_;
};

void read_lora(const Reader& reader, AdapterConfig& config) {
  config.rank = reader.integer("r", 8, 1, kLargestRank);
  config.alpha = reader.number("lora_alpha", 8);
  config.rank_stabilised = reader.flag("use_rslora");
  config.dora = reader.flag("use_dora");
  config.bias_on_b = reader.flag("lora_bias");
  config.bias = reader.text("bias", "none");
  if (config.bias != "none" && config.bias != "all" && config.bias != "lora_only")
    Reader::wrong(*reader.find("bias"), "bias", "none, all or lora_only");
  config.init = reader.text("init_lora_weights", "true");
  const auto is = [&](const auto& list) { return std::find(list.begin(), list.end(), config.init) != list.end(); };
  check(is(kPlainStarts) || is(kResidualStarts), "formats.peft.option",
        "{}: init_lora_weights '{}' took its start out of the base in a way that cannot be computed again here; convert the adapter "
        "to plain LoRA with the library that made it", config.document.where(), config.init);
  const auto each = [&](const char* key, auto&& take) {
    const Node* patterns = reader.find(key);
    if (patterns == nullptr) return;
    if (!patterns->is_map()) Reader::wrong(*patterns, key, "a map from patterns to numbers");
    for (const auto& [pattern, value] : patterns->entries()) take(pattern, value);
  };
  each("rank_pattern", [&](const std::string& pattern, const Node& value) {
    config.rank_pattern.emplace_back(pattern, Reader::integer_of(value, "rank_pattern", 1, kLargestRank));
  });
  each("alpha_pattern", [&](const std::string& pattern, const Node& value) {
    config.alpha_pattern.emplace_back(pattern, Reader::number_of(value, "alpha_pattern"));
  });
}

void read_xlora(const Reader& reader, XLoraSettings& settings) {
  settings.hidden_size = reader.integer("hidden_size", 4096, 1, 1 << 24);
  settings.depth = reader.integer("xlora_depth", 1, 1, 1024);
  settings.size = reader.integer("xlora_size", 2048, 1, 1 << 24);
  settings.softmax = reader.flag("enable_softmax", true);
  settings.softmax_topk = reader.flag("enable_softmax_topk");
  settings.layerwise = reader.flag("layerwise_scalings");
  settings.temperature = reader.number("softmax_temperature", 1);
  settings.pass_value = reader.number("scaling_pass_value", 0);
  settings.global_weight = reader.number("global_scaling_weight", 1);
  if (const Node* value = reader.find("top_k_lora")) settings.top_k = Reader::integer_of(*value, "top_k_lora", 1, 1 << 20);
  if (const Node* value = reader.find("softmax_temperature"); value && settings.temperature == 0)
    Reader::wrong(*value, "softmax_temperature", "a number other than 0");
  const Node* adapters = reader.find("adapters");
  if (adapters == nullptr) return;
  if (!adapters->is_map()) Reader::wrong(*adapters, "adapters", "a map from names to folders");
  for (const auto& [name, place] : adapters->entries()) {
    if (!place.is_scalar()) Reader::wrong(place, "adapters", "a map from names to folders");
    settings.adapters.emplace_back(name, place.scalar());
  }
}

Node text_node(std::string value) {
  Node node(std::move(value));
  node.set_quoted(true);
  return node;
}

}  // namespace

const char* to_string(Kind kind) {
  switch (kind) {
    case Kind::lora: return "LORA";
    case Kind::ia3: return "IA3";
    case Kind::xlora: return "XLORA";
  }
  return "?";
}

AdapterConfig read_adapter_config(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "adapter_config.json";
  check(std::filesystem::is_directory(folder), "formats.peft.folder", "{} is no folder; an adapter is a folder with adapter_config.json",
        folder.string());
  check(std::filesystem::is_regular_file(path), "formats.peft.folder", "{} holds no adapter_config.json, so it is no adapter", folder.string());
  return parse_adapter_config(parse_json(read_file(path, kLargestConfig), path.string()));
}

AdapterConfig parse_adapter_config(const Node& document) {
  check(document.is_map(), "formats.peft.config", "{} is no JSON object", document.mark().source);
  AdapterConfig config;
  config.document = document;
  const Reader reader(document);
  const std::string kind = reader.text("peft_type", "");
  const std::array known{Kind::lora, Kind::ia3, Kind::xlora};
  const auto found = std::find_if(known.begin(), known.end(), [&](Kind k) { return kind == to_string(k); });
  check(found != known.end(), "formats.peft.kind", "{}: peft_type is '{}'; LORA, IA3 and XLORA can be read", document.where(), kind);
  config.kind = *found;
  for (const auto& [key, what] : kRefused)
    check(!reader.truthy(key), "formats.peft.option", "{}: {} asks for {}, which is not supported", document.where(), key, what);
  std::vector<std::string> unknown;
  for (const auto& [key, value] : document.entries()) {
    const auto same = [&, &name = key](const char* other) { return name == other; };
    const bool refused = std::any_of(std::begin(kRefused), std::end(kRefused), [&](const auto& entry) { return same(entry.first); });
    if (!refused && std::none_of(kInert.begin(), kInert.end(), same)) unknown.push_back(key);
  }
  if (!unknown.empty())
    log_warning(fmt::format("{}: keys that are not known are passed over: {}", document.mark().source, fmt::join(unknown, ", ")));

  config.target = reader.rule("target_modules");
  config.targets_given = reader.find("target_modules") != nullptr;
  if (config.target.pattern) {
    std::string lower = *config.target.pattern;
    std::transform(lower.begin(), lower.end(), lower.begin(), [](char c) { return static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c); });
    config.all_linear = lower == kAllLinear;
  }
  config.exclude = reader.rule("exclude_modules");
  config.feedforward = reader.rule("feedforward_modules");
  config.target_parameters = reader.texts("target_parameters");
  config.modules_to_save = reader.texts("modules_to_save");
  config.layers_pattern = reader.texts("layers_pattern");
  if (const Node* tokens = reader.find("trainable_token_indices")) {
    const auto rows = [](const Node& list) {
      if (!list.is_list()) Reader::wrong(list, "trainable_token_indices", "a list of token ids, or one for each module");
      std::vector<int64_t> ids;
      for (const Node& id : list.items()) ids.push_back(Reader::integer_of(id, "trainable_token_indices", 0, INT32_MAX));
      return ids;
    };
    if (tokens->is_map())
      for (const auto& [module, list] : tokens->entries()) config.token_indices.emplace_back(module, rows(list));
    else config.token_indices.emplace_back("", rows(*tokens));
  }
  if (const Node* layers = reader.find("layers_to_transform")) {
    if (layers->is_scalar()) config.layers.push_back(Reader::integer_of(*layers, "layers_to_transform", 0, 1 << 20));
    else if (layers->is_list())
      for (const Node& layer : layers->items()) config.layers.push_back(Reader::integer_of(layer, "layers_to_transform", 0, 1 << 20));
    else Reader::wrong(*layers, "layers_to_transform", "a whole number or a list of them");
  }
  if (config.kind == Kind::lora) read_lora(reader, config);
  if (config.kind == Kind::xlora) read_xlora(reader, config.xlora);
  return config;
}

void update(AdapterConfig& config, int64_t rank, double alpha, const ModuleRule& target) {
  const bool whole = alpha == std::floor(alpha) && std::abs(alpha) < 1e15;
  config.rank = rank;
  config.alpha = alpha;
  config.target = target;
  config.rank_pattern.clear();
  config.alpha_pattern.clear();
  Node& document = config.document;
  document["r"] = Node(std::to_string(rank));
  document["lora_alpha"] = whole ? Node(std::to_string(static_cast<int64_t>(alpha))) : Node(fmt::format("{}", alpha));
  document["rank_pattern"] = Node::map();
  document["alpha_pattern"] = Node::map();
  if (target.pattern) {
    document["target_modules"] = text_node(*target.pattern);
  } else {
    document["target_modules"] = Node::list();
    for (const std::string& name : target.names) document["target_modules"].append(text_node(name));
  }
}

std::string to_text(const AdapterConfig& config) {
  Node sorted = config.document;
  std::sort(sorted.entries().begin(), sorted.entries().end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::string text = to_json(sorted, 2);
  text.pop_back();  // peft ends without a line break
  return text;
}

namespace {

/// Numbers by pattern, the first that matches the end of a name (from a dot on) counts. Patterns that are plain names, which a
/// config may have by the thousand, are looked up instead of matched.
template <typename T>
class ByPattern {
 public:
  ByPattern() = default;
  explicit ByPattern(const std::vector<std::pair<std::string, T>>& list) {
    for (size_t i = 0; i < list.size(); ++i) {
      const auto& [text, value] = list[i];
      if (const std::optional<std::string> name = plain(text)) plain_.emplace(*name, std::pair(i, value));
      else patterns_.push_back({NamePattern("(.*\\.)?(" + text + ")"), i, value});
    }
    check(patterns_.size() <= kMostPatterns, "formats.peft.config", "{} patterns of ranks or alphas are more than {}", patterns_.size(),
          kMostPatterns);
  }

  std::optional<T> find(std::string_view name) const {
    size_t first = SIZE_MAX;
    std::optional<T> value;
    const auto offer = [&](std::string_view end) {
      const auto found = plain_.find(end);
      if (found == plain_.end() || found->second.first >= first) return;
      first = found->second.first;
      value = found->second.second;
    };
    offer(name);
    for (size_t dot = name.find('.'); dot != std::string_view::npos; dot = name.find('.', dot + 1)) offer(name.substr(dot + 1));
    for (const Pattern& each : patterns_) {
      if (each.place > first) break;
      if (each.pattern.matches(name)) return each.value;
    }
    return value;
  }

 private:
  static constexpr size_t kMostPatterns = 1024;
  struct Pattern { NamePattern pattern; size_t place; T value; };

  static std::optional<std::string> plain(std::string_view text) {
    std::string name;
    for (size_t i = 0; i < text.size(); ++i) {
      if (text[i] == '\\' && i + 1 < text.size() && text[i + 1] == '.') ++i;
      else if (!(text[i] == '_' || text[i] == '-' || (text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'z') ||
                 (text[i] >= 'A' && text[i] <= 'Z')))
        return std::nullopt;
      name += text[i];
    }
    return name;
  }

  std::map<std::string, std::pair<size_t, T>, std::less<>> plain_;
  std::vector<Pattern> patterns_;
};

}  // namespace

struct ModuleMatcher::Rules {
  /// A list of names or a pattern, ready to be asked.
  struct Rule {
    std::set<std::string, std::less<>> names;
    std::optional<NamePattern> pattern;
    bool exact(std::string_view name) const { return names.contains(name); }
    /// Ends in "." and one of the names.
    bool ending(std::string_view name) const {
      for (size_t dot = name.find('.'); dot != std::string_view::npos; dot = name.find('.', dot + 1))
        if (exact(name.substr(dot + 1))) return true;
      return false;
    }
  };
  static Rule rule_of(const ModuleRule& rule) {
    Rule ready{.names = {rule.names.begin(), rule.names.end()}, .pattern = {}};
    if (rule.pattern) ready.pattern.emplace(*rule.pattern);
    return ready;
  }

  bool in_layers(std::string_view module) const;

  AdapterConfig config;
  Rule target, exclude, feedforward;
  std::vector<NamePattern> saved, layers_pattern;
  ByPattern<int64_t> ranks;
  ByPattern<double> alphas;
};

ModuleMatcher::ModuleMatcher(const AdapterConfig& config) : rules_(std::make_unique<Rules>()) {
  Rules& rules = *rules_;
  rules.config = config;
  if (!config.all_linear) rules.target = Rules::rule_of(config.target);
  rules.exclude = Rules::rule_of(config.exclude);
  rules.feedforward = Rules::rule_of(config.feedforward);
  for (const std::string& module : config.modules_to_save) rules.saved.emplace_back("(^|.*\\.)" + module + "($|\\..*)");
  for (const std::string& pattern : config.layers_pattern) rules.layers_pattern.emplace_back(pattern);
  rules.ranks = ByPattern<int64_t>(config.rank_pattern);
  rules.alphas = ByPattern<double>(config.alpha_pattern);
}

ModuleMatcher::~ModuleMatcher() = default;
ModuleMatcher::ModuleMatcher(ModuleMatcher&&) noexcept = default;
ModuleMatcher& ModuleMatcher::operator=(ModuleMatcher&&) noexcept = default;

/// The layer is the first number between dots; with layers_pattern, the first one after such a name.
bool ModuleMatcher::Rules::in_layers(std::string_view module) const {
  if (config.layers.empty()) return true;
  const auto number_at = [&](size_t dot) -> int64_t {
    const size_t end = module.find('.', dot + 1);
    if (end == std::string_view::npos) return -1;
    int64_t layer = -1;
    const auto [rest, error] = std::from_chars(module.data() + dot + 1, module.data() + end, layer);
    return error == std::errc() && rest == module.data() + end && end > dot + 1 ? layer : -1;
  };
  const auto first = [&](const auto& is_name) -> int64_t {
    for (size_t dot = module.find('.'); dot != std::string_view::npos; dot = module.find('.', dot + 1))
      if (const int64_t layer = number_at(dot); layer >= 0 && is_name(dot)) return layer;
    return -1;
  };
  int64_t layer = -1;
  if (layers_pattern.empty())  // peft asks for one more dot before the name
    layer = first([&](size_t dot) { return dot > 0 && module.rfind('.', dot - 1) != std::string_view::npos; });
  for (size_t i = 0; i < layers_pattern.size() && layer < 0; ++i)
    layer = first([&](size_t dot) {
      if (layers_pattern[i].matches(module.substr(0, dot))) return true;
      for (size_t begin = module.find('.'); begin < dot; begin = module.find('.', begin + 1))
        if (layers_pattern[i].matches(module.substr(begin + 1, dot - begin - 1))) return true;
      return false;
    });
  return std::find(config.layers.begin(), config.layers.end(), layer) != config.layers.end();
}

bool ModuleMatcher::saves(std::string_view module) const {
  return std::any_of(rules_->saved.begin(), rules_->saved.end(), [&](const NamePattern& p) { return p.matches(module); });
}

bool ModuleMatcher::targets(std::string_view module, bool head) const {
  const Rules& rules = *rules_;
  if (rules.exclude.pattern ? rules.exclude.pattern->matches(module) : rules.exclude.exact(module) || rules.exclude.ending(module))
    return false;
  if (saves(module)) return false;
  if (rules.config.all_linear) return !head;
  if (rules.target.pattern) return rules.target.pattern->matches(module);
  if (rules.target.exact(module)) return true;
  return rules.target.ending(module) && rules.in_layers(module);
}

bool ModuleMatcher::targets_parameter(std::string_view parameter) const {
  const std::vector<std::string>& names = rules_->config.target_parameters;
  return std::any_of(names.begin(), names.end(), [&](const std::string& name) { return parameter == name || parameter.ends_with("." + name); });
}

bool ModuleMatcher::is_feedforward(std::string_view module) const {
  const Rules::Rule& rule = rules_->feedforward;
  if (rule.pattern) return rule.pattern->matches(module);
  return std::any_of(rule.names.begin(), rule.names.end(), [&](const std::string& end) { return module.ends_with(end); });
}

int64_t ModuleMatcher::rank(std::string_view name) const {
  return rules_->ranks.find(name).value_or(rules_->config.rank);
}

double ModuleMatcher::scale(std::string_view name, int64_t rank) const {
  const double alpha = rules_->alphas.find(name).value_or(rules_->config.alpha);
  return alpha / (rules_->config.rank_stabilised ? std::sqrt(static_cast<double>(rank)) : static_cast<double>(rank));
}

}  // namespace switchyard::peft
