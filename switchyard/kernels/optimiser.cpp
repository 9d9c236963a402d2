#include "switchyard/kernels/optimiser.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <type_traits>
#include <vector>

#include "switchyard/base/error.h"
#include "switchyard/kernels/cuda/optimiser.h"
#include "switchyard/kernels/dispatch.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define SWITCHYARD_TARGET(features) __attribute__((target(features)))
#else
#define SWITCHYARD_TARGET(features)
#endif

namespace switchyard::kernels {
namespace {

/// The grain of work: elements are grouped the same way whatever the thread count.
constexpr int64_t kBlock = 4096;

/// bf16 as its bits, so that the compiler sees integers and vectorises.
struct Bf16 { uint16_t bits; };
inline float load(float x) { return x; }
inline double load(double x) { return x; }
[[gnu::always_inline]] inline float load(Bf16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }
inline void store(float& to, float x) { to = x; }
inline void store(double& to, double x) { to = x; }
/// Round to nearest even; a NaN stays one.
[[gnu::always_inline]] inline void store(Bf16& to, float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  to.bits = static_cast<uint16_t>(x == x ? rounded : 0x7fc0u);
}

/// The step's numbers in the type of the moments.
template <typename T>
struct Factors {
  T beta1, rest1, beta2, rest2, keep, rate, root_scale, eps, grad_scale;
};

// sqrt must become one instruction and products must not be fused differently in a loop's body and tail: bits
// then depend on the instruction level alone.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC optimize("O3", "no-math-errno", "no-trapping-math", "fp-contract=off")
#endif

template <typename P, typename G, typename T>
[[gnu::always_inline]] inline void update(P* __restrict p, const G* __restrict g, T* __restrict m, T* __restrict v,
                                          int64_t n, const Factors<T>& f) {
  for (int64_t i = 0; i < n; ++i) {
    const T gradient = g ? static_cast<T>(load(g[i])) * f.grad_scale : T(0);
    const T mean = f.beta1 * m[i] + f.rest1 * gradient;
    const T square = f.beta2 * v[i] + f.rest2 * gradient * gradient;
    m[i] = mean;
    v[i] = square;
    store(p[i], static_cast<T>(load(p[i])) * f.keep - f.rate * mean / (std::sqrt(square) * f.root_scale + f.eps));
  }
}

template <typename P, typename G, typename T>
void update_portable(P* p, const G* g, T* m, T* v, int64_t n, const Factors<T>& f) { update(p, g, m, v, n, f); }
template <typename P, typename G, typename T>
SWITCHYARD_TARGET("avx2") void update_avx2(P* p, const G* g, T* m, T* v, int64_t n, const Factors<T>& f) {
  update(p, g, m, v, n, f);
}
template <typename P, typename G, typename T>
SWITCHYARD_TARGET("avx512f,avx512bw,avx512vl,avx512dq,prefer-vector-width=512")
void update_avx512(P* p, const G* g, T* m, T* v, int64_t n, const Factors<T>& f) {
  update(p, g, m, v, n, f);
}

/// Sum of squares of one block in 8 interleaved sums, folded in a fixed order.
template <typename P>
double block_squares(const P* x, int64_t n) {
  double sums[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int64_t j = 0; j < 8; ++j) {
      const double value = static_cast<double>(load(x[i + j]));
      sums[j] += value * value;
    }
  for (int64_t j = 0; i < n; ++i, ++j) {
    const double value = static_cast<double>(load(x[i]));
    sums[j] += value * value;
  }
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC pop_options
#endif

template <typename P, typename G, typename T>
void run(const at::Tensor& param, const at::Tensor& grad, const at::Tensor& m, const at::Tensor& v, const AdamW& o) {
  const double correction1 = 1 - std::pow(o.beta1, o.step), correction2 = 1 - std::pow(o.beta2, o.step);
  const Factors<T> f{static_cast<T>(o.beta1), static_cast<T>(1 - o.beta1), static_cast<T>(o.beta2),
                     static_cast<T>(1 - o.beta2), static_cast<T>(1 - o.lr * o.weight_decay),
                     static_cast<T>(o.lr / correction1), static_cast<T>(1 / std::sqrt(correction2)),
                     static_cast<T>(o.eps), static_cast<T>(o.grad_scale)};
  auto* p = static_cast<P*>(param.mutable_data_ptr());
  const auto* g = grad.defined() ? static_cast<const G*>(grad.const_data_ptr()) : nullptr;
  auto *first = m.mutable_data_ptr<T>(), *second = v.mutable_data_ptr<T>();
  const CpuLevel level = cpu_level();
  const auto step = level >= CpuLevel::avx512  ? update_avx512<P, G, T>
                    : level == CpuLevel::avx2 ? update_avx2<P, G, T>
                                              : update_portable<P, G, T>;
  const int64_t n = param.numel();
  at::parallel_for(0, (n + kBlock - 1) / kBlock, 4, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t at = b * kBlock;
      step(p + at, g ? g + at : nullptr, first + at, second + at, std::min(kBlock, n - at), f);
    }
  });
}

template <typename P, typename T>
void run_by_gradient(const at::Tensor& param, const at::Tensor& grad, const at::Tensor& m, const at::Tensor& v, const AdamW& o) {
  const at::ScalarType type = grad.defined() ? grad.scalar_type() : at::kFloat;
  if (type == at::kFloat) run<P, float, T>(param, grad, m, v, o);
  else if (type == at::kDouble) run<P, double, T>(param, grad, m, v, o);
  else run<P, Bf16, T>(param, grad, m, v, o);
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
  else run_by_gradient<Bf16, float>(param, packed, m, v, o);
}

double sum_of_squares(const at::Tensor& x) {
  check(floating(x.scalar_type()), "kernels.dtype", "sum_of_squares takes float32, float64 or bfloat16, got {}",
        c10::toString(x.scalar_type()));
  const at::Tensor packed = x.contiguous();
  if (const auto total = cuda::sum_of_squares(packed)) return *total;
  if (!x.device().is_cpu()) return packed.to(at::kDouble).square().sum().item<double>();
  const int64_t n = packed.numel(), blocks = (n + kBlock - 1) / kBlock;
  std::vector<double> sums(blocks);
  const auto fill = [&]<typename P>(const P* data) {
    at::parallel_for(0, blocks, 8, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) sums[b] = block_squares(data + b * kBlock, std::min(kBlock, n - b * kBlock));
    });
  };
  if (x.scalar_type() == at::kFloat) fill(packed.const_data_ptr<float>());
  else if (x.scalar_type() == at::kDouble) fill(packed.const_data_ptr<double>());
  else fill(static_cast<const Bf16*>(packed.const_data_ptr()));
  double total = 0;
  for (double sum : sums) total += sum;
  return total;
}

}  // namespace switchyard::kernels
