#include "switchyard/kernels/cpu/row_groups.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

// What is not compiled for this level alone comes first.
#include <algorithm>
#include <cstring>
#include <string_view>
#include <type_traits>

#include "switchyard/kernels/cpu/blocks.h"
#include "switchyard/kernels/cpu/rows_apart.h"

#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 on its own intrinsics, whose masked-off lanes are undefined
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#pragma GCC push_options
#ifndef SWITCHYARD_EMULATED_LEVEL
#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math", "fp-contract=off")
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c,bmi,bmi2")
#endif

#include "switchyard/kernels/cpu/lanes_avx512.h"
#include "switchyard/kernels/cpu/row_groups_loops.h"

namespace switchyard::kernels::cpu {
namespace {

constexpr GroupPath kPaths[] = {path_of<Q4_K>("Q4_K"), path_of<Q5_K>("Q5_K"), path_of<Q6_K>("Q6_K"),
                                path_of<Q8_0>("Q8_0"), path_of<Q4_0>("Q4_0"), path_of<MXFP4>("MXFP4")};

}  // namespace

std::span<const GroupPath> avx512_group_paths() { return kPaths; }

}  // namespace switchyard::kernels::cpu

#pragma GCC pop_options

#else

namespace switchyard::kernels::cpu {
std::span<const GroupPath> avx512_group_paths() { return {}; }
}  // namespace switchyard::kernels::cpu

#endif
