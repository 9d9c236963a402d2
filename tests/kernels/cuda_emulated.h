// The launchers of switchyard/kernels/cuda, their sources compiled for the host (cuda_emulator.h).
#pragma once

#include "switchyard/kernels/cuda/launchers.h"

namespace switchyard::testing {

/// In which order the threads of a block run between barriers, and the blocks.
enum class Order { ascending, descending, shuffled };
Order& emulated_order();

/// What the emulated device says its compute capability is: 80 at first.
int& emulated_capability();

const kernels::cuda::Launchers& emulated_launchers();

}  // namespace switchyard::testing
