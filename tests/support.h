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

at::Tensor randn(at::IntArrayRef shape, uint64_t seed, at::ScalarType type = at::kDouble);

/// Largest |a - b|.
double difference(const at::Tensor& a, const at::Tensor& b);

/// Compares autograd's gradient of sum(f() * fixed weights) with central differences for every element
/// of every leaf (float64), and says which one differs.
void expect_gradients(const std::function<at::Tensor()>& f, std::vector<at::Tensor> leaves, double tolerance = 1e-6, double step = 1e-5);

/// Runs `call` and returns the error it throws; fails the test when it throws none.
Error expect_error(const std::function<void()>& call);

}  // namespace switchyard::testing
