#include "tests/kernels/emulated/ways.h"

#include "tests/kernels/emulated/avx512.h"

#define avx512_group_paths emulated_group_paths

#include "switchyard/kernels/cpu/row_groups_avx512.cpp"
