#include "switchyard/experts/low_rank/lora.h"

#include <ATen/TensorOperators.h>

#include <cmath>

#include "switchyard/base/registry.h"
#include "switchyard/kernels/grouped_linear.h"
#include "switchyard/kernels/linear.h"

namespace switchyard {

void LoraOptions::describe(Fields<LoraOptions>& f) {
  f("rank", &LoraOptions::rank, "rank r of the product").range(1, 1 << 16);
  f("alpha", &LoraOptions::alpha, "the product is scaled by alpha / rank").range(0);
  f("rank_stabilised", &LoraOptions::rank_stabilised, "scale by alpha / sqrt(rank) instead");
}

double LoraExpert::scale() const {
  const double rank = static_cast<double>(options_.rank);
  return options_.alpha / (options_.rank_stabilised ? std::sqrt(rank) : rank);
}

std::vector<ExpertTensor> LoraExpert::tensors(int64_t in, int64_t out) const {
  return {{"a", {options_.rank, in}, Init::uniform(1.0 / std::sqrt(static_cast<double>(in))), Role::adapter},
          {"b", {out, options_.rank}, Init::zeros(), Role::adapter}};
}

at::Tensor LoraExpert::apply(const Params& p, const at::Tensor& rows, const Context&) const {
  return kernels::linear(kernels::linear(rows, p["a"]), p["b"]) * scale();
}

at::Tensor LoraExpert::apply_grouped(const Params& stacked, const GroupedRows& rows, const Context&) const {
  const at::Tensor x = rows.x.defined() ? rows.x : rows.source.index_select(0, rows.row);
  const at::Tensor low = kernels::grouped_linear(x, stacked["a"], rows.offset);
  return kernels::grouped_linear(low, stacked["b"], rows.offset) * scale();
}

Params LoraExpert::blend(const Params& stacked, const at::Tensor& coefficient) const {
  const at::Tensor& a = stacked["a"];
  const at::Tensor b = stacked["b"] * coefficient.to(a.scalar_type()).view({-1, 1, 1});
  Params blended;
  blended.values.emplace_back("a", a.reshape({-1, a.size(2)}));                           // [E r, in]
  blended.values.emplace_back("b", b.permute({1, 0, 2}).reshape({b.size(1), -1}));        // [out, E r]
  return blended;
}

}  // namespace switchyard

SWITCHYARD_REGISTER(lora_expert) {
  using namespace switchyard;
  registry.add<ExpertKind, LoraExpert, LoraOptions>(
      {.slug = "lora", .name = "LoRA", .paper = "Hu et al., LoRA", .year = 2021, .section = "4.3",
       .room = "experts/low_rank", .coupling = "none", .line = "a low-rank product beside the map it adapts",
       .recipe = "recipes/methods/lora.yaml"});
}
