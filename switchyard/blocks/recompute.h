// Activation recomputation (Chen et al. 2016): a segment of the model keeps its input alone and runs again in
// backward. Draws are keyed, so the second run is the first one; what it leaves in records and shared routings
// comes out as outputs of the segment, so losses over them are exact and counted once.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "switchyard/contract/part.h"

namespace switchyard {

/// segment(x, context), with `parameters` all that it reads. Facts, overrides and overlays are copied; `segment` must
/// stay callable until backward. Without gradients, or with a state store, it is a plain call. Backward throws
/// blocks.recompute_twice when a second derivative is asked for.
at::Tensor recompute(const at::Tensor& x, const std::vector<Parameter>& parameters, const Context& context,
                     const Base& segment);

}  // namespace switchyard
