// Limited places: C = max(minimum, ceil(factor · k · S / E)) pairs an expert for every S rows that
// share places (GShard). Rules differ only in who is served first.
#pragma once

#include <ATen/core/Tensor.h>

#include "switchyard/base/options.h"
#include "switchyard/routing/admission.h"

namespace switchyard {

/// Which rows share an expert's places.
enum class PlaceScope { batch, sequence };
/// Whether a token's second choice is served before a later token's first.
enum class ServeOrder {
  token,   ///< token by token: what a token gets depends on earlier tokens only
  choice,  ///< every first choice before any second (GShard): sees later tokens when k > 1
};

struct CapacityOptions {
  double factor = 1.25;
  double evaluation_factor = 2.0;
  int64_t minimum = 4;
  PlaceScope scope = PlaceScope::batch;
  ServeOrder order = ServeOrder::token;
  template <typename T>
  static void describe_fields(Fields<T>& f) {
    f("factor", &T::factor, "places relative to an even share, in training").range(0, 1e6);
    f("evaluation_factor", &T::evaluation_factor, "the same in evaluation").range(0, 1e6);
    f("minimum", &T::minimum, "fewest places of an expert").range(0, 1 << 30).unit("pairs");
    f("scope", &T::scope, "which tokens share an expert's places").choices({"batch", "sequence"});
    f("order", &T::order, "serve token by token, or every first choice before any second").choices({"token", "choice"});
  }
  static void describe(Fields<CapacityOptions>& f);
};

/// Bins and capacities under the options, without a priority. Undefined bins in generation: rows that
/// arrive one by one do not compete, everybody is admitted.
Claims capacity_claims(const Selection& selection, const Context& context, const CapacityOptions& options);
/// [P] double: earlier in `place` [units] int64 is served first, choice by choice when `order` says so.
at::Tensor serve_by(const at::Tensor& place, const Selection& selection, ServeOrder order);
/// What the scope alone lets a decision see.
Reach capacity_reach(const CapacityOptions& options, Phase phase, bool future, std::string because);

}  // namespace switchyard
