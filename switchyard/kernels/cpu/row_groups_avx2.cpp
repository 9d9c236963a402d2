#include "switchyard/kernels/cpu/row_groups.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

// What is not compiled for this level alone comes first.
#include <algorithm>
#include <bit>
#include <cstring>
#include <string_view>
#include <type_traits>

#include "switchyard/kernels/cpu/blocks.h"
#include "switchyard/kernels/cpu/rows_apart.h"

#include <immintrin.h>

#pragma GCC push_options
// Sums stay in the order in which they are written: in another, products wait for them in memory.
#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math", "fp-contract=off", "no-tree-reassoc", "no-tree-ter")
#pragma GCC target("avx2,fma,f16c")

#include "switchyard/kernels/cpu/lanes_avx2.h"
#include "switchyard/kernels/cpu/row_groups_loops.h"

namespace switchyard::kernels::cpu {
namespace {

// Not of Q8_0, two of whose products do not fit in 16 bits (byte_dots.h).
constexpr GroupPath kPaths[] = {path_of<Q4_K>("Q4_K"), path_of<Q5_K>("Q5_K"), path_of<Q6_K>("Q6_K"), path_of<Q4_0>("Q4_0"), path_of<MXFP4>("MXFP4")};

}  // namespace

std::span<const GroupPath> avx2_group_paths() { return kPaths; }

}  // namespace switchyard::kernels::cpu

#pragma GCC pop_options

#else

namespace switchyard::kernels::cpu {
std::span<const GroupPath> avx2_group_paths() { return {}; }
}  // namespace switchyard::kernels::cpu

#endif
