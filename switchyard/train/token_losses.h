// The cross-entropy of rows of logits with one token each.
#pragma once

#include <ATen/core/Tensor.h>

namespace switchyard {

/// [n]: -ln softmax(logits)[target], 0 where the target is -1. logits: [n, V] of any float type; targets: [n] int64, below V. float32, float64
/// for float64 logits. On the CPU no float32 copy of bf16 logits is made, nor their softmax kept: each row is read twice, and once for its
/// gradient, which has the logits' type.
at::Tensor token_losses(const at::Tensor& logits, const at::Tensor& targets);

}  // namespace switchyard
