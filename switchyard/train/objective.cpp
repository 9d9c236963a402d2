#include "switchyard/train/objective.h"

namespace switchyard {

Context Runner::context(int64_t pass) {
  Context context = base_.with(batch_.facts);
  context.place.pass = pass;
  context.records = &records_;
  context.routed = &routed_;
  return context;
}

at::Tensor Runner::hidden(int64_t pass) {
  routed_.clear();  // a decision is shared within one pass, not between two
  return hidden_rows(model_, batch_, context(pass));
}

}  // namespace switchyard
