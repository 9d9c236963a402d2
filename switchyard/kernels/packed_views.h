// Packed tensors seen in other shapes, as views of plain ones are: rows chosen, entries taken, stacks made, the last two axes
// swapped. Nothing is unpacked or copied; a row is looked up where it lies when it is asked for.
#pragma once

#include <memory>
#include <vector>

#include "switchyard/kernels/packed_tensor.h"

namespace switchyard {

using Packed = std::shared_ptr<const PackedTensor>;

/// The last two axes swapped. It cannot multiply, but swapped again it is `tensor` itself.
Packed packed_transposed(Packed tensor);
/// As at::Tensor::slice and select. Null where that is no choice of whole rows.
Packed packed_slice(const Packed& tensor, int64_t dim, int64_t first, int64_t length, int64_t step);
Packed packed_select(const Packed& tensor, int64_t dim, int64_t index);
/// Of tensors [.., R, I] of one shape [.., n R, I]: row n r + i is row r of tensor i. Null where they cannot be had by rows.
Packed packed_interleaved(const std::vector<Packed>& tensors);
/// The same with the tensors' rows one tensor behind the other: row i R + r is row r of tensor i.
Packed packed_joined(const std::vector<Packed>& tensors);
/// Rows [h d, I] in which row 2 j + s of each of the h pieces goes to s d / 2 + j: pairs of neighbours become halves; and back.
/// Null as above.
Packed packed_halves(const Packed& tensor, int64_t pieces);
Packed packed_pairs(const Packed& tensor, int64_t pieces);
/// One stack [E, ..] from its entries, whatever each is packed as; null when one is null, has another shape, or cannot be had by rows.
Packed packed_stack(const std::vector<Packed>& entries);

/// The same rows for products: blocks of one codec one after another where their numbers can be said so, which is a copy
/// unless they lie so already; else `tensor` as it is. Null for null and what cannot be had by rows.
Packed packed_for_products(const Packed& tensor);

}  // namespace switchyard
