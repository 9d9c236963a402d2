// The dense tile product that all grouped kernels are made of: oneDNN's micro-kernel where the processor has
// one, a loop elsewhere. Sums are float32 over ascending k. Internal to kernels/.
#pragma once

#include <c10/util/BFloat16.h>

#include <cstdint>

namespace switchyard::kernels::cpu {

/// C[m, n] = A[m, k] · B (+ C when `add`). A and C are row-major with row strides lda, ldc.
/// float: B is [k, n] row-major with stride ldb.
void product(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb, float* c,
             int64_t ldc, bool add);
/// bf16: k is even and B is [k/2, ldb, 2]: element (i, j) at b[(i/2 * ldb + j) * 2 + i % 2].
void product(int64_t m, int64_t n, int64_t k, const c10::BFloat16* a, int64_t lda, const c10::BFloat16* b, int64_t ldb,
             float* c, int64_t ldc, bool add);

/// Whether there is no micro-kernel for that type. B is then copied at each call, so that many rows of A should share it, and bf16 is multiplied
/// as float32.
bool product_copies(bool bf16);
/// Whether it is fma_product (fma_product.h) for that type, which takes its operands in other orders too.
bool product_is_fma(bool bf16);

/// "brgemm" or the level of the loop, for `switchyard info`.
const char* product_path(bool bf16);

}  // namespace switchyard::kernels::cpu
