#include "switchyard/train/token_losses.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

#include "switchyard/base/differentiable.h"
#include "switchyard/kernels/dispatch.h"
#include "tests/support.h"

namespace switchyard {
namespace {

using testing::randn;

at::Tensor targets_of(int64_t n, int64_t width) {
  at::Tensor targets = (at::arange(n) * 7).remainder(width);
  if (n > 2) targets[2] = -1;
  return targets;
}

at::Tensor plain(const at::Tensor& logits, const at::Tensor& targets) {
  return at::cross_entropy_loss(logits, targets, {}, at::Reduction::None, -1);
}

TEST(TokenLosses, ValuesAndGradientsAtEveryLevel) {
  for (const kernels::CpuLevel level : {kernels::CpuLevel::portable, kernels::CpuLevel::avx2, kernels::CpuLevel::avx512, kernels::CpuLevel::avx512bf16}) {
    if (level > kernels::detected_cpu_level()) continue;
    const kernels::ForcedCpuLevel forced(level);
    for (const at::ScalarType type : {at::kDouble, at::kFloat, at::kBFloat16, at::kHalf})
      for (const auto& [n, width] : std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {5, 3}, {4, 64}, {3, 67}, {9, 1000}}) {
        SCOPED_TRACE(std::string(name(level)) + ", " + c10::toString(type) + ", " + std::to_string(n) + " rows of " + std::to_string(width));
        const at::Tensor logits = (randn({n, width}, 1, at::kDouble) * 5).to(type).requires_grad_(), targets = targets_of(n, width);
        const at::Tensor weights = randn({n}, 2, at::kDouble), exact = logits.detach().to(at::kDouble).requires_grad_();
        const at::Tensor losses = token_losses(logits, targets), expected = plain(exact, targets);
        EXPECT_EQ(losses.scalar_type(), type == at::kDouble ? at::kDouble : at::kFloat);
        EXPECT_LT((losses - expected).abs().max().item<double>(), type == at::kDouble ? 1e-12 : 1e-5);
        const at::Tensor got = gradients({losses}, {logits}, {weights.to(losses.scalar_type())})[0], wanted = gradients({expected}, {exact}, {weights})[0];
        ASSERT_EQ(got.scalar_type(), type);
        const double step = type == at::kDouble ? 1e-12 : type == at::kFloat ? 1e-6 : type == at::kHalf ? 2e-3 : 8e-3;
        EXPECT_LT((got.to(at::kDouble) - wanted).abs().max().item<double>(), step * std::max(1.0, weights.abs().max().item<double>()));
        if (n > 2) {
          EXPECT_EQ(got[2].count_nonzero().item<int64_t>(), 0);
        }
      }
  }
}

TEST(TokenLosses, LargeInfiniteAndMissingValues) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");
  at::Tensor logits = randn({6, 200}, 3, at::kFloat);
  logits[0] *= 1e30;
  logits[1].narrow(0, 10, 100).fill_(-inf);
  logits[2][150] = nan;
  logits[3][7] = inf;
  logits[4].fill_(-inf);
  logits[5][0] = -inf;
  const at::Tensor targets = at::tensor({3, 3, 4, 5, 6, 0}, at::kLong), losses = token_losses(logits, targets), expected = plain(logits.to(at::kDouble), targets);
  for (const int64_t row : {2, 3, 4}) EXPECT_TRUE(std::isnan(losses[row].item<float>())) << row;
  EXPECT_EQ(losses[5].item<float>(), inf);
  EXPECT_NEAR(losses[1].item<double>(), expected[1].item<double>(), 1e-5);
  EXPECT_NEAR(losses[0].item<double>() / 1e30, expected[0].item<double>() / 1e30, 1e-5);
  EXPECT_EQ(token_losses(logits.to(at::kBFloat16), at::full({6}, -1, at::kLong)).abs().sum().item<float>(), 0);
}

TEST(TokenLosses, SecondDerivativesAndEmpty) {
  const at::Tensor logits = randn({3, 8}, 4, at::kDouble).requires_grad_(), targets = at::tensor({1, -1, 7}, at::kLong);
  const auto second = [&](const at::Tensor& losses) {
    const at::Tensor first = gradients({losses.sum()}, {logits}, {}, true, true)[0];
    return gradients({first.square().sum()}, {logits})[0];
  };
  EXPECT_LT((second(token_losses(logits, targets)) - second(plain(logits, targets))).abs().max().item<double>(), 1e-12);
  EXPECT_EQ(token_losses(at::zeros({0, 8}), at::zeros({0}, at::kLong)).numel(), 0);
  // Rows that do not follow one another.
  const at::Tensor wide = randn({8, 3}, 5, at::kFloat);
  EXPECT_TRUE(at::equal(token_losses(wide.t(), targets), token_losses(wide.t().contiguous(), targets)));
}

}  // namespace
}  // namespace switchyard
