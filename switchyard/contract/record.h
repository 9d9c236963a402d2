// What a layer leaves behind for losses, controllers and reports. Losses run after the forward,
// over records; so accumulation and recomputation cannot count them twice.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "switchyard/contract/context.h"
#include "switchyard/contract/selection.h"

namespace switchyard {

/// One routing decision of one pass.
struct Record {
  Place place;
  int64_t micro = 0;
  Routed routed;
  Segments segments;                         ///< of the rows that were routed
  std::map<std::string, at::Tensor> extras;  ///< named, differentiable: inputs of a method's own loss
  std::map<std::string, at::Tensor> losses;  ///< named scalars that the place itself adds to the objective, weighted

  const Selection* selection() const { return routed.selection(); }
  const std::vector<Gate>& gates() const;
  /// Calls `visit` on every defined tensor that may carry a gradient, in a fixed order.
  void each_differentiable(const std::function<void(at::Tensor&)>& visit);
};

/// The records of a pass, in the order of the layers.
class Records {
 public:
  void add(Record record) { list_.push_back(std::move(record)); }
  const std::vector<Record>& all() const { return list_; }
  std::vector<Record>& all() { return list_; }
  void clear() { list_.clear(); }

 private:
  std::vector<Record> list_;
};

}  // namespace switchyard
