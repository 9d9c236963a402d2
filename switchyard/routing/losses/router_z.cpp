// Router z-loss (Zoph et al. 2022): the mean squared log-sum-exp of the logits keeps them small, where
// the softmax loses no precision.
#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>

#include "switchyard/base/registry.h"
#include "switchyard/routing/loss.h"

namespace switchyard {
namespace {

struct RouterZOptions {
  double coefficient = 0.001;
  static void describe(Fields<RouterZOptions>& f) {
    f.title("Router z-loss", "The mean squared log-sum-exp of the routing logits.");
    f("coefficient", &RouterZOptions::coefficient, "multiplies the loss").range(0);
  }
};

class RouterZ : public RoutingLoss {
 public:
  explicit RouterZ(RouterZOptions options) : options_(options) {}
  double coefficient() const override { return options_.coefficient; }

  /// [2]: the sum over units and gates, and how many there were.
  at::Tensor summarise(const Record& record, const Context&) const override {
    at::Tensor sum;
    int64_t rows = 0;
    for (const Gate& gate : record.gates()) {
      if (!gate.logits.defined()) continue;
      const at::Tensor squares = gate.logits.logsumexp(-1).square().sum();
      sum = sum.defined() ? sum + squares : squares;
      rows += gate.logits.size(0);
    }
    if (!sum.defined()) return {};
    return at::stack({sum, at::full({}, static_cast<double>(rows), sum.options().requires_grad(false))});
  }

  at::Tensor finish(const std::vector<at::Tensor>& summaries, const Outcome&) const override {
    at::Tensor pooled = summaries.at(0);
    for (size_t i = 1; i < summaries.size(); ++i) pooled = pooled + summaries[i];
    return pooled[0] / pooled[1].clamp_min(1);
  }

 private:
  RouterZOptions options_;
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(router_z) {
  using namespace switchyard;
  registry.add<RoutingLoss, RouterZ, RouterZOptions>(
      {.slug = "router-z", .name = "Router z-loss", .paper = "Zoph et al., ST-MoE", .year = 2022, .section = "4.1.1",
       .room = "routing/losses", .coupling = "none", .line = "keeps routing logits small",
       .recipe = "recipes/methods/router-z.yaml"});
}
