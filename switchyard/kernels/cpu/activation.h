// Activations and their slopes over tiles, in float32, in loops that vectorise. Internal to kernels/.
#pragma once

#include <c10/util/BFloat16.h>

#include <cstdint>

#include "switchyard/kernels/grouped_ffn.h"

namespace switchyard::kernels::cpu {

/// h = act(gate, up), elementwise over `count` floats; gate is null for the ungated kinds.
void activate_values(const ActivationOptions& options, const float* gate, const float* up, float* h, int64_t count);

/// Given dh, the derivatives to gate and up, and h again: dgate, dup, h. gate and dgate are null for the ungated kinds.
void activate_slopes(const ActivationOptions& options, const float* gate, const float* up, const float* dh, float* dgate,
                     float* dup, float* h, int64_t count);

}  // namespace switchyard::kernels::cpu
