#include "switchyard/kernels/optimiser.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <limits>
#include <vector>

#include "switchyard/kernels/dispatch.h"
#include "tests/support.h"

namespace switchyard {
namespace {

using kernels::AdamW;
using kernels::adamw_step;
using testing::difference;
using testing::expect_error;
using testing::randn;

/// The formulas of Loshchilov and Hutter with plain ATen in float64.
struct Reference {
  at::Tensor p, m, v;
  void step(const at::Tensor& grad, const AdamW& o) {
    const at::Tensor g = grad.defined() ? grad.to(at::kDouble) * o.grad_scale : at::zeros_like(p);
    m = o.beta1 * m + (1 - o.beta1) * g;
    v = o.beta2 * v + (1 - o.beta2) * g * g;
    const at::Tensor m_hat = m / (1 - std::pow(o.beta1, o.step)), v_hat = v / (1 - std::pow(o.beta2, o.step));
    p = p - o.lr * o.weight_decay * p - o.lr * m_hat / (v_hat.sqrt() + o.eps);
  }
};

double distance_after_steps(at::ScalarType type, at::ScalarType grad_type, int64_t n) {
  at::Tensor p = randn({n}, 1, type);
  const at::ScalarType moments = type == at::kDouble ? at::kDouble : at::kFloat;
  at::Tensor m = at::zeros({n}, moments), v = at::zeros({n}, moments);
  Reference reference{p.to(at::kDouble).clone(), m.to(at::kDouble).clone(), v.to(at::kDouble).clone()};
  for (int64_t step = 1; step <= 5; ++step) {
    const at::Tensor g = step == 3 ? at::Tensor() : randn({n}, 10 + step, grad_type);
    const AdamW options{.lr = 0.05, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .step = step, .grad_scale = 0.5};
    adamw_step(p, g, m, v, options);
    reference.step(g, options);
  }
  return n ? difference(p, reference.p) : 0;
}

TEST(AdamW, FirstStepByHand) {
  at::Tensor p = at::tensor({1.0, -2.0}, at::kDouble), g = at::tensor({0.5, -4.0}, at::kDouble);
  at::Tensor m = at::zeros({2}, at::kDouble), v = at::zeros({2}, at::kDouble);
  adamw_step(p, g, m, v, {.lr = 0.1, .beta1 = 0.9, .beta2 = 0.99, .eps = 0, .weight_decay = 0.5, .step = 1});
  // Whatever the gradient's size, the first step is lr in its direction; decay takes lr·wd·p = 0.05 p besides.
  EXPECT_NEAR(p[0].item<double>(), 1.0 - 0.05 - 0.1, 1e-12);
  EXPECT_NEAR(p[1].item<double>(), -2.0 + 0.1 + 0.1, 1e-12);
  EXPECT_NEAR(m[0].item<double>(), 0.05, 1e-12);
  EXPECT_NEAR(v[1].item<double>(), 0.16, 1e-12);
}

TEST(AdamW, EqualsTheFormulas) {
  // Rounding of five float32 steps; bf16 keeps 8 bits of a parameter near 3.
  for (int64_t n : {0, 1, 7, 64, 4096, 10001}) {
    EXPECT_LT(distance_after_steps(at::kDouble, at::kDouble, n), 1e-12) << n;
    EXPECT_LT(distance_after_steps(at::kFloat, at::kFloat, n), 3e-6) << n;
    EXPECT_LT(distance_after_steps(at::kFloat, at::kBFloat16, n), 3e-6) << n;
    EXPECT_LT(distance_after_steps(at::kBFloat16, at::kFloat, n), 0.08) << n;
  }
}

TEST(AdamW, EveryInstructionLevelAgrees) {
  const int64_t n = 5000;
  const auto run = [&](kernels::CpuLevel level) {
    const kernels::ForcedCpuLevel forced(level);
    at::Tensor p = randn({n}, 1, at::kFloat), m = randn({n}, 2, at::kFloat), v = randn({n}, 3, at::kFloat).abs();
    adamw_step(p, randn({n}, 4, at::kFloat), m, v, {.step = 3});
    return p;
  };
  const at::Tensor plain = run(kernels::CpuLevel::portable);
  for (const auto level : {kernels::CpuLevel::avx2, kernels::CpuLevel::avx512})
    if (level <= kernels::detected_cpu_level()) { EXPECT_TRUE(at::equal(plain, run(level))) << kernels::name(level); }
}

TEST(AdamW, BitsDoNotDependOnThreads) {
  const int threads = at::get_num_threads();
  std::vector<at::Tensor> results;
  std::vector<double> norms;
  for (int n : {1, 2, 3}) {
    at::set_num_threads(n);
    at::Tensor p = randn({100003}, 1, at::kFloat), m = randn({100003}, 2, at::kFloat), v = randn({100003}, 3, at::kFloat).abs();
    const at::Tensor g = randn({100003}, 4, at::kFloat);
    adamw_step(p, g, m, v, {.step = 7});
    results.push_back(p);
    norms.push_back(kernels::sum_of_squares(g));
  }
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(results[0], results[1]));
  EXPECT_TRUE(at::equal(results[0], results[2]));
  EXPECT_EQ(norms[0], norms[1]);
  EXPECT_EQ(norms[0], norms[2]);
}

TEST(AdamW, BfloatRoundsToEvenAndKeepsNaN) {
  // 1 + 2^-8 lies halfway between two bf16 numbers: the even one is 1. 1 + 3·2^-8 goes up to 1 + 2^-6.
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const at::Tensor target = at::tensor({1 + 1.0f / 256, 1 + 3.0f / 256, -1 - 1.0f / 256, nan}, at::kFloat);
  // With these numbers every product and root is exact, and the parameter becomes -m / 2.
  at::Tensor p = at::zeros({4}, at::kBFloat16), m = -2 * target, v = at::full({4}, 4.0f / 3);
  adamw_step(p, {}, m, v, {.lr = 1, .beta1 = 0.5, .beta2 = 0.75, .eps = 0, .weight_decay = 0, .step = 1});
  const at::Tensor expected = at::tensor({1.0f, 1 + 1.0f / 64, -1.0f}, at::kFloat).to(at::kBFloat16);
  EXPECT_TRUE(at::equal(p.narrow(0, 0, 3), expected)) << p;
  EXPECT_TRUE(p[3].isnan().item<bool>());
}

TEST(AdamW, RefusesWhatDoesNotFit) {
  at::Tensor p = at::zeros({4, 2}), m = at::zeros({4, 2}), v = at::zeros({4, 2});
  EXPECT_EQ(expect_error([&] { adamw_step(p, at::zeros({4, 2}, at::kLong), m, v, {}); }).code(), "kernels.dtype");
  EXPECT_EQ(expect_error([&] { adamw_step(p, {}, m.to(at::kDouble), v, {}); }).code(), "kernels.dtype");
  EXPECT_EQ(expect_error([&] { adamw_step(p, at::zeros({8}), m, v, {}); }).code(), "kernels.shape");
  EXPECT_EQ(expect_error([&] { adamw_step(at::zeros({2, 4}).t(), {}, m, v, {}); }).code(), "kernels.contiguous");
  EXPECT_EQ(expect_error([&] { kernels::sum_of_squares(at::zeros({2}, at::kInt)); }).code(), "kernels.dtype");
}

TEST(AdamW, SumOfSquares) {
  const at::Tensor x = randn({9999}, 5, at::kFloat);
  EXPECT_NEAR(kernels::sum_of_squares(x), x.to(at::kDouble).square().sum().item<double>(), 1e-8);
  EXPECT_NEAR(kernels::sum_of_squares(x.view({3, 3333}).t()), kernels::sum_of_squares(x), 1e-8);
  EXPECT_NEAR(kernels::sum_of_squares(x.to(at::kBFloat16)), x.to(at::kBFloat16).to(at::kDouble).square().sum().item<double>(), 1e-8);
  EXPECT_EQ(kernels::sum_of_squares(at::zeros({0})), 0);
  EXPECT_TRUE(std::isnan(kernels::sum_of_squares(at::full({1}, std::numeric_limits<double>::quiet_NaN(), at::kDouble))));
}

}  // namespace
}  // namespace switchyard
