// What tests of layers share: bound schemas, contexts over one packed pass, finite differences.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "switchyard/base/error.h"
#include "switchyard/base/random.h"
#include "switchyard/contract/context.h"
#include "switchyard/contract/record.h"

namespace switchyard::testing {

/// A pass over `rows` rows in segments of equal length, with everything a context points to.
struct Pass {
  explicit Pass(int64_t rows, int64_t segments = 1, Phase phase = Phase::evaluate, uint64_t seed = 7)
      : facts(segments > 0 && rows % segments == 0 ? Segments::equal(segments, rows / segments) : Segments::single(rows)),
        random(seed),
        context{.facts = facts, .random = random, .phase = phase, .records = &records, .routed = &routed} {}
  Facts facts;
  Streams random;
  Records records;
  RoutedStore routed;
  Context context;
};

inline at::Tensor randn(at::IntArrayRef shape, uint64_t seed, at::ScalarType type = at::kDouble) {
  return Streams(seed).normal(shape, {.purpose = "test"}, type);
}

/// Largest |a - b|.
inline double difference(const at::Tensor& a, const at::Tensor& b) {
  EXPECT_EQ(a.sizes(), b.sizes());
  if (a.numel() == 0) return 0;
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

/// Compares autograd's gradient of sum(f() * fixed weights) with central differences for every element
/// of every leaf (float64), and says which one differs.
inline void expect_gradients(const std::function<at::Tensor()>& f, std::vector<at::Tensor> leaves,
                             double tolerance = 1e-6, double step = 1e-5) {
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

/// Runs `call` and returns the error it throws; fails the test when it throws none.
inline Error expect_error(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "no error was thrown";
  return Error("none", "none");
}

}  // namespace switchyard::testing
