#include "switchyard/kernels/cpu/stack.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "switchyard/kernels/cpu/blocks.h"
#include "switchyard/kernels/cpu/parallel.h"
#include "switchyard/kernels/cpu/product.h"
#include "switchyard/kernels/cpu/tiles.h"
#include "switchyard/kernels/cpu/vector_moves.h"

#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math")

namespace switchyard::kernels::cpu {

template <typename T>
void narrow(const float* src, int64_t count, T* dst) {
  if constexpr (std::is_same_v<T, c10::BFloat16>)
    if (narrow_fast(src, count, dst)) return;
  at_level([=] {
    for (int64_t i = 0; i < count; ++i) dst[i] = from_float<T>(src[i]);
  });
}

template <typename T>
void widen(const T* src, int64_t count, float* dst) {
  if constexpr (std::is_same_v<T, float>) std::memcpy(dst, src, sizeof(float) * static_cast<size_t>(count));
  else
    at_level([=] {
      for (int64_t i = 0; i < count; ++i) dst[i] = to_float(src[i]);
    });
}
template void widen<float>(const float*, int64_t, float*);
template void widen<c10::BFloat16>(const c10::BFloat16*, int64_t, float*);

namespace {

/// Columns up to which a row that is copied is read no more often than it would miss where it lies.
constexpr int64_t kCopied = 24;

void decode_row(const BlockTensor& blocks, const uint8_t* row, int64_t k, float* to) {
  const int64_t count = k / blocks.codec().length;
  if (const BlockPath* path = block_path(blocks.codec())) path->decode(row, count, to);
  else blocks.codec().dequantise(row, to, count);
}

void decode_row(const BlockTensor& blocks, const uint8_t* row, int64_t k, c10::BFloat16* to) {
  const int64_t length = blocks.codec().length, count = k / length;
  if (const BlockPath* path = block_path(blocks.codec())) return path->decode_bf16(row, count, to);
  constexpr int64_t kFloats = 4096;  // some blocks at a time, so that the floats stay in the first-level cache
  float floats[kFloats];
  const int64_t step = std::max<int64_t>(1, kFloats / length);
  for (int64_t b = 0; b < count; b += step) {
    const int64_t here = std::min(step, count - b);
    blocks.codec().dequantise(row + b * blocks.codec().bytes, floats, here);
    narrow(floats, here * length, to + b * length);
  }
}

}  // namespace

template <typename T>
typename Stack<T>::Panel Stack<T>::rows(int64_t e, int64_t first, int64_t count, int64_t columns, T* space) const {
  const int64_t at = e * m + first, ld = panel_stride(k);
  if (same && (columns > kCopied || !clashing(k) || product_copies(sizeof(T) < sizeof(float)))) return {same + at * k, k};
  if (other) {
    const int64_t step = std::min(other->together(), count);
    std::vector<float> floats(static_cast<size_t>(step * k));
    for (int64_t r = 0; r < count; r += step) {
      const int64_t here = std::min(step, count - r);
      other->unpack(at + r, here, floats.data());
      for (int64_t i = 0; i < here; ++i) narrow(floats.data() + i * k, k, space + (r + i) * ld);
    }
    return {space, ld};
  }
  std::vector<uint8_t> turned;
  for (int64_t r = 0; r < count; ++r) {
    if (same) std::memcpy(static_cast<void*>(space + r * ld), same + (at + r) * k, sizeof(T) * k);
    else if (wide) narrow(wide + (at + r) * k, k, space + r * ld);
    else decode_row(*blocks, blocks->lying(at + r, 1, turned), k, space + r * ld);
  }
  return {space, ld};
}

template <typename T>
typename Stack<T>::Panel Stack<T>::panel(int64_t e, int64_t r0, int64_t depth, int64_t c0, int64_t width, T* space) const {
  const int64_t at = (e * m + r0) * k + c0;
  if (wide) pack_rows(wide + at, k, nullptr, depth, depth, width, space);
  else if constexpr (kPair<T> == 1) return {same + at, k};
  else pack_rows(same + at, k, nullptr, depth, depth, width, space);
  return {space, width};
}

#define SWITCHYARD_STACK(T) \
  template struct Stack<T>; \
  template void narrow<T>(const float*, int64_t, T*);
SWITCHYARD_STACK(float)
SWITCHYARD_STACK(c10::BFloat16)

}  // namespace switchyard::kernels::cpu
