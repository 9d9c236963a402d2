#include "switchyard/kernels/cpu/row_dots.h"

#include "switchyard/kernels/dispatch.h"

namespace switchyard::kernels::cpu {
namespace {

const RowDots* at_this_level() {
  if (cpu_level() >= CpuLevel::avx512bf16) return row_dots_avx512();
  return cpu_level() >= CpuLevel::avx2 ? row_dots_avx2() : nullptr;
}

template <typename W, typename X>
bool run(RowDotsOf<W, X> RowDots::*way, const W* w, int64_t stride, int64_t rows, int64_t k, int64_t n, const X* x, int64_t x_stride, float* out,
         int64_t ld) {
  const RowDots* ways = at_this_level();
  if (!ways || k % (ways->*way).step != 0) return false;
  (ways->*way).dots(w, stride, rows, k, n, x, x_stride, out, ld);
  return true;
}

}  // namespace

template <>
bool has_row_dots<float>(int64_t k) {
  const RowDots* ways = at_this_level();
  return ways && k % ways->floats.step == 0;
}
template <>
bool has_row_dots<c10::BFloat16>(int64_t k) {
  const RowDots* ways = at_this_level();
  return ways && k % ways->halves.step == 0;
}

bool row_dots(const float* w, int64_t stride, int64_t rows, int64_t k, int64_t n, const float* x, int64_t x_stride, float* out, int64_t ld) {
  return run(&RowDots::floats, w, stride, rows, k, n, x, x_stride, out, ld);
}
bool row_dots(const c10::BFloat16* w, int64_t stride, int64_t rows, int64_t k, int64_t n, const float* x, int64_t x_stride, float* out, int64_t ld) {
  return run(&RowDots::halves_by_floats, w, stride, rows, k, n, x, x_stride, out, ld);
}
bool row_dots(const c10::BFloat16* w, int64_t stride, int64_t rows, int64_t k, int64_t n, const c10::BFloat16* x, int64_t x_stride, float* out, int64_t ld) {
  return run(&RowDots::halves, w, stride, rows, k, n, x, x_stride, out, ld);
}

}  // namespace switchyard::kernels::cpu
