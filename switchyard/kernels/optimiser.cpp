#include "switchyard/kernels/optimiser.h"

#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/ops/dot.h>
#include "switchyard/base/error.h"

namespace switchyard::kernels {

void adamw_step(const at::Tensor& param, const at::Tensor& grad, const at::Tensor& m, const at::Tensor& v,
                const AdamW& o) {
  auto type = m.scalar_type();
  at::Tensor p = param.to(type);
  at::Tensor g = grad.defined() ? grad.to(type) * o.grad_scale : at::Tensor(m.mul(0));
  m.mul_(o.beta1).add_(g, 1 - o.beta1);
  v.mul_(o.beta2).addcmul_(g, g, 1 - o.beta2);
  at::Tensor m_hat = m / (1 - std::pow(o.beta1, o.step)), v_hat = v / (1 - std::pow(o.beta2, o.step));
  param.copy_(p * (1 - o.lr * o.weight_decay) - o.lr * m_hat / (v_hat.sqrt() + o.eps));
}

double sum_of_squares(const at::Tensor& x) { return x.to(at::kDouble).square().sum().item<double>(); }

}  // namespace switchyard::kernels
