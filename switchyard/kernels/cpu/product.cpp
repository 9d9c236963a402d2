#include "switchyard/kernels/cpu/product.h"

#include <ATen/native/CPUBlas.h>

#include <algorithm>

#include "switchyard/kernels/cpu/fma_product.h"
#include "switchyard/kernels/cpu/parallel.h"
#include "switchyard/kernels/cpu/tiles.h"

#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math")

namespace switchyard::kernels::cpu {
namespace {

/// Long sums are cut here, so that a tile of B stays in the second-level cache.
constexpr int64_t kDepth = 1024;

bool micro_kernel(bool bf16) { return cpu_level() >= (bf16 ? CpuLevel::avx512bf16 : CpuLevel::avx512); }

/// B is row-major, or has kPair<T> of its rows interleaved.
template <typename T>
void loop_product(int64_t m, int64_t n, int64_t k, const T* a, int64_t lda, const T* b, int64_t ldb, float* c,
                  int64_t ldc, bool add) {
  at_level([=] {
    for (int64_t i = 0; i < m; ++i) {
      float* __restrict row = c + i * ldc;
      if (!add)
        for (int64_t j = 0; j < n; ++j) row[j] = 0;
      for (int64_t p = 0; p < k; ++p) {
        const float left = to_float(a[i * lda + p]);
        const T* __restrict right = b + (p / kPair<T>) * ldb * kPair<T> + p % kPair<T>;
        for (int64_t j = 0; j < n; ++j) row[j] += left * to_float(right[j * kPair<T>]);
      }
    }
  });
}

}  // namespace

void product(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb, float* c,
             int64_t ldc, bool add) {
  if (!micro_kernel(false)) {
    if (!fma_product(m, n, k, a, lda, b, ldb, c, ldc, add)) loop_product(m, n, k, a, lda, b, ldb, c, ldc, add);
    return;
  }
  for (int64_t p = 0; p < k; p += kDepth)
    at::native::cpublas::brgemm(m, n, std::min(kDepth, k - p), lda, ldb, ldc, add || p > 0, a + p, b + p * ldb, c, false);
}

void product(int64_t m, int64_t n, int64_t k, const c10::BFloat16* a, int64_t lda, const c10::BFloat16* b, int64_t ldb,
             float* c, int64_t ldc, bool add) {
  if (!micro_kernel(true)) {
    if (!fma_product(m, n, k, a, lda, b, ldb, c, ldc, add)) loop_product(m, n, k, a, lda, b, ldb, c, ldc, add);
    return;
  }
  for (int64_t p = 0; p < k; p += kDepth)
    at::native::cpublas::brgemm(m, n, std::min(kDepth, k - p), lda, ldb, ldc, add || p > 0, a + p, b + p * ldb, c, true);
}

bool product_copies(bool bf16) { return !micro_kernel(bf16); }
bool product_is_fma(bool bf16) { return product_copies(bf16) && has_fma_product(); }

const char* product_path(bool bf16) { return micro_kernel(bf16) ? "brgemm" : name(cpu_level()); }

}  // namespace switchyard::kernels::cpu
