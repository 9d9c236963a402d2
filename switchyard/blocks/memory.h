// What a decoder's cross attention looks at: the rows of an encoder, one sequence for each segment of the pass. They travel as facts
// of the segments, and are differentiable.
#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>

#include "switchyard/contract/facts.h"

namespace switchyard {

/// The segment fact that holds them: [segments, longest, D], and how many of them a segment has: [segments] int64.
inline constexpr const char* kMemory = "memory";
inline constexpr const char* kMemoryLength = "memory_length";

struct Memory {
  at::Tensor rows;    ///< [U, D]
  Segments segments;  ///< of them
};

/// rows: [U, D] of the segments `of`, as many as `facts` has. Throws model.memory otherwise.
void set_memory(Facts& facts, const Memory& memory);
/// Throws facts.missing naming `who` when the pass has none.
Memory memory_of(const Facts& facts, std::string_view who);

}  // namespace switchyard
