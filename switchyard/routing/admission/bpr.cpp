// Batch prioritised routing (Riquelme et al. 2021): confident tokens are served first, so that
// overflow drops the least important. Order among choices as in GShard.
#include <ATen/TensorOperators.h>
#include <ATen/ops/argsort.h>

#include "switchyard/base/error.h"
#include "switchyard/kernels/permutation.h"
#include "switchyard/base/registry.h"
#include "switchyard/routing/admission/capacity.h"

namespace switchyard {
namespace {

/// What makes a token important.
enum class Confidence { best, sum };

struct BprOptions : CapacityOptions {
  Confidence confidence = Confidence::best;
  BprOptions() { order = ServeOrder::choice; }
  static void describe(Fields<BprOptions>& f) {
    f.title("Batch prioritised routing", "Limited places, given to confident tokens first.");
    f("confidence", &BprOptions::confidence, "a token's priority: its best probability, or the sum over its choices")
        .choices({"best", "sum"});
    describe_fields(f);
  }
};

class BatchPrioritised : public Admission {
 public:
  explicit BatchPrioritised(BprOptions options) : options_(options) {}

  Claims claims(const Selection& selection, const Context& context) const override {
    Claims claims = capacity_claims(selection, context, options_);
    if (!claims.bin.defined()) return claims;
    const at::Tensor place = at::argsort(at::argsort(confidence(selection), true, 0, true), true, 0, false);
    claims.priority = serve_by(place, selection, options_.order);
    return claims;
  }
  Reach reach(const Overrides&, Phase phase) const override {
    return capacity_reach(options_, phase, true, "serving confident tokens first (bpr)");
  }

 private:
  /// [units]: from the gate's probabilities where there is one, else from the weights.
  at::Tensor confidence(const Selection& selection) const {
    const bool gate = selection.gates.size() == 1 && selection.gates[0].probabilities.defined() &&
                      selection.gates[0].probabilities.size(0) == selection.units;
    if (gate && options_.confidence == Confidence::best)
      return std::get<0>(selection.gates[0].probabilities.detach().max(1));
    at::Tensor weight = selection.weight.detach();
    if (gate) weight = selection.gates[0].probabilities.detach()
                          .view({-1}).index_select(0, selection.unit * selection.experts + selection.expert);
    if (options_.confidence == Confidence::best) weight = weight * (selection.rank == 0).to(weight.scalar_type());
    return kernels::combine_rows(weight.unsqueeze(1), selection.unit, {}, selection.units).squeeze(1);
  }
  BprOptions options_;
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(bpr) {
  using namespace switchyard;
  registry.add<Admission, BatchPrioritised, BprOptions>(
      {.slug = "bpr", .name = "Batch prioritised routing", .paper = "Riquelme et al., Scaling vision with sparse mixture of experts",
       .year = 2021, .section = "4.1.1", .room = "routing/admission", .coupling = "batch",
       .line = "confident tokens get the places first", .recipe = "recipes/methods/bpr.yaml"});
}
