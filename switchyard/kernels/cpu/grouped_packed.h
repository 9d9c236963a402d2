// One linear map an expert, its weights packed: each is unpacked once a call, whatever the number of rows that meet it.
// Internal to kernels/.
#pragma once

#include "switchyard/kernels/packed_tensor.h"

namespace switchyard::kernels::cpu {

/// y[a] = W[e] x[a] (+ bias[e]): stack [E, M, K], x [A, K], y [A, M], bias float32 [E, M] or null. Even K for bf16. many_ints: experts with
/// many bf16 rows may take them as int8 too, which is faster than unpacking; not where gradients are wanted.
template <typename T>
void map_packed(const PackedRows& stack, int64_t experts, int64_t m, int64_t k, const T* x, const int64_t* offset, const float* bias,
                T* y, bool many_ints);

}  // namespace switchyard::kernels::cpu
