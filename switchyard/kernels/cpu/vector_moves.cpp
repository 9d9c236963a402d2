#include "switchyard/kernels/cpu/vector_moves.h"

#include "switchyard/kernels/dispatch.h"

namespace switchyard::kernels::cpu {
namespace {

/// Calls a move of the level in force with `arguments`; false where there is none.
template <typename... Parameters, typename... Arguments>
bool run(void (*VectorMoves::*move)(Parameters...), Arguments... arguments) {
  const VectorMoves* moves = cpu_level() >= CpuLevel::avx512bf16 ? vector_moves_avx512() : cpu_level() >= CpuLevel::avx2 ? vector_moves_avx2() : nullptr;
  if (moves) (moves->*move)(arguments...);
  return moves != nullptr;
}

}  // namespace

bool narrow_fast(const float* src, int64_t count, c10::BFloat16* dst) {
  return run(&VectorMoves::narrow, src, count, dst);
}
bool narrow_fast(const float* src, int64_t count, float scale, c10::BFloat16* dst) {
  return run(&VectorMoves::narrow_scaled, src, count, scale, dst);
}
bool interleave_fast(const float* a, const float* b, int64_t count, uint32_t* out) {
  return run(&VectorMoves::interleave, a, b, count, out);
}
bool interleave_fast(const c10::BFloat16* a, const c10::BFloat16* b, int64_t count, uint32_t* out) {
  return run(&VectorMoves::interleave_halves, a, b, count, out);
}
bool transpose_fast(const uint32_t* src, int64_t src_ld, const int64_t* index, int64_t n, int64_t width, uint32_t* dst, int64_t ld) {
  return run(&VectorMoves::transpose, src, src_ld, index, n, width, dst, ld);
}
bool transpose_fast(const c10::BFloat16* src, int64_t src_ld, int64_t n, int64_t width, c10::BFloat16* dst, int64_t ld) {
  return run(&VectorMoves::transpose_halves, src, src_ld, n, width, dst, ld);
}
bool transpose_fast(const float* src, int64_t src_ld, int64_t n, int64_t width, c10::BFloat16* dst, int64_t ld) {
  return run(&VectorMoves::transpose_narrowed, src, src_ld, n, width, dst, ld);
}

}  // namespace switchyard::kernels::cpu
