#include "switchyard/convert/fold.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <map>

namespace switchyard {
namespace {

/// The factor of a mixture's outputs that may go into its experts; 1 = none.
double foldable_scale(const MixtureOptions& mixture) {
  if (!mixture.combine || !mixture.extra.empty() || !mixture.router) return 1;
  const CombineOptions& combine = *mixture.combine;
  const bool plain = combine.on == WeighOn::output && combine.overflow != Overflow::scaled_identity;
  return plain && !mixture.expert.make()->output_maps().empty() ? combine.scale : 1;
}

}  // namespace

std::shared_ptr<Decoder> fold_combine_scales(const Decoder& decoder) {
  ModelOptions options = decoder.options();
  std::map<std::string, double> factors;  // of parameters
  for (MixtureOptions& mixture : options.mixtures) {
    const double scale = foldable_scale(mixture);
    if (scale == 1) continue;
    mixture.combine->scale = 1;
    for (int64_t layer = 0; layer < options.layers; ++layer)
      if (mixture.layers.includes(layer, options.layers))
        for (const std::string& map : mixture.expert.make()->output_maps())
          factors[fmt::format("layers.{}.{}.experts.{}", layer, mixture.at, map)] = scale;
  }
  if (factors.empty()) return nullptr;
  auto folded = std::make_shared<Decoder>(std::move(options));
  const at::NoGradGuard guard;
  for (const Parameter& parameter : folded->schema().all()) {
    const at::Tensor tensor = decoder.schema().find(parameter.name()).tensor().detach();
    const auto factor = factors.find(parameter.name());
    parameter.bind(factor == factors.end() ? tensor : tensor * factor->second);
  }
  return folded;
}

}  // namespace switchyard
