// Mixture of Depths: only the C best-scored rows of each sequence pass the block, the others keep
// their value (Raposo et al. 2024; survey 4.5). Sits around the site "block".
#pragma once

#include "switchyard/base/options.h"
#include "switchyard/contract/part.h"

namespace switchyard {

struct DepthRoutingOptions {
  double capacity = 0.125;       ///< C / S, rounded; above 0 at least one row a sequence
  double auxiliary = 0.01;       ///< weight of the loss that makes sigmoid(score) predict the choice
  static void describe(Fields<DepthRoutingOptions>& f);
};

/// x_i + r_i · (Block(X)_i − x_i) for the chosen rows X, x_i for the rest. Training and evaluation choose the C best of
/// the sequence, which looks ahead; generation takes the rows with r > 0, which the auxiliary loss teaches the score to mean.
class DepthRouting : public Around {
 public:
  explicit DepthRouting(const DepthRoutingOptions& options) : options_(options) {}
  void declare(const Schema& schema, const Where& where) override;
  at::Tensor call(const at::Tensor& x, const Base& base, const Context& context) const override;
  Reach reach(const Overrides& overrides, Phase phase) const override;

 private:
  /// [T] float32, whatever autocast says.
  at::Tensor score(const at::Tensor& x, const Context& context) const;
  /// [n] int64 ascending rows that pass, from scores [T].
  at::Tensor choose(const at::Tensor& scores, const Context& context) const;
  DepthRoutingOptions options_;
  Where where_;
  Parameter weight_;
};

}  // namespace switchyard
