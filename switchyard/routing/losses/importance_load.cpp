// Importance and load (Shazeer et al. 2017, appendix A; survey 4.1.1): squared coefficients of variation of
// the gate mass an expert gets and of a smooth estimate of how many tokens choose it. Equal mass alone may
// hide that one expert serves few tokens with large weights; the second term sees it.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/special_ndtr.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include "switchyard/base/registry.h"
#include "switchyard/kernels/topk.h"
#include "switchyard/routing/loss.h"

namespace switchyard {
namespace {

/// What counts as gate mass.
enum class Mass { weights, probabilities };

struct ImportanceLoadOptions {
  double coefficient = 0.1;
  double importance = 1;
  double load = 1;
  Mass mass = Mass::weights;
  static void describe(Fields<ImportanceLoadOptions>& f) {
    f.title("Importance and load", "Squared coefficients of variation of gate mass and of a smooth count of tokens.");
    f("coefficient", &ImportanceLoadOptions::coefficient, "multiplies the loss").range(0);
    f("importance", &ImportanceLoadOptions::importance, "weight of the importance term").range(0);
    f("load", &ImportanceLoadOptions::load, "weight of the load term, which needs a router with noise").range(0);
    f("mass", &ImportanceLoadOptions::mass, "gate mass is the weights of chosen experts, or the probabilities of all (V-MoE)")
        .choices({"weights", "probabilities"});
  }
};

/// Φ((clean − κ)/σ), [units, E]: how likely expert i is among the k best if its own noise alone were drawn again;
/// κ is the k-th best noisy score without i.
at::Tensor choice_probability(const Gate& gate, int64_t k) {
  // Masked experts have logits -inf: far off, but finite, so that no gradient is 0 · inf.
  const at::Tensor noisy = gate.scores.clamp(-1e9, 1e9);
  const at::Tensor best = kernels::top_k(noisy, k + 1).values;
  const at::Tensor kth = best.narrow(1, k - 1, 1), next = best.narrow(1, k, 1);
  // Whoever is above the next best needs to stay above it; the others need to pass the k-th.
  const at::Tensor threshold = at::where(noisy > next, next, kth);
  return at::special_ndtr((gate.logits.clamp(-1e9, 1e9) - threshold) / gate.noise_std);
}

/// Var/Mean² over experts, population variance.
at::Tensor variation(const at::Tensor& x) { return x.var(0, /*unbiased=*/false) / (x.mean().square() + 1e-10); }

class ImportanceLoad : public RoutingLoss {
 public:
  explicit ImportanceLoad(ImportanceLoadOptions options) : options_(options) {}
  double coefficient() const override { return options_.coefficient; }

  /// [2E]: importance and load of every expert.
  at::Tensor summarise(const Record& record, const Context& context) const override {
    const Selection* selection = record.selection();
    if (selection == nullptr || !selection->has_pairs() || selection->gates.size() != 1) return {};
    const Gate& gate = selection->gates[0];
    if (!gate.logits.defined() || gate.logits.size(1) != selection->experts) return {};
    const at::Tensor none = at::zeros({selection->experts}, gate.logits.options().requires_grad(false));
    at::Tensor importance = none, load = none;
    if (options_.importance > 0)
      importance = options_.mass == Mass::probabilities ? gate.probabilities.sum(0)
                   : none.index_add(0, selection->expert, selection->weight.to(none.scalar_type()));
    const int64_t k = selection->per_unit;
    if (options_.load > 0 && k < selection->experts) {  // k = E: everybody is chosen
      check(gate.noise_std.defined() || !context.training(), "losses.load_noise", "{}: the load loss estimates how the "
            "router's noise decides, but the router draws none; use noisy-topk, or load: 0", record.place.site);
      check(k > 0, "losses.load_k", "{}: the load loss needs the same number of experts for every token", record.place.site);
      if (gate.noise_std.defined() && gate.logits.size(0) > 0) load = choice_probability(gate, k).sum(0);
    }
    return at::cat({importance, load});
  }

  at::Tensor finish(const std::vector<at::Tensor>& summaries, const Outcome&) const override {
    at::Tensor pooled = summaries.at(0);
    for (size_t i = 1; i < summaries.size(); ++i) pooled = pooled + summaries[i];
    const int64_t experts = pooled.size(0) / 2;
    return options_.importance * variation(pooled.narrow(0, 0, experts)) +
           options_.load * variation(pooled.narrow(0, experts, experts));
  }

 private:
  ImportanceLoadOptions options_;
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(importance_load) {
  using namespace switchyard;
  registry.add<RoutingLoss, ImportanceLoad, ImportanceLoadOptions>(
      {.slug = "importance-load", .name = "Importance and load losses",
       .paper = "Shazeer et al., Outrageously large neural networks", .year = 2017, .section = "4.1.1",
       .room = "routing/losses", .coupling = "none", .line = "evens out gate mass and a smooth count of tokens",
       .recipe = "recipes/methods/importance-load.yaml"});
}
