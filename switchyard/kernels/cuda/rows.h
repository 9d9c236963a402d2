// The row fronts (permutation.h) on the CUDA kernels, and what the experts' kernels need of them. Tensors are contiguous and on
// one device that has launchers, float32 or bfloat16; rows are int64 in range.
#pragma once

#include "switchyard/kernels/cuda/backend.h"

namespace switchyard::kernels::cuda {

/// x: [T, ...]; row: [A]; weight: [A] float32 or undefined. Returns [A, ...]: x[row[a]] · weight[a].
at::Tensor gather(const at::Tensor& x, const at::Tensor& row, const at::Tensor& weight);

/// y: [A, ...]; row: [A] in [0, rows); weight: [A] float32 or undefined. Returns [rows, ...]: sums over the positions of each row,
/// ascending. Waits for nothing.
at::Tensor combine(const at::Tensor& y, const at::Tensor& row, const at::Tensor& weight, int64_t rows);

/// y: [A, ...], x: [T, ...]; returns [A] float32: <y[a], x[row[a]]>.
at::Tensor row_products(const at::Tensor& y, const at::Tensor& x, const at::Tensor& row);

}  // namespace switchyard::kernels::cuda
