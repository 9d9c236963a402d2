// Recurrences whose state is a matrix a head (linear attention, Mamba-2, the gated delta rule), block by block in one pass over the
// rows, where no gradient is wanted. They compute what blocks/scan.h says.
#pragma once

#include <ATen/core/Tensor.h>

namespace switchyard::kernels {

struct MatrixScan {
  at::Tensor q, k;  ///< [B, L, G, n], float or bf16, each of the G groups for H / G heads in a row
  at::Tensor v;     ///< [B, L, H, p], of their type
  at::Tensor g;     ///< [B, L, H] float, at most 0
  /// [B, L, H] float: values are corrected by what a key brings so far; q and k are then brought to unit length first, q times
  /// n^-1/2 as well. Undefined: values are added as they are.
  at::Tensor beta = {};
};

/// Whether matrix_scan takes them: on the CPU, of those types, and no gradient wanted.
bool can_scan(const MatrixScan& operands, const at::Tensor& state);

/// state: [B, H, n, p] float, contiguous, changed in place → y: [B, L, H, p] float.
at::Tensor matrix_scan(const MatrixScan& operands, at::Tensor& state);

/// What is added to a sum of squares before the root of a unit length.
constexpr double kUnitEps = 1e-6;

}  // namespace switchyard::kernels
