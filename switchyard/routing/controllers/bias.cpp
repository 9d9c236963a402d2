// Loss-free balancing (Wang et al. 2024; DeepSeek-V3): after every step the selection bias of an expert
// that served too few tokens rises and of one that served too many falls. The bias decides who is
// chosen, never how much, and gets no gradient, so balance does not fight the objective.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include "switchyard/base/options.h"
#include "switchyard/base/registry.h"
#include "switchyard/routing/controller.h"

namespace switchyard {
namespace {

enum class BiasRule { sign, proportional };

struct BiasOptions {
  double speed = 0.001;
  BiasRule rule = BiasRule::sign;
  int64_t until = 0;
  static void describe(Fields<BiasOptions>& f) {
    f.title("Loss-free balancing", "Moves the router's selection bias toward even load after every step.");
    f("speed", &BiasOptions::speed, "how far a bias moves in a step").range(0, 1e3);
    f("rule", &BiasOptions::rule, "move by speed, or by speed times the load's relative distance from the mean")
        .choices({"sign", "proportional"});
    f("until", &BiasOptions::until, "the step from which the bias stays as it is; 0 = never").range(0).unit("steps");
  }
};

class BiasController : public Controller {
 public:
  explicit BiasController(BiasOptions options) : options_(options) {}

  void bind(const Schema& router) override {
    bias_ = router.find(router.prefix() + ".bias");
    check(static_cast<bool>(bias_) && bias_.spec().buffer, "routing.controller",
          "{} has no selection bias for aux-free-bias to move ({}); use router: sigmoid-topk", router.prefix(),
          bias_ ? "its bias is trained by gradient" : "there is no \"bias\"");
  }

  void after_step(const StepLoad& load) override {
    if (options_.until > 0 && load.step >= options_.until) return;
    at::NoGradGuard guard;
    const at::Tensor& bias = bias_.tensor();
    check(load.engaged.sizes() == bias.sizes(), "routing.controller", "{} has {} experts, but the load is of {}", bias_.name(),
          bias.numel(), load.engaged.numel());
    // E · (mean − load), exact in integers: an even load moves nothing.
    const at::Tensor wanting = load.engaged.sum() - load.engaged * load.engaged.size(0);
    const at::Tensor move = options_.rule == BiasRule::sign
                                ? wanting.sign().to(at::kDouble)
                                : wanting.to(at::kDouble) / load.engaged.sum().clamp_min(1).to(at::kDouble);
    bias.add_((move * options_.speed).to(bias.device(), bias.scalar_type()));
  }

 private:
  BiasOptions options_;
  Parameter bias_;
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(aux_free_bias) {
  using namespace switchyard;
  registry.add<Controller, BiasController, BiasOptions>(
      {.slug = "aux-free-bias", .name = "Loss-free balancing by bias", .paper = "DeepSeek-AI, DeepSeek-V3; Wang et al., Auxiliary-loss-free load balancing",
       .year = 2024, .section = "beyond", .room = "routing/controllers", .coupling = "none",
       .line = "a selection bias an expert, moved toward even load after every step", .recipe = "recipes/methods/aux-free-bias.yaml"});
}
