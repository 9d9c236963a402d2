// Expert choice (Zhou et al. 2022): every expert takes its own best rows of a group, so loads are equal
// by construction and a row may get many experts or none. What a row gets depends on later rows of its
// group, so there is no rule for generating token by token.
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>

#include "switchyard/routing/expert_choice/capped.h"
#include "switchyard/routing/select.h"

namespace switchyard {
namespace {

/// Which rows compete for an expert's places.
enum class Group { sequence, batch };

struct ExpertChoiceOptions : SelectOptions {
  double factor = 2;
  Group group = Group::sequence;
  CapOptions cap;
  static void describe(Fields<ExpertChoiceOptions>& f) {
    f.title("Expert choice", "Every expert takes its best tokens of a group.");
    f("factor", &ExpertChoiceOptions::factor, "experts a token gets on average (c); an expert takes factor · tokens / E")
        .range(0, 1 << 20);
    f("group", &ExpertChoiceOptions::group, "which tokens compete for an expert's places").choices({"sequence", "batch"});
    f("cap", &ExpertChoiceOptions::cap, "the variant with a limit of experts a token");
    describe_fields(f);
  }
};

class ExpertChoice : public Router {
 public:
  explicit ExpertChoice(ExpertChoiceOptions options) : options_(std::move(options)), scorer_(options_.scorer.make()) {}

  void declare(const Schema& schema, const RouterSize& size) override { scorer_->declare(schema, size); }

  Engagement route(const RouterInput& input, const Context& context) const override {
    RoutingPrecision precision;
    refuse_generation(context, "expert-choice", "lets experts choose among all tokens of a group");
    Gate gate = scorer_->score(input, context);
    refuse_nan(gate.logits, context);
    const Overrides& wishes = context.wishes();
    const at::Tensor p = gate.probabilities;
    if (wishes.forced.defined()) {
      const at::Tensor ids = choose(gate.scores, 1, context);
      return selection_of(ids, p.gather(1, ids), std::move(gate), options_.run);
    }
    at::Tensor taken = choices(p.detach(), context);
    if (wishes.allowed.defined()) taken = taken & wishes.allowed.to(taken.device());
    return selection_of_mask(taken, p, std::move(gate), options_.run);
  }

  Reach reach(const Overrides&, Phase) const override {
    return {options_.group == Group::batch ? Reach::Unit::batch : Reach::Unit::sequence, true,
            "letting experts choose tokens (expert-choice)"};
  }

  double engaged(int64_t experts) const override { return std::min(options_.factor, static_cast<double>(experts)); }

 private:
  /// [T, E] bool: row taken by expert.
  at::Tensor choices(const at::Tensor& probabilities, const Context& context) const {
    at::Tensor taken = at::empty(probabilities.sizes(), probabilities.options().dtype(at::kBool)).zero_();
    const int64_t rows = probabilities.size(0);
    const Segments whole = Segments::single(rows);
    const Segments& groups = options_.group == Group::batch ? whole : context.facts.segments;
    for (int64_t g = 0; g < groups.count(); ++g) {
      const at::Tensor scores = probabilities.slice(0, groups.begin[g], groups.begin[g + 1]).t().contiguous();  // [E, t]
      const int64_t places = this->places(scores.size(1), scores.size(0), context.wishes());
      if (places == 0) continue;
      const at::Tensor own = taken.slice(0, groups.begin[g], groups.begin[g + 1]).t();
      if (options_.cap.most > 0) own.copy_(capped_choice(scores, places, options_.cap));
      else own.scatter_(1, kernels::top_k(scores, places).indices, true);
    }
    return taken;
  }

  int64_t places(int64_t rows, int64_t experts, const Overrides& wishes) const {
    double factor = options_.factor;
    if (wishes.k) factor = static_cast<double>(*wishes.k);
    if (wishes.capacity) factor = *wishes.capacity;
    const double share = factor * static_cast<double>(rows) / static_cast<double>(experts);
    return std::clamp<int64_t>(std::llround(share), std::min<int64_t>(rows, 1), rows);
  }

  ExpertChoiceOptions options_;
  std::shared_ptr<Scorer> scorer_;
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(expert_choice) {
  using namespace switchyard;
  registry.add<Router, ExpertChoice, ExpertChoiceOptions>(
      {.slug = "expert-choice", .name = "Expert choice", .paper = "Zhou et al., Mixture-of-experts with expert choice routing",
       .year = 2022, .section = "4.1.1", .room = "routing/expert_choice", .coupling = "sequence",
       .line = "experts take their best tokens: equal loads, a variable number of experts a token",
       .recipe = "recipes/methods/expert-choice.yaml"});
}
