// switchyard show: what a folder or file is, by its headers.
#include <fmt/format.h>


#include "program/verb.h"
#include "switchyard/base/json.h"
#include "switchyard/inspect/description.h"
#include "switchyard/models/checkpoint.h"
#include "switchyard/models/families/composition.h"

namespace switchyard::program {

namespace {

using Json = nlohmann::ordered_json;

struct Arguments {
  std::string path;
  bool tensors = false, json = false, options = false;
};

std::string amount(double value, std::initializer_list<const char*> units, double base) {
  auto unit = units.begin();
  for (; value >= base && unit + 1 != units.end(); ++unit) value /= base;
  return value < 10 && unit != units.begin() ? fmt::format("{:.2f} {}", value, *unit)
         : unit == units.begin()             ? fmt::format("{:.0f} {}", value, *unit)
                                             : fmt::format("{:.1f} {}", value, *unit);
}

std::string bytes_text(uint64_t bytes) { return amount(static_cast<double>(bytes), {"bytes", "KiB", "MiB", "GiB", "TiB"}, 1024); }
std::string count_text(int64_t count) {
  std::string text = amount(static_cast<double>(count), {"", "thousand", "million", "billion", "trillion"}, 1000);
  return text.ends_with(' ') ? text.substr(0, text.size() - 1) : text;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text;
  for (int64_t extent : shape) text += (text.empty() ? "" : ", ") + std::to_string(extent);
  return "[" + text + "]";
}

Json to_json(const FileSummary& d, bool tensors) {
  Json json{{"kind", d.kind}, {"path", d.path.string()}, {"family", d.family}, {"family_known", d.family_known},
            {"parameters", d.parameters}, {"active_parameters", d.active ? Json(*d.active) : Json()},
            {"layers", d.layers}, {"moe_layers", d.moe_layers}, {"experts", d.experts}, {"experts_per_token", d.experts_per_token},
            {"shared_experts", d.shared_experts}, {"width", d.width}, {"heads", d.heads}, {"key_value_heads", d.key_value_heads},
            {"vocabulary", d.vocabulary}, {"context", d.context}, {"quantisation", d.quantisation.empty() ? Json() : Json(d.quantisation)},
            {"bytes", d.bytes}, {"files", d.files}, {"tokenizer", d.has_tokenizer}, {"chat_template", d.has_chat_template}};
  json["dtypes"] = Json::object();
  for (const auto& [dtype, share] : d.dtypes)
    json["dtypes"][dtype] = {{"tensors", share.tensors}, {"parameters", share.parameters}, {"bytes", share.bytes}};
  json["memory"] = Json::array();
  for (const MemoryNeed& need : d.memory)
    json["memory"].push_back({{"format", need.format}, {"bits", need.bits > 0 ? Json(need.bits) : Json()}, {"weights", need.weights},
                              {"with_context", need.with_context > 0 ? Json(need.with_context) : Json()}});
  json["more"] = Json::object();
  for (const auto& [name, value] : d.more) json["more"][name] = value;
  if (!tensors) return json;
  json["tensors"] = Json::array();
  for (const TensorInfo& tensor : d.tensors)
    json["tensors"].push_back({{"name", tensor.name}, {"dtype", tensor.dtype}, {"shape", tensor.shape}, {"bytes", tensor.bytes}});
  return json;
}

std::string to_text(const FileSummary& d, bool tensors) {
  std::string out = fmt::format("{}: {}\n", d.path.string(), d.kind);
  const auto row = [&](std::string_view name, const std::string& value) { out += fmt::format("  {:<17} {}\n", name, value); };
  if (!d.family.empty()) row("family", d.kind == "model folder" && !d.family_known ? d.family + " (not one that this version loads)" : d.family);
  if (d.parameters > 0) {
    std::string text = fmt::format("{} ({})", count_text(d.parameters), d.parameters);
    if (d.active && *d.active != d.parameters) text += fmt::format(", {} active a token ({})", count_text(*d.active), *d.active);
    row("parameters", text);
  }
  if (d.layers > 0) row("layers", d.moe_layers > 0 ? fmt::format("{}, {} of them with experts", d.layers, d.moe_layers) : std::to_string(d.layers));
  if (d.experts > 0) {
    std::string text = fmt::format("{} a layer", d.experts);
    if (d.experts_per_token > 0) text += fmt::format(", {} a token", d.experts_per_token);
    if (d.shared_experts > 0) text += fmt::format(", {} shared", d.shared_experts);
    row("experts", text);
  }
  if (d.width > 0) row("width", d.heads > 0 ? fmt::format("{}, {} heads, {} of keys and values", d.width, d.heads, d.key_value_heads) : std::to_string(d.width));
  if (d.vocabulary > 0) row("vocabulary", fmt::format("{} tokens", d.vocabulary));
  if (d.context > 0) row("context", fmt::format("{} tokens", d.context));
  for (const auto& [dtype, share] : d.dtypes)
    row("dtype " + dtype, fmt::format("{} tensors, {} parameters, {}", share.tensors, count_text(share.parameters), bytes_text(share.bytes)));
  if (!d.quantisation.empty()) row("quantisation", d.quantisation);
  if (d.files > 0) row("on disk", fmt::format("{} in {} file{}", bytes_text(d.bytes), d.files, d.files == 1 ? "" : "s"));
  if (d.kind == "model folder" || d.kind == "run" || d.kind == "GGUF file") {
    row("tokenizer", d.has_tokenizer ? "yes" : "none");
    row("chat template", d.has_chat_template ? "yes" : "none");
  }
  for (const auto& [name, value] : d.more) row(name, value.substr(0, 200));
  if (!d.memory.empty()) {
    const bool context = d.memory.front().with_context > 0;
    out += context ? fmt::format("\nMemory to run, alone and with one sequence of {} tokens:\n", d.context) : "\nMemory to run:\n";
    for (const MemoryNeed& need : d.memory) {
      const std::string bits = need.bits > 0 ? fmt::format("{:.4g} bits", need.bits) : "";
      out += fmt::format("  {:<12}{:<14}{:<12}{}\n", need.format, bits, bytes_text(need.weights), context ? bytes_text(need.with_context) : "");
    }
  }
  if (tensors) {
    out += "\nTensors:\n";
    for (const TensorInfo& tensor : d.tensors)
      out += fmt::format("  {:<60} {:<8} {:<24} {}\n", tensor.name, tensor.dtype, shape_text(tensor.shape), bytes_text(tensor.bytes));
  }
  return out;
}

}  // namespace

Verb show_verb() {
  return {.name = "show",
          .summary = "what a model, a file of one, an adapter or a tokenizer is, and the memory it needs",
          .example = "switchyard show DIR --tensors",
          .setup = [](CommandLine& line) -> std::function<int()> {
            auto arguments = std::make_shared<Arguments>();
            line.option("path", arguments->path,
                        "folder of a model, an adapter or a run; or a file: .safetensors, .gguf, tokenizer.json, tokenizer.model, .tiktoken, .jinja")
                .required();
            line.flag("--tensors", arguments->tensors, "every tensor with its type, shape and size");
            line.flag("--json", arguments->json, "one JSON object");
            line.flag("--options", arguments->options, "the model's options instead, in full, as a recipe's `model` has them and --set changes them");
            return [arguments] {
              if (arguments->options) {
                const Node options = written_out(load_model(arguments->path).decoder->options());
                print(arguments->json ? switchyard::to_json(options) + "\n" : to_yaml(options));
                return 0;
              }
              const FileSummary description = describe(arguments->path);
              print(arguments->json ? json_text(to_json(description, arguments->tensors), 2) + "\n"
                                    : to_text(description, arguments->tensors));
              return 0;
            };
          }};
}

}  // namespace switchyard::program
