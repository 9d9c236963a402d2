#include "switchyard/blocks/memory.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "switchyard/base/error.h"

namespace switchyard {

void set_memory(Facts& facts, const Memory& memory) {
  const Segments& of = memory.segments;
  const int64_t count = of.count(), width = memory.rows.size(1);
  check(count == facts.segments.count() && memory.rows.size(0) == of.rows(), "model.memory",
        "{} rows of {} encoded sequences came for a pass over {}", memory.rows.size(0), count, facts.segments.count());
  std::vector<int64_t> lengths;
  for (int64_t s = 0; s < count; ++s) lengths.push_back(of.length(s));
  const int64_t longest = lengths.empty() ? 0 : *std::max_element(lengths.begin(), lengths.end());
  if (std::all_of(lengths.begin(), lengths.end(), [&](int64_t n) { return n == longest; })) {
    facts.set_segment(kMemory, memory.rows.view({count, longest, width}));
  } else {
    const at::Tensor place = of.segment_of_row() * longest + of.position_of_row();
    facts.set_segment(kMemory, at::zeros({count * longest, width}, memory.rows.options().requires_grad(false))
                                   .index_copy(0, place.to(memory.rows.device()), memory.rows).view({count, longest, width}));
  }
  facts.set_segment(kMemoryLength, at::tensor(lengths, at::kLong));
}

Memory memory_of(const Facts& facts, std::string_view who) {
  const at::Tensor padded = facts.segment(kMemory, who), lengths = facts.segment(kMemoryLength, who).cpu().contiguous();
  const int64_t count = padded.size(0), longest = padded.size(1);
  Memory memory;
  for (int64_t s = 0; s < count; ++s) memory.segments.begin.push_back(memory.segments.rows() + lengths.const_data_ptr<int64_t>()[s]);
  memory.segments.causal = false;
  const at::Tensor flat = padded.reshape({count * longest, padded.size(2)});
  if (memory.segments.rows() == count * longest) {
    memory.rows = flat;
  } else {
    const at::Tensor place = memory.segments.segment_of_row() * longest + memory.segments.position_of_row();
    memory.rows = flat.index_select(0, place.to(flat.device()));
  }
  return memory;
}

}  // namespace switchyard
