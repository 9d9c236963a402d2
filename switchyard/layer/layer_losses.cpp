#include "switchyard/layer/layer_losses.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/add.h>

#include <map>

namespace switchyard {

std::vector<LossTerm> routing_losses(const std::vector<std::shared_ptr<RoutingStation>>& stations, const Records& records,
                                     const Outcome& outcome, const Context& context) {
  std::map<std::string, const RoutingStation*> by_site;
  for (const auto& station : stations) by_site[station->site()] = station.get();

  struct Pending {
    std::string name;
    const RoutingLoss* loss;
    std::vector<at::Tensor> summaries;
  };
  std::vector<Pending> pending;  // one finish() each
  for (const Record& record : records.all()) {
    const auto found = by_site.find(record.place.site);
    if (found == by_site.end()) continue;
    const RoutingStation& station = *found->second;
    for (size_t i = 0; i < station.losses().size(); ++i) {
      const RoutingLoss& loss = *station.losses()[i];
      at::Tensor summary = loss.summarise(record, context);
      if (!summary.defined()) continue;
      const std::string& name = station.options().losses[i].slug;
      Pending* group = nullptr;
      if (loss.scope() == LossScope::model)
        for (Pending& p : pending)
          if (p.name == name && p.loss->scope() == LossScope::model) group = &p;
      if (group == nullptr) group = &pending.emplace_back(Pending{name, &loss, {}});
      group->summaries.push_back(std::move(summary));
    }
  }

  std::vector<LossTerm> terms;
  const auto add = [&](const std::string& name, at::Tensor value, double coefficient) {
    if (!value.defined()) return;
    for (LossTerm& term : terms)
      if (term.name == name && term.coefficient == coefficient) {
        term.value = term.value + value;
        return;
      }
    terms.push_back({name, std::move(value), coefficient});
  };
  for (const Pending& p : pending) add(p.name, p.loss->finish(p.summaries, outcome), p.loss->coefficient());
  for (const Record& record : records.all())
    for (const auto& [name, value] : record.losses) add(name, value, 1);
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
