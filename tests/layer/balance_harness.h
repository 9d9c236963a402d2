// A small regression task on which an unbalanced router collapses: 8 Gaussian clusters, each with a linear
// target of its own, 8 linear experts, and a router whose bias favours expert 0 from the start. Shows in a
// second what a balance loss or a controller does.
#pragma once

#include "switchyard/kernels/optimiser.h"
#include "tests/layer/layer_support.h"

namespace switchyard::testing {

struct BalanceRun {
  double variation = 0;  ///< std/mean over experts of the pairs of the last 50 steps; √7 when one expert has all
  int64_t used = 0;      ///< experts with a pair in them
  double error = 0;      ///< mean squared error of the last 50 steps
  double mean_square_lse = 0;  ///< mean squared log-sum-exp of the logits over them
};

/// yaml: options of the layer with 8 experts; `skew`: the router parameter or buffer whose entry 0 is set to 2.
inline BalanceRun run_balance(const std::string& yaml, const std::string& skew, uint64_t seed, int64_t steps = 400) {
  constexpr int64_t width = 16, clusters = 8, rows = 256;
  Layer l(yaml, width, width);
  {
    at::NoGradGuard guard;
    for (const Parameter& p : l.schema.all())
      if (!p.spec().buffer) p.tensor().copy_(randn(p.spec().shape, stable_hash(p.name()) + seed) * 0.02);
    if (const Parameter bias = l.schema.find("moe.router.bias"); bias && !bias.spec().buffer) bias.tensor().zero_();
    if (!skew.empty()) l[skew].select(0, 0).fill_(2);
  }
  const Streams random(seed);
  const at::Tensor mean = random.normal({clusters, width}, {.purpose = "mean"}, at::kDouble) * 2;
  const at::Tensor map = random.normal({clusters, width, width}, {.purpose = "map"}, at::kDouble) / std::sqrt(1.0 * width);
  std::vector<at::Tensor> leaves = l.leaves(), m, v;
  for (const at::Tensor& leaf : leaves) {
    m.push_back(at::zeros_like(leaf, leaf.options().requires_grad(false)));
    v.push_back(at::zeros_like(m.back()));
  }
  at::Tensor counts = at::zeros({8}, at::kLong);
  BalanceRun result;
  for (int64_t step = 0; step < steps; ++step) {
    const at::Tensor cluster = random.integers(clusters, {rows}, {.purpose = "cluster", .step = step});
    const at::Tensor x = mean.index_select(0, cluster) + random.normal({rows, width}, {.purpose = "noise", .step = step}, at::kDouble) * 0.3;
    const at::Tensor y = at::bmm(map.index_select(0, cluster), x.unsqueeze(2)).squeeze(2);
    Pass pass(rows, 1, Phase::train, seed);
    pass.context.step = step;
    const at::Tensor error = (l(x, pass.context) - y).square().mean();
    at::Tensor objective = error;
    if (const at::Tensor extra = total(routing_losses({l.layer.station()}, pass.records, {}, pass.context)); extra.defined())
      objective = objective + extra;
    objective.backward();
    at::NoGradGuard guard;
    for (size_t i = 0; i < leaves.size(); ++i) {
      kernels::adamw_step(leaves[i], leaves[i].grad(), m[i], v[i], {.lr = 1e-2, .weight_decay = 0, .step = step + 1});
      leaves[i].mutable_grad() = at::Tensor();
    }
    const at::Tensor engaged = pair_counts(*pass.records.all()[0].selection(), /*kept_only=*/false);
    for (const auto& controller : l.layer.station()->controllers())
      controller->after_step({.engaged = engaged, .admitted = engaged, .rows = rows, .step = step});
    if (step < steps - 50) continue;
    counts += engaged;
    result.error += error.item<double>() / 50;
    if (const auto& gates = pass.records.all()[0].gates(); !gates.empty())
      result.mean_square_lse += gates[0].logits.logsumexp(-1).square().mean().item<double>() / 50;
  }
  const at::Tensor load = counts.to(at::kDouble);
  result.variation = (load.std(0, /*unbiased=*/false) / load.mean()).item<double>();
  result.used = (counts > 0).sum().item<int64_t>();
  return result;
}

}  // namespace switchyard::testing
