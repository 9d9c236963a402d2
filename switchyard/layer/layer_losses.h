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

/// Every loss of every station over `records`, and what places add by themselves (Record::losses): losses of layer scope are added over layers, losses of
/// model scope see all their layers at once. Terms with the same slug and scope are one term.
std::vector<LossTerm> routing_losses(const std::vector<std::shared_ptr<RoutingStation>>& stations, const Records& records,
                                     const Outcome& outcome, const Context& context);

/// Σ coefficient · value; undefined when there is no term.
at::Tensor total(const std::vector<LossTerm>& terms);

}  // namespace switchyard
