// What tiles.h moves, with the instructions of a level: conversions to bf16 (at the highest by the processor itself, which takes numbers
// below 1.2e-38 for zeros), and transpositions in registers. Each gives false, having done nothing, where the level has none. Internal to kernels/.
#pragma once

#include <c10/util/BFloat16.h>

#include <cstdint>

namespace switchyard::kernels::cpu {

/// dst[i] = bf16(src[i]).
bool narrow_fast(const float* src, int64_t count, c10::BFloat16* dst);
/// dst[i] = bf16(src[i] * scale).
bool narrow_fast(const float* src, int64_t count, float scale, c10::BFloat16* dst);
/// Pairs: out[i] = bf16(a[i]) in its low half, bf16(b[i]) in the high one.
bool interleave_fast(const float* a, const float* b, int64_t count, uint32_t* out);
bool interleave_fast(const c10::BFloat16* a, const c10::BFloat16* b, int64_t count, uint32_t* out);
/// dst[i * ld + j] = src[row(j) * src_ld + i], i < width, j < n; row(j) = index[j], or j where index is null.
bool transpose_fast(const uint32_t* src, int64_t src_ld, const int64_t* index, int64_t n, int64_t width, uint32_t* dst, int64_t ld);
/// The same without an index, of 16-bit values.
bool transpose_fast(const c10::BFloat16* src, int64_t src_ld, int64_t n, int64_t width, c10::BFloat16* dst, int64_t ld);
/// The same of floats that become bf16.
bool transpose_fast(const float* src, int64_t src_ld, int64_t n, int64_t width, c10::BFloat16* dst, int64_t ld);
/// The same of floats.
inline bool transpose_fast(const float* src, int64_t src_ld, int64_t n, int64_t width, float* dst, int64_t ld) {
  return transpose_fast(reinterpret_cast<const uint32_t*>(src), src_ld, nullptr, n, width, reinterpret_cast<uint32_t*>(dst), ld);
}

// The moves of one instruction set, null where it was not compiled.
struct VectorMoves {
  void (*narrow)(const float* src, int64_t count, c10::BFloat16* dst);
  void (*narrow_scaled)(const float* src, int64_t count, float scale, c10::BFloat16* dst);
  void (*interleave)(const float* a, const float* b, int64_t count, uint32_t* out);
  void (*interleave_halves)(const c10::BFloat16* a, const c10::BFloat16* b, int64_t count, uint32_t* out);
  void (*transpose)(const uint32_t* src, int64_t src_ld, const int64_t* index, int64_t n, int64_t width, uint32_t* dst, int64_t ld);
  void (*transpose_halves)(const c10::BFloat16* src, int64_t src_ld, int64_t n, int64_t width, c10::BFloat16* dst, int64_t ld);
  void (*transpose_narrowed)(const float* src, int64_t src_ld, int64_t n, int64_t width, c10::BFloat16* dst, int64_t ld);
};
const VectorMoves* vector_moves_avx512();
const VectorMoves* vector_moves_avx2();

}  // namespace switchyard::kernels::cpu
