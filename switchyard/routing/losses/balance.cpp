// The load-balancing losses: E · Σ D_i P_i pushes an expert's share of tokens D (a constant) and its
// share of probability P together to 1/E. Switch and the published Mixtral and OLMoE code pool all
// tokens; GShard averages the loss over groups of them.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>

#include "switchyard/base/registry.h"
#include "switchyard/kernels/permutation.h"
#include "switchyard/routing/loss.h"

namespace switchyard {
namespace {

/// Which of a token's choices count as load.
enum class CountMode { argmax, all };

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

struct BalanceOptions {
  double coefficient = 0.01;
  CountMode count = CountMode::all;
  bool divide_by_k = true;
  LossScope scope = LossScope::layer;
  static void describe(Fields<BalanceOptions>& f) {
    f.title("Load-balancing loss", "E times the sum over experts of token share times probability share.");
    f("coefficient", &BalanceOptions::coefficient, "multiplies the loss").range(0);
    f("count", &BalanceOptions::count, "load counts first choices only (GShard, Switch) or all k").choices({"argmax", "all"});
    f("divide_by_k", &BalanceOptions::divide_by_k, "shares are of pairs, so that 1 is even whatever k; off = of tokens "
      "(even is k; Mixtral, OLMoE)");
    f("scope", &BalanceOptions::scope, "each layer by itself, or all layers pooled (Mixtral, OLMoE)").choices({"layer", "model"});
  }
};

class BalanceLoss : public RoutingLoss {
 public:
  explicit BalanceLoss(BalanceOptions options) : options_(options) {}
  LossScope scope() const override { return options_.scope; }
  double coefficient() const override { return options_.coefficient; }

  /// [2E + 2]: counts, sums of probabilities, units that were counted, units that have probabilities.
  at::Tensor summarise(const Record& record, const Context&) const override {
    const Gate* gate = balanced_gate(record);
    if (gate == nullptr) return {};
    const Selection& selection = *record.selection();
    const at::Tensor& p = gate->probabilities;
    const at::Tensor counts = counts_of(selection, options_.count, {}, 1, p.detach()).squeeze(0);
    const at::Tensor units = at::cat({at::full({1}, static_cast<double>(selection.units), p.options().requires_grad(false)),
                                      at::full({1}, static_cast<double>(p.size(0)), p.options().requires_grad(false))});
    return at::cat({counts, p.sum(0), units});
  }

  at::Tensor finish(const std::vector<at::Tensor>& summaries, const Outcome&) const override {
    at::Tensor pooled = summaries.at(0);
    for (size_t i = 1; i < summaries.size(); ++i) pooled = pooled + summaries[i];
    const int64_t experts = (pooled.size(0) - 2) / 2;
    const at::Tensor counts = pooled.narrow(0, 0, experts).detach();
    const at::Tensor share = counts / (options_.divide_by_k ? counts.sum() : pooled[2 * experts]).clamp_min(1);
    const at::Tensor probability = pooled.narrow(0, experts, experts) / pooled[2 * experts + 1].clamp_min(1);
    return experts * (share * probability).sum();
  }

 private:
  BalanceOptions options_;
};

struct GroupBalanceOptions {
  double coefficient = 0.01;
  int64_t group = 0;
  static void describe(Fields<GroupBalanceOptions>& f) {
    f.title("GShard balance loss", "The balance loss on first choices, averaged over groups of tokens.");
    f("coefficient", &GroupBalanceOptions::coefficient, "multiplies the loss").range(0);
    f("group", &GroupBalanceOptions::group, "tokens a group; 0 = a sequence is a group").range(0, 1 << 30).unit("tokens");
  }
};

class GroupBalanceLoss : public RoutingLoss {
 public:
  explicit GroupBalanceLoss(GroupBalanceOptions options) : options_(options) {}
  double coefficient() const override { return options_.coefficient; }

  /// [2]: the sum over groups of E · Σ D_i P_i, and how many groups.
  at::Tensor summarise(const Record& record, const Context&) const override {
    const Gate* gate = balanced_gate(record);
    if (gate == nullptr) return {};
    const Selection& selection = *record.selection();
    const at::Tensor& p = gate->probabilities;
    const int64_t units = p.size(0);
    at::Tensor group = at::arange(units, selection.expert.options());
    if (options_.group > 0) group = group.div(options_.group, "floor");
    else if (record.segments.rows() == units) group = record.segments.segment_of_row().to(group.device());
    else group = group * 0;
    const int64_t groups = units ? group[units - 1].item<int64_t>() + 1 : 0;
    const at::Tensor size = at::bincount(group, {}, groups).to(p.scalar_type()).clamp_min(1).unsqueeze(1);
    const at::Tensor counts = counts_of(selection, CountMode::argmax, group, groups, p.detach());
    const at::Tensor mean = kernels::combine_rows(p, group, {}, groups) / size;
    const at::Tensor loss = selection.experts * (counts / size * mean).sum();
    const int64_t filled = units ? at::bincount(group).gt(0).sum().item<int64_t>() : 0;
    return at::stack({loss, at::full({}, static_cast<double>(filled), loss.options().requires_grad(false))});
  }

  at::Tensor finish(const std::vector<at::Tensor>& summaries, const Outcome&) const override {
    at::Tensor pooled = summaries.at(0);
    for (size_t i = 1; i < summaries.size(); ++i) pooled = pooled + summaries[i];
    return pooled[0] / pooled[1].clamp_min(1);
  }

 private:
  GroupBalanceOptions options_;
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
  registry.add<RoutingLoss, GroupBalanceLoss, GroupBalanceOptions>(
      {.slug = "gshard-aux", .name = "GShard auxiliary loss", .paper = "Lepikhin et al., GShard", .year = 2020,
       .section = "4.1.1", .room = "routing/losses", .coupling = "none",
       .line = "first-choice share times mean gate, group by group", .recipe = "recipes/methods/gshard-aux.yaml"});
}
