// The attention core over packed rows: every kind of attention (grouped-query, attention experts) ends here.
// Rows see rows of their own segment only, and what the state store holds of its sequence.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "switchyard/contract/context.h"
#include "switchyard/contract/state.h"

namespace switchyard {

struct AttendOptions {
  std::string name;             ///< keys and values are cached as name.key and name.value
  std::optional<double> scale;  ///< of the scores; unset = 1/sqrt(d)
  int64_t window = 0;           ///< a row sees itself and the window - 1 rows before it; 0 = all before it
};

/// q: [T, H, d]; k: [T, Hk, d]; v: [T, Hk, dv], H a multiple of Hk: query head h reads key head h / (H/Hk).
/// Returns [T, H, dv]. Causal or not by context.facts.segments. With context.state, keys and values are appended to
/// their sequences and each row also sees what those held. No product is larger than one sequence's.
at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Context& context,
                  const AttendOptions& options);

/// What attend keeps under `name`.
std::vector<StateSpec> attend_states(const std::string& name, int64_t kv_heads, int64_t key_dim, int64_t value_dim);

}  // namespace switchyard
