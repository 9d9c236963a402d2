// The recurrence of Mamba, channel by channel in one pass over the rows, where no gradient is wanted.
#pragma once

#include <ATen/core/Tensor.h>

#include <initializer_list>

namespace switchyard::kernels {

/// Whether selective_scan takes them: on the CPU, in float32, and no gradient wanted.
bool can_scan(std::initializer_list<at::Tensor> operands);

/// As blocks/scan.h says. state: [B, C, n] contiguous, changed in place → y: [B, L, C].
at::Tensor selective_scan(const at::Tensor& u, const at::Tensor& step, const at::Tensor& a, const at::Tensor& in, const at::Tensor& out,
                          at::Tensor& state);

}  // namespace switchyard::kernels
