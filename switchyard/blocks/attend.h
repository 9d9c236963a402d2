// The attention core over packed rows: every kind of attention (grouped-query, attention experts) ends here.
// Rows see rows of their own segment only, and what the state store holds of its sequence.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
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
  int64_t chunk = 0;            ///< a row sees rows of its own chunk of this length only; 0 = all (Llama 4)
  double cap = 0;               ///< scores s become cap · tanh(s / cap); 0 = never (Gemma 2, Grok-1)
  at::Tensor sinks = {};        ///< [H]: a logit that takes part in a head's softmax and brings no value (gpt-oss)
  /// Values are the first so many coordinates of the keys, and `v` is not read or cached (latent attention); 0 = not.
  int64_t value_in_key = 0;
  /// Turns all keys of a sequence [m, Hk, d], first to last: for positions that move as it grows. Keys are then given and cached
  /// as they are before turning.
  std::function<at::Tensor(const at::Tensor& keys)> turn = {};
  /// Added to scores: from a query's and a key's place in the sequence, lengths n and m, to [H, n, m].
  std::function<at::Tensor(int64_t first_query, int64_t queries, int64_t keys)> bias = {};
};

/// q: [T, H, d]; k: [T, Hk, d]; v: [T, Hk, dv], H a multiple of Hk: query head h reads key head h / (H/Hk).
/// Returns [T, H, dv]. Causal or not by context.facts.segments. With context.state, keys and values are appended to
/// their sequences and each row also sees what those held. No product is larger than one sequence's.
at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Context& context,
                  const AttendOptions& options);

/// What attend keeps under `name`; value_dim 0 = keys alone.
std::vector<StateSpec> attend_states(const std::string& name, int64_t kv_heads, int64_t key_dim, int64_t value_dim);

/// Queries over rows of another stack: q [T, H, d] of context's segments; k, v [U, Hk, ·] of the segments `others`, one for
/// each; every row sees all of its partner's. Returns [T, H, dv].
at::Tensor attend_across(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Segments& segments,
                         const Segments& others, const AttendOptions& options);

}  // namespace switchyard
