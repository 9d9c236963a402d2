// Weights packed the way published safetensors folders pack them. Each is a PackedTensor over the file's own tensors: nothing is
// unpacked before it is asked for.
//
//   fp8    value = scale · float8; one scale for the tensor, for each output row, or for each block of rows and columns
//          (DeepSeek-AI, DeepSeek-V3, 2024: blocks of 128 × 128 with a `weight_scale_inv`, which is multiplied all the same)
//   mxfp4  value = 2^(scale - 127) · float4; 32 input columns a scale (OCP Microscaling Formats v1.0, as gpt-oss stores it)
//   gptq   value = scale[g] · (q - zero[g]); input columns in groups that share scale and zero (Frantar et al., GPTQ, 2022)
//   awq    the same, packed along the outputs (Lin et al., AWQ, 2023)
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>

#include "switchyard/kernels/packed_tensor.h"

namespace switchyard {

// All throw formats.quantised.shape when the parts do not fit together, formats.quantised.dtype for parts of other types;
// `name` stands in messages. Only shapes and types are looked at until rows are asked for, so tensors without data (the meta
// device) do for checking a file.

/// weight: [.., out, in] of an eight-bit float type, or [n] under one number. scale: one number; [.., out, 1] or [out]; or [.., ceil(out / block_rows),
/// ceil(in / block_columns)], floating (E8M0 too), leading extents the same; [experts] or [experts, 1, 1] for one a matrix;
/// undefined = 1. block_rows 0 = 128 × 128.
std::shared_ptr<const PackedTensor> packed_fp8(const std::string& name, const at::Tensor& weight, const at::Tensor& scale,
                                               int64_t block_rows = 0, int64_t block_columns = 0);

/// blocks: [E, out, G, 16] uint8, scales: [E, out, G] uint8 → [E, 32 G, out], inputs before outputs as gpt-oss multiplies. Scale
/// 255 gives NaN.
std::shared_ptr<const PackedTensor> packed_mxfp4(const std::string& name, const at::Tensor& blocks, const at::Tensor& scales);
/// The same bits back from rows whose block form is MXFP4, in the rows' own order: blocks [.., G, 16] and scales [.., G] uint8.
struct Mxfp4Parts { at::Tensor blocks, scales; };
Mxfp4Parts mxfp4_parts(const PackedRows& rows);

/// What a GPTQ layer consists of. zeros are stored less one in the first format, as they are in the second.
struct GptqParts {
  at::Tensor qweight;          ///< [in · bits / 32, out] int32: each column a stream of bits, lowest first
  at::Tensor qzeros;           ///< [groups, out · bits / 32] int32: each row a stream of bits
  at::Tensor scales;           ///< [groups, out] floating
  at::Tensor g_idx;            ///< [in] int32: the group of an input; undefined = runs of equal length
  int bits = 4;                ///< 2, 3, 4 or 8
  bool zeros_less_one = true;
};
std::shared_ptr<const PackedTensor> packed_gptq(const std::string& name, const GptqParts& parts);

/// qweight: [in, out / 8] int32, qzeros: [groups, out / 8] int32, scales: [groups, out] floating; nibble k of a word is output
/// 0 2 4 6 1 3 5 7 of its eight → [out, in].
std::shared_ptr<const PackedTensor> packed_awq(const std::string& name, const at::Tensor& qweight, const at::Tensor& qzeros,
                                               const at::Tensor& scales);

}  // namespace switchyard
