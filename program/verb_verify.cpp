// switchyard verify: are two models the same, or a model and a recording of it? The exit status says so.
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "program/generation.h"
#include "program/prompts.h"
#include "program/verb.h"
#include "switchyard/base/error.h"
#include "switchyard/base/files.h"
#include "switchyard/base/progress.h"
#include "switchyard/base/random.h"
#include "switchyard/evaluate/compare.h"
#include "switchyard/formats/gguf.h"
#include "switchyard/infer/named_outputs.h"

namespace switchyard::program {

namespace {

namespace fs = std::filesystem;

constexpr int kDiffers = 1;
constexpr double kTolerance = 1e-4;

struct Arguments {
  std::string reference, other, prompts, dtype = "float32";
  std::vector<std::string> set;
  std::optional<double> tolerance;
  bool json = false;
};

/// A recording: safetensors with input_ids and logits, whatever the file is called, and no model.
bool is_recording(const std::string& path) { return fs::is_regular_file(path) && !is_gguf(path); }

/// The tolerance that stands beside a recording, in golden.json.
std::optional<double> recorded_tolerance(const fs::path& recording) {
  fs::path notes = recording;
  notes.replace_extension(".json");
  if (!fs::exists(notes)) return {};
  const auto json = nlohmann::json::parse(read_file(notes, uint64_t{1} << 24), nullptr, /*allow_exceptions=*/false);
  const auto value = json.is_object() ? json.value("/tolerance/logits_abs"_json_pointer, nlohmann::json()) : nlohmann::json();
  return value.is_number() ? std::optional(value.get<double>()) : std::nullopt;
}

/// One sequence without a batch around it is a batch of one.
at::Tensor batched(const at::Tensor& tensor, int64_t dims) { return tensor.dim() == dims - 1 ? tensor.unsqueeze(0) : tensor; }

/// dims: of a batch's logits.
NamedTensors all_of(const Safetensors& file, int64_t dims) {
  NamedTensors tensors{{"logits", batched(file.get("logits"), dims)}};
  for (const TensorInfo& info : file.tensors())
    for (const char* prefix : {"logits_", "hidden_states.", "topk_ids."})
      if (info.name.starts_with(prefix)) tensors.emplace_back(info.name, file.get(info.name));
  return tensors;
}

Comparison with_recording(const Arguments& arguments) {
  const bool first = is_recording(arguments.reference);
  const std::string& recording = first ? arguments.reference : arguments.other;
  check(!first || !is_recording(arguments.other), "program.usage", "{} and {} are both recordings; one side must be a model",
        arguments.reference, arguments.other);
  check(arguments.prompts.empty(), "program.usage", "{} says itself what the model reads; leave --prompts out", recording);
  const Safetensors file(recording);
  const NamedInputs inputs = named_inputs(file);
  check(file.has("logits"), "formats.safetensors.missing", "{} holds no logits, so it is no recording of a model", recording);
  const auto model = open_model(first ? arguments.other : arguments.reference, {.dtype = arguments.dtype, .set = arguments.set});
  const int64_t dims = model->names_classes() ? 2 : 3;  // [batch, classes], or [batch, sequence, vocabulary]
  NamedTensors recorded = all_of(file, dims);
  // Behind an encoder logits are the decoder's; of the encoder's decisions padding has none here.
  const bool translates = model->start_id().has_value();
  if (translates) std::erase_if(recorded, [](const auto& entry) { return entry.first.starts_with("topk_ids.encoder."); });
  at::Tensor mask = translates ? inputs.decoder_attention_mask : inputs.attention_mask;
  if (mask.defined()) mask = batched(mask, 2);
  check(recorded.front().second.dim() == dims, "evaluate.shape", "{}: logits of {} dimensions are no [batch, {}]", recording,
        recorded.front().second.dim(), dims == 2 ? "classes" : "sequence, vocabulary");
  check(recorded.front().second.size(-1) == model->vocabulary(), "verify.vocabulary", "the recording has logits of {} {}, but the model has {}",
        recorded.front().second.size(-1), dims == 2 ? "classes" : "tokens", model->vocabulary());
  const NamedTensors computed = named_outputs(*model, inputs, {.hidden = true, .routing = true});
  Comparer comparer;
  comparer.add(recorded, computed, mask);
  return comparer.result();
}

/// Sequences of token ids drawn from a fixed seed: they meet every part of the vocabulary, and need no tokenizer.
std::vector<std::vector<int64_t>> drawn_prompts(int64_t vocabulary, int64_t context) {
  std::vector<std::vector<int64_t>> prompts;
  for (int64_t length : {1, 7, 32, 61}) {
    const at::Tensor ids = Streams(17).integers(vocabulary, {std::min(length, context)}, {.purpose = "verify", .step = length});
    prompts.emplace_back(ids.const_data_ptr<int64_t>(), ids.const_data_ptr<int64_t>() + ids.numel());
  }
  return prompts;
}

std::vector<std::vector<int64_t>> prompts_for(const Arguments& arguments, const AdaptedModel& a, const AdaptedModel& b) {
  const int64_t context = std::min(a.context(), b.context());
  if (arguments.prompts.empty()) return drawn_prompts(a.network().decoder().options().vocabulary, context);
  const PromptsOptions options{};
  const std::vector<PromptLine> lines = read_prompts(arguments.prompts, a, options);
  const bool may_differ = a.tokenizer() && b.tokenizer() && a.tokenizer()->fingerprint() != b.tokenizer()->fingerprint();
  const std::vector<PromptLine> again = may_differ ? read_prompts(arguments.prompts, b, options) : lines;
  std::vector<std::vector<int64_t>> prompts;
  for (size_t i = 0; i < lines.size(); ++i) {
    check(lines[i].ids == again[i].ids, "verify.tokenizer", "the models' tokenizers read prompt {} differently ({} and {} tokens), so there "
          "is nothing to compare; give \"ids\" as prompts if you mean to", lines[i].id, lines[i].ids.size(), again[i].ids.size());
    check(static_cast<int64_t>(lines[i].ids.size()) <= context, "infer.context", "prompt {} has {} tokens, but the shorter context is {}",
          lines[i].id, lines[i].ids.size(), context);
    prompts.push_back(lines[i].ids);
  }
  return prompts;
}

/// An image of noise for both, or null where they read tokens.
std::optional<at::Tensor> drawn_image(const AdaptedModel& a, const AdaptedModel& b) {
  const std::optional<PatchOptions>& patches = a.network().decoder().options().patches;
  check((a.image_rows() > 0) == (b.image_rows() > 0), "verify.kind", "one model reads images, the other tokens");
  if (!patches) return std::nullopt;
  const PatchOptions& there = *b.network().decoder().options().patches;
  check(patches->image == there.image && patches->channels == there.channels, "verify.kind", "one model reads images of {} channels and {} pixels a side, "
        "the other {} and {}", patches->channels, patches->image, there.channels, there.image);
  return Streams(17).normal({4, patches->channels, patches->image, patches->image}, {.purpose = "verify"}, at::kFloat);
}

/// What both read of one prompt; a decoder behind an encoder is given the prompt's tokens behind its own first one.
NamedInputs inputs_of(const std::vector<int64_t>& prompt, std::optional<int64_t> start) {
  NamedInputs inputs;
  inputs.input_ids = at::tensor(prompt, at::kLong).unsqueeze(0);
  if (!start) return inputs;
  std::vector<int64_t> decoded{*start};
  decoded.insert(decoded.end(), prompt.begin(), prompt.end());
  decoded.pop_back();
  inputs.decoder_input_ids = at::tensor(decoded, at::kLong).unsqueeze(0);
  return inputs;
}

std::vector<NamedInputs> inputs_for(const Arguments& arguments, const AdaptedModel& a, const AdaptedModel& b) {
  if (const std::optional<at::Tensor> image = drawn_image(a, b)) {
    check(arguments.prompts.empty(), "program.usage", "the models read images; leave --prompts out");
    NamedInputs inputs;
    inputs.pixel_values = *image;
    return {inputs};
  }
  check(a.start_id().has_value() == b.start_id().has_value(), "verify.kind", "one model has an encoder, the other none");
  std::vector<NamedInputs> inputs;
  for (const std::vector<int64_t>& prompt : prompts_for(arguments, a, b)) inputs.push_back(inputs_of(prompt, a.start_id()));
  return inputs;
}

/// Different vocabularies have nothing to compare: token 5 is another word.
void check_same_tokens(const AdaptedModel& a, const AdaptedModel& b) {
  check(a.vocabulary() == b.vocabulary(), "verify.vocabulary", "the models give logits of {} and {} {}; they are compared one by one",
        a.vocabulary(), b.vocabulary(), a.names_classes() && b.names_classes() ? "classes" : "tokens");
  if (a.tokenizer() == nullptr || b.tokenizer() == nullptr) return;
  if (a.tokenizer()->fingerprint() == b.tokenizer()->fingerprint()) return;
  // Files of different kinds may hold the same tokens (a folder and the GGUF file made of it): look at what they do.
  constexpr const char* kProbe = "The quick brown fox: 12.5% of “naïve” café-goers\n\tdon't (yet) read 東京 & x_1 = f(y);  Größe";
  const std::vector<int64_t> x = a.tokenizer()->encode(kProbe), y = b.tokenizer()->encode(kProbe);
  check(x == y, "verify.tokenizer", "the models have different tokenizers: one reads a text as {} tokens, the other as {}{}", x.size(), y.size(),
        x.size() == y.size() ? " others" : "");
}

Comparison of_models(const Arguments& arguments) {
  const auto a = open_model(arguments.reference, {.dtype = arguments.dtype}), b = open_model(arguments.other, {.dtype = arguments.dtype, .set = arguments.set});
  check_same_tokens(*a, *b);
  const std::vector<NamedInputs> all = inputs_for(arguments, *a, *b);
  Comparer comparer;
  int64_t done = 0;
  for (const NamedInputs& inputs : all) {
    const NamedOutputsOptions options{.hidden = true, .routing = true, .scalings = false, .facts = {}};
    comparer.add(named_outputs(*a, inputs, options), named_outputs(*b, inputs, options));
    reporter().progress("verify", ++done, static_cast<int64_t>(all.size()), {});
  }
  reporter().finished("verify");
  return comparer.result();
}

/// JSON has no infinity.
nlohmann::json number(double value) { return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json("infinite"); }

std::string as_json(const Comparison& c, double tolerance) {
  nlohmann::ordered_json json;
  json["equal"] = c.equal(tolerance);
  json["tolerance"] = tolerance;
  json["positions"] = c.positions;
  json["logits"] = {{"largest", number(c.largest)}, {"mean", number(c.mean)}};
  if (c.largest > 0)
    json["logits"]["at"] = {{"sequence", c.at.sequence}, {"position", c.at.position}, {"token", c.at.token},
                            {"values", {number(c.at.reference), number(c.at.other)}}};
  json["kl"] = {{"mean", number(c.divergence)}, {"largest", number(c.largest_divergence)}};
  json["top1_agreement"] = c.same_top;
  const auto first = c.first_different(tolerance);
  json["first_different_layer"] = first ? nlohmann::ordered_json(*first) : nlohmann::ordered_json();
  json["hidden_states"] = nlohmann::ordered_json::object();
  for (const auto& layer : c.hidden) json["hidden_states"][layer.layer] = {{"largest", number(layer.largest)}, {"scale", number(layer.scale)}};
  json["routing"] = nlohmann::ordered_json::object();
  for (const auto& layer : c.routing) json["routing"][layer.layer] = {{"rows", layer.rows}, {"same", layer.same}};
  return json.dump(2) + "\n";
}

std::string as_text(const Comparison& c, double tolerance) {
  std::string text = fmt::format("logits         largest difference {:.3g}, mean {:.3g}, over {} positions\n", c.largest, c.mean, c.positions);
  if (c.largest > 0)
    text += fmt::format("               largest at sequence {}, position {}, token {}: {:.6g} and {:.6g}\n", c.at.sequence, c.at.position,
                        c.at.token, c.at.reference, c.at.other);
  text += fmt::format("probabilities  KL divergence {:.3g} nats, largest {:.3g}; the same first choice at {:.2f} %\n", c.divergence,
                      c.largest_divergence, 100 * c.same_top);
  if (!c.hidden.empty()) {
    const auto first = c.first_different(tolerance);
    std::string where = "no layer is further apart than the tolerance";
    if (first)
      for (const auto& layer : c.hidden)
        if (layer.layer == *first)
          where = fmt::format("first different at hidden state {}{}: {:.3g} of values up to {:.3g}", *first, *first == "0" ? " (the embedding)" : "",
                              layer.largest, layer.scale);
    text += "hidden states  " + where + "\n";
  }
  int64_t rows = 0, same = 0;
  std::string differing;
  for (const auto& layer : c.routing) {
    rows += layer.rows;
    same += layer.same;
    if (layer.same < layer.rows) differing += fmt::format("{}layer {}: {} of {}", differing.empty() ? "; " : ", ", layer.layer, layer.same, layer.rows);
  }
  if (rows > 0)
    text += fmt::format("routing        the same experts for {} of {} rows in {} layers{}\n", same, rows, c.routing.size(), differing);
  return text + fmt::format("{} within {:.3g}\n", c.equal(tolerance) ? "equal" : "not equal", tolerance);
}

int verify(const Arguments& arguments) {
  for (const std::string& path : {arguments.reference, arguments.other})
    check(fs::exists(path), "model.folder", "{} does not exist", path);
  const bool recording = is_recording(arguments.reference) || is_recording(arguments.other);
  double tolerance = kTolerance;
  if (recording) tolerance = recorded_tolerance(is_recording(arguments.reference) ? arguments.reference : arguments.other).value_or(kTolerance);
  tolerance = arguments.tolerance.value_or(tolerance);
  const Comparison result = recording ? with_recording(arguments) : of_models(arguments);
  print(arguments.json ? as_json(result, tolerance) : as_text(result, tolerance));
  return result.equal(tolerance) ? 0 : kDiffers;
}

}  // namespace

Verb verify_verb() {
  return {.name = "verify",
          .summary = "are two models, or a model and a recording, the same?",
          .example = "switchyard verify DIR model.gguf --tolerance 1e-4",
          .computes = true,
          .setup = [](CommandLine& line) -> std::function<int()> {
            auto arguments = std::make_shared<Arguments>();
            line.option("reference", arguments->reference, "folder of a run, a checkpoint or a model, a GGUF file, or a recording: "
                        "safetensors with input_ids [B, S] or [S], logits [B, S, V] and, if any, attention_mask, hidden_states.{i}, "
                        "topk_ids.{layer}").required();
            line.option("other", arguments->other, "what is held against it, of the same kinds").required();
            line.option("--prompts", arguments->prompts, "what both read: a text a line, or JSON lines with \"prompt\" or \"ids\"; "
                        "without it four sequences of drawn tokens, or drawn images");
            line.option("--tolerance", arguments->tolerance, "logits may differ by so much; without it what golden.json beside a "
                        "recording says, else 1e-4").not_negative();
            line.option("--dtype", arguments->dtype, "type of the weights: float32, bfloat16, float16, float64");
            line.option("--set", arguments->set, "KEY=VALUE: another value of one of the options of the second model, or of the only one, as `switchyard show DIR "
                        "--options` lists them (may be given several times)").repeatable();
            line.flag("--json", arguments->json, "the result as JSON");
            return [arguments] { return verify(*arguments); };
          }};
}

}  // namespace switchyard::program
