// Loops compiled for every instruction level, and run in the copy for the level in force. Without libtorch; internal to kernels/.
#pragma once

#include "switchyard/kernels/dispatch.h"

namespace switchyard::kernels::cpu {

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
// A loop is inlined into the copy for its level only if both are compiled with the same options, and the level names
// instruction sets, no processor (`arch=` would keep GCC from inlining): sources that give loops
// here say `#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math")`. In the exact copies every operation is rounded by
// itself, so that results are those of every other level; their sources say "fp-contract=off" too.
#define SWITCHYARD_AVX512 "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi,bmi2,prefer-vector-width=512"
#define SWITCHYARD_AVX2 "avx2,fma,bmi,bmi2"
#pragma GCC push_options
#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math")
template <typename Loop> __attribute__((target(SWITCHYARD_AVX512), flatten)) void loop_avx512(const Loop& loop) { loop(); }
template <typename Loop> __attribute__((target(SWITCHYARD_AVX2), flatten)) void loop_avx2(const Loop& loop) { loop(); }
#pragma GCC optimize("fp-contract=off")
template <typename Loop> __attribute__((target(SWITCHYARD_AVX512), flatten)) void exact_loop_avx512(const Loop& loop) { loop(); }
template <typename Loop> __attribute__((target(SWITCHYARD_AVX2), flatten)) void exact_loop_avx2(const Loop& loop) { loop(); }
#pragma GCC pop_options
#undef SWITCHYARD_AVX512
#undef SWITCHYARD_AVX2
#else
template <typename Loop> void loop_avx512(const Loop& loop) { loop(); }
template <typename Loop> void loop_avx2(const Loop& loop) { loop(); }
template <typename Loop> void exact_loop_avx512(const Loop& loop) { loop(); }
template <typename Loop> void exact_loop_avx2(const Loop& loop) { loop(); }
#endif

/// Runs a loop that the compiler can vectorise, in the copy compiled for the level in force.
template <typename Loop>
void at_level(const Loop& loop) {
  switch (cpu_level()) {
    case CpuLevel::avx512bf16:
    case CpuLevel::avx512: loop_avx512(loop); return;
    case CpuLevel::avx2: loop_avx2(loop); return;
    case CpuLevel::portable: loop(); return;
  }
}

/// The same, with every operation rounded by itself.
template <typename Loop>
void at_level_exactly(const Loop& loop) {
  switch (cpu_level()) {
    case CpuLevel::avx512bf16:
    case CpuLevel::avx512: exact_loop_avx512(loop); return;
    case CpuLevel::avx2: exact_loop_avx2(loop); return;
    case CpuLevel::portable: loop(); return;
  }
}

}  // namespace switchyard::kernels::cpu
