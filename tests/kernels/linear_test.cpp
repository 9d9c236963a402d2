// Dense maps are libtorch's at every level, wherever they are computed.
#include "switchyard/kernels/linear.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "switchyard/base/autocast.h"
#include "switchyard/kernels/dispatch.h"
#include "tests/support.h"

namespace switchyard::kernels {
namespace {

struct Found { at::Tensor y, dx, dw, db; };

template <typename Map>
Found run(const Map& map, at::ScalarType type, bool autocast, at::IntArrayRef shape) {
  const auto leaf = [&](at::IntArrayRef of, uint64_t seed) { return testing::randn(of, seed, at::kFloat).to(type).requires_grad_(); };
  const at::Tensor x = leaf(shape, 1), w = leaf({24, shape.back()}, 2), b = leaf({24}, 3);
  const AutocastScope scope({.enabled = autocast});
  const at::Tensor y = map(x, w, b);
  y.backward(testing::randn(y.sizes(), 4, at::kFloat).to(y.scalar_type()));
  return {y.detach(), x.grad(), w.grad(), b.grad()};
}

void expect_alike(const at::Tensor& a, const at::Tensor& b, double tolerance, const char* what) {
  EXPECT_EQ(a.scalar_type(), b.scalar_type()) << what;
  EXPECT_EQ(a.sizes(), b.sizes()) << what;
  EXPECT_LT((a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>(), tolerance) << what;
}

TEST(Linear, IsLibtorchsAtEveryLevel) {
  const auto theirs = [](const at::Tensor& x, const at::Tensor& w, const at::Tensor& b) { return at::linear(x, w, b); };
  const auto ours = [](const at::Tensor& x, const at::Tensor& w, const at::Tensor& b) { return kernels::linear(x, w, b); };
  for (const CpuLevel level : {CpuLevel::portable, CpuLevel::avx2, CpuLevel::avx512, CpuLevel::avx512bf16}) {
    if (level > detected_cpu_level()) continue;
    const ForcedCpuLevel forced(level);
    SCOPED_TRACE(name(level));
    for (const std::vector<int64_t>& shape : {std::vector<int64_t>{5, 32}, std::vector<int64_t>{2, 3, 32}, std::vector<int64_t>{32}, std::vector<int64_t>{40, 31}, std::vector<int64_t>{3, 70, 300}}) {
      for (const auto& [type, autocast] : {std::pair{at::kFloat, false}, std::pair{at::kFloat, true}, std::pair{at::kBFloat16, false}, std::pair{at::kDouble, false}}) {
        const Found a = run(ours, type, autocast, shape), b = run(theirs, type, autocast, shape);
        const double tolerance = type == at::kFloat && !autocast ? 1e-4 : type == at::kDouble ? 1e-10 : 0.2;
        expect_alike(a.y, b.y, tolerance, "y");
        expect_alike(a.dx, b.dx, tolerance, "dx");
        expect_alike(a.dw, b.dw, tolerance, "dw");
        expect_alike(a.db, b.db, tolerance, "db");
      }
    }
  }
  EXPECT_THROW((void)kernels::linear(testing::randn({2, 3}, 1), testing::randn({4, 5}, 2), {}), c10::Error);
}

TEST(Linear, FewRowsOfEveryType) {
  const at::NoGradGuard guard;
  for (const CpuLevel level : {CpuLevel::portable, CpuLevel::avx2, CpuLevel::avx512, CpuLevel::avx512bf16}) {
    if (level > detected_cpu_level()) continue;
    const ForcedCpuLevel forced(level);
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble})
      for (const int64_t rows : {0, 1, 2, 7, 8, 9, 16, 17})
        for (const int64_t k : {31, 64, 256}) {
          SCOPED_TRACE(std::string(name(level)) + ", " + c10::toString(type) + ", " + std::to_string(rows) + " rows of " + std::to_string(k));
          const at::Tensor x = testing::randn({rows, k}, 1, at::kFloat).to(type), wide = testing::randn({50, k + 6}, 2, at::kFloat).to(type), b = testing::randn({50}, 3, at::kFloat).to(type);
          const at::Tensor w = wide.narrow(1, 0, k), exact = at::linear(x.to(at::kDouble), w.to(at::kDouble), b.to(at::kDouble));
          for (const at::Tensor& weight : {w, w.contiguous()}) {
            const at::Tensor y = kernels::linear(x, weight, b);
            EXPECT_EQ(y.scalar_type(), type);
            EXPECT_EQ(y.sizes(), exact.sizes());
            const double step = type == at::kDouble ? 1e-12 : type == at::kFloat ? 1e-5 : type == at::kHalf ? 2e-3 : 1e-2;
            if (rows > 0) {
              EXPECT_LT((y.to(at::kDouble) - exact).abs().max().item<double>(), step * std::max(1.0, exact.abs().max().item<double>()));
            }
          }
        }
  }
}

TEST(FastProducts, KeepTheTypeThatLibtorchGives) {
  const at::Tensor a = testing::randn({3, 8}, 1, at::kFloat), b = testing::randn({8, 5}, 2, at::kFloat);
  for (const CpuLevel level : {CpuLevel::portable, detected_cpu_level()}) {
    const ForcedCpuLevel forced(level);
    for (const bool autocast : {false, true}) {
      const AutocastScope scope({.enabled = autocast});
      const FastProducts fast(a);
      const at::Tensor y = fast.result(at::matmul(fast(a), fast(b)));
      EXPECT_EQ(y.scalar_type(), autocast ? at::kBFloat16 : at::kFloat);
    }
    const FastProducts fast(a.to(at::kBFloat16));
    EXPECT_EQ(fast.result(at::matmul(fast(a.to(at::kBFloat16)), fast(b.to(at::kBFloat16)))).scalar_type(), at::kBFloat16);
    EXPECT_FALSE(fast({}).defined());
  }
}

}  // namespace
}  // namespace switchyard::kernels
