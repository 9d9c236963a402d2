#include "switchyard/routing/combine.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>

#include "switchyard/base/error.h"
#include "switchyard/base/registry.h"
#include "switchyard/kernels/permutation.h"

namespace switchyard {
namespace {

/// The sum over the unit of each pair, [P]; over each row of a dense selection, [units, 1].
at::Tensor sum_of_unit(const at::Tensor& weight, const Selection& selection) {
  if (!selection.has_pairs()) return weight.sum(1, /*keepdim=*/true);
  if (const int64_t k = selection.per_unit; k > 0)
    return weight.view({-1, k}).sum(1, /*keepdim=*/true).expand({-1, k}).reshape({-1});
  return kernels::combine_rows(weight.unsqueeze(1), selection.unit, {}, selection.units)
      .squeeze(1).index_select(0, selection.unit);
}

/// The p-norm over the unit of each pair. Its power is held above zero, so that a unit without weights has a gradient of 0.
at::Tensor norm_of_unit(const at::Tensor& weight, const Selection& selection, const CombineOptions& options) {
  const double p = options.order, least = std::max(std::pow(options.least, p), 1e-37);
  return sum_of_unit(weight.abs().pow(p), selection).clamp_min(least).pow(1 / p);
}

/// True when no gradient of the task reaches the gate that made these weights.
bool gate_is_dead(const Selection& selection, const CombineOptions& options) {
  if (selection.per_unit != 1 || selection.gates.empty() || selection.outputs > 0) return false;
  const at::Tensor& logits = selection.gates[0].logits;
  if (!logits.defined() || !logits.requires_grad()) return false;
  return options.renormalise != Renormalise::never || !selection.weight.requires_grad();
}

}  // namespace

void CombineOptions::describe(Fields<CombineOptions>& f) {
  f.title("Combine", "How routed outputs become the layer's output.");
  f("renormalise", &CombineOptions::renormalise, "divide a token's weights by their sum: never, over the chosen "
    "experts, or over those that admission kept").choices({"never", "before_drop", "after_drop"});
  f("order", &CombineOptions::order, "p of the norm that weights are divided by, the p-th root of the sum of their p-th powers; 1 = their sum")
      .range(1, 8);
  f("least", &CombineOptions::least, "weights are divided by this where their sum is less").range(0, 1);
  f("detach_sum", &CombineOptions::detach_sum, "let no gradient through that sum");
  f("scale", &CombineOptions::scale, "multiplies every weight (routed_scaling_factor)").range(0);
  f("evaluation_scale", &CombineOptions::evaluation_scale, "a further factor outside training").range(0);
  f("output_masking", &CombineOptions::output_masking, "share of the chosen experts' outputs that training leaves out, by lot; outside training "
    "outputs are multiplied by the rest").range(0, 0.999);
  f("on", &CombineOptions::on, "what a weight multiplies").choices({"output", "input"});
  f("overflow", &CombineOptions::overflow, "what a token returns when no expert kept it: nothing, itself, or itself "
    "times its weight").choices({"zero", "identity", "scaled_identity"});
}

at::Tensor combine_weights(const Selection& selection, const CombineOptions& options, Phase phase,
                           bool router_trained_elsewhere) {
  at::Tensor weight = selection.has_pairs() ? selection.weight : selection.dense_weight;
  check(selection.outputs == 0 || options.renormalise == Renormalise::never, "routing.combine_list",
        "outputs that sum experts by a list of their own have no weights to renormalise; use renormalise: never");
  check(phase != Phase::train || router_trained_elsewhere || !gate_is_dead(selection, options), "routing.dead_gate",
        "one expert a token with weights that sum to 1 gives the router no gradient; keep raw probabilities "
        "(softmax: all, renormalise: never), take k: 2, or train it by a balance loss");
  const at::Tensor kept = selection.kept.defined() ? selection.kept.to(weight.scalar_type()) : at::Tensor();
  if (options.renormalise != Renormalise::never) {
    const bool after = options.renormalise == Renormalise::after_drop && kept.defined();
    const at::Tensor summed = after ? weight * kept : weight;
    at::Tensor norm = options.order == 1 ? sum_of_unit(summed, selection).clamp_min(options.least) : norm_of_unit(summed, selection, options);
    if (options.detach_sum) norm = norm.detach();
    weight = weight / norm;
  }
  const double scale = options.scale * (phase == Phase::train ? 1 : options.evaluation_scale * (1 - options.output_masking));
  if (scale != 1) weight = weight * scale;
  return kept.defined() ? weight * kept : weight;
}

}  // namespace switchyard

SWITCHYARD_REGISTER(combine_order) {
  registry.add_card({.slug = "combine-order", .name = "Softmax and top-k order, renormalisation",
                     .paper = "Komatsuzaki et al., Sparse upcycling", .year = 2022, .section = "4.4.1", .room = "routing",
                     .coupling = "none", .line = "weights that sum to 1, or raw probabilities; before or after dropping",
                     .recipe = "recipes/methods/combine-order.yaml"});
}
