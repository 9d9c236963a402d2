// Scorers beyond the linear one: a small network (LLaMA-MoE, Zhu et al. 2024), logits divided by their spread (Skywork-MoE, Wei et
// al. 2024), and experts that attend to each other (Yuan 2.0-M32, Wu et al. 2024).
#include <ATen/TensorOperators.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tanh.h>

#include <algorithm>

#include "switchyard/base/registry.h"
#include "switchyard/routing/gate.h"
#include "switchyard/routing/router.h"

namespace switchyard {
namespace {

Gate gate_of(at::Tensor logits, const Context& context) {
  logits = mask_experts(logits, context);
  return {.logits = logits, .scores = logits, .probabilities = logits.softmax(-1), .noise_std = {}};
}

struct TanhOptions {
  int64_t hidden = 0;
  double deviation = 0.02;
  static void describe(Fields<TanhOptions>& f) {
    f.title("Two-layer scorer", "Logits W2 tanh(W1 x).");
    f("hidden", &TanhOptions::hidden, "width between the maps; 0 = as many as experts").range(0, 1 << 20);
    f("deviation", &TanhOptions::deviation, "standard deviation of the initial weights").range(0, 10);
  }
};

class TanhScorer : public Scorer {
 public:
  explicit TanhScorer(TanhOptions options) : options_(options) {}
  void declare(const Schema& schema, const RouterSize& size) override {
    const int64_t hidden = options_.hidden > 0 ? options_.hidden : size.experts;
    inner_ = schema.add("inner", {hidden, size.width}, Role::router, Init::normal(options_.deviation));
    weight_ = schema.add("weight", {size.experts, hidden}, Role::router, Init::normal(options_.deviation), 0);
  }
  Gate score(const RouterInput& input, const Context& context) const override {
    RoutingPrecision precision;
    return gate_of(router_logits(at::tanh(router_logits(input.x, context[inner_])), context[weight_]), context);
  }

 private:
  TanhOptions options_;
  Parameter inner_, weight_;
};

struct LogitNormOptions {
  Choice<Scorer> scorer = "linear";
  double spread = 1;
  static void describe(Fields<LogitNormOptions>& f) {
    f.title("Normalised logits", "A token's logits with mean 0 and a fixed standard deviation.");
    f("scorer", &LogitNormOptions::scorer, "what gives the logits");
    f("spread", &LogitNormOptions::spread, "their standard deviation (unbiased) over a token's experts").range(1e-6, 1e6);
  }
};

class LogitNormScorer : public Scorer {
 public:
  explicit LogitNormScorer(LogitNormOptions options) : options_(std::move(options)), scorer_(options_.scorer.make()) {}
  void declare(const Schema& schema, const RouterSize& size) override { scorer_->declare(schema, size); }
  Gate score(const RouterInput& input, const Context& context) const override {
    RoutingPrecision precision;
    Context all = context;  // the spread is of all experts, whatever is allowed
    Overrides wishes = context.wishes();
    wishes.allowed = at::Tensor();
    all.overrides = &wishes;
    const at::Tensor z = scorer_->score(input, all).logits, centred = z - z.mean(-1, /*keepdim=*/true);
    const double freedom = static_cast<double>(std::max<int64_t>(1, z.size(1) - 1));
    const at::Tensor deviation = (centred.square().sum(-1, /*keepdim=*/true) / freedom + 1e-12).sqrt();
    return gate_of(centred / deviation * options_.spread, context);
  }

 private:
  LogitNormOptions options_;
  std::shared_ptr<Scorer> scorer_;
};

struct AttentionScorerOptions {
  double deviation = 0.02;
  static void describe(Fields<AttentionScorerOptions>& f) {
    f.title("Attention scorer", "Logits of experts that attend to each other: softmax(q kᵀ) v, one number an expert each.");
    f("deviation", &AttentionScorerOptions::deviation, "standard deviation of the initial weights").range(0, 10);
  }
};

class AttentionScorer : public Scorer {
 public:
  explicit AttentionScorer(AttentionScorerOptions options) : options_(options) {}
  void declare(const Schema& schema, const RouterSize& size) override {
    const auto map = [&](const char* name) {
      return schema.add(name, {size.experts, size.width}, Role::router, Init::normal(options_.deviation), 0);
    };
    query_ = map("query");
    key_ = map("key");
    value_ = map("value");
  }
  Gate score(const RouterInput& input, const Context& context) const override {
    RoutingPrecision precision;
    const at::Tensor q = router_logits(input.x, context[query_]).unsqueeze(2), k = router_logits(input.x, context[key_]).unsqueeze(1);
    const at::Tensor v = router_logits(input.x, context[value_]).unsqueeze(2);
    return gate_of(at::bmm((q * k).softmax(-1), v).squeeze(2), context);
  }

 private:
  AttentionScorerOptions options_;
  Parameter query_, key_, value_;
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(scorers) {
  using namespace switchyard;
  registry.add<Scorer, TanhScorer, TanhOptions>(
      {.slug = "tanh-scorer", .name = "Two-layer gate", .paper = "Zhu et al., LLaMA-MoE", .year = 2024, .section = "4.1.1", .room = "routing",
       .coupling = "none", .line = "logits by a small network: W2 tanh(W1 x)", .recipe = "recipes/methods/tanh-scorer.yaml"});
  registry.add<Scorer, LogitNormScorer, LogitNormOptions>(
      {.slug = "skywork-logitnorm", .name = "Gating logit normalisation", .paper = "Wei et al., Skywork-MoE", .year = 2024, .section = "4.1.1",
       .room = "routing", .coupling = "none", .line = "a token's logits get a fixed spread, so that gates stay sharp",
       .recipe = "recipes/methods/skywork-logitnorm.yaml"});
  registry.add<Scorer, AttentionScorer, AttentionScorerOptions>(
      {.slug = "attention-router", .name = "Attention router", .paper = "Wu et al., Yuan 2.0-M32", .year = 2024, .section = "4.1.1",
       .room = "routing", .coupling = "none", .line = "experts attend to each other before one is chosen", .recipe = "recipes/methods/attention-router.yaml"});
}
