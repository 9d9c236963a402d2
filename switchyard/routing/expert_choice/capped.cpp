#include "switchyard/routing/expert_choice/capped.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>
#include <vector>

#include "switchyard/base/error.h"

namespace switchyard {

void CapOptions::describe(Fields<CapOptions>& f) {
  f.title("Cap", "A limit of experts a token, by a linear program.");
  f("most", &CapOptions::most, "experts that a token may get (b); 0 = no limit").range(0, 1 << 20);
  f("entropy", &CapOptions::entropy, "weight of the plan's entropy").range(1e-6, 1e6);
  f("iterations", &CapOptions::iterations, "rounds of projections").range(1, 1 << 20);
}

at::Tensor capped_plan(const at::Tensor& scores, int64_t places, const CapOptions& options) {
  // In logarithms: exp(S / λ) overflows for the paper's λ. Projections are those of the Kullback-Leibler
  // divergence (Benamou et al. 2015); the row equality needs no correction, the two inequalities do.
  at::Tensor plan = scores.to(at::kDouble) / options.entropy;
  at::Tensor column = at::zeros({1, plan.size(1)}, plan.options());
  at::Tensor box = at::zeros_like(plan);
  const double row_sum = std::log(static_cast<double>(places)), most = std::log(static_cast<double>(options.most));
  for (int64_t i = 0; i < options.iterations; ++i) {
    plan = plan - plan.logsumexp(1, /*keepdim=*/true) + row_sum;
    plan = plan + column;
    const at::Tensor shift = (most - plan.logsumexp(0, /*keepdim=*/true)).clamp_max(0);
    plan = plan + shift;
    column = -shift;
    const at::Tensor wish = plan + box;
    plan = wish.clamp_max(0);
    box = wish - plan;
  }
  return plan.exp();
}

at::Tensor capped_choice(const at::Tensor& scores, int64_t places, const CapOptions& options) {
  const int64_t experts = scores.size(0), tokens = scores.size(1);
  check(experts * places <= options.most * tokens, "routing.cap",
        "{} experts take {} tokens each, but {} tokens may have only {} experts each; lower factor or raise cap.most",
        experts, places, tokens, options.most);
  const at::Tensor order = at::argsort(capped_plan(scores, places, options).view({-1}), /*stable=*/true, 0, /*descending=*/true);
  at::Tensor taken = at::zeros({experts, tokens}, scores.options().dtype(at::kBool).device(at::kCPU));
  const at::Tensor order_here = order.cpu();
  const int64_t* entry = order_here.const_data_ptr<int64_t>();
  bool* flag = taken.mutable_data_ptr<bool>();
  std::vector<int64_t> room(static_cast<size_t>(experts), places), left(static_cast<size_t>(tokens), options.most);
  for (int64_t i = 0; i < experts * tokens; ++i) {
    const int64_t expert = entry[i] / tokens, token = entry[i] % tokens;
    if (room[expert] == 0 || left[token] == 0) continue;
    --room[expert];
    --left[token];
    flag[entry[i]] = true;
  }
  return taken.to(scores.device());
}

}  // namespace switchyard
