#include "switchyard/train/step_load.h"

#include <ATen/TensorOperators.h>

namespace switchyard {
namespace {

LayerLoad& at_place(std::vector<LayerLoad>& loads, const std::string& site, int64_t layer) {
  for (LayerLoad& known : loads)
    if (known.site == site) return known;
  return loads.emplace_back(LayerLoad{site, layer, {}});
}

void add(StepLoad& load, const at::Tensor& engaged, const at::Tensor& admitted, int64_t rows) {
  load.engaged = load.engaged.defined() ? load.engaged + engaged : engaged;
  load.admitted = load.admitted.defined() ? load.admitted + admitted : admitted;
  load.rows += rows;
}

}  // namespace

void add_loads(std::vector<LayerLoad>& loads, const Records& records) {
  for (const Record& record : records.all()) {
    const Selection* selection = record.selection();
    if (selection == nullptr || selection->experts == 0) continue;
    add(at_place(loads, record.place.site, record.place.layer).load, pair_counts(*selection, false),
        pair_counts(*selection, true), record.segments.rows());
  }
}

void add_loads(std::vector<LayerLoad>& loads, const std::vector<LayerLoad>& more) {
  for (const LayerLoad& one : more)
    add(at_place(loads, one.site, one.layer).load, one.load.engaged, one.load.admitted, one.load.rows);
}

double imbalance(const std::vector<LayerLoad>& loads) {
  double sum = 0;
  int64_t places = 0;
  for (const LayerLoad& one : loads) {
    const double total = one.load.engaged.sum().item<double>();
    if (total == 0) continue;
    sum += one.load.engaged.max().item<double>() * static_cast<double>(one.load.engaged.size(0)) / total;
    ++places;
  }
  return places ? sum / static_cast<double>(places) : 0;
}

double dropped(const std::vector<LayerLoad>& loads) {
  double engaged = 0, admitted = 0;
  for (const LayerLoad& one : loads) {
    engaged += one.load.engaged.sum().item<double>();
    admitted += one.load.admitted.sum().item<double>();
  }
  return engaged > 0 ? (engaged - admitted) / engaged : 0;
}

}  // namespace switchyard
