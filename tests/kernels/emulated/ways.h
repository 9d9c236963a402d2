// The library's ways for AVX-512, compiled for any x86 processor (avx512.h), for tests on processors that lack it.
#pragma once

#include <span>

#include "switchyard/kernels/cpu/blocks.h"
#include "switchyard/kernels/cpu/row_dots.h"
#include "switchyard/kernels/cpu/row_groups.h"
#include "switchyard/kernels/cpu/vector_moves.h"

namespace switchyard::kernels::cpu {

std::span<const GroupPath> emulated_group_paths();
std::span<const NamedBlockPath> emulated_block_paths();
const RowDots* emulated_row_dots();
const VectorMoves* emulated_vector_moves();

/// Of that format, null where there is none.
const GroupPath* emulated_group_path(std::string_view format);

}  // namespace switchyard::kernels::cpu
