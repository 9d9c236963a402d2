// Writing past the caches what is larger than they are and is not read soon: a stack's gradient. Internal to kernels/.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

#include "switchyard/kernels/cpu/stack.h"

namespace switchyard::kernels::cpu {

inline void write_bytes_through(const void* src, size_t count, void* dst) {
#if defined(__x86_64__)
  const auto* from = static_cast<const std::byte*>(src);
  auto* to = static_cast<std::byte*>(dst);
  const size_t before = std::min(count, (16 - reinterpret_cast<uintptr_t>(to) % 16) % 16);
  std::memcpy(to, from, before);
  size_t i = before;
  for (; i + 16 <= count; i += 16)
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + i), _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i)));
  std::memcpy(to + i, from + i, count - i);
#else
  std::memcpy(dst, src, count);
#endif
}

inline void write_through(const float* src, int64_t count, float* dst) { write_bytes_through(src, sizeof(float) * static_cast<size_t>(count), dst); }

/// Rounded to bf16.
inline void write_through(const float* src, int64_t count, c10::BFloat16* dst) {
  constexpr int64_t kOnce = 256;
  c10::BFloat16 halves[kOnce];
  for (int64_t i = 0; i < count; i += kOnce) {
    const int64_t here = std::min(kOnce, count - i);
    narrow(src + i, here, halves);
    write_bytes_through(halves, sizeof(c10::BFloat16) * static_cast<size_t>(here), dst + i);
  }
}

}  // namespace switchyard::kernels::cpu
