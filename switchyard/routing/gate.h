// How rows become logits: the arithmetic that every router shares. Routing runs in float32 whatever
// the rows are (float64 stays), with autocast off: half precision moves near ties to other experts.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include "switchyard/contract/context.h"

namespace switchyard {

/// Autocast is off while this lives.
class RoutingPrecision {
 public:
  RoutingPrecision();

 private:
  c10::impl::ExcludeDispatchKeyGuard guard_;
};

/// x as float32, or as it is when float64.
at::Tensor routing_rows(const at::Tensor& x);

/// x: [T, D]; weight: [E, D]; bias: [E] or undefined. Returns [T, E] float32 (float64 when either is).
at::Tensor router_logits(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {});

/// x times 1 + amount · u, u uniform in [-1, 1), while training: what only the gate sees (Fedus et al. 2021).
at::Tensor jittered(const at::Tensor& x, double amount, const Context& context);

/// For routers that choose nothing, where top-k would have noticed; throws routing.nan naming the first row.
void refuse_nan(const at::Tensor& scores, const Context& context);

/// scores [units, E] with -inf at the experts that the overrides do not allow.
/// Throws routing.allowed when the mask has another size.
at::Tensor mask_experts(const at::Tensor& scores, const Context& context);

/// For methods whose decision needs the whole sequence; throws routing.generation in that phase.
void refuse_generation(const Context& context, std::string_view method, std::string_view why);

}  // namespace switchyard
