// Attention of many rows of one sequence, a prompt or a piece of one, over the keys that the sequence holds with them: without gradients, and
// where dense products are ours (kernels/linear.h), which libtorch's form calls for 64 rows at a time, packing keys again for each. Keys that
// no row of a few sees are not touched, whatever hides them.
#pragma once

#include "switchyard/kernels/held_attention.h"

namespace switchyard::kernels {

struct PromptOptions {
  HeldOptions scores = {};
  bool causal = true;  ///< row i of n stands at key m - n + i and sees it and what lies before; else all keys
  int64_t window = 0;  ///< where causal: at most so many keys, its own the last; 0 = any number
  int64_t chunk = 0;   ///< where causal: only keys of its own chunk of this length, counted from the first key; 0 = any
};

/// Whether attend_prompt takes them: as takes_held, at a level whose products are ours.
bool takes_prompt(const at::Tensor& q, const HeldKeys& held);

/// attend_held for n rows of one sequence: q [n, H, d], of m >= n keys where causal. Returns [n, H, dv] of q's type. Scores and sums are float32; bits of a row
/// depend on n, m and its place, not on threads. Throws kernels.shape.
at::Tensor attend_prompt(const at::Tensor& q, const HeldKeys& held, const PromptOptions& options);

}  // namespace switchyard::kernels
