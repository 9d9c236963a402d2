// A mixture of experts around a site: in its place, added to it, or multiplied with it (survey 4.3).
#pragma once

#include <memory>

#include "switchyard/models/model_options.h"

namespace switchyard {

class Mixture : public Around {
 public:
  explicit Mixture(const MixtureOptions& options) : options_(options) {}
  /// The layer declares router.*, experts.*, shared.* at `schema`.
  void declare(const Schema& schema, const Where& where) override;
  at::Tensor call(const at::Tensor& x, const Base& base, const Context& context) const override;
  Reach reach(const Overrides& overrides, Phase phase) const override { return layer_->reach(overrides, phase); }
  bool replaces() const override { return options_.join == Join::replace; }
  void each_child(const std::function<void(Part&)>& visit) override { visit(*layer_); }

 private:
  MixtureOptions options_;
  std::shared_ptr<MoeLayer> layer_;
};

}  // namespace switchyard
