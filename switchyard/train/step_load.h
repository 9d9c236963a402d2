// How much each expert had to do: counted from the records of a step, for controllers, routing.jsonl and the
// console's imbalance.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "switchyard/contract/record.h"
#include "switchyard/routing/controller.h"

namespace switchyard {

/// The load of one place that routes.
struct LayerLoad {
  std::string site;
  int64_t layer = 0;
  StepLoad load;
};

/// Adds what `records` routed; places keep the order in which they first came.
void add_loads(std::vector<LayerLoad>& loads, const Records& records);
/// Adds other sums, for totals over several steps.
void add_loads(std::vector<LayerLoad>& loads, const std::vector<LayerLoad>& more);

/// Largest over mean load, averaged over places (1 = even); 0 when nothing routed.
double imbalance(const std::vector<LayerLoad>& loads);
/// Share of pairs that admission refused.
double dropped(const std::vector<LayerLoad>& loads);

}  // namespace switchyard
