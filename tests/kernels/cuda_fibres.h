// The threads of one block as fibres: each runs until it meets a barrier or speaks to its warp, in an order that can be chosen.
// What differs between orders is a race; a barrier that some threads never reach is an error.
#pragma once

#include <cstddef>
#include <functional>

#include "tests/kernels/cuda_emulated.h"

namespace switchyard::testing::emulator {

constexpr int kWarp = 32;

struct Index {
  unsigned x = 0, y = 0, z = 0;
};
/// Of the fibre that runs.
extern Index thread, block;

/// Calls body once in each of `threads` fibres, a multiple of kWarp.
void run_block(const char* kernel, const std::function<void()>& body, int threads, Order order);

// Inside a body:
/// Waits for every thread of the block.
void barrier();
/// Gives up to 64 bytes of this lane to its warp; every lane of it must call with the same `kind`, which is not 0. Returns where
/// those of lane l lie, at l · 64, until the next call but one.
const unsigned char* exchange(const void* mine, size_t bytes, int kind);

/// A number in [0, below), the same sequence at every run of the program.
int draw(int below);

}  // namespace switchyard::testing::emulator
