// Attention of one row over the keys and values that its sequence holds: a step of writing, for any number of sequences at once. Keys are
// read where they lie, once for the query heads that share them, and no operation of libtorch's stands between the two products.
#pragma once

#include <ATen/core/Tensor.h>

#include <span>

namespace switchyard::kernels {

/// Of one sequence: keys [m, Hk, d] and values [m, Hk, dv], m > 0. Rows of a head are contiguous; the other strides are free, so that both
/// may be parts of one cache.
struct HeldKeys { at::Tensor keys, values; };

struct HeldOptions {
  double scale = 1;       ///< multiplies the scores
  double cap = 0;         ///< scores s become cap tanh(s / cap); 0 = never
  at::Tensor sinks = {};  ///< [H]: a logit a head takes part in each softmax and brings no value; undefined = none
};

/// Whether attend_held takes them: in the host's memory, all float32 or all bfloat16, and no gradient is wanted.
bool takes_held(const at::Tensor& q, const HeldKeys& held);

/// y[t, h] = Σ_j softmax_j(scale <q[t, h], keys_t[j, h Hk / H]>) values_t[j, h Hk / H]. q: [T, H, d], one sequence a row; H is a multiple of
/// Hk. Returns [T, H, dv] of q's type. Scores and sums are float32, their order depends on m alone.
/// Throws kernels.shape.
at::Tensor attend_held(const at::Tensor& q, std::span<const HeldKeys> held, const HeldOptions& options);

}  // namespace switchyard::kernels
