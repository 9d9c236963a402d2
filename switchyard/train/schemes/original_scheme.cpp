// The end-to-end scheme: everything is trained together from the first step to the last, and what is trained is served
// as it is (survey 4.4; Shazeer et al. 2017, Lepikhin et al. 2020, Fedus et al. 2021).
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>

#include "switchyard/base/differentiable.h"
#include "switchyard/base/error.h"
#include "switchyard/base/registry.h"
#include "switchyard/train/trainer.h"

namespace switchyard {
namespace {

/// Routing losses of a whole step. They are no sums over tokens, so micro-batches cannot simply add them: a forward
/// without gradients gathers the step's summaries first, and each micro-batch is then given the derivative of the
/// step's loss in its own summaries. That is the gradient of one large batch.
struct StepLosses {
  std::vector<LossTerm> terms;
  std::vector<std::vector<at::Tensor>> derivatives;  ///< of the weighted total, by group and summary
};

StepLosses gather(const Trainer& trainer, const std::vector<Batch>& micros) {
  const at::NoGradGuard guard;
  std::vector<LossGroup> groups;
  std::vector<at::Tensor> per_row;
  for (size_t i = 0; i < micros.size(); ++i) {
    const Context context = trainer.context(micros[i], static_cast<int64_t>(i));
    const PrecisionScope precision(trainer.options().precision);
    Runner runner(trainer.model(), micros[i], context);
    per_row.push_back(trainer.forward(runner, static_cast<int64_t>(i)).per_row);
    const std::vector<LossGroup> here = summarise_losses(trainer.stations(), runner.records(), context);
    if (i == 0) {
      groups = here;
      continue;
    }
    TORCH_INTERNAL_ASSERT(here.size() == groups.size());
    for (size_t g = 0; g < groups.size(); ++g)
      for (size_t s = 0; s < groups[g].summaries.size(); ++s) {
        check(groups[g].summaries[s].sizes() == here[g].summaries.at(s).sizes(), "train.accumulate_loss",
              "the loss {} has no summary that micro-batches can add; set train.accumulate: 1", groups[g].name);
        groups[g].summaries[s] = groups[g].summaries[s] + here[g].summaries[s];
      }
  }
  const at::AutoGradMode with_gradient(true);
  std::vector<at::Tensor> leaves;
  for (LossGroup& group : groups)
    for (at::Tensor& summary : group.summaries) leaves.push_back(summary = summary.detach().requires_grad_());
  StepLosses losses{finish_losses(groups, {at::cat(per_row)}), {}};
  const at::Tensor sum = total(losses.terms);
  if (!sum.defined()) return losses;
  std::vector<at::Tensor> found(leaves.size());
  if (sum.requires_grad())
    found = gradients({sum}, leaves);
  size_t next = 0;
  for (const LossGroup& group : groups) {
    std::vector<at::Tensor>& of_group = losses.derivatives.emplace_back();
    for (size_t s = 0; s < group.summaries.size(); ++s) of_group.push_back(found[next++]);
  }
  return losses;
}

/// Σ derivative · summary: its gradient is the step's, its value is of no interest.
at::Tensor linearised(const StepLosses& losses, const std::vector<LossGroup>& groups) {
  at::Tensor sum;
  for (size_t g = 0; g < groups.size(); ++g)
    for (size_t s = 0; s < groups[g].summaries.size(); ++s) {
      const at::Tensor& derivative = losses.derivatives.at(g).at(s);
      if (!derivative.defined() || !groups[g].summaries[s].requires_grad()) continue;
      const at::Tensor part = (derivative * groups[g].summaries[s]).sum();
      sum = sum.defined() ? sum + part : part;
    }
  return sum;
}

void add_term(StepResult& result, const std::string& name, double value) {
  for (auto& [known, sum] : result.terms)
    if (known == name) {
      sum += value;
      return;
    }
  result.terms.emplace_back(name, value);
}

class OriginalScheme : public Scheme {
 public:
  StepResult step(Trainer& trainer) override {
    const std::vector<Batch> micros = trainer.next_micro_batches();
    StepResult result;
    int64_t rows = 0;
    for (const Batch& batch : micros) {
      result.tokens += batch.predicted;
      rows += batch.ids.size(0);
    }
    check(result.tokens > 0, "train.targets", "step {} has no token to predict", trainer.step() + 1);

    bool routing = false;
    for (const auto& station : trainer.stations()) routing = routing || !station->losses().empty();
    StepLosses whole;
    if (micros.size() > 1 && routing) whole = gather(trainer, micros);

    trainer.optimiser().zero_gradients();
    for (size_t i = 0; i < micros.size(); ++i) {
      const Batch& batch = micros[i];
      const auto micro = static_cast<int64_t>(i);
      const Context context = trainer.context(batch, micro);
      Runner runner(trainer.model(), batch, context);
      at::Tensor loss;
      {
        const PrecisionScope precision(trainer.options().precision);
        const LossSum objective = trainer.forward(runner, micro);
        const double value = objective.sum.item<double>();
        trainer.check_finite(trainer.objective().name(), value, batch, micro);
        result.loss += value / static_cast<double>(result.tokens);
        loss = objective.sum / static_cast<double>(result.tokens);

        std::vector<LossTerm> terms;
        if (micros.size() == 1) {
          terms = finish_losses(summarise_losses(trainer.stations(), runner.records(), context), {objective.per_row});
        } else if (routing) {
          const at::Tensor part = linearised(whole, summarise_losses(trainer.stations(), runner.records(), context));
          if (part.defined()) loss = loss + part;
          if (i == 0)
            for (const LossTerm& term : whole.terms) {
              trainer.check_finite(term.name, term.value.item<double>(), batch, micro);
              add_term(result, term.name, term.value.item<double>());
            }
        }
        // What places add is a mean over their rows: each micro-batch counts by its share.
        const double share = static_cast<double>(batch.ids.size(0)) / static_cast<double>(rows);
        for (LossTerm& term : place_losses(runner.records()))
          terms.push_back({term.name, micros.size() == 1 ? term.value : term.value * share, term.coefficient});
        for (const LossTerm& term : terms) {
          const double number = term.value.item<double>();
          trainer.check_finite(term.name, number, batch, micro);
          add_term(result, term.name, number);
        }
        if (const at::Tensor extra = total(terms); extra.defined()) loss = loss + extra;
      }
      loss.backward();
      add_loads(result.loads, runner.records());
    }
    result.gradient_norm = trainer.optimiser().gradient_norm();
    trainer.check_gradient(result.gradient_norm);
    trainer.update(result.gradient_norm, result.loads);
    return result;
  }
};

}  // namespace
}  // namespace switchyard

SWITCHYARD_REGISTER(original_scheme) {
  using namespace switchyard;
  registry.add<Scheme, OriginalScheme, NoOptions>(
      {.slug = "original-scheme", .name = "Original training and inference scheme", .paper = "Shazeer et al., Sparsely-gated MoE",
       .year = 2017, .section = "4.4", .room = "train/schemes", .coupling = "none",
       .line = "everything is trained together from scratch and served as it was trained", .recipe = "recipes/quickstart.yaml"});
}
