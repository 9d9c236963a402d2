// The maps of parameters that contract/adaptation.h declares.
#include "switchyard/contract/adaptation.h"

#include <ATen/ops/embedding.h>

#include "switchyard/contract/context.h"
#include "switchyard/kernels/linear.h"

namespace switchyard {

at::Tensor linear(const at::Tensor& x, const Parameter& weight, const Parameter& bias, const Context& context) {
  if (context.adaptation) {
    at::Tensor y = context.adaptation->linear(x, weight, bias, context);
    if (y.defined()) return y;
  }
  const at::Tensor b = bias ? context[bias] : at::Tensor();
  if (const auto packed = context.packed(weight)) return packed->linear(x, b);
  return kernels::linear(x, context[weight], b);
}

at::Tensor embedding(const at::Tensor& ids, const Parameter& table, const Context& context) {
  if (context.adaptation) {
    at::Tensor rows = context.adaptation->embedding(ids, table, context);
    if (rows.defined()) return rows;
  }
  if (const auto packed = context.packed(table)) return packed->rows(ids);
  return at::embedding(context[table], ids);
}

}  // namespace switchyard
