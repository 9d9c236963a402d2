#include "switchyard/formats/peft/adapter_file.h"

#include <ATen/ops/isfinite.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

#include "switchyard/base/error.h"
#include "switchyard/base/files.h"
#include "switchyard/base/progress.h"

namespace switchyard::peft {

namespace fs = std::filesystem;

namespace {

constexpr const char* kTensors = "adapter_model.safetensors";
constexpr const char* kPrefix = "base_model.model.";
constexpr const char* kClassifier = "internal_xlora_classifier.layers.";
constexpr const char* kTokens = ".token_adapter.trainable_tokens_delta";
constexpr size_t kMostExperts = 1024;

/// A key of the file: beside which module it stands, and as what.
struct Key {
  enum class Part { a, b, b_bias, embedding_a, embedding_b, magnitude, scale, tokens, whole } part = Part::whole;
  std::string name;   ///< the module's, or the whole tensor's
  bool base = false;
};

void erase_all(std::string& text, std::string_view word) {
  for (size_t at = text.find(word); at != std::string::npos; at = text.find(word)) text.erase(at, word.size());
}

/// Without the wrappers' prefixes.
std::string stripped(std::string_view key) {
  for (const std::string_view prefix : {"base_model.lora_model.model.", "base_model.model.", "base_model."})
    if (key.starts_with(prefix)) return std::string(key.substr(prefix.size()));
  return std::string(key);
}

Key parse_key(const std::string& key, const std::string& where) {
  Key parsed{.name = stripped(key)};
  if (const size_t tokens = parsed.name.rfind(kTokens); tokens != std::string::npos) {
    parsed.name.resize(tokens);
    parsed.part = Key::Part::tokens;
    return parsed;
  }
  size_t marker = parsed.name.rfind(".lora_");
  if (marker == std::string::npos) marker = parsed.name.rfind(".ia3_l");
  if (marker == std::string::npos) {
    parsed.base = parsed.name.find(".base_layer.") != std::string::npos;
    erase_all(parsed.name, ".base_layer");
    // Old files keep the wrapper's own level: "lm_head.modules_to_save.default.weight".
    constexpr std::string_view kSaved = ".modules_to_save.";
    if (const size_t at = parsed.name.find(kSaved); at != std::string::npos) {
      const size_t end = parsed.name.find('.', at + kSaved.size());
      if (end != std::string::npos) parsed.name.erase(at, end - at);
    }
    return parsed;
  }
  std::vector<std::string> tail;
  for (size_t begin = marker + 1; begin <= parsed.name.size();) {
    const size_t end = std::min(parsed.name.find('.', begin), parsed.name.size());
    tail.push_back(parsed.name.substr(begin, end - begin));
    begin = end + 1;
  }
  const std::string last = tail.back() == "weight" || tail.back() == "bias" ? tail.back() : "";
  // Between the two an old file may name the adapter.
  const size_t most = 2 + (last.empty() ? 0 : 1);
  struct Known { const char* first; const char* last; Key::Part part; };
  constexpr Known kKnown[]{{"lora_A", "weight", Key::Part::a}, {"lora_B", "weight", Key::Part::b}, {"lora_B", "bias", Key::Part::b_bias},
                           {"lora_embedding_A", "", Key::Part::embedding_a}, {"lora_embedding_B", "", Key::Part::embedding_b},
                           {"lora_magnitude_vector", "", Key::Part::magnitude}, {"lora_magnitude_vector", "weight", Key::Part::magnitude},
                           {"ia3_l", "", Key::Part::scale}};
  for (const Known& known : kKnown) {
    if (tail.front() != known.first || last != known.last || tail.size() > most) continue;
    parsed.part = known.part;
    parsed.name.resize(marker);
    return parsed;
  }
  fail("formats.peft.tensor", "{}: {} is no tensor of a LoRA or (IA)^3 adapter", where, key);
}

at::Tensor& slot(ModuleTensors& module, Key::Part part) {
  switch (part) {
    case Key::Part::a: case Key::Part::embedding_a: return module.a;
    case Key::Part::b: case Key::Part::embedding_b: return module.b;
    case Key::Part::b_bias: return module.b_bias;
    case Key::Part::magnitude: return module.magnitude;
    case Key::Part::scale: case Key::Part::tokens: case Key::Part::whole: break;
  }
  return module.scale;
}

at::Tensor read_float(const Safetensors& file, const std::string& key, const std::string& where) {
  at::Tensor tensor = file.get(key);
  const at::ScalarType type = tensor.scalar_type();
  check(type == at::kFloat || type == at::kDouble || type == at::kHalf || type == at::kBFloat16, "formats.peft.tensor",
        "{}: {} is stored as {}; adapters are read as float64, float32, float16 or bfloat16", where, key, c10::toString(type));
  check(at::isfinite(tensor).all().item<bool>(), "formats.peft.not_finite", "{}: {} holds values that are not finite", where, key);
  return tensor;
}

std::string shape_of(const at::Tensor& tensor) { return fmt::format("[{}]", fmt::join(tensor.sizes().vec(), ", ")); }

/// Halves of pairs and shapes that cannot belong together.
void check_module(const AdapterFile& adapter, const std::string& name, const ModuleTensors& module) {
  const std::string& where = adapter.where;
  if (adapter.config.kind == Kind::ia3) {
    check(module.scale.defined() && !module.a.defined() && !module.b.defined(), "formats.peft.tensor",
          "{}: {} has LoRA tensors, but the config says IA3", where, name);
    const at::Tensor& scale = module.scale;
    check(scale.dim() == 2 && (scale.size(0) == 1 || scale.size(1) == 1), "formats.peft.tensor",
          "{}: {}.ia3_l has shape {}; it must be [out, 1] or [1, in]", where, name, shape_of(scale));
    return;
  }
  check(!module.scale.defined(), "formats.peft.tensor", "{}: {} has an ia3_l, but the config says LORA", where, name);
  check(module.a.defined() && module.b.defined(), "formats.peft.tensor", "{}: {} has no lora_{}", where, name,
        module.a.defined() ? "B" : "A");
  check(module.a.dim() == 2 && module.b.dim() == 2 && module.a.size(0) == module.b.size(1) && module.a.size(0) > 0,
        "formats.peft.tensor", "{}: {} has lora_A {} and lora_B {}; they must be [r, in] and [out, r]", where, name,
        shape_of(module.a), shape_of(module.b));
  const int64_t out = module.b.size(0);
  check(module.magnitude.defined() == adapter.config.dora, "formats.peft.tensor", "{}: {} has {} lora_magnitude_vector, but use_dora is {}",
        where, name, module.magnitude.defined() ? "a" : "no", adapter.config.dora);
  check(!module.magnitude.defined() || module.magnitude.numel() == out, "formats.peft.tensor",
        "{}: {}.lora_magnitude_vector has shape {}, but lora_B {}", where, name, shape_of(module.magnitude), shape_of(module.b));
  check(module.b_bias.defined() == (adapter.config.bias_on_b && !module.embedding), "formats.peft.tensor",
        "{}: {} has {} lora_B.bias, but lora_bias is {}", where, name, module.b_bias.defined() ? "a" : "no", adapter.config.bias_on_b);
  check(!module.b_bias.defined() || (module.b_bias.dim() == 1 && module.b_bias.size(0) == out), "formats.peft.tensor",
        "{}: {}.lora_B.bias has shape {}, but lora_B {}", where, name, shape_of(module.b_bias), shape_of(module.b));
}

/// The tokens whose rows stand beside a module; a name in the config is the module's or its end.
const std::vector<int64_t>* token_ids(const AdapterConfig& config, std::string_view module) {
  for (const auto& [name, ids] : config.token_indices)
    if (name.empty() || module == name || module.ends_with("." + name)) return &ids;
  return nullptr;
}

void read_modules(const Safetensors& file, AdapterFile& adapter) {
  std::map<std::string, size_t> at;
  for (const TensorInfo& info : file.tensors()) {
    if (info.name.find(kClassifier) != std::string::npos) continue;
    Key key = parse_key(info.name, adapter.where);
    at::Tensor tensor = read_float(file, info.name, adapter.where);
    if (key.part == Key::Part::whole) {
      adapter.wholes.push_back({std::move(key.name), std::move(tensor), key.base});
      continue;
    }
    if (key.part == Key::Part::tokens) {
      const std::vector<int64_t>* ids = token_ids(adapter.config, key.name);
      check(ids && tensor.dim() == 2 && tensor.size(0) == static_cast<int64_t>(ids->size()), "formats.peft.tensor",
            "{}: {} has shape {}, but trainable_token_indices lists {} tokens of {}", adapter.where, info.name, shape_of(tensor),
            ids ? ids->size() : 0, key.name);
      adapter.tokens.push_back({std::move(key.name), std::move(tensor), *ids});
      continue;
    }
    const auto [place, fresh] = at.emplace(key.name, adapter.modules.size());
    if (fresh) adapter.modules.emplace_back(key.name, ModuleTensors{});
    ModuleTensors& module = adapter.modules[place->second].second;
    at::Tensor& target = slot(module, key.part);
    check(!target.defined(), "formats.peft.tensor", "{}: {} stands there twice", adapter.where, info.name);
    target = std::move(tensor);
    if (key.part == Key::Part::magnitude) target = target.reshape({-1});
    if (key.part == Key::Part::embedding_a || key.part == Key::Part::embedding_b) module.embedding = true;
  }
  for (const auto& [name, module] : adapter.modules) check_module(adapter, name, module);
}

void read_classifier(const Safetensors& file, AdapterFile& adapter) {
  std::map<int64_t, std::pair<at::Tensor, at::Tensor>> layers;
  for (const TensorInfo& info : file.tensors()) {
    const size_t at = info.name.find(kClassifier);
    if (at == std::string::npos) continue;
    const std::string tail = info.name.substr(at + std::string_view(kClassifier).size());
    const size_t dot = tail.find('.');
    int64_t index = -1;
    const auto [end, error] = std::from_chars(tail.data(), tail.data() + std::min(dot, tail.size()), index);
    const std::string kind = dot == std::string::npos ? "" : tail.substr(dot + 1);
    check(error == std::errc() && end == tail.data() + dot && index >= 0 && (kind == "weight" || kind == "bias"), "formats.peft.tensor",
          "{}: {} is no tensor of an X-LoRA classifier", adapter.where, info.name);
    (kind == "weight" ? layers[index].first : layers[index].second) = read_float(file, info.name, adapter.where);
  }
  const XLoraSettings& settings = adapter.config.xlora;
  check(static_cast<int64_t>(layers.size()) == settings.depth, "formats.peft.tensor",
        "{}: the classifier has {} layers, but xlora_depth is {}", adapter.where, layers.size(), settings.depth);
  int64_t width = settings.hidden_size;
  for (auto& [index, layer] : layers) {
    const auto& [weight, bias] = layer;
    check(weight.defined() && bias.defined() && weight.dim() == 2 && bias.dim() == 1 && bias.size(0) == weight.size(0) &&
              weight.size(1) == width, "formats.peft.tensor", "{}: layer {} of the classifier does not map width {}; it has weight {} and bias {}",
          adapter.where, index, width, weight.defined() ? shape_of(weight) : "(none)", bias.defined() ? shape_of(bias) : "(none)");
    width = weight.size(0);
    adapter.classifier.push_back(std::move(layer));
  }
}

AdapterFile read_one(const fs::path& folder, AdapterConfig config) {
  AdapterFile adapter{.config = std::move(config), .where = folder.string(), .modules = {}, .wholes = {}, .tokens = {}, .classifier = {}, .experts = {}};
  const fs::path path = folder / kTensors;
  if (!fs::exists(path)) {
    check(!fs::exists(folder / "adapter_model.bin"), "formats.peft.pickle",
          "{} holds adapter_model.bin, a pickle, which is not read because it may run code; save the adapter again as safetensors",
          folder.string());
    fail("formats.peft.folder", "{} holds no {}", folder.string(), kTensors);
  }
  const Safetensors file(path);
  if (adapter.config.kind == Kind::xlora) read_classifier(file, adapter);
  else read_modules(file, adapter);
  return adapter;
}

}  // namespace

const ModuleTensors* AdapterFile::find(std::string_view module) const {
  for (const auto& [name, tensors] : modules)
    if (name == module) return &tensors;
  return nullptr;
}

AdapterFile read_adapter(const fs::path& folder, const std::map<std::string, fs::path>& expert_folders) {
  AdapterFile adapter = read_one(folder, read_adapter_config(folder));
  const auto& named = adapter.config.xlora.adapters;
  for (const auto& [name, place] : expert_folders)
    check(std::any_of(named.begin(), named.end(), [&, &wanted = name](const auto& entry) { return entry.first == wanted; }),
          "formats.peft.experts", "{} has no adapter named {}", folder.string(), name);
  if (adapter.config.kind != Kind::xlora) return adapter;
  check(!named.empty() && named.size() <= kMostExperts, "formats.peft.experts", "{}: an X-LoRA of {} adapters; 1 to {} can be read",
        folder.string(), named.size(), kMostExperts);
  for (size_t i = 0; i < named.size(); ++i) {
    const std::string& name = named[i].first;
    const auto given = expert_folders.find(name);
    fs::path place = given == expert_folders.end() ? folder / name : given->second;
    if (given == expert_folders.end()) {
      check(!name.empty() && name.find('/') == std::string::npos && name != "." && name != "..", "formats.peft.experts",
            "{}: '{}' is no name of a folder beside it", folder.string(), name);
      if (!fs::exists(place)) place = folder / std::to_string(i);
    }
    AdapterConfig config = read_adapter_config(place);
    check(config.kind == Kind::lora && !config.dora, "formats.peft.experts", "{}: the adapters of an X-LoRA are plain LoRA; {} is {}",
          folder.string(), place.string(), config.dora ? "DoRA" : to_string(config.kind));
    adapter.experts.push_back({name, read_one(place, std::move(config))});
  }
  return adapter;
}

namespace {

/// The classifier's maps stand in a sequence with an activation, and dropout if any, between them.
NamedTensors classifier_tensors(const AdapterFile& adapter) {
  const Node* dropout = adapter.config.document.find("xlora_dropout_p");
  const bool without = dropout && (dropout->scalar() == "0.0" || dropout->scalar() == "0");
  NamedTensors tensors;
  for (size_t i = 0; i < adapter.classifier.size(); ++i) {
    const std::string place = fmt::format("base_model.{}{}", kClassifier, i * (without ? 2 : 3));
    tensors.emplace_back(place + ".weight", adapter.classifier[i].first);
    tensors.emplace_back(place + ".bias", adapter.classifier[i].second);
  }
  return tensors;
}

}  // namespace

void write_adapter(const fs::path& folder, const AdapterFile& adapter) {
  NamedTensors tensors = classifier_tensors(adapter);
  const auto add = [&](const std::string& name, const at::Tensor& tensor) {
    if (tensor.defined()) tensors.emplace_back(kPrefix + name, tensor.contiguous());
  };
  for (const auto& [name, module] : adapter.modules) {
    add(name + (module.embedding ? ".lora_embedding_A" : ".lora_A.weight"), module.a);
    add(name + (module.embedding ? ".lora_embedding_B" : ".lora_B.weight"), module.b);
    add(name + ".lora_B.bias", module.b_bias);
    add(name + ".lora_magnitude_vector", module.magnitude);
    add(name + ".ia3_l", module.scale);
  }
  for (const AdapterFile::Whole& whole : adapter.wholes) {
    const size_t dot = whole.base ? whole.name.rfind('.') : std::string::npos;
    add(dot == std::string::npos ? whole.name : whole.name.substr(0, dot) + ".base_layer" + whole.name.substr(dot), whole.value);
  }
  for (const AdapterFile::Tokens& tokens : adapter.tokens) add(tokens.module + kTokens, tokens.rows);
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  write_folder_atomically(folder, [&](const fs::path& temporary) {
    write_file_atomically(temporary / "adapter_config.json", to_text(adapter.config));
    write_safetensors(temporary / kTensors, tensors, {{"format", "pt"}});
    for (const auto& [name, expert] : adapter.experts) write_adapter(temporary / name, expert);
  });
}

}  // namespace switchyard::peft
