// Several adapters made into one, without a model: the combinations of peft's add_weighted_adapter. LoRA of plain modules and
// embeddings by any of them, (IA)^3 as a weighted sum.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "switchyard/formats/peft/adapter_file.h"

namespace switchyard {

enum class Mix {
  linear,           ///< factors summed, each times the root of its weight: cross terms between adapters
  cat,              ///< ranks side by side: the exact sum
  svd,              ///< the exact sum, cut to a rank
  ties, ties_svd,   ///< Yadav et al. 2023: small values pruned, a sign elected, what agrees with it averaged
  dare_linear, dare_linear_svd, dare_ties, dare_ties_svd,  ///< Yu et al. 2023: random values dropped, the rest scaled up
  magnitude_prune, magnitude_prune_svd,                    ///< small values pruned, then summed
};
/// Throws adapters.mix naming the nearest.
Mix mix_named(const std::string& name);
const char* to_string(Mix mix);

/// How TIES elects a sign: by the sum of the values, or by counting.
enum class Election { total, frequency };

struct MixOptions {
  Mix mix = Mix::svd;
  std::optional<double> density;       ///< share of values kept; the pruning mixes need it
  Election election = Election::total;
  std::optional<int64_t> svd_rank;     ///< unset = the largest rank among the adapters
  std::optional<double> svd_clamp;     ///< quantile at which the factors are cut
  uint64_t seed = 0;                   ///< of DARE's choice
};

struct WeightedAdapter {
  const peft::AdapterFile* adapter;
  double weight = 1;
};

/// One adapter whose scale is 1, or the root of its rank when the first one is rank-stabilised, as peft has it. Weights may be negative. One adapter alone is mixed as linear. Throws adapters.mix for what cannot
/// be mixed (kinds, ranks, DoRA, whole tensors, parameters of experts) and adapters.density.
peft::AdapterFile mix_adapters(const std::vector<WeightedAdapter>& adapters, const MixOptions& options);

}  // namespace switchyard
