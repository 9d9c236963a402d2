// The optimiser's fronts (optimiser.h) on the CUDA kernels, where they take the parameter. Arguments are checked and contiguous.
#pragma once

#include <optional>

#include "switchyard/kernels/cuda/backend.h"
#include "switchyard/kernels/optimiser.h"

namespace switchyard::kernels::cuda {

/// False, and nothing done, where the parameter's device has no kernels.
bool adamw_step(const at::Tensor& param, const at::Tensor& grad, const at::Tensor& m, const at::Tensor& v, const AdamW& options);

/// Blocks are summed on the device, and their sums in order on the host.
std::optional<double> sum_of_squares(const at::Tensor& x);

}  // namespace switchyard::kernels::cuda
