// A bank of experts: one or more stacks, each of one kind, with consecutive expert ids. It executes
// every engagement: pairs by rows, merged parameters, gated sums, token blends (survey 4.2).
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <vector>

#include "switchyard/base/registry.h"
#include "switchyard/contract/part.h"
#include "switchyard/contract/selection.h"
#include "switchyard/experts/kind.h"
#include "switchyard/routing/combine.h"

namespace switchyard {

class ExpertBank {
 public:
  struct Stack { std::shared_ptr<ExpertKind> kind; int64_t count = 0; };

  ExpertBank(std::vector<Stack> stacks, int64_t in, int64_t out);

  int64_t experts() const { return experts_; }
  int64_t in() const { return in_; }
  int64_t out() const { return out_; }
  /// Stacked tensors [E, ...]: "up", "down", ... with one stack, "0.up", "1.scale" with several.
  void declare(const Schema& schema);
  /// Parameters of one stack in this pass, leading axis its experts.
  Params params(size_t stack, const Context& context) const;
  const std::vector<Stack>& stacks() const { return stacks_; }
  /// Multiply-adds of one row through `expert`.
  int64_t macs_per_row(int64_t expert) const;

  /// The whole path: x [T, in] → [T, out] (or [outputs, out] for a combine list).
  at::Tensor run(const at::Tensor& x, const Routed& routed, const CombineOptions& combine,
                 const Context& context) const;

  // The steps of run, for methods that put something between them (attention experts).
  /// [A, in]: the plan's rows, sorted by expert.
  at::Tensor dispatch(const at::Tensor& x, const Plan& plan) const;
  /// sorted [A, in] → [A, out].
  at::Tensor run_sorted(const at::Tensor& sorted, const Plan& plan, const Context& context) const;
  /// sorted [A, out] → [rows, out], weighted, each row summed in pair order.
  at::Tensor combine(const at::Tensor& sorted, const Routed& routed, int64_t rows) const;
  /// [T, E, out]: every expert on every row (dense oracles, explanations).
  at::Tensor run_all(const at::Tensor& x, const Context& context) const;

 private:
  at::Tensor run_rows(const at::Tensor& x, const Routed&, const CombineOptions&, const Context&) const;
  /// [T, out] when gather, experts and scatter run as one kernel of the kind; weight: [A] sorted, or undefined.
  std::optional<at::Tensor> run_fused(const at::Tensor& x, const Routed&, const at::Tensor& weight, const Context&) const;
  at::Tensor run_merged(const at::Tensor& x, const Routed&, const Context&) const;
  at::Tensor run_gated(const at::Tensor& x, const Routed&, const Context&) const;
  at::Tensor run_blend(const at::Tensor& x, const TokenBlend&, const Context&) const;

  /// As `params`, for the grouped kernels: with the low-rank maps of adapters beside the maps, and with weights as they lie
  /// packed, where the kind takes them.
  Params params_for_kernels(size_t stack, const Context& context) const;

  std::vector<Stack> stacks_;
  std::vector<std::vector<Parameter>> parameters_;
  int64_t in_, out_, experts_ = 0;
};

/// The plan of a selection run as rows.
Plan make_plan(const Selection& selection);

/// Adds a parameter as a kind's kernels take it: packed where it lies so, with the low-rank map of adapters beside it where there is one.
void put_for_kernels(Params& params, const std::string& name, const Parameter& parameter, const ExpertKind& kind, const Context& context);

}  // namespace switchyard
