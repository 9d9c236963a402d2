// The routing losses of a pass, from its records, after the forward.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "switchyard/layer/routing_station.h"

namespace switchyard {

/// One named term: `value` unweighted, differentiable.
struct LossTerm {
  std::string name;  ///< the loss's slug
  at::Tensor value;
  double coefficient = 0;
};

/// What one finish() is given: the summaries of one loss over its scope, one a record.
struct LossGroup {
  std::string name;  ///< the loss's slug
  std::string settings;  ///< its options; only layers with equal ones are pooled
  const RoutingLoss* loss = nullptr;
  std::vector<at::Tensor> summaries;
};

/// Every loss of every station over `records`, and what places add by themselves (Record::losses): losses of layer
/// scope are added over layers, losses of model scope see all layers with the same settings and number of experts at
/// once. Terms with the same slug and coefficient are one term.
std::vector<LossTerm> routing_losses(const std::vector<std::shared_ptr<RoutingStation>>& stations, const Records& records,
                                     const Outcome& outcome, const Context& context);

/// The halves of routing_losses, for a step that sums summaries over micro-batches (or ranks) in between. Groups come in
/// the order of the records, so that those of two micro-batches correspond.
std::vector<LossGroup> summarise_losses(const std::vector<std::shared_ptr<RoutingStation>>& stations, const Records& records,
                                        const Context& context);
std::vector<LossTerm> finish_losses(const std::vector<LossGroup>& groups, const Outcome& outcome);
/// What places add by themselves.
std::vector<LossTerm> place_losses(const Records& records);

/// Σ coefficient · value; undefined when there is no term.
at::Tensor total(const std::vector<LossTerm>& terms);

}  // namespace switchyard
