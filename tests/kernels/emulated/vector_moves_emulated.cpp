#include "tests/kernels/emulated/ways.h"
#include "switchyard/kernels/cpu/tiles.h"
#include "tests/kernels/emulated/avx512.h"

#define vector_moves_avx512 emulated_vector_moves

#include "switchyard/kernels/cpu/vector_moves_avx512.cpp"
