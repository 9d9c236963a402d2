#include "switchyard/experts/kind.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/tensordot.h>
#include <ATen/ops/zeros.h>

#include "switchyard/base/error.h"

namespace switchyard {
namespace {

/// One expert's tensors from the stacks, unbound once: indexing a stack inside a loop would make
/// autograd write a zero-filled gradient of the whole stack for every expert.
std::vector<Params> unstack(const Params& stacked, int64_t experts) {
  std::vector<Params> each(experts);
  for (const auto& [name, tensor] : stacked.values) {
    std::vector<at::Tensor> parts = tensor.unbind(0);
    for (int64_t e = 0; e < experts; ++e) each[e].values.emplace_back(name, parts[e]);
  }
  return each;
}

}  // namespace

at::Tensor ExpertKind::apply_grouped(const Params& stacked, const GroupedRows& rows, const Context& context) const {
  const at::Tensor x = rows.x.defined() ? rows.x : rows.source.index_select(0, rows.row);
  const at::Tensor offset = rows.offset.cpu();
  const int64_t* begin = offset.const_data_ptr<int64_t>();
  const int64_t experts = offset.size(0) - 1;
  const std::vector<Params> each = unstack(stacked, experts);
  std::vector<at::Tensor> outputs;
  for (int64_t e = 0; e < experts; ++e)
    if (begin[e + 1] > begin[e])
      outputs.push_back(apply(each[e], x.slice(0, begin[e], begin[e + 1]), context));
  if (outputs.empty()) return apply(experts ? each[0] : Params{}, x.slice(0, 0, 0), context);
  return outputs.size() == 1 ? outputs[0] : at::cat(outputs, 0);
}

Params ExpertKind::blend(const Params& stacked, const at::Tensor& coefficient) const {
  Params blended;
  for (const auto& [name, tensor] : stacked.values)
    blended.values.emplace_back(name, at::tensordot(coefficient.to(tensor.scalar_type()), tensor, {0}, {0}));
  return blended;
}

int64_t ExpertKind::macs_per_row(int64_t in, int64_t out) const {
  int64_t macs = 0;
  for (const ExpertTensor& tensor : tensors(in, out)) {
    if (tensor.shape.size() < 2) continue;
    int64_t count = 1;
    for (int64_t extent : tensor.shape) count *= extent;
    macs += count;
  }
  return macs;
}

}  // namespace switchyard
