#include "tests/kernels/emulated/ways.h"

#include "tests/kernels/emulated/avx512.h"

#define row_dots_avx512 emulated_row_dots

#include "switchyard/kernels/cpu/row_dots_avx512.cpp"
