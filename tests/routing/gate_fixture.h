// A router alone, fed with logits of the test's choice: its gate's weight is the identity, so rows are logits.
#pragma once

#include "switchyard/base/registry.h"
#include "switchyard/routing/combine.h"
#include "switchyard/routing/router.h"
#include "tests/support.h"

namespace switchyard::testing {

/// Logits of four tokens over three experts whose values every test below can check by hand.
inline at::Tensor fixture_logits() {
  return at::tensor({2.0, 1.0, 0.0, 1.0, 2.0, 0.0, 3.0, 0.0, 1.0, 2.5, 0.0, 1.0}, at::kDouble).view({4, 3});
}

struct GateFixture {
  GateFixture(const std::string& slug, const std::string& yaml, int64_t experts)
      : router(Registry::instance().make<Router>(slug, parse_yaml(yaml, "test"))) {
    router->declare(schema.in("router"), {.width = experts, .experts = experts});
    initialise(schema, Streams(1), at::kDouble);
    if (const Parameter weight = schema.find("router.weight"); weight && weight.spec().shape == std::vector<int64_t>{experts, experts}) {
      at::NoGradGuard guard;
      weight.tensor().copy_(at::eye(experts, at::kDouble));
    }
  }
  Engagement route(const at::Tensor& x, const Context& context) const { return router->route({x, {}}, context); }
  Selection select(const at::Tensor& x, const Context& context) const { return std::get<Selection>(route(x, context)); }
  /// [T, E]: the weights under the router's own combine policy.
  at::Tensor weights(const at::Tensor& x, const Context& context) const {
    Selection s = with_pairs(select(x, context));
    s.weight = combine_weights(s, router->combine(), context.phase, true);
    return dense_weights(s);
  }

  Schema schema;
  std::shared_ptr<Router> router;
};

inline at::Tensor values(std::vector<double> numbers, int64_t rows) {
  return at::tensor(numbers, at::kDouble).view({rows, -1});
}

inline at::Tensor ids(std::vector<int64_t> numbers) { return at::tensor(numbers, at::kLong); }

}  // namespace switchyard::testing
