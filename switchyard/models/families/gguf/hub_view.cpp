#include "switchyard/models/families/gguf/hub_view.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "switchyard/base/error.h"
#include "switchyard/models/families/gguf/architecture.h"
#include "switchyard/models/families/gguf/hub_config.h"
#include "switchyard/models/families/gguf/hub_tensors.h"
#include "switchyard/models/families/hub_keys.h"

namespace switchyard {

static constexpr int64_t kMostLayers = 1 << 16;

std::vector<std::string> gguf_architectures() {
  std::vector<std::string> names;
  for (const gguf::Architecture& architecture : gguf::architectures())
    if (std::find(names.begin(), names.end(), architecture.name) == names.end()) names.push_back(architecture.name);
  return names;
}

HubView hub_view(std::shared_ptr<const Gguf> file) {
  const GgufMetadata& metadata = file->metadata();
  return hub_view(metadata, std::move(file));
}

HubView hub_view(const GgufMetadata& metadata, std::shared_ptr<const WeightSource> file) {
  const std::string& name = metadata.text("general.architecture");
  const gguf::Architecture* found = gguf::architecture_named(name, metadata.text(gguf::kModelType, ""));
  check(found != nullptr, "model.gguf", "{}: architecture '{}' is not read from GGUF; these are: {}", metadata.source(), name,
        fmt::join(gguf_architectures(), ", "));
  gguf::HubConfig config(metadata, *file, name, found->recurrent);
  const int64_t layers = config.integer("block_count"), read = layers - config.integer("nextn_predict_layers", 0);
  check(layers >= 0 && layers <= kMostLayers && read >= 0, "model.gguf", "{} says that it has {} layers, {} of them to be read",
        metadata.source(), layers, read);
  put_common(config);
  found->config(config);
  const auto says = [&](const char* key) { return config.node().find(key) != nullptr; };
  check(!says("num_attention_heads") || says("partial_rotary_factor") || says("rotary_dim") || says("qk_rope_head_dim") || config.turning() == config.head_width(),
        "model.gguf", "{}: {}.rope.dimension_count is {}; heads of {} turn whole here", metadata.source(), name, config.turning(), config.head_width());
  config.finish();

  auto tensors = std::make_unique<gguf::HubTensors>(metadata, file, config.node());
  for (const gguf::Rule& rule : gguf::outer_rules(*found)) tensors->add("", "", rule);
  tensors->use("rope_freqs.weight");  // it is in the config
  for (const std::string& each : found->said) tensors->use(each);
  const std::vector<gguf::Rule> rules = gguf::layer_rules(*found);
  for (const gguf::Layers& stack : stacks_of(*found)) {
    const int64_t count = stack.count.empty() ? read : integer_at(config.node(), stack.count);
    check(count >= 0 && count <= kMostLayers, "model.gguf", "{} says that {} is {}", metadata.source(), stack.count, count);
    for (int64_t i = 0; i < count; ++i) {
      const std::string prefix = gguf::numbered(stack.theirs, "{i}", i), hub = gguf::numbered(stack.hub, "{i}", i);
      if (found->from_file) found->from_file(*tensors, prefix, hub);
      for (const gguf::Rule& rule : rules) tensors->add(prefix, hub, rule);
    }
  }
  for (const TensorInfo& info : file->tensors())  // extra prediction layers, which nothing here runs
    for (int64_t i = read; i < layers; ++i)
      if (info.name.starts_with(fmt::format("blk.{}.", i))) tensors->use(info.name);
  tensors->finish();
  return {config.wrapped(found->wrapper), std::move(tensors)};
}

}  // namespace switchyard
