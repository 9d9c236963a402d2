#include "switchyard/routing/select.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/ones_like.h>

#include <algorithm>
#include <cmath>

#include "switchyard/base/error.h"

namespace switchyard {

void check_k(int64_t k, int64_t experts, std::string_view who) {
  check(k >= 1 && k <= experts, "routing.k_range", "{}: k is {}, but the layer has {} experts; the nearest that fits is k: {}",
        who, k, experts, std::clamp<int64_t>(k, 1, std::max<int64_t>(experts, 1)));
}

at::Tensor choose(const at::Tensor& scores, int64_t k, const Context& context, std::optional<kernels::GroupLimit> limit) {
  const Overrides& wishes = context.wishes();
  const int64_t experts = scores.size(1);
  if (wishes.forced.defined()) {
    const at::Tensor& forced = wishes.forced;
    check(forced.dim() == 2 && forced.size(0) == scores.size(0) && forced.scalar_type() == at::kLong, "routing.forced",
          "{}: forced experts must be [{}, k] int64, one row a unit", context.place.site, scores.size(0));
    const bool inside = forced.numel() == 0 || (forced.min().item<int64_t>() >= 0 && forced.max().item<int64_t>() < experts);
    check(inside, "routing.forced", "{}: a forced expert is not among 0 to {}", context.place.site, experts - 1);
    return forced;
  }
  k = wishes.k.value_or(k);
  check_k(k, experts, context.place.site);
  if (!wishes.allowed.defined())
    return limit ? kernels::top_k_grouped(scores, k, *limit).indices : kernels::top_k(scores, k).indices;
  const at::Tensor masked = mask_experts(scores, context);
  const int64_t allowed = wishes.allowed.sum().item<int64_t>();
  check(k <= allowed, "routing.k_range", "{}: k is {}, but only {} of {} experts are allowed; the nearest that fits is k: {}",
        context.place.site, k, allowed, experts, std::max<int64_t>(allowed, 1));
  return kernels::top_k(masked, k).indices;
}

at::Tensor kept_softmax(const at::Tensor& scores, const at::Tensor& ids) {
  if (ids.size(1) == 1) return at::ones_like(ids, scores.options().requires_grad(false));
  return scores.gather(1, ids).softmax(-1);
}

Selection selection_of(const at::Tensor& ids, const at::Tensor& weights, Gate gate, Run run) {
  Selection selection = select_pairs(ids, weights, gate.logits.size(1));
  selection.run = run;
  selection.gates.push_back(std::move(gate));
  return selection;
}

Selection selection_of_mask(const at::Tensor& taken, const at::Tensor& weights, Gate gate, Run run) {
  const at::Tensor by_weight = at::argsort(weights.detach(), /*stable=*/true, /*dim=*/1, /*descending=*/true);
  const at::Tensor sorted = taken.gather(1, by_weight);
  const at::Tensor place = sorted.nonzero();  // [P, 2]: unit-major, best first
  const at::Tensor flat = place.select(1, 0) * taken.size(1) + place.select(1, 1);
  Selection selection;
  selection.units = taken.size(0);
  selection.experts = taken.size(1);
  selection.run = run;
  selection.unit = place.select(1, 0).contiguous();
  selection.expert = by_weight.reshape({-1}).index_select(0, flat);
  selection.rank = (sorted.to(at::kLong).cumsum(1) - 1).reshape({-1}).index_select(0, flat);
  selection.weight = weights.reshape({-1}).index_select(0, selection.unit * selection.experts + selection.expert);
  selection.gates.push_back(std::move(gate));
  return selection;
}

Selection selection_of_all(Gate gate, Run run, const Context& context) {
  refuse_nan(gate.logits, context);
  Selection selection = select_all(gate.probabilities);
  selection.run = run;
  selection.gates.push_back(std::move(gate));
  return selection;
}

}  // namespace switchyard
