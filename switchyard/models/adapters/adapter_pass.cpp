#include "switchyard/models/adapters/adapter_pass.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "switchyard/base/error.h"
#include "switchyard/contract/context.h"
#include "switchyard/kernels/linear.h"
#include "switchyard/models/adapters/adapter_set.h"

namespace switchyard {
namespace {

using Kind = ModuleDelta::Kind;

at::ScalarType computing(at::ScalarType type) { return type == at::kDouble ? at::kDouble : at::kFloat; }

/// magnitude / |W + delta|, over rows of a map and over columns of a table.
at::Tensor dora_proportion(const at::Tensor& weight, const at::Tensor& delta, const at::Tensor& magnitude, bool embedding) {
  const at::Tensor sum = weight.to(delta.scalar_type()) + delta;
  return magnitude / at::linalg_vector_norm(sum, 2, at::IntArrayRef{embedding ? 0 : 1});
}

/// The uses act on the whole tensor by factors.
bool by_factors(const AdapterPass::Site& site) {
  return std::all_of(site.uses.begin(), site.uses.end(), [](const AdapterPass::Use& use) {
    return use.factors && use.placed.ours_view.empty() && (!use.factors->a.defined() || use.factors->a.dim() == 2);
  });
}

/// One use on the whole tensor `value`; `base` is what it was before any.
void apply_whole(const AdapterPass::Use& use, at::Tensor& value, const at::Tensor& base) {
  const ModuleDelta& delta = *use.placed.delta;
  const at::Tensor target = view_of(value, use.placed.ours_view);
  if (delta.kind == Kind::ia3) {
    target.mul_(dense(use.placed).to(value.scalar_type()));
    return;
  }
  if (delta.kind == Kind::lora || use.placed.bias) {
    target.add_(dense(use.placed).to(value.scalar_type()) * use.scaling);
    return;
  }
  check(use.factors && target.dim() == 2, "adapters.layout", "{}: DoRA's norms run over rows that this model keeps in parts", delta.module);
  const at::Tensor change = at::matmul(use.factors->b, use.factors->a).to(value.scalar_type()) * use.scaling;
  const at::Tensor share = dora_proportion(view_of(base, use.placed.ours_view), change, use.factors->magnitude, delta.embedding);
  target.add_(change).mul_(delta.embedding ? share : share.unsqueeze(1));
}

}  // namespace

const AdapterPass::Site* AdapterPass::find(const std::string& key) const {
  const auto found = sites.find(key);
  return found == sites.end() ? nullptr : &found->second;
}

const at::Tensor& AdapterPass::whole(const Site& site, const Parameter& parameter) const {
  if (site.uses.empty()) return site.replaced;
  check(!by_rows, "adapters.by_rows", "{} is read whole, so adapters of it cannot be weighed row by row (X-LoRA weighs linear maps and embeddings)",
        parameter.name());
  const std::lock_guard lock(mutex_);
  if (site.value.defined()) return site.value;
  at::NoGradGuard guard;
  const at::Tensor bound = site.replaced.defined() ? site.replaced : parameter.tensor().detach();
  const at::Tensor base = bound.to(computing(bound.scalar_type()));
  at::Tensor value = base.clone();
  for (const Use& use : site.uses) {
    const ModuleDelta& delta = *use.placed.delta;
    check(!delta.b_bias.defined() || delta.into_bias, "adapters.layout", "{} is read whole here, which leaves no place for its lora_B.bias", delta.module);
    apply_whole(use, value, base);
  }
  site.value = value.to(bound.scalar_type());
  return site.value;
}

const at::Tensor* AdapterPass::value(const Parameter& parameter) const {
  const Site* site = find(parameter.name());
  return site ? &whole(*site, parameter) : nullptr;
}

at::Tensor AdapterPass::row_weight(const Use& use, const Context& context) const {
  if (!by_rows) return {};
  const at::Tensor all = context.facts.row(kScalings, "an adapter");
  return all.select(1, use.placed.delta->map).select(1, static_cast<int64_t>(use.placed.delta->adapter)).unsqueeze(1);
}

const at::Tensor& AdapterPass::proportion(const Use& use, const at::Tensor& weight) const {
  const std::lock_guard lock(mutex_);
  if (!use.proportion.defined()) {
    const at::Tensor change = at::matmul(use.factors->b, use.factors->a) * use.scaling;
    use.proportion = dora_proportion(weight, change, use.factors->magnitude, use.placed.delta->embedding);
  }
  return use.proportion;
}

at::Tensor AdapterPass::linear(const at::Tensor& x, const Parameter& weight, const Parameter& bias, const Context& context) const {
  const bool tied = weight.spec().role == Role::embedding;
  const Site* site = find(key_of(weight, tied));
  if (site == nullptr) {
    // The head of tied embeddings is not the table that adapters act on.
    if (!tied || !find(weight.name())) return at::Tensor();
    const at::Tensor own = bias ? context[bias] : at::Tensor();
    return weight.packed() ? weight.packed()->linear(x, own) : kernels::linear(x, weight.tensor(), own);
  }
  const Site* beside = bias ? find(bias.name()) : nullptr;
  if (!by_factors(*site)) return kernels::linear(x, whole(*site, weight), beside ? whole(*beside, bias) : bias ? context[bias] : at::Tensor());
  // Low rank stands beside a packed weight; only DoRA asks for the weight's own numbers.
  bool beside_only = !site->replaced.defined();
  for (const Use& use : site->uses) beside_only = beside_only && use.placed.delta->kind != Kind::dora;
  const std::shared_ptr<const PackedWeight> packed = beside_only ? weight.packed() : nullptr;
  const at::Tensor w = packed ? at::Tensor() : site->replaced.defined() ? site->replaced : weight.tensor();
  at::Tensor b;
  if (bias) b = beside && beside->replaced.defined() ? beside->replaced : bias.tensor();

  at::Tensor in = x;
  for (const Use& use : site->uses)
    if (use.factors->in_scale.defined()) in = (in * use.factors->in_scale).to(x.scalar_type());
  at::Tensor y = packed ? packed->linear(in, b) : kernels::linear(in, w, b);
  const at::ScalarType type = y.scalar_type();
  for (const Use& use : site->uses) {
    const Factors& f = *use.factors;
    if (f.out_scale.defined()) y = y * f.out_scale;
    if (!f.a.defined()) continue;
    at::Tensor rows = x.to(f.a.scalar_type());
    if (const at::Tensor share = row_weight(use, context); share.defined()) rows = rows * share.to(rows.scalar_type());
    at::Tensor low = kernels::linear(kernels::linear(rows, f.a), f.b, f.b_bias) * (use.scaling * by_rows.value_or(1));
    if (use.placed.delta->kind == Kind::dora) {
      const at::Tensor& share = proportion(use, w);
      low = (share - 1) * (b.defined() ? y - b : y) + share * low;
    }
    y = y + low;
  }
  return y.to(type);
}

at::Tensor AdapterPass::embedding(const at::Tensor& ids, const Parameter& table, const Context& context) const {
  const Site* site = find(table.name());
  if (site == nullptr) return {};
  if (!by_factors(*site)) return at::embedding(whole(*site, table), ids);
  const at::Tensor w = site->replaced.defined() ? site->replaced : table.tensor();
  at::Tensor y = at::embedding(w, ids);
  const at::ScalarType type = y.scalar_type();
  for (const Use& use : site->uses) {
    const Factors& f = *use.factors;
    if (!f.a.defined()) {
      y = y * (f.out_scale.defined() ? f.out_scale.index_select(0, ids).unsqueeze(1) : f.in_scale);
      continue;
    }
    at::Tensor low = at::embedding(f.b, ids);
    if (const at::Tensor share = row_weight(use, context); share.defined()) low = low * share.to(low.scalar_type());
    low = at::matmul(low, f.a) * (use.scaling * by_rows.value_or(1));
    y = use.placed.delta->kind == Kind::dora ? proportion(use, w) * (y + low) : y + low;
  }
  return y.to(type);
}

StackedFactors AdapterPass::factors(const Parameter& stack, at::Tensor& base) const {
  const Site* site = find(stack.name());
  if (site == nullptr || site->uses.empty() || by_rows) return {};
  const std::vector<int64_t>& shape = stack.spec().shape;
  if (shape.size() != 2 && shape.size() != 3) return {};
  for (const Use& use : site->uses) {
    if (use.placed.delta->kind != Kind::lora || !use.factors || !use.factors->a.defined()) return {};
    const View& view = use.placed.ours_view;
    const bool whole = use.factors->a.dim() == static_cast<int64_t>(shape.size()) && view.empty();
    const bool single = shape.size() == 3 && use.factors->a.dim() == 2 && view.size() == 1 && view[0].kind == ViewStep::Kind::select && view[0].dim == 0;
    if (!whole && !single) return {};
  }
  const std::lock_guard lock(mutex_);
  base = site->replaced.defined() ? site->replaced : stack.packed() ? at::Tensor() : stack.tensor();
  if (site->stacked.a.defined()) return site->stacked;
  at::NoGradGuard guard;
  // Ranks of several adapters stand one after another.
  std::map<size_t, int64_t> rank;
  for (const Use& use : site->uses) {
    int64_t& widest = rank[use.placed.delta->adapter];
    widest = std::max(widest, use.factors->a.size(-2));
  }
  std::map<size_t, int64_t> first;
  int64_t total = 0;
  for (const auto& [adapter, width] : rank) {
    first[adapter] = total;
    total += width;
  }
  const at::TensorOptions options = site->uses.front().factors->a.options();
  const auto zeros = [&](std::initializer_list<int64_t> last) {
    std::vector<int64_t> extents(shape.begin(), shape.end() - 2);
    extents.insert(extents.end(), last);
    return at::zeros(extents, options);
  };
  const int64_t in = shape[shape.size() - 1], out = shape[shape.size() - 2];
  StackedFactors both{.a = zeros({total, in}), .b = zeros({out, total}), .bias = {}};
  for (const Use& use : site->uses) {
    const Factors& f = *use.factors;
    const int64_t begin = first[use.placed.delta->adapter], end = begin + f.a.size(-2);
    const at::Tensor a = view_of(both.a, use.placed.ours_view), b = view_of(both.b, use.placed.ours_view);
    a.slice(-2, begin, end).copy_(f.a);
    b.slice(-1, begin, end).copy_(f.b * use.scaling);
    if (!f.b_bias.defined() || use.placed.delta->into_bias) continue;
    if (!both.bias.defined()) both.bias = zeros({out});
    view_of(both.bias, use.placed.ours_view).add_(f.b_bias * use.scaling);
  }
  site->stacked = both;
  return both;
}

}  // namespace switchyard
