// Expert choice with a limit of experts a token (Zhou et al. 2022, section 3.3): the entropy-regularised
// linear program max <S, A> + λ H(A) with row sums C, column sums at most b and 0 <= A <= 1, solved by
// Dykstra's projections; then every expert takes the C largest entries of its row.
#pragma once

#include <ATen/core/Tensor.h>

#include "switchyard/base/options.h"

namespace switchyard {

struct CapOptions {
  int64_t most = 0;         ///< b: experts a token may get; 0 = no limit
  double entropy = 0.001;   ///< λ
  int64_t iterations = 100;
  static void describe(Fields<CapOptions>& f);
};

/// A: [E, t] double, the solution after `iterations` rounds. scores: [E, t]; places: C.
at::Tensor capped_plan(const at::Tensor& scores, int64_t places, const CapOptions& options);

/// [E, t] bool: the tokens of each expert, none with more than `most` experts. Where the plan is fractional, larger
/// entries go first (ties: the lower expert, then the lower token), so that the limit holds exactly.
/// Throws routing.cap when E · places exceeds most · t.
at::Tensor capped_choice(const at::Tensor& scores, int64_t places, const CapOptions& options);

}  // namespace switchyard
