// One choice of adapters, as passes see it.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "switchyard/contract/adaptation.h"
#include "switchyard/models/adapters/delta.h"

namespace switchyard {

class AdapterPass : public Adaptation {
 public:
  /// A delta in use.
  struct Use {
    PlacedDelta placed;
    std::optional<Factors> factors;
    double scaling = 1;             ///< the adapter's own, times the weight it is used with
    mutable at::Tensor proportion;  ///< DoRA: magnitude over norm, once it was asked for
  };
  /// All that is done to one parameter.
  struct Site {
    std::vector<Use> uses;      ///< in the order of the active adapters
    at::Tensor replaced;        ///< stands for the bound tensor
    mutable at::Tensor value;   ///< the whole value, once it was asked for
    mutable StackedFactors stacked;
  };

  /// By keys (key_of).
  std::map<std::string, Site> sites;
  /// When set, every use is weighed row by row by the fact kScalings, and all by this.
  std::optional<double> by_rows;

  const at::Tensor* value(const Parameter& parameter) const override;
  at::Tensor linear(const at::Tensor& x, const Parameter& weight, const Parameter& bias, const Context& context) const override;
  at::Tensor embedding(const at::Tensor& ids, const Parameter& table, const Context& context) const override;
  StackedFactors factors(const Parameter& stack, at::Tensor& base) const override;

  /// A tied embedding is two things: the table, and the output head ("embedding.weight#head").
  static std::string key_of(const Parameter& parameter, bool head) { return head ? parameter.name() + "#head" : parameter.name(); }

 private:
  const Site* find(const std::string& key) const;
  const at::Tensor& whole(const Site& site, const Parameter& parameter) const;
  /// [rows, 1], or undefined when nothing is weighed by rows.
  at::Tensor row_weight(const Use& use, const Context& context) const;
  const at::Tensor& proportion(const Use& use, const at::Tensor& weight) const;
  mutable std::mutex mutex_;
};

}  // namespace switchyard
