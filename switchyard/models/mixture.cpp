#include "switchyard/models/mixture.h"

#include <ATen/TensorOperators.h>

namespace switchyard {

void Mixture::declare(const Schema& schema, const Where& where) {
  layer_ = std::make_shared<MoeLayer>(options_, where.in, where.out);
  layer_->declare(schema);
}

at::Tensor Mixture::call(const at::Tensor& x, const Base& base, const Context& context) const {
  switch (options_.join) {
    case Join::replace: break;
    case Join::add: return base(x, context) + layer_->forward(x, context);
    case Join::multiply: return base(x, context) * layer_->forward(x, context);
  }
  return layer_->forward(x, context);
}

}  // namespace switchyard
