#include "switchyard/layer/layer_losses.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/add.h>

#include <map>

namespace switchyard {
namespace {

void add_term(std::vector<LossTerm>& terms, const std::string& name, at::Tensor value, double coefficient) {
  if (!value.defined()) return;
  for (LossTerm& term : terms)
    if (term.name == name && term.coefficient == coefficient) {
      term.value = term.value + value;
      return;
    }
  terms.push_back({name, std::move(value), coefficient});
}

}  // namespace

std::vector<LossGroup> summarise_losses(const std::vector<std::shared_ptr<RoutingStation>>& stations, const Records& records,
                                        const Context& context) {
  std::map<std::string, const RoutingStation*> by_site;
  for (const auto& station : stations) by_site[station->site()] = station.get();

  std::vector<LossGroup> groups;
  for (const Record& record : records.all()) {
    const auto found = by_site.find(record.place.site);
    if (found == by_site.end()) continue;
    const RoutingStation& station = *found->second;
    for (size_t i = 0; i < station.losses().size(); ++i) {
      const RoutingLoss& loss = *station.losses()[i];
      at::Tensor summary = loss.summarise(record, context);
      if (!summary.defined()) continue;
      const Choice<RoutingLoss>& choice = station.options().losses[i];
      LossGroup* group = nullptr;
      std::string settings = to_json(choice.options, 0);
      if (loss.scope() == LossScope::model)
        for (LossGroup& g : groups)
          if (g.name == choice.slug && g.settings == settings && g.summaries[0].sizes() == summary.sizes()) group = &g;
      if (group == nullptr) group = &groups.emplace_back(LossGroup{choice.slug, std::move(settings), &loss, {}});
      group->summaries.push_back(std::move(summary));
    }
  }
  return groups;
}

std::vector<LossTerm> finish_losses(const std::vector<LossGroup>& groups, const Outcome& outcome) {
  std::vector<LossTerm> terms;
  for (const LossGroup& g : groups) add_term(terms, g.name, g.loss->finish(g.summaries, outcome), g.loss->coefficient());
  return terms;
}

std::vector<LossTerm> place_losses(const Records& records) {
  std::vector<LossTerm> terms;
  for (const Record& record : records.all())
    for (const auto& [name, value] : record.losses) add_term(terms, name, value, 1);
  return terms;
}

std::vector<LossTerm> routing_losses(const std::vector<std::shared_ptr<RoutingStation>>& stations, const Records& records,
                                     const Outcome& outcome, const Context& context) {
  std::vector<LossTerm> terms = finish_losses(summarise_losses(stations, records, context), outcome);
  for (LossTerm& term : place_losses(records)) add_term(terms, term.name, std::move(term.value), term.coefficient);
  return terms;
}

at::Tensor total(const std::vector<LossTerm>& terms) {
  at::Tensor sum;
  for (const LossTerm& term : terms) {
    const at::Tensor part = term.value * term.coefficient;
    sum = sum.defined() ? sum + part : part;
  }
  return sum;
}

}  // namespace switchyard
