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
  std::string share_routing;                  ///< places with the same name use one decision a pass
  bool allow_leak = false;                    ///< let rows of a causal model depend on later rows in training

  template <typename T>
  static void describe_fields(Fields<T>& f) {
    f("router", &T::router, "who decides which experts a token engages");
    f("admission", &T::admission, "who gets a place when places are limited; none = everybody");
    f("combine", &T::combine, "how weights multiply and what a dropped token returns; unset = as the router's paper");
    f("losses", &T::losses, "routing losses added to the objective");
    f("controllers", &T::controllers, "what adjusts the router outside the gradient");
    f("share_routing", &T::share_routing, "places with the same name here follow one decision");
    f("allow_leak", &T::allow_leak, "let tokens of a causal model see later ones through the routing in training");
  }
};

class RoutingStation {
 public:
  RoutingStation(const RoutingOptions& options, int64_t width, int64_t experts);

  /// Declares the router under schema.in("router") and binds the controllers to its buffers.
  void declare(const Schema& schema);
  /// The decision for x [T, D]; one shared by name is made once a pass. Throws routing.leak when a causal model's
  /// rows would see later ones in training and `allow_leak` is off.
  std::shared_ptr<const Routed> decide(const at::Tensor& x, const Context& context,
                                       const std::function<at::Tensor()>& dense_outputs = {}) const;
  Record record(std::shared_ptr<const Routed> routed, const Context& context) const;
  Reach reach(const Overrides& overrides, Phase phase) const;

  const std::string& site() const { return site_; }
  int64_t experts() const { return experts_; }
  const RoutingOptions& options() const { return options_; }
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
