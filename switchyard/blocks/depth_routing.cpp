#include "switchyard/blocks/depth_routing.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/binary_cross_entropy_with_logits.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

#include "switchyard/base/registry.h"
#include "switchyard/contract/record.h"
#include "switchyard/kernels/permutation.h"
#include "switchyard/kernels/topk.h"
#include "switchyard/routing/gate.h"

namespace switchyard {

void DepthRoutingOptions::describe(Fields<DepthRoutingOptions>& f) {
  f("capacity", &DepthRoutingOptions::capacity, "share of a sequence's tokens that pass the block").range(0, 1);
  f("auxiliary", &DepthRoutingOptions::auxiliary, "weight of the loss that teaches the score to predict the choice").range(0);
}

void DepthRouting::declare(const Schema& schema, const Where& where) {
  where_ = where;
  weight_ = schema.add("router.weight", {1, where.in}, Role::router, Init::normal(0.02));
}

Reach DepthRouting::reach(const Overrides&, Phase phase) const {
  // The auxiliary loss trains a causal stand-in for generation; teacher forcing itself looks ahead.
  if (phase == Phase::generate) return {};
  return {.unit = Reach::Unit::sequence, .future = true, .because = where_.site + " (mixture of depths)"};
}

at::Tensor DepthRouting::choose(const at::Tensor& scores, const Context& context) const {
  if (context.phase == Phase::generate) return (scores > 0).nonzero().squeeze(1);
  const auto places = [this](int64_t length) {
    if (length == 0 || options_.capacity == 0) return int64_t{0};
    return std::max<int64_t>(1, std::llround(options_.capacity * static_cast<double>(length)));
  };
  // [n, length] scores of n sequences → their chosen rows, counted within each, ascending.
  const auto best = [&](const at::Tensor& each) {
    return std::get<0>(kernels::top_k(each, places(each.size(1))).indices.sort(1));
  };
  const Segments& segments = context.facts.segments;
  if (segments.uniform() && segments.count() > 0) {
    const int64_t count = segments.count(), length = segments.length(0);
    if (places(length) == 0) return at::empty({0}, at::kLong);
    const at::Tensor begin = at::arange(count, at::kLong).unsqueeze(1) * length;
    return (best(scores.view({count, length})) + begin).reshape({-1});
  }
  std::vector<at::Tensor> chosen;
  for (int64_t s = 0; s < segments.count(); ++s) {
    if (places(segments.length(s)) == 0) continue;
    chosen.push_back(best(scores.slice(0, segments.begin[s], segments.begin[s + 1]).unsqueeze(0)).squeeze(0) + segments.begin[s]);
  }
  return chosen.empty() ? at::empty({0}, at::kLong) : at::cat(chosen);
}

at::Tensor DepthRouting::score(const at::Tensor& x, const Context& context) const {
  RoutingPrecision precision;
  return router_logits(x, context[weight_]).squeeze(1);
}

at::Tensor DepthRouting::call(const at::Tensor& x, const Base& base, const Context& context) const {
  const at::Tensor scores = score(x, context);
  const at::Tensor index = choose(scores.detach(), context);
  if (context.records && context.training() && options_.auxiliary > 0 && x.size(0) > 0) {
    at::Tensor target = at::zeros_like(scores);
    target.index_fill_(0, index, 1);
    Record record;
    record.place = context.at(where_.site).place;
    record.micro = context.micro;
    record.segments = context.facts.segments;
    record.losses["mod"] = at::binary_cross_entropy_with_logits(scores, target) * options_.auxiliary;
    context.records->add(std::move(record));
  }
  if (index.size(0) == 0) return x;
  const at::Tensor rows = kernels::gather_rows(x, index);
  const Facts facts = context.facts.take(index);
  const at::Tensor change = base(rows, context.with(facts)) - rows;
  const at::Tensor weighed = change * kernels::gather_rows(scores.unsqueeze(1), index).to(change.scalar_type());
  return x + kernels::combine_rows(weighed, index, {}, x.size(0));
}

}  // namespace switchyard

SWITCHYARD_REGISTER(depth_routing) {
  using namespace switchyard;
  registry.add<Around, DepthRouting, DepthRoutingOptions>(
      {.slug = "mod", .name = "Mixture of Depths", .paper = "Raposo et al., Mixture-of-Depths", .year = 2024,
       .section = "4.5", .room = "blocks", .coupling = "sequence",
       .line = "only the best-scored tokens of a sequence pass a block", .recipe = "recipes/methods/mod.yaml"});
}
