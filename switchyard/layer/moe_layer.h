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
#include "switchyard/layer/routing_station.h"

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

struct MoeOptions : RoutingOptions {
  int64_t experts = 8;
  Choice<ExpertKind> expert = "swiglu";
  std::vector<ExtraExpertOptions> extra;
  std::vector<SharedExpertOptions> shared;
  static void describe(Fields<MoeOptions>& f);
  /// The fields, for structs that extend this one.
  template <typename T>
  static void describe_fields(Fields<T>& f) {
    f("experts", &T::experts, "number of experts E").range(1, 1 << 24);
    f("expert", &T::expert, "the kind of expert");
    f("extra", &T::extra, "experts of other kinds behind the same router; their ids follow");
    RoutingOptions::describe_fields(f);
    f("shared", &T::shared, "experts that every token passes");
  }
};

class MoeLayer : public Part, public HasRouting {
 public:
  MoeLayer(const MoeOptions& options, int64_t in, int64_t out);

  void declare(const Schema& schema) override;
  /// Adds its record to context.records.
  at::Tensor forward(const at::Tensor& x, const Context& context) const override;
  /// The same, with the record returned; `given` = a routing decided elsewhere. Throws layer.given when it does not fit
  /// these rows and experts.
  std::pair<at::Tensor, Record> run(const at::Tensor& x, const Context& context,
                                    std::shared_ptr<const Routed> given = nullptr) const;
  Reach reach(const Overrides& overrides, Phase phase) const override { return station_->reach(overrides, phase); }

  const MoeOptions& options() const { return options_; }
  const ExpertBank& bank() const { return bank_; }
  std::shared_ptr<RoutingStation> station() const override { return station_; }

 private:
  struct Shared {
    std::shared_ptr<ExpertKind> kind;
    SharedGate gate;
    std::vector<std::pair<std::string, Parameter>> tensors;
    Parameter mix, mix_bias;  ///< of a gated one: [1, in] or [2, in] with [2]; row 0 of a softmax weighs the mixture
  };
  void check_fits(const Routed& routed, int64_t rows) const;
  /// y [T, out] joined with the shared experts' outputs for x.
  at::Tensor join(const at::Tensor& x, at::Tensor y, const Selection* selection, const Context& context) const;

  MoeOptions options_;
  int64_t in_, out_;
  ExpertBank bank_;
  std::shared_ptr<RoutingStation> station_;
  std::vector<Shared> shared_;
};

}  // namespace switchyard
