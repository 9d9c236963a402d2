#include "switchyard/routing/gate.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/isnan.h>
#include <ATen/ops/nonzero.h>

#include <cmath>

#include "switchyard/base/error.h"
#include "switchyard/base/registry.h"
#include "switchyard/kernels/linear.h"
#include "switchyard/routing/router.h"

namespace switchyard {

RoutingPrecision::RoutingPrecision()
    : guard_(c10::DispatchKeySet({c10::DispatchKey::AutocastCPU, c10::DispatchKey::AutocastCUDA})) {}

at::Tensor routing_rows(const at::Tensor& x) { return x.scalar_type() == at::kDouble ? x : x.to(at::kFloat); }

at::Tensor router_logits(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const bool wide = x.scalar_type() == at::kDouble || weight.scalar_type() == at::kDouble;
  const at::ScalarType type = wide ? at::kDouble : at::kFloat;
  return kernels::linear(x.to(type), weight.to(type), bias.defined() ? bias.to(type) : at::Tensor());
}

at::Tensor jittered(const at::Tensor& x, double amount, const Context& context) {
  if (!context.training() || amount == 0) return x;
  const at::Tensor noise = context.random.uniform(x.sizes(), context.key("router.jitter"), x.scalar_type());
  return x * (1 + amount * (2 * noise - 1)).to(x.device());
}

void refuse_nan(const at::Tensor& scores, const Context& context) {
  const at::Tensor bad = at::nonzero(at::isnan(scores.detach()));
  if (bad.size(0) > 0)
    fail("routing.nan", "{}: row {} of the routing scores is not a number; look at the layer's input and learning rate",
         context.place.site, bad[0][0].item<int64_t>());
}

at::Tensor mask_experts(const at::Tensor& scores, const Context& context) {
  const at::Tensor& allowed = context.wishes().allowed;
  if (!allowed.defined()) return scores;
  check(allowed.dim() == 1 && allowed.size(0) == scores.size(1) && allowed.scalar_type() == at::kBool,
        "routing.allowed", "the mask of allowed experts must be [{}] bool, one entry an expert", scores.size(1));
  return scores.masked_fill(allowed.logical_not(), -INFINITY);
}

void refuse_generation(const Context& context, std::string_view method, std::string_view why) {
  check(context.phase != Phase::generate, "routing.generation",
        "{}: {} {}, so it has no rule for generating token by token; use it in models that read whole sequences",
        context.place.site, method, why);
}

namespace {

struct LinearScorerOptions {
  bool bias = false;
  double temperature = 1;
  double deviation = 0.02;
  static void describe(Fields<LinearScorerOptions>& f) {
    f.title("Linear scorer", "Logits x·W, divided by a temperature; probabilities by softmax.");
    f("bias", &LinearScorerOptions::bias, "a trained bias on the logits");
    f("temperature", &LinearScorerOptions::temperature, "divides the logits").range(1e-6, 1e6);
    f("deviation", &LinearScorerOptions::deviation, "standard deviation of the initial weights").range(0, 10);
  }
};

class LinearScorer : public Scorer {
 public:
  explicit LinearScorer(LinearScorerOptions options) : options_(options) {}

  void declare(const Schema& schema, const RouterSize& size) override {
    weight_ = schema.add("weight", {size.experts, size.width}, Role::router, Init::normal(options_.deviation), 0);
    if (options_.bias) bias_ = schema.add("logit_bias", {size.experts}, Role::router, Init::zeros(), 0);
  }

  Gate score(const RouterInput& input, const Context& context) const override {
    RoutingPrecision precision;
    at::Tensor logits = router_logits(input.x, context[weight_], bias_ ? context[bias_] : at::Tensor());
    if (options_.temperature != 1) logits = logits / options_.temperature;
    logits = mask_experts(logits, context);
    return {.logits = logits, .scores = logits, .probabilities = logits.softmax(-1), .noise_std = {}};
  }

 private:
  LinearScorerOptions options_;
  Parameter weight_, bias_;
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(linear_scorer) {
  using namespace switchyard;
  registry.add<Scorer, LinearScorer, LinearScorerOptions>(
      {.slug = "linear", .name = "Linear gate", .paper = "Jacobs et al., Adaptive mixtures of local experts", .year = 1991,
       .section = "2.1", .room = "routing", .coupling = "none", .line = "one logit an expert: x·W",
       .recipe = "recipes/methods/sparse-topk.yaml"});
}
