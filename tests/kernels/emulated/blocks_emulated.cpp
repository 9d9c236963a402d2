#include "tests/kernels/emulated/ways.h"

#include "tests/kernels/emulated/avx512.h"

#define avx512_block_paths emulated_block_paths
#define group_path emulated_group_path
#include "switchyard/kernels/cpu/blocks_avx512.cpp"
