#include "switchyard/kernels/cpu/stack.h"

#include <algorithm>

#include "switchyard/kernels/cpu/blocks.h"
#include "switchyard/kernels/cpu/parallel.h"
#include "switchyard/kernels/cpu/tiles.h"

#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math")

namespace switchyard::kernels::cpu {

template <typename T>
void narrow(const float* src, int64_t count, T* dst) {
  at_level([=] {
    for (int64_t i = 0; i < count; ++i) dst[i] = from_float<T>(src[i]);
  });
}

template <typename T>
const T* Stack<T>::rows(int64_t e, int64_t first, int64_t count, T* space) const {
  const int64_t at = (e * m + first) * k;
  if (same) return same + at;
  if (wide) {
    narrow(wide + at, count * k, space);
    return space;
  }
  const int64_t blocks_a_row = k / blocks->codec().length;
  if (const BlockPath* path = block_path(blocks->codec())) {
    if constexpr (std::is_same_v<T, float>) path->decode(blocks->row(e * m + first), count * blocks_a_row, space);
    else path->decode_bf16(blocks->row(e * m + first), count * blocks_a_row, space);
    return space;
  }
  if constexpr (std::is_same_v<T, float>) {
    blocks->codec().dequantise(blocks->row(e * m + first), space, count * blocks_a_row);
  } else {
    constexpr int64_t kFloats = 4096;  // a few rows at a time, so that the floats stay in the first-level cache
    float floats[kFloats];
    const int64_t length = blocks->codec().length, step = std::max<int64_t>(1, kFloats / length), total = count * blocks_a_row;
    const uint8_t* from = blocks->row(e * m + first);
    for (int64_t b = 0; b < total; b += step) {
      const int64_t here = std::min(step, total - b);
      blocks->codec().dequantise(from + b * blocks->codec().bytes, floats, here);
      narrow(floats, here * length, space + b * length);
    }
  }
  return space;
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
