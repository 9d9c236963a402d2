// The MoE layer: route, admit, weigh, run, join. One layer for every router, expert and site
// (survey 2 and 4; the token path in docs/design.md).
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "switchyard/base/registry.h"
#include "switchyard/contract/part.h"
#include "switchyard/contract/record.h"
#include "switchyard/experts/bank.h"
#include "switchyard/experts/kind.h"
#include "switchyard/routing/admission.h"
#include "switchyard/routing/combine.h"
#include "switchyard/routing/controller.h"
#include "switchyard/routing/loss.h"
#include "switchyard/routing/router.h"

namespace switchyard {

/// A weighting of an always-on expert.
enum class SharedGate {
  none,     ///< weight 1 (DeepSeekMoE)
  sigmoid,  ///< a learned sigmoid(x·w) a row (Qwen-MoE)
  softmax,  ///< a learned softmax of two a row weighs mixture against shared (Residual-MoE)
};

struct SharedExpertOptions {
  Choice<ExpertKind> expert = "swiglu";
  int64_t count = 1;
  SharedGate gate = SharedGate::none;
  static void describe(Fields<SharedExpertOptions>& f);
};

/// Further experts of another kind behind the same router (zero, copy, wider ones).
struct ExtraExpertOptions {
  Choice<ExpertKind> expert;
  int64_t count = 1;
  static void describe(Fields<ExtraExpertOptions>& f);
};

struct MoeOptions {
  int64_t experts = 8;
  Choice<ExpertKind> expert = "swiglu";
  std::vector<ExtraExpertOptions> extra;
  Choice<Router> router = "sparse-topk";
  Choice<Admission> admission = "dropless";
  std::optional<CombineOptions> combine;      ///< unset = the router's own
  std::vector<SharedExpertOptions> shared;
  std::vector<Choice<RoutingLoss>> losses;
  std::vector<Choice<Controller>> controllers;
  std::string share_routing;                  ///< layers with the same name use one decision a pass
  bool allow_leak = false;                    ///< let rows of a causal model depend on later rows in training
  static void describe(Fields<MoeOptions>& f);
  /// The fields, for structs that extend this one.
  template <typename T>
  static void describe_fields(Fields<T>& f) {
    f("experts", &T::experts, "number of experts E").range(1, 1 << 24);
    f("expert", &T::expert, "the kind of expert");
    f("extra", &T::extra, "experts of other kinds behind the same router; their ids follow");
    f("router", &T::router, "who decides which experts a token engages");
    f("admission", &T::admission, "who gets a place when places are limited; none = everybody");
    f("combine", &T::combine, "how weights multiply and what a dropped token returns; unset = as the router's paper");
    f("shared", &T::shared, "experts that every token passes");
    f("losses", &T::losses, "routing losses added to the objective");
    f("controllers", &T::controllers, "what adjusts the router outside the gradient");
    f("share_routing", &T::share_routing, "layers with the same name here follow one decision");
    f("allow_leak", &T::allow_leak, "let tokens of a causal model see later ones through the routing in training");
  }
};

class MoeLayer : public Part {
 public:
  MoeLayer(const MoeOptions& options, int64_t in, int64_t out);

  void declare(const Schema& schema) override;
  /// Adds its record to context.records.
  at::Tensor forward(const at::Tensor& x, const Context& context) const override;
  /// The same, with the record returned; `given` = a routing decided elsewhere.
  std::pair<at::Tensor, Record> run(const at::Tensor& x, const Context& context,
                                    std::shared_ptr<const Routed> given = nullptr) const;
  /// Route, admit, weigh and plan, without running an expert. Throws routing.leak when a causal model's
  /// rows would see later ones in training and `allow_leak` is off.
  Routed route(const at::Tensor& x, const Context& context) const;
  Reach reach(const Overrides& overrides, Phase phase) const override;

  const MoeOptions& options() const { return options_; }
  const ExpertBank& bank() const { return bank_; }
  const Router& router() const { return *router_; }
  const CombineOptions& combine() const { return combine_; }
  const std::vector<std::shared_ptr<RoutingLoss>>& losses() const { return losses_; }
  /// To be told about every optimiser step; bound to the router's buffers by declare.
  const std::vector<std::shared_ptr<Controller>>& controllers() const { return controllers_; }
  std::string site() const { return site_; }

 private:
  struct Shared {
    std::shared_ptr<ExpertKind> kind;
    SharedGate gate;
    std::vector<std::pair<std::string, Parameter>> tensors;
    Parameter gate_weight;
  };
  at::Tensor join(const at::Tensor& x, const at::Tensor& routed, const Selection* selection, const Context& context) const;

  MoeOptions options_;
  int64_t in_, out_;
  ExpertBank bank_;
  std::shared_ptr<Router> router_;
  std::shared_ptr<Admission> admission_;
  CombineOptions combine_;
  std::vector<Shared> shared_;
  std::vector<std::shared_ptr<RoutingLoss>> losses_;
  std::vector<std::shared_ptr<Controller>> controllers_;
  std::string site_;
};

}  // namespace switchyard
