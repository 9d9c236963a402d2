// Writing past the caches what is larger than they are and is not read soon: a stack's gradient. Internal to kernels/.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include "switchyard/kernels/cpu/stack.h"

namespace switchyard::kernels::cpu {

inline void write_through(const float* src, int64_t count, float* dst) {
#if defined(__x86_64__)
  int64_t i = 0;
  for (; i < count && reinterpret_cast<uintptr_t>(dst + i) % 16 != 0; ++i) dst[i] = src[i];
  for (; i + 4 <= count; i += 4) _mm_stream_ps(dst + i, _mm_loadu_ps(src + i));
  for (; i < count; ++i) dst[i] = src[i];
#else
  std::memcpy(dst, src, sizeof(float) * count);
#endif
}

/// Rounded to bf16.
inline void write_through(const float* src, int64_t count, c10::BFloat16* dst) {
  constexpr int64_t kOnce = 256;
  alignas(16) c10::BFloat16 halves[kOnce];
  const int64_t before = reinterpret_cast<uintptr_t>(dst) % 4 == 0 ? 0 : std::min<int64_t>(1, count);  // then pairs are floats
  if (before > 0) narrow(src, 1, dst);
  for (int64_t i = before; i < count; i += kOnce) {
    const int64_t here = std::min(kOnce, count - i);
    narrow(src + i, here, halves);
    write_through(reinterpret_cast<const float*>(halves), here / 2, reinterpret_cast<float*>(dst + i));
    if (here % 2 != 0) dst[i + here - 1] = halves[here - 1];
  }
}

}  // namespace switchyard::kernels::cpu
