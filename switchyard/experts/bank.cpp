#include "switchyard/experts/bank.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros.h>

#include "switchyard/base/error.h"
#include "switchyard/contract/adaptation.h"
#include "switchyard/kernels/linear.h"
#include "switchyard/kernels/permutation.h"

namespace switchyard {
namespace {

/// share [G, n, m] · of [G, m, width], in the type of `of`.
at::Tensor take_shares(const at::Tensor& share, const at::Tensor& of) {
  const kernels::FastProducts fast(of);
  return fast.result(at::bmm(fast(share.to(of.scalar_type())), fast(of)));
}

}  // namespace

Plan make_plan(const Selection& selection) {
  kernels::SlotOrder sorted = kernels::sort_by_slot(selection.expert, selection.experts, selection.kept);
  Plan plan;
  plan.row = selection.unit.index_select(0, sorted.order);
  plan.order = std::move(sorted.order);
  plan.offset = std::move(sorted.offset);
  return plan;
}

ExpertBank::ExpertBank(std::vector<Stack> stacks, int64_t in, int64_t out)
    : stacks_(std::move(stacks)), in_(in), out_(out) {
  for (const Stack& stack : stacks_) {
    check(stack.count > 0, "experts.count", "a stack of experts must hold at least one, not {}", stack.count);
    experts_ += stack.count;
  }
  check(experts_ > 0, "experts.count", "a mixture needs at least one expert");
}

void ExpertBank::declare(const Schema& schema) {
  parameters_.clear();
  for (size_t s = 0; s < stacks_.size(); ++s) {
    const Schema place = stacks_.size() == 1 ? schema : schema.in(std::to_string(s));
    std::vector<Parameter> list;
    for (const ExpertTensor& tensor : stacks_[s].kind->tensors(in_, out_)) {
      std::vector<int64_t> shape{stacks_[s].count};
      shape.insert(shape.end(), tensor.shape.begin(), tensor.shape.end());
      list.push_back(place.add(tensor.name, shape, tensor.role, tensor.init, /*expert_dim=*/0));
    }
    parameters_.push_back(std::move(list));
  }
}

Params ExpertBank::params(size_t stack, const Context& context) const {
  Params params;
  const std::vector<ExpertTensor> tensors = stacks_[stack].kind->tensors(in_, out_);
  for (size_t i = 0; i < tensors.size(); ++i)
    params.values.emplace_back(tensors[i].name, context[parameters_[stack][i]]);
  return params;
}

void put_for_kernels(Params& params, const std::string& name, const Parameter& parameter, const ExpertKind& kind, const Context& context) {
  at::Tensor base;
  const StackedFactors factors =
      context.adaptation && kind.takes_factors() ? context.adaptation->factors(parameter, base) : StackedFactors{};
  if (factors.a.defined()) {
    if (base.defined()) params.values.emplace_back(name, base);
    else params.packed.emplace_back(name, parameter.packed());
    params.values.emplace_back(name + ".a", factors.a);
    params.values.emplace_back(name + ".b", factors.b);
    if (factors.bias.defined()) params.values.emplace_back(name + ".b_bias", factors.bias);
  } else if (auto packed = kind.takes_packed() ? context.packed(parameter) : nullptr) {
    params.packed.emplace_back(name, std::move(packed));
  } else {
    params.values.emplace_back(name, context[parameter]);
  }
}

Params ExpertBank::params_for_kernels(size_t stack, const Context& context) const {
  const ExpertKind& kind = *stacks_[stack].kind;
  Params params;
  const std::vector<ExpertTensor> tensors = kind.tensors(in_, out_);
  for (size_t i = 0; i < tensors.size(); ++i) put_for_kernels(params, tensors[i].name, parameters_[stack][i], kind, context);
  return params;
}

int64_t ExpertBank::macs_per_row(int64_t expert) const {
  for (const Stack& stack : stacks_) {
    if (expert < stack.count) return stack.kind->macs_per_row(in_, out_);
    expert -= stack.count;
  }
  return 0;
}

at::Tensor ExpertBank::run(const at::Tensor& x, const Routed& routed, const CombineOptions& combine,
                           const Context& context) const {
  if (const auto* blend = std::get_if<TokenBlend>(&routed.engagement)) return run_blend(x, *blend, context);
  const Selection& selection = std::get<Selection>(routed.engagement);
  check(combine.on == WeighOn::output || (selection.run == Run::rows && selection.outputs == 0), "routing.weigh_input",
        "weights multiply the input only where each pair is computed on its row; use on: output");
  switch (selection.run) {
    case Run::merged: return run_merged(x, routed, context);
    case Run::gated: return run_gated(x, routed, context);
    case Run::rows: break;
  }
  return run_rows(x, routed, combine, context);
}

at::Tensor ExpertBank::dispatch(const at::Tensor& x, const Plan& plan) const {
  return kernels::gather_rows(x, plan.row);
}

at::Tensor ExpertBank::run_sorted(const at::Tensor& sorted, const Plan& plan, const Context& context) const {
  if (stacks_.size() == 1)
    return stacks_[0].kind->apply_grouped(params_for_kernels(0, context), {.x = sorted, .offset = plan.offset}, context);
  const at::Tensor offset = plan.offset.cpu();
  const int64_t* begin = offset.const_data_ptr<int64_t>();
  std::vector<at::Tensor> outputs;
  int64_t first = 0;
  for (size_t s = 0; s < stacks_.size(); ++s) {
    const int64_t last = first + stacks_[s].count;
    const GroupedRows rows{.x = sorted.slice(0, begin[first], begin[last]),
                           .offset = offset.slice(0, first, last + 1) - begin[first]};
    outputs.push_back(stacks_[s].kind->apply_grouped(params_for_kernels(s, context), rows, context));
    first = last;
  }
  return at::cat(outputs, 0);
}

at::Tensor ExpertBank::combine(const at::Tensor& sorted, const Routed& routed, int64_t rows) const {
  const Selection& selection = *routed.selection();
  if (selection.outputs > 0) {
    // Experts ran once; every output sums the pairs on its list, dropped ones left out.
    const at::Tensor position = kernels::inverse_order(routed.plan.order, selection.pairs());
    const at::Tensor listed = position.index_select(0, selection.source);
    const at::Tensor there = (listed >= 0).nonzero().squeeze(1);
    at::Tensor weight = selection.out_weight.index_select(0, there);
    if (routed.weight.defined()) weight = weight * routed.weight.index_select(0, selection.source.index_select(0, there));
    return kernels::combine_rows(kernels::gather_rows(sorted, listed.index_select(0, there)),
                                 selection.out.index_select(0, there), weight, selection.outputs);
  }
  const at::Tensor weight = routed.weight.defined() ? routed.weight.index_select(0, routed.plan.order) : at::Tensor();
  return kernels::combine_rows(sorted, routed.plan.row, weight, rows);
}

namespace {

/// What rows without a kept pair return (Overflow); every other row gets nothing here.
at::Tensor overflow_rows(const at::Tensor& x, const Selection& selection, const CombineOptions& combine, Phase phase) {
  const auto sum_by_row = [&](const at::Tensor& of_pair) {  // [units, 1]
    return kernels::combine_rows(of_pair.unsqueeze(1), selection.unit, {}, selection.units);
  };
  const at::Tensor kept = selection.kept.defined() ? selection.kept.to(at::kFloat) : at::ones_like(selection.weight.detach());
  at::Tensor factor = (sum_by_row(kept) == 0).to(x.scalar_type());
  if (combine.overflow == Overflow::scaled_identity) {
    Selection all = selection;
    all.kept = at::Tensor();
    factor = factor * sum_by_row(combine_weights(all, combine, phase, true)).to(x.scalar_type());
  }
  return x * factor;
}

}  // namespace

std::optional<at::Tensor> ExpertBank::run_fused(const at::Tensor& x, const Routed& routed, const at::Tensor& weight,
                                                const Context& context) const {
  if (stacks_.size() > 1 || routed.selection()->outputs > 0) return std::nullopt;
  const GroupedRows rows{.source = x, .row = routed.plan.row, .offset = routed.plan.offset};
  return stacks_[0].kind->apply_fused(params_for_kernels(0, context), rows, weight, context);
}

at::Tensor ExpertBank::run_rows(const at::Tensor& x, const Routed& routed, const CombineOptions& policy,
                                const Context& context) const {
  const Selection& selection = *routed.selection();
  const Plan& plan = routed.plan;
  const at::Tensor weight = routed.weight.defined() ? routed.weight.index_select(0, plan.order) : at::Tensor();
  at::Tensor y;
  if (policy.on == WeighOn::input) {
    at::Tensor sorted = dispatch(x, plan);
    if (weight.defined()) sorted = (sorted * weight.unsqueeze(1)).to(sorted.scalar_type());
    y = kernels::combine_rows(run_sorted(sorted, plan, context), plan.row, {}, x.size(0));
  } else if (auto fused = run_fused(x, routed, weight, context)) {
    y = *std::move(fused);
  } else {
    y = combine(run_sorted(dispatch(x, plan), plan, context), routed, x.size(0));
  }
  // Only a variable number of pairs, or dropped ones, can leave a row without any.
  const bool may_be_lost = selection.kept.defined() || selection.per_unit == 0;
  if (policy.overflow == Overflow::zero || !may_be_lost || selection.outputs > 0) return y;
  check(in_ == out_, "routing.overflow", "a dropped row of width {} cannot stand for an output of width {}; "
        "use overflow: zero", in_, out_);
  return y + overflow_rows(x, selection, policy, context.phase).to(y.scalar_type());
}

namespace {

/// [units, E]: the weights after the combine policy (a routing without them has the raw ones).
at::Tensor what_multiplies(const Routed& routed) {
  Selection selection = *routed.selection();
  if (routed.weight.defined()) (selection.has_pairs() ? selection.weight : selection.dense_weight) = routed.weight;
  return dense_weights(selection);
}

}  // namespace

at::Tensor ExpertBank::run_merged(const at::Tensor& x, const Routed& routed, const Context& context) const {
  const Selection& selection = *routed.selection();
  check(stacks_.size() == 1, "experts.merge", "merging needs experts of one kind; this bank has {} stacks", stacks_.size());
  const Params stacked = params(0, context);
  check(!stacked.values.empty(), "experts.merge", "experts without parameters cannot be merged");
  const at::Tensor coefficient = what_multiplies(routed);
  const at::Tensor unit_of_row =
      selection.unit_of_row.defined() ? selection.unit_of_row : at::arange(x.size(0), at::kLong);
  const at::Tensor order = at::argsort(unit_of_row, /*stable=*/true, 0, false);
  const at::Tensor sorted = kernels::gather_rows(x, order);
  const at::Tensor counts = at::bincount(unit_of_row, {}, selection.units);
  const int64_t* count = counts.const_data_ptr<int64_t>();
  std::vector<at::Tensor> outputs;
  int64_t begin = 0;
  for (int64_t u = 0; u < selection.units; ++u) {
    if (count[u] == 0) continue;
    const Params merged = stacks_[0].kind->blend(stacked, coefficient.select(0, u));
    outputs.push_back(stacks_[0].kind->apply(merged, sorted.slice(0, begin, begin + count[u]), context));
    begin += count[u];
  }
  if (outputs.empty()) return at::zeros({x.size(0), out_}, x.options());
  return kernels::gather_rows(at::cat(outputs, 0), at::argsort(order, true, 0, false));
}

at::Tensor ExpertBank::run_gated(const at::Tensor& x, const Routed& routed, const Context& context) const {
  const Selection& selection = *routed.selection();
  at::Tensor weight = what_multiplies(routed);
  if (selection.unit_of_row.defined()) weight = weight.index_select(0, selection.unit_of_row);
  const at::Tensor all = run_all(x, context);  // [T, E, out]
  return take_shares(weight.unsqueeze(1), all).squeeze(1);
}

at::Tensor ExpertBank::run_all(const at::Tensor& x, const Context& context) const {
  const int64_t rows = x.size(0);
  Plan every;
  every.row = at::arange(rows, at::kLong).repeat({experts_});
  every.offset = at::arange(experts_ + 1, at::kLong) * rows;
  const at::Tensor sorted = run_sorted(dispatch(x, every), every, context);
  return sorted.view({experts_, rows, out_}).permute({1, 0, 2});
}

at::Tensor ExpertBank::run_blend(const at::Tensor& x, const TokenBlend& blend, const Context& context) const {
  const int64_t groups = blend.members.size(0), tokens = blend.members.size(1), slots = blend.slot_expert.size(0);
  if (x.size(0) == 0 || groups == 0) return at::zeros({x.size(0), out_}, x.options());
  const at::Tensor members = blend.members.reshape({-1});
  const at::Tensor real = members >= 0;
  const at::Tensor grouped = kernels::gather_rows(x, members.clamp_min(0)).view({groups, tokens, x.size(1)});
  // [G, s, D] → expert-sorted rows [s · G, D]: slots ascend by expert, so each expert's rows lie together.
  const at::Tensor mixed = take_shares(blend.dispatch.transpose(1, 2), grouped);
  const at::Tensor rows = mixed.transpose(0, 1).reshape({slots * groups, x.size(1)});
  Plan plan;
  plan.offset = at::cat(std::vector<at::Tensor>{at::zeros({1}, at::kLong),
                                                     at::bincount(blend.slot_expert, {}, experts_).cumsum(0) * groups});
  const at::Tensor outputs = run_sorted(rows, plan, context).view({slots, groups, out_}).transpose(0, 1);
  const at::Tensor back = take_shares(blend.combine, outputs).reshape({groups * tokens, out_});
  // Every row is a member of one group: take each from where it stands.
  const at::Tensor place = real.nonzero().squeeze(1);
  const at::Tensor row_order = at::argsort(members.index_select(0, place), true, 0, false);
  return kernels::gather_rows(back, place.index_select(0, row_order));
}

}  // namespace switchyard
