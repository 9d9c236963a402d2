// How routed outputs become the layer's output: a value in the model's data, not code in routers.
// Published families differ in it and a converted checkpoint depends on it.
#pragma once

#include <ATen/core/Tensor.h>

#include "switchyard/base/options.h"
#include "switchyard/contract/context.h"
#include "switchyard/contract/selection.h"

namespace switchyard {

/// When a unit's weights are divided by their sum, or another norm of theirs.
enum class Renormalise {
  never,          ///< raw probabilities (Switch, DeepSeek-V2, OLMoE, Jamba)
  before_drop,    ///< over the chosen experts (Mixtral, DBRX, Qwen3)
  after_drop,     ///< over those that admission kept (GShard)
};
/// Where a weight multiplies.
enum class WeighOn { output, input };
/// What a row with no kept pair returns; the block's residual is added outside.
enum class Overflow {
  zero,             ///< nothing: the residual alone carries the row
  identity,         ///< the row itself
  scaled_identity,  ///< the row times the weight it would have had
};

struct CombineOptions {
  Renormalise renormalise = Renormalise::never;
  double order = 1;               ///< p of the norm that divides: (Σ w^p)^(1/p); 1 = the sum (DBRX may say another)
  double least = 1e-12;           ///< what divides is at least so much (ERNIE 4.5's moe_norm_min)
  bool detach_sum = false;        ///< no gradient through the divisor
  double scale = 1;               ///< multiplies every weight (routed_scaling_factor)
  double evaluation_scale = 1;    ///< a further factor outside training
  /// Share of the pairs whose outputs training leaves out; outside training outputs are multiplied by the rest (NLLB Team 2022,
  /// expert output masking). Records show weights without that factor.
  double output_masking = 0;
  WeighOn on = WeighOn::output;
  Overflow overflow = Overflow::zero;
  static void describe(Fields<CombineOptions>& f);
};

/// [P] float: the weights that multiply, from the raw ones, `kept` and the policy. Pairs not kept get 0.
/// Throws routing.dead_gate for k = 1 with renormalised weights (the router would get no gradient)
/// unless `router_trained_elsewhere`.
at::Tensor combine_weights(const Selection& selection, const CombineOptions& options, Phase phase,
                           bool router_trained_elsewhere = false);

}  // namespace switchyard
