#include "switchyard/models/families/gguf/file_view.h"

#include <fmt/ranges.h>

#include <set>

#include "switchyard/base/error.h"
#include "switchyard/models/families/composition.h"
#include "switchyard/models/families/family.h"
#include "switchyard/models/families/gguf/file_keys.h"
#include "switchyard/models/families/gguf/file_tensors.h"
#include "switchyard/models/families/gguf/hub_view.h"
#include "switchyard/models/families/hub_keys.h"
#include "switchyard/models/families/table_family.h"

namespace switchyard {
namespace {

/// What llama.cpp's code of an architecture does whatever the metadata says.
void note_differences(gguf::FileKeys& keys, const gguf::Architecture& architecture) {
  using Weights = gguf::Architecture::LlamaCpp::Weights;
  const std::string& name = architecture.name;
  const gguf::Architecture::LlamaCpp& code = architecture.llama_cpp;
  const Node& config = keys.config();
  const bool windowed = first_layer(keys.composition(), [](const Node& layer) { return find_at(layer, "attention.window") && integer_at(layer, "attention.window") > 0; }) >= 0;
  if (windowed && !code.windows) keys.notice(fmt::format("llama.cpp lets every layer of '{}' see all positions, whatever the window", name));
  if (const bool divides = code.weights == Weights::renormalised;
      keys.present("norm_topk_prob") && code.weights != Weights::as_said && flag_at(config, "norm_topk_prob") != divides)
    keys.notice(fmt::format("llama.cpp {} the weights of experts of '{}', whatever norm_topk_prob says",
                            divides ? "always renormalises" : "never renormalises", name));
  if (!code.dense_layers && first_layer(keys.composition(), has_mixture) >= 0 && first_layer(keys.composition(), [](const Node& layer) { return !has_mixture(layer); }) >= 0)
    keys.notice(fmt::format("llama.cpp wants experts in every layer of '{}'", name));
  if (code.own_head && flag_at(config, "tie_word_embeddings")) keys.notice(fmt::format("llama.cpp wants a head of its own in files of '{}'", name));
  if (keys.present("rope_scaling.beta_fast") && (number_at(config, "rope_scaling.beta_fast") != 32 || number_at(config, "rope_scaling.beta_slow") != 1))
    keys.notice("llama.cpp takes YaRN's beta_fast and beta_slow as 32 and 1, whatever they are");
  if (keys.metadata().has(gguf::kYarnTruncate)) keys.notice("llama.cpp rounds YaRN's range to whole dimensions (truncate: false has no key)");
}

GgufMetadata metadata_of(const Node& config, const Node& composition, const gguf::Architecture& architecture, std::vector<std::string>& notices) {
  GgufMetadata metadata(config.mark().source);
  metadata.set("general.architecture", GgufValue::text(architecture.name));
  metadata.set("general.type", GgufValue::text("model"));
  gguf::FileKeys keys(metadata, config, composition, architecture.name, notices);
  put_common(keys);
  architecture.keys(keys);
  note_differences(keys, architecture);
  return metadata;
}

std::shared_ptr<gguf::FileTensors> tensors_of(const Node& config, const gguf::Architecture& architecture, std::shared_ptr<const WeightSource> hub, int64_t layers) {
  auto tensors = std::make_shared<gguf::FileTensors>(std::move(hub), config);
  const std::vector<gguf::Rule> rules = gguf::layer_rules(architecture);
  const bool tied = flag_at(config, "tie_word_embeddings");
  for (const gguf::Rule& rule : gguf::outer_rules(architecture))
    if (!(tied && rule.theirs == "output.weight")) tensors->add("", "", rule);
  for (const gguf::Layers& stack : stacks_of(architecture)) {
    for (int64_t i = 0; i < (stack.count.empty() ? layers : integer_at(config, stack.count)); ++i) {
      const std::string prefix = gguf::numbered(stack.theirs, "{i}", i), of = gguf::numbered(stack.hub, "{i}", i);
      if (architecture.to_file) architecture.to_file(*tensors, prefix, of);
      for (const std::string& experts : std::set<std::string>{architecture.experts.substr(0, architecture.experts.find("{e}")), "mlp.experts."})
        add_fused(*tensors, prefix, of + experts);
      for (const gguf::Rule& rule : rules) tensors->add(prefix, of, rule);
    }
  }
  if (architecture.outer_to_file) architecture.outer_to_file(*tensors);
  if (find_at(config, "rope_scaling.low_freq_factor") != nullptr) {
    const at::Tensor divisors = gguf::frequency_divisors(config);
    tensors->add({{"rope_freqs.weight", "F32", divisors.sizes().vec(), divisors.nbytes()}, [divisors] { return divisors; }});
  }
  return tensors;
}

uint32_t file_type(const WeightSource& weights) {
  uint32_t type = 0;
  for (const TensorInfo& info : weights.tensors()) {
    if (info.dtype == "MXFP4") return 38;
    if (info.name == "token_embd.weight") type = info.dtype == "BF16" ? 32 : info.dtype == "F16" ? 1 : 0;
  }
  return type;
}

}  // namespace

GgufView gguf_view(const Node& config, std::shared_ptr<const WeightSource> weights) {
  const Node* named = config.is_map() ? config.find("model_type") : nullptr;
  const std::string type = named && named->is_scalar() ? named->scalar() : "";
  const std::shared_ptr<Family> family = family_of(type);
  std::set<std::string> known;
  for (const gguf::Architecture& each : gguf::architectures()) known.insert(each.model_types.begin(), each.model_types.end());
  check(gguf::architecture_of(type) != nullptr && family != nullptr, "convert.gguf.family", "{}: model_type '{}' has no architecture of the container here; these have: {}",
        config.where(), type, fmt::join(known, ", "));

  const auto has = [&](const std::string& name) { return weights->has(name); };
  const Decoder decoder(family->read(config, has));
  const Node wanted = composition(decoder);
  Node spoken = family->write(wanted, type);  // one spelling of its many
  const gguf::Architecture* architecture = gguf::architecture_of(type);
  if (const Node* inner = architecture->wrapper.empty() ? nullptr : spoken.find(architecture->wrapper)) {
    Node keys = *inner;
    keys["model_type"] = *spoken.find("model_type");
    spoken = std::move(keys);
  }
  spoken.set_mark(config.mark());
  architecture = gguf::architecture_for(spoken);
  check(architecture != nullptr, "convert.gguf.family", "{}: no architecture of the container has such a '{}'", config.where(), type);
  const Node* inner = architecture->wrapper.empty() ? nullptr : config.find(architecture->wrapper);
  for (const char* key : {"intermediate_size", "intermediate_size_mlp", "rope_theta"})  // though no layer be dense, or turn
    if (const Node* said = (inner && inner->is_map() ? *inner : config).find(key); said != nullptr && said->is_scalar()) spoken[key] = *said;
  keep_labels(config, spoken);

  GgufView view;
  view.metadata = metadata_of(spoken, wanted, *architecture, view.notices);
  const std::shared_ptr<gguf::FileTensors> tensors = tensors_of(spoken, *architecture, weights, layers_of(wanted));
  for (const auto& [dtype, names] : tensors->narrowed()) view.metadata.set(gguf::kStoredAs + dtype, GgufValue::texts(names));
  for (const auto& [name, pairs] : tensors->restored_numbers()) view.metadata.set(gguf::kRestored + name, {GgufType::array, GgufArray{GgufType::u32, pairs}});
  view.metadata.set("general.file_type", GgufValue::u32(file_type(*tensors)));
  view.metadata.set("general.quantization_version", GgufValue::u32(2));

  NameMap map(decoder.schema());
  family->names(map, decoder.options(), has);
  for (const NameMap::Correspondence& each : map.correspondences()) {
    check(weights->has(each.theirs), "model.missing_tensor", "{} has no tensor {}", config.mark().source, each.theirs);
    check(tensors->used(each.theirs), "convert.gguf.tensor", "{}: {} has no name in files of architecture '{}'", config.mark().source, each.theirs,
          architecture->name);
  }
  // What reads back otherwise cannot be said by the container's keys.
  const Node back = composition(Decoder([&] {
    const HubView hub = hub_view(view.metadata, tensors);
    return family_of(text_at(hub.config, "model_type"))->read(hub.config, [&](const std::string& name) { return hub.weights->has(name); });
  }()));
  if (const std::vector<Difference> found = differences(wanted, back); !found.empty()) {
    std::vector<std::string> parts;
    for (const Difference& each : found)
      if (parts.size() < 5) parts.push_back(fmt::format("{} is {}, there {}", each.path, each.here, each.there));
    fail("convert.gguf.option", "{}: metadata of architecture '{}' cannot say this model: {}{}", config.mark().source, architecture->name,
         fmt::join(parts, "; "), found.size() > parts.size() ? fmt::format(" ({} more)", found.size() - parts.size()) : "");
  }
  view.weights = tensors;
  return view;
}

}  // namespace switchyard
