// The tile product in AVX2 and FMA, for processors without oneDNN's micro-kernel for that type (product.h). Internal to kernels/.
#pragma once

#include <c10/util/BFloat16.h>

#include <cstdint>

namespace switchyard::kernels::cpu {

/// As `product`, and false, nothing done, below the avx2 level. bf16 is multiplied as float32.
bool fma_product(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc, bool add);
bool fma_product(int64_t m, int64_t n, int64_t k, const c10::BFloat16* a, int64_t lda, const c10::BFloat16* b, int64_t ldb, float* c,
                 int64_t ldc, bool add);

/// Whether this processor has them at the level in use.
bool has_fma_product();

/// C[m, n] = A[m, k] B[n, k]^T, all row-major, where has_fma_product(); sums are those of fma_product, to the bit. Nothing of A or C moves: for many rows of A,
/// or few of B, which are turned into the strips that they would be copied to anyway.
void fma_product_of_rows(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc);
void fma_product_of_rows(int64_t m, int64_t n, int64_t k, const c10::BFloat16* a, int64_t lda, const c10::BFloat16* b, int64_t ldb, float* c, int64_t ldc);

}  // namespace switchyard::kernels::cpu
