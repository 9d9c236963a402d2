// The load-balancing losses: E · Σ D_i P_i pushes an expert's share of tokens D (a constant) and its
// share of probability P together to 1/E. Switch and the published Mixtral and OLMoE code pool all
// tokens; GShard averages the loss over groups of them.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

#include "switchyard/base/registry.h"
#include "switchyard/kernels/permutation.h"
#include "switchyard/routing/loss.h"

namespace switchyard {
namespace {

/// Which of a token's choices count as load.
enum class CountMode { argmax, all };
/// Which tokens are pooled before the product of shares.
enum class PoolOver { batch, sequence, group };

/// The one gate over all experts, with pairs chosen by it; null when there is none.
const Gate* balanced_gate(const Record& record) {
  const Selection* selection = record.selection();
  if (selection == nullptr || !selection->has_pairs() || selection->gates.size() != 1) return nullptr;
  const Gate& gate = selection->gates[0];
  return gate.probabilities.defined() && gate.probabilities.size(1) == selection->experts ? &gate : nullptr;
}

/// [groups, E] counts of pairs (dropped ones too) as `like`'s type.
at::Tensor counts_of(const Selection& selection, CountMode mode, const at::Tensor& group_of_unit, int64_t groups,
                     const at::Tensor& like) {
  at::Tensor cell = selection.expert;
  if (group_of_unit.defined()) cell = cell + group_of_unit.index_select(0, selection.unit) * selection.experts;
  if (mode == CountMode::argmax) cell = cell.masked_select(selection.rank == 0);
  return at::bincount(cell, {}, groups * selection.experts).view({groups, selection.experts}).to(like.options());
}

/// Consecutive units that are pooled: sizes, and the group of every unit.
struct Groups {
  std::vector<int64_t> size;
  at::Tensor of_unit;  ///< [units] int64
};
Groups groups_of(const Record& record, int64_t units, int64_t fixed) {
  Groups groups;
  if (fixed > 0)
    for (int64_t begin = 0; begin < units; begin += fixed) groups.size.push_back(std::min(fixed, units - begin));
  else if (record.segments.rows() == units)
    for (int64_t s = 0; s < record.segments.count(); ++s) groups.size.push_back(record.segments.length(s));
  else
    groups.size.push_back(units);  // units that are sequences, not rows, are one group
  const at::Tensor size = at::tensor(groups.size, at::kLong);
  groups.of_unit = at::arange(size.size(0), at::kLong).repeat_interleave(size);
  return groups;
}

struct BalanceOptions {
  double coefficient = 0.01;
  CountMode count = CountMode::all;
  bool divide_by_k = true;
  LossScope scope = LossScope::layer;
  PoolOver over = PoolOver::batch;
  int64_t group = 0;
  static void describe(Fields<BalanceOptions>& f) {
    f.title("Load-balancing loss", "E times the sum over experts of token share times probability share.");
    f("coefficient", &BalanceOptions::coefficient, "multiplies the loss").range(0);
    f("count", &BalanceOptions::count, "load counts first choices only (GShard, Switch) or all k").choices({"argmax", "all"});
    f("divide_by_k", &BalanceOptions::divide_by_k, "shares are of pairs, so that 1 is even whatever k; off = of tokens "
      "(even is k; Mixtral, OLMoE)");
    f("scope", &BalanceOptions::scope, "each layer by itself, or all layers pooled (Mixtral, OLMoE)").choices({"layer", "model"});
    f("over", &BalanceOptions::over, "tokens that are pooled: all of the batch, or those of each sequence or group, whose "
      "losses are averaged").choices({"batch", "sequence", "group"});
    f("group", &BalanceOptions::group, "tokens a group, with over: group").range(0, 1 << 30).unit("tokens");
  }
};

class BalanceLoss : public RoutingLoss {
 public:
  explicit BalanceLoss(BalanceOptions options) : options_(options) {
    check(options.over != PoolOver::group || options.group > 0, "losses.group", "over: group needs the number of tokens in group");
    check(options.over == PoolOver::batch || options.scope == LossScope::layer, "losses.scope",
          "layers are pooled over the whole batch only; use over: batch, or scope: layer");
  }
  LossScope scope() const override { return options_.scope; }
  double coefficient() const override { return options_.coefficient; }

