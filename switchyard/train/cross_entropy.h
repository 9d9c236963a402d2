// Next-token cross-entropy over a large vocabulary without a large tensor: rows go through the head in chunks, and each
// chunk's gradient is taken at once, so that only [chunk, V] logits live at any time.
#pragma once

#include <ATen/core/Tensor.h>

#include "switchyard/contract/context.h"
#include "switchyard/models/decoder.h"

namespace switchyard {

struct CrossEntropy {
  at::Tensor sum;      ///< scalar float32 (float64 for a float64 model), differentiable once in hidden and in the parameters
  at::Tensor per_row;  ///< [rows], detached: -log p(target), 0 where the target is -1
};

/// hidden: [rows, D] after the final norm; targets: [rows] int64, -1 = none. Throws train.targets for an id outside the
/// vocabulary. Differentiating twice throws train.second_order.
CrossEntropy cross_entropy(const Decoder& model, const at::Tensor& hidden, const at::Tensor& targets, const Context& context,
                           int64_t chunk = 1024);

}  // namespace switchyard
