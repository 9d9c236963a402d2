#include "switchyard/kernels/cuda/optimiser.h"

#include <ATen/ops/empty.h>

#include <cmath>

namespace switchyard::kernels::cuda {

bool adamw_step(const at::Tensor& param, const at::Tensor& grad, const at::Tensor& m, const at::Tensor& v, const AdamW& o) {
  if (!launchers_for(param)) return false;
  const double correction1 = 1 - std::pow(o.beta1, o.step), correction2 = 1 - std::pow(o.beta2, o.step);
  const Call call(param);
  call->adamw({.number = number_of(param.scalar_type()), .gradient_number = grad.defined() ? number_of(grad.scalar_type()) : Number::float32,
               .param = raw(param), .gradient = bytes(grad), .m = raw(m), .v = raw(v), .count = param.numel(), .beta1 = o.beta1,
               .beta2 = o.beta2, .keep = 1 - o.lr * o.weight_decay, .rate = o.lr / correction1, .root_scale = 1 / std::sqrt(correction2),
               .eps = o.eps, .grad_scale = o.grad_scale},
              call.stream());
  return true;
}

std::optional<double> sum_of_squares(const at::Tensor& x) {
  if (!launchers_for(x)) return std::nullopt;
  const int64_t blocks = (x.numel() + kSquaresBlock - 1) / kSquaresBlock;
  const at::Tensor sums = at::empty({blocks}, x.options().dtype(at::kDouble).requires_grad(false));
  const Call call(x);
  call->squares({.number = number_of(x.scalar_type()), .x = bytes(x), .count = x.numel(), .sums = data<double>(sums)}, call.stream());
  const at::Tensor host = sums.cpu();
  double total = 0;
  for (int64_t b = 0; b < blocks; ++b) total += host.const_data_ptr<double>()[b];
  return total;
}

}  // namespace switchyard::kernels::cuda
