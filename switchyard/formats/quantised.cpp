#include "switchyard/formats/quantised.h"

#include <ATen/ops/empty.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <functional>
#include <unordered_map>
#include <unordered_set>

#include "switchyard/base/error.h"
#include "switchyard/base/files.h"
#include "switchyard/base/options.h"
#include "switchyard/formats/gguf.h"
#include "switchyard/formats/gguf_header.h"
#include "switchyard/formats/quantised_layouts.h"
#include "switchyard/formats/safetensors_header.h"

namespace switchyard {

namespace fs = std::filesystem;

namespace {

constexpr uint64_t kLargestConfig = uint64_t{1} << 26;

/// What the config says of how weights are packed; 0 and empty where it says nothing.
struct Settings {
  std::string method;
  int bits = 0;
  int64_t block_rows = 0, block_columns = 0;
  bool zeros_less_one = true;
};

int64_t integer(const Node& node, const char* key) {
  int64_t value = 0;
  const std::string& text = node.scalar();
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  check(node.is_scalar() && error == std::errc() && end == text.data() + text.size() && value > 0, "formats.quantised.config",
        "{}: {} is no positive number", node.where(), key);
  return value;
}

std::string word(const Node& config, const char* key) {
  const Node* node = config.find(key);
  return node != nullptr && node->is_scalar() ? node->scalar() : "";
}

Settings read_settings(const Node& config) {
  Settings settings;
  if (config.is_null()) return settings;
  check(config.is_map(), "formats.quantised.config", "{}: quantization_config is no object", config.where());
  settings.method = word(config, "quant_method");
  constexpr std::array<std::string_view, 6> kMethods{"fp8", "fbgemm_fp8", "mxfp4", "gptq", "awq", "compressed-tensors"};
  check(std::find(kMethods.begin(), kMethods.end(), settings.method) != kMethods.end(), "formats.quantised.method",
        "{}: quant_method '{}' is not read; these are: {}", config.where(), settings.method, fmt::join(kMethods, ", "));
  if (settings.method == "compressed-tensors") {
    const std::string format = word(config, "format");
    check(format == "float-quantized" || format == "naive-quantized", "formats.quantised.method",
          "{}: compressed-tensors in format '{}' are not read; float-quantized are", config.where(), format);
  }
  if (const Node* bits = config.find("bits"); bits != nullptr && !bits->is_null()) {
    const int64_t value = integer(*bits, "bits");
    check(value <= 8, "formats.quantised.config", "{}: weights of {} bits are not read; 2, 3, 4 and 8 are", bits->where(), value);
    settings.bits = static_cast<int>(value);
  }
  if (const Node* block = config.find("weight_block_size"); block != nullptr && !block->is_null()) {
    check(block->is_list() && block->items().size() == 2, "formats.quantised.config", "{}: weight_block_size is no list of two numbers",
          block->where());
    settings.block_rows = integer(block->items()[0], "weight_block_size");
    settings.block_columns = integer(block->items()[1], "weight_block_size");
  }
  if (settings.method == "gptq") {
    const std::string format = word(config, "checkpoint_format");
    check(format.empty() || format == "gptq" || format == "gptq_v2", "formats.quantised.method",
          "{}: checkpoint_format '{}' is not read; gptq and gptq_v2 are", config.where(), format);
    settings.zeros_less_one = format != "gptq_v2";
  }
  if (settings.method == "awq") {
    const std::string version = word(config, "version");
    check(version.empty() || version == "gemm" || version == "GEMM", "formats.quantised.method",
          "{}: awq in version '{}' is not read; gemm is", config.where(), version);
    check(settings.bits == 0 || settings.bits == 4, "formats.quantised.config", "{}: awq with {} bits; it has 4", config.where(), settings.bits);
  }
  return settings;
}

bool is_float8(const TensorInfo& info) { return info.dtype.starts_with("F8_") && info.dtype != "F8_E8M0" && !info.shape.empty(); }

std::string without(std::string_view name, std::string_view ending) { return std::string(name.substr(0, name.size() - ending.size())); }

}  // namespace

struct QuantisedWeights::Data {
  explicit Data(Safetensors safetensors) : file(std::move(safetensors)) {
    for (const TensorInfo& info : file.tensors()) infos.emplace(info.name, &info);
  }
  using Get = std::function<at::Tensor(const std::string&)>;
  using Make = std::function<std::shared_ptr<const PackedTensor>(const Get&)>;

