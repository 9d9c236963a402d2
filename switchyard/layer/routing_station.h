// The deciding half of a mixture: route, admit, weigh, plan, with the losses and controllers that go
// with the decision. The MoE layer has one; so has everything else that routes (attention experts).
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "switchyard/base/registry.h"
#include "switchyard/contract/part.h"
#include "switchyard/contract/record.h"
#include "switchyard/routing/admission.h"
#include "switchyard/routing/combine.h"
#include "switchyard/routing/controller.h"
#include "switchyard/routing/loss.h"
#include "switchyard/routing/router.h"

namespace switchyard {

struct RoutingOptions {
  Choice<Router> router = "sparse-topk";
  Choice<Admission> admission = "dropless";
  std::optional<CombineOptions> combine;      ///< unset = the router's own
  std::vector<Choice<RoutingLoss>> losses;
  std::vector<Choice<Controller>> controllers;
  std::string share_routing;                  ///< publishes the decision under this name; with router none: follows it
  bool allow_leak = false;                    ///< let rows of a causal model depend on later rows in training

  template <typename T>
  static void describe_fields(Fields<T>& f) {
    f("router", &T::router, "who decides which experts a token engages; none = follow the decision named by share_routing");
    f("admission", &T::admission, "who gets a place when places are limited; none = everybody");
    f("combine", &T::combine, "how weights multiply and what a dropped token returns; unset = as the router's paper");
    f("losses", &T::losses, "routing losses added to the objective");
    f("controllers", &T::controllers, "what adjusts the router outside the gradient");
    f("share_routing", &T::share_routing, "the name of this decision, which places with router: none and the same name follow");
    f("allow_leak", &T::allow_leak, "let tokens of a causal model see later ones through the routing in training");
  }
};

class RoutingStation {
 public:
  RoutingStation(const RoutingOptions& options, int64_t width, int64_t experts);

  /// Declares the router under schema.in("router") and binds the controllers to its buffers.
  void declare(const Schema& schema);
  /// The decision for x [T, D], or the last one of the shared name in this pass. Throws routing.leak when a causal
  /// model's rows would see later ones in training and `allow_leak` is off, routing.run for limited places
  /// where no pairs are computed, routing.share when there is no decision to follow.
  std::shared_ptr<const Routed> decide(const at::Tensor& x, const Context& context,
                                       const std::function<at::Tensor()>& dense_outputs = {}) const;
  Record record(std::shared_ptr<const Routed> routed, const Context& context) const;
  Reach reach(const Overrides& overrides, Phase phase) const;

  const std::string& site() const { return site_; }
  int64_t experts() const { return experts_; }
  const RoutingOptions& options() const { return options_; }
  /// False where the decision of another place is followed; then there is no router.
  bool decides() const { return router_ != nullptr; }
  const Router& router() const { return *router_; }
  const CombineOptions& combine() const { return combine_; }
  const std::vector<std::shared_ptr<RoutingLoss>>& losses() const { return losses_; }
  /// To be told about every optimiser step.
  const std::vector<std::shared_ptr<Controller>>& controllers() const { return controllers_; }

 private:
  Routed route(const at::Tensor& x, const Context& context, const std::function<at::Tensor()>& dense_outputs) const;

  RoutingOptions options_;
  int64_t width_, experts_;
  std::string site_;
  std::shared_ptr<Router> router_;
  std::shared_ptr<Admission> admission_;
  CombineOptions combine_;
  std::vector<std::shared_ptr<RoutingLoss>> losses_;
  std::vector<std::shared_ptr<Controller>> controllers_;
};

/// A part with a routing decision, for walks over a model.
class HasRouting {
 public:
  virtual ~HasRouting() = default;
  virtual std::shared_ptr<RoutingStation> station() const = 0;
};

}  // namespace switchyard