  /// Over the batch [2E + 2]: counts, sums of probabilities, units that were counted, units that have probabilities.
  /// Over groups [2]: the sum of their losses, and how many there are.
  at::Tensor summarise(const Record& record, const Context&) const override {
    const Gate* gate = balanced_gate(record);
    if (gate == nullptr) return {};
    const Selection& selection = *record.selection();
    const at::Tensor& p = gate->probabilities;
    if (options_.over != PoolOver::batch) return by_group(record, selection, p);
    const at::Tensor counts = counts_of(selection, options_.count, {}, 1, p.detach()).squeeze(0);
    return at::cat({counts, p.sum(0), numbers({selection.units, p.size(0)}, p)});
  }

  at::Tensor finish(const std::vector<at::Tensor>& summaries, const Outcome&) const override {
    at::Tensor pooled = summaries.at(0);
    for (size_t i = 1; i < summaries.size(); ++i) pooled = pooled + summaries[i];
    if (options_.over != PoolOver::batch) return pooled[0] / pooled[1].clamp_min(1);
    const int64_t experts = (pooled.size(0) - 2) / 2;
    const at::Tensor counts = pooled.narrow(0, 0, experts).detach();
    const at::Tensor share = counts / (options_.divide_by_k ? counts.sum() : pooled[2 * experts]).clamp_min(1);
    const at::Tensor probability = pooled.narrow(0, experts, experts) / pooled[2 * experts + 1].clamp_min(1);
    return experts * (share * probability).sum();
  }

 private:
  static at::Tensor numbers(std::vector<int64_t> values, const at::Tensor& like) {
    return at::tensor(values, at::kLong).to(like.device(), like.scalar_type());
  }

  at::Tensor by_group(const Record& record, const Selection& selection, const at::Tensor& p) const {
    check(selection.units == p.size(0), "losses.group", "{}: balance by groups of tokens needs a decision of each token",
          record.place.site);
    const Groups groups = groups_of(record, p.size(0), options_.over == PoolOver::group ? options_.group : 0);
    const int64_t count = static_cast<int64_t>(groups.size.size());
    const at::Tensor of_unit = groups.of_unit.to(p.device());
    const at::Tensor size = numbers(groups.size, p).clamp_min(1).unsqueeze(1);  // [groups, 1]
    const at::Tensor counts = counts_of(selection, options_.count, of_unit, count, p.detach());
    const at::Tensor share = counts / (options_.divide_by_k ? counts.sum(1, true).clamp_min(1) : size);
    const at::Tensor mean = kernels::combine_rows(p, of_unit, {}, count) / size;
    const int64_t filled = std::count_if(groups.size.begin(), groups.size.end(), [](int64_t n) { return n > 0; });
    return at::stack({selection.experts * (share * mean).sum(), numbers({filled}, p).squeeze(0)});
  }

  BalanceOptions options_;
};

struct GshardAuxOptions {
  double coefficient = 0.01;
  int64_t group = 0;
  static void describe(Fields<GshardAuxOptions>& f) {
    f.title("GShard balance loss", "The balance loss on first choices, averaged over groups of tokens.");
    f("coefficient", &GshardAuxOptions::coefficient, "multiplies the loss").range(0);
    f("group", &GshardAuxOptions::group, "tokens a group; 0 = a sequence is a group").range(0, 1 << 30).unit("tokens");
  }
};

class GshardAux : public BalanceLoss {
 public:
  explicit GshardAux(GshardAuxOptions o)
      : BalanceLoss({.coefficient = o.coefficient, .count = CountMode::argmax, .divide_by_k = false,
                     .over = o.group > 0 ? PoolOver::group : PoolOver::sequence, .group = o.group}) {}
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(balance_losses) {
  using namespace switchyard;
  registry.add<RoutingLoss, BalanceLoss, BalanceOptions>(
      {.slug = "lb-loss", .name = "Load-balancing loss", .paper = "Fedus et al., Switch Transformers", .year = 2021,
       .section = "2.2", .room = "routing/losses", .coupling = "none",
       .line = "E times the sum of token share times probability share, in all its published scalings",
       .recipe = "recipes/methods/lb-loss.yaml"});
  registry.add<RoutingLoss, GshardAux, GshardAuxOptions>(
      {.slug = "gshard-aux", .name = "GShard auxiliary loss", .paper = "Lepikhin et al., GShard", .year = 2020,
       .section = "4.1.1", .room = "routing/losses", .coupling = "none",
       .line = "first-choice share times mean gate, group by group", .recipe = "recipes/methods/gshard-aux.yaml"});
}
