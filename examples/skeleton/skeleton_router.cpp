#include "skeleton_router.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/softmax.h>

namespace switchyard {

void SkeletonRouter::declare(const Schema& schema, const RouterSize& size) {
  check_k(options_.k, size.experts, "the skeleton router");
  directions_ = schema.add("directions", {size.experts, size.width}, Role::router, Init::normal(0.02));
}

Engagement SkeletonRouter::route(const RouterInput& input, const Context& context) const {
  RoutingPrecision precision;  // decisions are float32, whatever the rows are
  auto unit = [](const at::Tensor& rows) {
    return rows / at::linalg_vector_norm(rows, 2, /*dim=*/-1, /*keepdim=*/true).clamp_min(1e-12);
  };
  const at::Tensor x = routing_rows(input.x);  // [T, D]
  Gate gate;
  gate.logits =
      router_logits(unit(x), unit(context[directions_].to(x.scalar_type()))) / options_.temperature;  // [T, E]
  gate.scores = gate.logits;                                        // what selection compares
  gate.probabilities = at::softmax(gate.logits, -1);                // what balance losses read
  const at::Tensor ids = choose(gate.scores, options_.k, context);  // [T, k], best first; honours overrides
  const at::Tensor weights = kept_softmax(gate.scores, ids);        // [T, k]
  return selection_of(ids, weights, std::move(gate), Run::rows);
}

}  // namespace switchyard

SWITCHYARD_REGISTER(skeleton_router) {
  using namespace switchyard;
  registry.add<Router, SkeletonRouter, SkeletonOptions>({.slug = "skeleton",
                                                         .name = "Skeleton router",
                                                         .paper = "an example, in no paper",
                                                         .section = "beyond",
                                                         .room = "examples",
                                                         .coupling = "none",
                                                         .line = "the experts whose directions lie nearest in angle"});
}
