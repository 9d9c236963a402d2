// Who gets in when places are limited. One kernel for every capacity rule: methods choose bins
// (expert, device, local group) and priority (position, score, random).
#pragma once

#include <ATen/core/Tensor.h>

namespace switchyard::kernels {

/// bin: [P] int64 in [0, bins), or -1 for a pair that asks for nothing (never kept).
/// priority: [P] float or undefined (= position order); higher first, ties and NaN-free order to the lower pair.
/// exempt: [P] bool or undefined; an exempt pair is kept and takes no place.
/// capacity: places of each bin, [bins] int64. Returns kept: [P] bool. Not differentiable.
/// Throws kernels.claims where lengths or types differ from these; on a CPU kernels.bin_range and kernels.priority_nan, which name the first such pair.
at::Tensor admit(const at::Tensor& bin, const at::Tensor& priority, const at::Tensor& exempt,
                 const at::Tensor& capacity, int64_t bins);
/// The same with one capacity for every bin.
at::Tensor admit(const at::Tensor& bin, const at::Tensor& priority, const at::Tensor& exempt, int64_t capacity,
                 int64_t bins);

}  // namespace switchyard::kernels
