// Random token selection (Kim et al. 2021): in training every pair draws its place in the queue, which
// takes the left-to-right bias from dropping. Evaluation serves in order.
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>

#include "switchyard/base/registry.h"
#include "switchyard/routing/admission/capacity.h"

namespace switchyard {
namespace {

struct RandomPriorityOptions : CapacityOptions {
  static void describe(Fields<RandomPriorityOptions>& f) {
    f.title("Random priority", "Limited places, given by lot in training.");
    describe_fields(f);
  }
};

class RandomPriority : public Admission {
 public:
  explicit RandomPriority(RandomPriorityOptions options) : options_(options) {}

  Claims claims(const Selection& selection, const Context& context) const override {
    Claims claims = capacity_claims(selection, context, options_);
    if (!claims.bin.defined()) return claims;
    if (context.training())
      claims.priority = context.random.uniform({selection.pairs()}, context.key("admission.lot"), at::kDouble)
                            .to(selection.unit.device());
    else if (options_.order == ServeOrder::choice)
      claims.priority = serve_by(at::arange(selection.units, selection.unit.options()), selection, options_.order);
    return claims;
  }
  Reach reach(const Overrides&, Phase phase) const override {
    const bool future = phase == Phase::train || options_.order == ServeOrder::choice;
    return capacity_reach(options_, phase, future, "giving places by lot (random-priority)");
  }

 private:
  RandomPriorityOptions options_;
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(random_priority) {
  using namespace switchyard;
  registry.add<Admission, RandomPriority, RandomPriorityOptions>(
      {.slug = "random-priority", .name = "Random token selection", .paper = "Kim et al., Scalable and efficient MoE training for multitask multilingual models",
       .year = 2021, .section = "4.1.1", .room = "routing/admission", .coupling = "batch",
       .line = "places go by lot in training, so no position is favoured", .recipe = "recipes/methods/random-priority.yaml"});
}
