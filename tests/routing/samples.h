// Registered methods as the recipes use them, in layers small enough for finite differences. A router or
// admission that is added later is tested here as soon as it has a recipe under recipes/methods/.
#pragma once

#include <algorithm>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "switchyard/base/registry.h"
#include "switchyard/layer/moe_layer.h"
#include "switchyard/models/model_options.h"
#include "tests/support.h"

namespace switchyard::testing {

inline constexpr int64_t kWidth = 4;

/// One mixture of one recipe.
struct Sample {
  std::string name;  ///< "recipes/methods/switch-top1.yaml"
  MoeOptions options;
};

/// Every mixture of every recipe of a method, with small experts and leaks allowed (their tests look for them).
inline const std::vector<Sample>& recipe_samples() {
  static const std::vector<Sample> samples = [] {
    std::vector<std::filesystem::path> files;
    const auto folder = std::filesystem::path(SWITCHYARD_SOURCE_DIR) / "recipes" / "methods";
    for (const auto& entry : std::filesystem::directory_iterator(folder))
      if (entry.path().extension() == ".yaml") files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    std::vector<Sample> list;
    for (const auto& file : files) {
      Node recipe = load_yaml(file.string());
      const Node* model = recipe.find("model");
      const Node* mixtures = model ? model->find("mixtures") : nullptr;
      if (mixtures == nullptr) continue;
      for (const Node& node : mixtures->items()) {
        Sample sample{"recipes/methods/" + file.filename().string(), read_options<MixtureOptions>(node)};
        sample.options.expert = Choice<ExpertKind>("gelu");
        sample.options.expert.options["hidden"] = Node("2");
        sample.options.extra.clear();
        sample.options.shared.clear();
        sample.options.share_routing.clear();
        sample.options.allow_leak = true;
        list.push_back(std::move(sample));
      }
    }
    return list;
  }();
  return samples;
}

/// The samples of every registered router, at least one each, without limited places.
inline std::vector<Sample> router_samples() {
  std::vector<Sample> list;
  for (const Method* method : Registry::instance().of("router")) {
    const size_t before = list.size();
    for (const Sample& sample : recipe_samples())
      if (sample.options.router.slug == method->card.slug) {
        list.push_back(sample);
        list.back().name = method->card.slug + " of " + sample.name;
        list.back().options.admission = Choice<Admission>("dropless");
      }
    EXPECT_GT(list.size(), before) << "no recipe under recipes/methods/ uses the router " << method->card.slug;
  }
  return list;
}

/// The samples of every registered admission.
inline std::vector<Sample> admission_samples() {
  std::vector<Sample> list;
  for (const Method* method : Registry::instance().of("admission")) {
    const size_t before = list.size();
    for (const Sample& sample : recipe_samples())
      if (sample.options.admission.slug == method->card.slug) {
        list.push_back(sample);
        list.back().name = method->card.slug + " of " + sample.name;
      }
    EXPECT_GT(list.size(), before) << "no recipe under recipes/methods/ uses the admission " << method->card.slug;
  }
  return list;
}

/// A pass with every fact that a router may ask for.
struct FactPass : Pass {
  FactPass(int64_t rows, int64_t segments, Phase phase, uint64_t seed = 7) : Pass(rows, segments, phase, seed) { give_facts(); }
  void give_facts() {
    const int64_t rows = facts.segments.rows(), count = facts.segments.count();
    facts.set_row("token_id", Streams(5).integers(40, {rows}, {.purpose = "token"}));
    for (const char* name : {"domain", "task", "language", "modality", "user"})
      facts.set_segment(name, Streams(6).integers(2, {count}, {.purpose = name}));
    facts.set_segment("routing_vector", randn({count, kWidth}, 8));
  }
};

/// A bound layer over rows of width kWidth, in float64, with every weight drawn anew (fresh ones may be zero).
struct SampleLayer {
  explicit SampleLayer(const MoeOptions& options) : layer(options, kWidth, kWidth) {
    layer.declare(schema.in("moe"));
    initialise(schema, Streams(3), at::kDouble);
    at::NoGradGuard guard;
    for (const Parameter& p : schema.all())
      if (!p.spec().buffer) p.tensor().copy_(randn(p.spec().shape, stable_hash(p.name())));
  }
  std::vector<at::Tensor> leaves() const {
    std::vector<at::Tensor> list;
    for (const Parameter& p : schema.all())
      if (!p.spec().buffer) list.push_back(p.tensor());
    return list;
  }
  at::Tensor operator()(const at::Tensor& x, const Context& context) const { return layer.forward(x, context); }

  Schema schema;
  MoeLayer layer;
};

}  // namespace switchyard::testing
