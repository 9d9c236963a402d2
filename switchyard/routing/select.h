// What selection routers share: how many experts, which ones, and their weights. Run-time overrides
// (k, allowed, forced) are honoured here, so no router has a line about them.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "switchyard/base/registry.h"
#include "switchyard/kernels/topk.h"
#include "switchyard/routing/gate.h"
#include "switchyard/routing/router.h"

namespace switchyard {

/// Options of every router that scores experts and selects among them.
struct SelectOptions {
  Choice<Scorer> scorer = "linear";
  Run run = Run::rows;
  template <typename T>
  static void describe_fields(Fields<T>& f) {
    f("scorer", &T::scorer, "what turns rows into logits");
    f("run", &T::run, "how a decision is executed: chosen rows through each expert, one merged expert a unit, or every "
      "expert on every row with the weights inside").choices({"rows", "merged", "gated"});
  }
};

/// scores: [units, E], higher is better. Returns [units, k] int64 ids, best first, ties to the lower id.
/// k, allowed and forced of the overrides go first. Throws routing.k_range, routing.nan, routing.forced.
at::Tensor choose(const at::Tensor& scores, int64_t k, const Context& context,
                  std::optional<kernels::GroupLimit> limit = {});

/// [units, k]: softmax over the chosen scores alone (Shazeer et al. 2017, eq. 3). For k = 1 the constant 1:
/// the gate gets no gradient, which combine_weights refuses.
at::Tensor kept_softmax(const at::Tensor& scores, const at::Tensor& ids);

/// Pairs from ids and weights [units, k] with the gate behind them.
Selection selection_of(const at::Tensor& ids, const at::Tensor& weights, Gate gate, Run run);

/// A variable number of pairs a unit: the experts that `taken` [units, E] bool names, by falling weight [units, E].
Selection selection_of_mask(const at::Tensor& taken, const at::Tensor& weights, Gate gate, Run run);

/// Every expert for every unit, weighted by the gate's probabilities. Throws routing.nan.
Selection selection_of_all(Gate gate, Run run, const Context& context);

/// Throws routing.k_range unless 1 <= k <= experts; `who` names the router.
void check_k(int64_t k, int64_t experts, std::string_view who);

}  // namespace switchyard
