// The loops of the optimiser over one block of elements, compiled for each instruction level. They include nothing of libtorch, since
// their source has options of its own (CMakeLists.txt).
#pragma once

#include <cstdint>

namespace switchyard::kernels::cpu {

/// Elements of one block, the grain of work: they are grouped the same way whatever the thread count.
constexpr int64_t kOptimiserBlock = 4096;

/// bf16 as its bits, so that the compiler sees integers and vectorises.
struct Bf16Bits { uint16_t bits; };

/// AdamW's numbers of one step in the type of the moments: beta, 1 - beta, 1 - lr * decay, lr / correction, 1 / sqrt(correction).
template <typename T>
struct AdamWFactors { T beta1, rest1, beta2, rest2, keep, rate, root_scale, eps, grad_scale; };

/// One step of `n` <= kOptimiserBlock elements in place; `g` may be null (a gradient of zeros). P and G: float, double, Bf16Bits; T: double
/// where P is, else float. At the level in force (dispatch.h); bits depend on the level alone.
template <typename P, typename G, typename T>
void adamw_block(P* p, const G* g, T* m, T* v, int64_t n, const AdamWFactors<T>& factors);

/// Sum of the squares of `n` elements in 8 interleaved sums of doubles, folded in a fixed order: equal bits at every level.
template <typename P>
double squares_block(const P* x, int64_t n);

}  // namespace switchyard::kernels::cpu
