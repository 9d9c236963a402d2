#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/isnan.h>
#include <ATen/ops/nonzero.h>

#include "switchyard/base/error.h"
#include "switchyard/kernels/admission.h"
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

}  // namespace

TopK top_k(const at::Tensor& scores, int64_t k) {
  check_shape(scores, k);
  if (const auto best = cuda::top_k(scores, k)) return chosen(scores, *best);
  const at::ScalarType type = scores.scalar_type();
  if (!scores.device().is_cpu() || (type != at::kFloat && type != at::kDouble)) {
    check_numbers(scores);
    return reference::top_k(scores, k);
  }
  const at::Tensor plain = scores.detach().contiguous();
  const int64_t rows = plain.size(0), columns = plain.size(1);
  at::Tensor ids = at::empty({rows, k}, plain.options().dtype(at::kLong));
  const cpu::Place bad =
      type == at::kFloat ? cpu::top_k(plain.const_data_ptr<float>(), rows, columns, k, ids.mutable_data_ptr<int64_t>())
                         : cpu::top_k(plain.const_data_ptr<double>(), rows, columns, k, ids.mutable_data_ptr<int64_t>());
  if (bad.row >= 0) refuse_nan(bad.row, bad.column);
  return {at::gather(scores, 1, ids), ids};
}

TopK top_k_grouped(const at::Tensor& scores, int64_t k, GroupLimit limit) {
  check_shape(scores, k);
  const int64_t experts = scores.size(1);
  check(limit.groups > 0 && experts % limit.groups == 0 && limit.chosen > 0 && limit.chosen <= limit.groups && limit.best > 0 &&
            limit.best <= experts / limit.groups && k <= limit.chosen * (experts / limit.groups),
        "routing.group_range", "{} experts in {} groups, {} groups chosen by their {} best, k {}: groups must divide the experts and hold k", experts,
        limit.groups, limit.chosen, limit.best, k);
  if (const auto best = cuda::top_k(scores, k, limit)) return chosen(scores, *best);
  check_numbers(scores);
  return reference::top_k_grouped(scores, k, limit);
}

at::Tensor admit(const at::Tensor& bin, const at::Tensor& priority, const at::Tensor& exempt,
                 const at::Tensor& capacity, int64_t bins) {
  if (const auto kept = cuda::admit(bin, priority, exempt, capacity, bins)) return *kept;
  return reference::admit(bin, priority, exempt, capacity, bins);
}
at::Tensor admit(const at::Tensor& bin, const at::Tensor& priority, const at::Tensor& exempt, int64_t capacity,
                 int64_t bins) {
  return admit(bin, priority, exempt, at::full({bins}, capacity, bin.options()), bins);
}

}  // namespace switchyard::kernels
