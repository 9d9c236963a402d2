#include "switchyard/kernels/optimiser.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "switchyard/base/error.h"
#include "switchyard/kernels/cpu/optimiser_loops.h"
#include "switchyard/kernels/cuda/optimiser.h"

namespace switchyard::kernels {
namespace {

using cpu::Bf16Bits;
using cpu::kOptimiserBlock;

template <typename P, typename G, typename T>
void run(const at::Tensor& param, const at::Tensor& grad, const at::Tensor& m, const at::Tensor& v, const AdamW& o) {
  const double correction1 = 1 - std::pow(o.beta1, o.step), correction2 = 1 - std::pow(o.beta2, o.step);
  const cpu::AdamWFactors<T> f{static_cast<T>(o.beta1), static_cast<T>(1 - o.beta1), static_cast<T>(o.beta2),
                     static_cast<T>(1 - o.beta2), static_cast<T>(1 - o.lr * o.weight_decay),
                     static_cast<T>(o.lr / correction1), static_cast<T>(1 / std::sqrt(correction2)),
                     static_cast<T>(o.eps), static_cast<T>(o.grad_scale)};
  auto* p = static_cast<P*>(param.mutable_data_ptr());
  const auto* g = grad.defined() ? static_cast<const G*>(grad.const_data_ptr()) : nullptr;
  auto *first = m.mutable_data_ptr<T>(), *second = v.mutable_data_ptr<T>();
  const int64_t n = param.numel();
  at::parallel_for(0, (n + kOptimiserBlock - 1) / kOptimiserBlock, 4, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t at = b * kOptimiserBlock;
      cpu::adamw_block(p + at, g ? g + at : nullptr, first + at, second + at, std::min(kOptimiserBlock, n - at), f);
    }
  });
}

template <typename P, typename T>
void run_by_gradient(const at::Tensor& param, const at::Tensor& grad, const at::Tensor& m, const at::Tensor& v, const AdamW& o) {
  const at::ScalarType type = grad.defined() ? grad.scalar_type() : at::kFloat;
  if (type == at::kFloat) run<P, float, T>(param, grad, m, v, o);
  else if (type == at::kDouble) run<P, double, T>(param, grad, m, v, o);
  else run<P, Bf16Bits, T>(param, grad, m, v, o);
}

/// The step in plain ATen, for devices without a kernel.
void plain_step(const at::Tensor& param, const at::Tensor& grad, const at::Tensor& m, const at::Tensor& v, const AdamW& o) {
  const at::NoGradGuard guard;
  const double correction1 = 1 - std::pow(o.beta1, o.step), correction2 = 1 - std::pow(o.beta2, o.step);
  m.mul_(o.beta1);
  v.mul_(o.beta2);
  if (grad.defined()) {
    const at::Tensor gradient = grad.to(m.scalar_type()) * o.grad_scale;
    m.add_(gradient, 1 - o.beta1);
    v.addcmul_(gradient, gradient, 1 - o.beta2);
  }
  const at::Tensor change = m / (v.sqrt() / std::sqrt(correction2) + o.eps) * (o.lr / correction1);
  param.copy_(param.to(m.scalar_type()) * (1 - o.lr * o.weight_decay) - change);
}

bool floating(at::ScalarType type) { return type == at::kFloat || type == at::kDouble || type == at::kBFloat16; }

}  // namespace

void adamw_step(const at::Tensor& param, const at::Tensor& grad, const at::Tensor& m, const at::Tensor& v, const AdamW& o) {
  const at::ScalarType type = param.scalar_type(), moments = type == at::kDouble ? at::kDouble : at::kFloat;
  check(floating(type) && (!grad.defined() || floating(grad.scalar_type())), "kernels.dtype",
        "adamw_step takes float32, float64 or bfloat16, got a {} parameter with a {} gradient", c10::toString(type),
        grad.defined() ? c10::toString(grad.scalar_type()) : "no");
  check(m.scalar_type() == moments && v.scalar_type() == moments, "kernels.dtype",
        "adamw_step keeps the moments of a {} parameter in {}, got {} and {}", c10::toString(type), c10::toString(moments),
        c10::toString(m.scalar_type()), c10::toString(v.scalar_type()));
  check(m.sizes() == param.sizes() && v.sizes() == param.sizes() && (!grad.defined() || grad.sizes() == param.sizes()),
        "kernels.shape", "adamw_step needs gradient and moments of the parameter's shape ({} elements, got {}, {} and {})",
        param.numel(), grad.defined() ? grad.numel() : param.numel(), m.numel(), v.numel());
  check(param.is_contiguous() && m.is_contiguous() && v.is_contiguous(), "kernels.contiguous",
        "adamw_step writes in place, so parameter and moments must be contiguous");
  const at::Tensor packed = grad.defined() ? grad.contiguous() : grad;
  if (cuda::adamw_step(param, packed, m, v, o)) return;
  if (!param.device().is_cpu()) return plain_step(param, packed, m, v, o);
  if (type == at::kDouble) run_by_gradient<double, double>(param, packed, m, v, o);
  else if (type == at::kFloat) run_by_gradient<float, float>(param, packed, m, v, o);
  else run_by_gradient<Bf16Bits, float>(param, packed, m, v, o);
}

double sum_of_squares(const at::Tensor& x) {
  check(floating(x.scalar_type()), "kernels.dtype", "sum_of_squares takes float32, float64 or bfloat16, got {}",
        c10::toString(x.scalar_type()));
  const at::Tensor packed = x.contiguous();
  if (const auto total = cuda::sum_of_squares(packed)) return *total;
  if (!x.device().is_cpu()) return packed.to(at::kDouble).square().sum().item<double>();
  const int64_t n = packed.numel(), blocks = (n + kOptimiserBlock - 1) / kOptimiserBlock;
  std::vector<double> sums(blocks);
  const auto fill = [&]<typename P>(const P* data) {
    at::parallel_for(0, blocks, 8, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) sums[b] = cpu::squares_block(data + b * kOptimiserBlock, std::min(kOptimiserBlock, n - b * kOptimiserBlock));
    });
  };
  if (x.scalar_type() == at::kFloat) fill(packed.const_data_ptr<float>());
  else if (x.scalar_type() == at::kDouble) fill(packed.const_data_ptr<double>());
  else fill(static_cast<const Bf16Bits*>(packed.const_data_ptr()));
  double total = 0;
  for (double sum : sums) total += sum;
  return total;
}

}  // namespace switchyard::kernels
