#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/isnan.h>
#include <ATen/ops/nonzero.h>

#include "switchyard/base/error.h"
#include "switchyard/kernels/admission.h"
#include "switchyard/kernels/cpu/admit.h"
#include "switchyard/kernels/cpu/topk.h"
#include "switchyard/kernels/cuda/routing.h"
#include "switchyard/kernels/reference/reference.h"
#include "switchyard/kernels/topk.h"

namespace switchyard::kernels {
namespace {

[[noreturn]] void refuse_nan(int64_t row, int64_t column) {
  fail("routing.nan", "row {} of the routing scores is not a number at expert {}; look at the layer's input and learning rate", row, column);
}

void check_shape(const at::Tensor& scores, int64_t k) {
  check(scores.dim() == 2 && at::isFloatingType(scores.scalar_type()), "routing.scores",
        "scores must be [T, E] floating point, but they are {}-dimensional {}", scores.dim(), c10::toString(scores.scalar_type()));
  check(k > 0 && k <= scores.size(1), "routing.k_range", "k is {}, but there are {} experts to choose from; take 1 <= k <= {}", k,
        scores.size(1), scores.size(1));
}

void check_numbers(const at::Tensor& scores) {
  const at::Tensor bad = at::nonzero(at::isnan(scores.detach()));
  if (bad.size(0)) refuse_nan(bad[0][0].item<int64_t>(), bad[0][1].item<int64_t>());
}

/// What the CUDA kernels chose, joined to the graph.
TopK chosen(const at::Tensor& scores, const cuda::BestColumns& best) {
  if (best.first_nan >= 0) refuse_nan(best.first_nan / scores.size(1), best.first_nan % scores.size(1));
  return {at::gather(scores, 1, best.ids), best.ids};
}

bool has_path(const at::Tensor& scores) {
  return scores.device().is_cpu() && (scores.scalar_type() == at::kFloat || scores.scalar_type() == at::kDouble);
}

/// choose(scores, ids) on the CPU: writes the k best columns of each row, and returns the first place that is not a number.
template <typename Choose>
TopK chosen_by(const at::Tensor& scores, int64_t k, const Choose& choose) {
  const at::Tensor plain = scores.detach().contiguous();
  at::Tensor ids = at::empty({plain.size(0), k}, plain.options().dtype(at::kLong));
  const cpu::Place bad = plain.scalar_type() == at::kFloat ? choose(plain.const_data_ptr<float>(), ids.mutable_data_ptr<int64_t>())
                                                           : choose(plain.const_data_ptr<double>(), ids.mutable_data_ptr<int64_t>());
  if (bad.row >= 0) refuse_nan(bad.row, bad.column);
  return {at::gather(scores, 1, ids), ids};
}

}  // namespace

TopK top_k(const at::Tensor& scores, int64_t k) {
  check_shape(scores, k);
  if (const auto best = cuda::top_k(scores, k)) return chosen(scores, *best);
  if (!has_path(scores)) {
    check_numbers(scores);
    return reference::top_k(scores, k);
  }
  return chosen_by(scores, k, [&](const auto* plain, int64_t* ids) { return cpu::top_k(plain, scores.size(0), scores.size(1), k, ids); });
}

TopK top_k_grouped(const at::Tensor& scores, int64_t k, GroupLimit limit) {
  check_shape(scores, k);
  const int64_t experts = scores.size(1);
  check(limit.groups > 0 && experts % limit.groups == 0 && limit.chosen > 0 && limit.chosen <= limit.groups && limit.best > 0 &&
            limit.best <= experts / limit.groups && k <= limit.chosen * (experts / limit.groups),
        "routing.group_range", "{} experts in {} groups, {} groups chosen by their {} best, k {}: groups must divide the experts and hold k", experts,
        limit.groups, limit.chosen, limit.best, k);
  if (const auto best = cuda::top_k(scores, k, limit)) return chosen(scores, *best);
  if (!has_path(scores)) {
    check_numbers(scores);
    return reference::top_k_grouped(scores, k, limit);
  }
  return chosen_by(scores, k, [&](const auto* plain, int64_t* ids) { return cpu::top_k_grouped(plain, scores.size(0), scores.size(1), k, limit, ids); });
}

at::Tensor admit(const at::Tensor& bin, const at::Tensor& priority, const at::Tensor& exempt,
                 const at::Tensor& capacity, int64_t bins) {
  const auto has = [&](const at::Tensor& t, int64_t length) { return !t.defined() || (t.dim() == 1 && t.size(0) == length); };
  check(bin.dim() == 1 && has(priority, bin.size(0)) && has(exempt, bin.size(0)) && capacity.defined() && has(capacity, bins) &&
            (!exempt.defined() || exempt.scalar_type() == at::kBool),
        "kernels.claims", "each of {} pairs has a bin, a priority and, as a bool, an exemption, where those are given, and each of {} bins a capacity", bin.numel(), bins);
  if (const auto kept = cuda::admit(bin, priority, exempt, capacity, bins)) return *kept;
  const bool plain = bin.device().is_cpu() && bin.scalar_type() == at::kLong && (!priority.defined() || priority.scalar_type() == at::kFloat);
  if (plain) {
    const at::Tensor asked = bin.contiguous(), by = priority.defined() ? priority.detach().contiguous() : priority;
    const at::Tensor free = exempt.defined() ? exempt.contiguous() : exempt, places = capacity.to(at::kLong).contiguous();
    at::Tensor kept = at::empty({asked.size(0)}, asked.options().dtype(at::kBool));
    const int64_t bad = cpu::admit({.bin = asked.const_data_ptr<int64_t>(), .priority = by.defined() ? by.const_data_ptr<float>() : nullptr,
                                    .exempt = free.defined() ? free.const_data_ptr<bool>() : nullptr, .capacity = places.const_data_ptr<int64_t>(),
                                    .pairs = asked.size(0), .bins = bins},
                                   kept.mutable_data_ptr<bool>());
    if (bad < 0) return kept;
    const int64_t wanted = asked[bad].item<int64_t>();
    check(wanted >= -1 && wanted < bins, "kernels.bin_range", "pair {} asks for bin {}, but there are {}", bad, wanted, bins);
    fail("kernels.priority_nan", "the priority of pair {} is not a number; look at the layer's input and learning rate", bad);
  }
  return reference::admit(bin, priority, exempt, capacity, bins);
}
at::Tensor admit(const at::Tensor& bin, const at::Tensor& priority, const at::Tensor& exempt, int64_t capacity,
                 int64_t bins) {
  return admit(bin, priority, exempt, at::full({bins}, capacity, bin.options()), bins);
}

}  // namespace switchyard::kernels
