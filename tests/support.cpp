#include "tests/support.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

namespace switchyard::testing {

at::Tensor randn(at::IntArrayRef shape, uint64_t seed, at::ScalarType type) {
  return Streams(seed).normal(shape, {.purpose = "test"}, type);
}

double difference(const at::Tensor& a, const at::Tensor& b) {
  EXPECT_EQ(a.sizes(), b.sizes());
  if (a.numel() == 0) return 0;
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

void expect_gradients(const std::function<at::Tensor()>& f, std::vector<at::Tensor> leaves, double tolerance, double step) {
  for (at::Tensor& leaf : leaves) leaf.mutable_grad() = at::Tensor();
  const at::Tensor y = f();
  const at::Tensor weights = randn(y.sizes(), 99, at::kDouble);
  (y * weights).sum().backward();
  for (size_t i = 0; i < leaves.size(); ++i) {
    const at::Tensor grad = leaves[i].grad().defined() ? leaves[i].grad().contiguous() : at::zeros_like(leaves[i]);
    at::NoGradGuard guard;
    at::Tensor flat = leaves[i].view({-1});
    for (int64_t j = 0; j < flat.numel(); ++j) {
      const double value = flat[j].item<double>();
      flat[j] = value + step;
      const double above = (f() * weights).sum().item<double>();
      flat[j] = value - step;
      const double below = (f() * weights).sum().item<double>();
      flat[j] = value;
      const double expected = (above - below) / (2 * step);
      ASSERT_NEAR(grad.view({-1})[j].item<double>(), expected, tolerance * std::max(1.0, std::abs(expected)))
          << "leaf " << i << " element " << j;
    }
  }
}

Error expect_error(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "no error was thrown";
  return Error("none", "none");
}

}  // namespace switchyard::testing