  Safetensors file;
  std::unordered_map<std::string_view, const TensorInfo*> infos;
  std::vector<TensorInfo> tensors;
  std::unordered_map<std::string, Make> packed;
  std::unordered_set<std::string> plain;

  bool has(const std::string& name) const { return infos.contains(name); }
  const TensorInfo& info(const std::string& name, const std::string& whole) const {
    const auto found = infos.find(name);
    check(found != infos.end(), "formats.quantised.missing", "{} is packed, but {} is not in the file", whole, name);
    return *found->second;
  }
  bool is_float8(const std::string& name) const {
    const auto found = infos.find(name);
    return found != infos.end() && switchyard::is_float8(*found->second);
  }
  /// Shape and type without the data.
  at::Tensor sketch(const std::string& name, const std::string& whole) const {
    const TensorInfo& found = info(name, whole);
    const auto type = safetensors::dtype_named(found.dtype)->torch;
    check(type.has_value(), "formats.quantised.dtype", "{} is {}, which has no tensor type here", name, found.dtype);
    return at::empty(found.shape, at::TensorOptions().dtype(*type).device(at::kMeta));
  }
  void add(const std::string& name, const TensorInfo& main, Make make) {
    uint64_t bytes = 0;
    const std::shared_ptr<const PackedTensor> whole = make([&](const std::string& part) {
      bytes += info(part, name).bytes;
      return sketch(part, name);
    });
    const bool fresh = packed.emplace(name, std::move(make)).second && (name == main.name || !has(name));
    check(fresh, "formats.quantised.shape", "{} is in the file twice, packed and plain", name);
    tensors.push_back({name, whole->layout() == "fp8" ? main.dtype : whole->layout(), whole->shape(), bytes});
  }
  void add_float8(const TensorInfo& info, const Settings& settings);
  void add_integers(const TensorInfo& info, const Settings& settings);
};

void QuantisedWeights::Data::add_float8(const TensorInfo& info, const Settings& settings) {
  const std::string& name = info.name;
  // Without a scale, and without a method that promises one, the numbers were only rounded.
  const std::string scale = has(name + "_scale_inv") ? name + "_scale_inv" : has(name + "_scale") || !settings.method.empty() ? name + "_scale" : "";
  add(name, info, [name, scale, settings](const Get& get) {
    return packed_fp8(name, get(name), scale.empty() ? at::Tensor() : get(scale), settings.block_rows, settings.block_columns);
  });
}

void QuantisedWeights::Data::add_integers(const TensorInfo& info, const Settings& settings) {
  const std::string stem = without(info.name, ".qweight"), weight = stem + ".weight";
  check(!settings.method.empty(), "formats.quantised.config",
        "{} is packed, but no quantization_config says how: config.json or quantize_config.json is needed", stem);
  check(settings.method == "gptq" || settings.method == "awq", "formats.quantised.method", "{} does not belong to the method '{}'",
        info.name, settings.method);
  if (settings.method == "awq") {
    add(weight, info, [stem, weight](const Get& get) {
      return packed_awq(weight, get(stem + ".qweight"), get(stem + ".qzeros"), get(stem + ".scales"));
    });
    return;
  }
  add(weight, info, [stem, weight, settings, indexed = has(stem + ".g_idx")](const Get& get) {
    GptqParts parts{.qweight = get(stem + ".qweight"), .qzeros = get(stem + ".qzeros"), .scales = get(stem + ".scales"),
                    .bits = settings.bits, .zeros_less_one = settings.zeros_less_one};
    if (indexed) parts.g_idx = get(stem + ".g_idx");
    // A layer may have bits of its own; the number of inputs tells.
    if (indexed && parts.g_idx.numel() > 0 && parts.qweight.dim() == 2 && parts.qweight.size(0) * 32 % parts.g_idx.numel() == 0)
      parts.bits = static_cast<int>(std::min<int64_t>(parts.qweight.size(0) * 32 / parts.g_idx.numel(), 64));
    return packed_gptq(weight, parts);
  });
}

QuantisedWeights::QuantisedWeights(Safetensors safetensors, const Node& config) : data_(std::make_unique<Data>(std::move(safetensors))) {
  const Settings settings = read_settings(config);
  Data& data = *data_;
  const auto ends = [](const std::string& name, std::string_view ending) { return name.size() > ending.size() && name.ends_with(ending); };
  // Parts of a packed weight beside the one that it is known by.
  const auto is_part = [&](const std::string& name) {
    for (const char* ending : {".qzeros", ".scales", ".g_idx"})
      if (ends(name, ending) && data.has(without(name, ending) + ".qweight")) return true;
    if (ends(name, "_scales") && data.has(without(name, "_scales") + "_blocks")) return true;
    for (const char* ending : {"_scale_inv", "_scale"})
      if (ends(name, ending) && data.is_float8(without(name, ending))) return true;
    // Scales of activations, which are computed with in full here.
    return !settings.method.empty() && (ends(name, ".input_scale") || ends(name, ".k_scale") || ends(name, ".v_scale"));
  };
  for (const TensorInfo& info : data.file.tensors()) {
    if (ends(info.name, ".qweight")) {
      data.add_integers(info, settings);
    } else if (ends(info.name, "_blocks") && info.dtype == "U8" &&
               (settings.method == "mxfp4" || data.has(without(info.name, "_blocks") + "_scales"))) {
      const std::string name = without(info.name, "_blocks");
      data.add(name, info, [name](const Data::Get& get) { return packed_mxfp4(name, get(name + "_blocks"), get(name + "_scales")); });
    } else if (is_float8(info)) {
      data.add_float8(info, settings);
    } else if (!is_part(info.name)) {
      data.plain.insert(info.name);
      data.tensors.push_back(info);
    }
  }
}

QuantisedWeights::~QuantisedWeights() = default;

bool QuantisedWeights::any() const { return !data_->packed.empty(); }
const std::vector<TensorInfo>& QuantisedWeights::tensors() const { return data_->tensors; }

bool QuantisedWeights::has(std::string_view name) const {
  return data_->packed.contains(std::string(name)) || data_->plain.contains(std::string(name));
}

at::Tensor QuantisedWeights::get(std::string_view name) const {
  const std::shared_ptr<const PackedTensor> whole = packed(name);
  return whole ? whole->dequantise() : data_->file.get(name);
}

std::shared_ptr<const PackedTensor> QuantisedWeights::packed(std::string_view name) const {
  const auto found = data_->packed.find(std::string(name));
  if (found != data_->packed.end()) return found->second([this](const std::string& part) { return data_->file.get(part); });
  if (!data_->plain.contains(std::string(name))) {
    std::vector<std::string> names;
    for (const TensorInfo& info : data_->tensors) names.push_back(info.name);
    const std::string near = nearest(name, names);
    fail("formats.quantised.missing", "there is no tensor {}{}", name, near.empty() ? "" : "; the nearest name is " + near);
  }
  return nullptr;
}

namespace {

Node quantisation_of(const fs::path& folder) {
  if (fs::exists(folder / "config.json")) {
    const Node config = parse_json(read_file(folder / "config.json", kLargestConfig), (folder / "config.json").string());
    for (const Node* level : {&config, config.find("text_config")})
      if (level != nullptr && level->is_map())
        if (const Node* found = level->find("quantization_config"); found != nullptr && !found->is_null()) return *found;
  }
  if (!fs::exists(folder / "quantize_config.json")) return {};
  Node config = parse_json(read_file(folder / "quantize_config.json", kLargestConfig), (folder / "quantize_config.json").string());
  if (config.is_map() && config.find("quant_method") == nullptr) config["quant_method"] = Node("gptq");
  return config;
}

}  // namespace

std::unique_ptr<WeightSource> open_weights(const fs::path& path) {
  const bool folder = fs::is_directory(path);
  if (!folder && is_gguf(path)) return std::make_unique<Gguf>(path);
  const bool tensors = fs::exists(path / "model.safetensors") || fs::exists(path / "model.safetensors.index.json");
  if (folder && !tensors)
    if (const fs::path file = gguf::file_in(path); !file.empty()) return std::make_unique<Gguf>(file);
  const Node config = folder ? quantisation_of(path) : Node();
  return std::make_unique<QuantisedWeights>(Safetensors(path), config);
}

}  // namespace switchyard
