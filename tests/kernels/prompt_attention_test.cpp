// Many rows over the keys that their sequence holds, against the formula in float64.
#include "switchyard/kernels/prompt_attention.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <cmath>
#include <optional>

#include "switchyard/base/error.h"
#include "switchyard/kernels/cpu/fma_product.h"
#include "switchyard/kernels/dispatch.h"
#include "tests/support.h"

namespace switchyard::kernels {
namespace {

at::Tensor formula(const at::Tensor& q, const HeldKeys& held, const PromptOptions& options) {
  const int64_t n = q.size(0), heads = q.size(1), group = heads / held.keys.size(1), m = held.keys.size(0);
  const auto every_head = [&](const at::Tensor& t) { return t.to(at::kDouble).repeat_interleave(group, 1); };
  at::Tensor scores = at::einsum("nhd,mhd->hnm", {q.to(at::kDouble), every_head(held.keys)}) * options.scores.scale;
  if (options.scores.cap > 0) scores = (scores / options.scores.cap).tanh() * options.scores.cap;
  if (options.causal) {
    const at::Tensor place = at::arange(m - n, m).unsqueeze(1), key = at::arange(m).unsqueeze(0);
    at::Tensor hidden = key > place;
    if (options.window > 0) hidden = hidden.logical_or(key <= place - options.window);
    if (options.chunk > 0) hidden = hidden.logical_or(key.floor_divide(options.chunk) != place.floor_divide(options.chunk));
    scores = scores.masked_fill(hidden, -INFINITY);
  }
  if (options.scores.sinks.defined()) scores = at::cat({scores, options.scores.sinks.to(at::kDouble).view({-1, 1, 1}).expand({-1, n, 1})}, 2);
  return at::einsum("hnm,mhd->nhd", {scores.softmax(2).narrow(2, 0, m), every_head(held.values)});
}

class PromptAttention : public ::testing::Test {
 protected:
  void SetUp() override {
    if (detected_cpu_level() < CpuLevel::avx2) GTEST_SKIP() << "the products that it is made of need AVX2";
    level_.emplace(CpuLevel::avx2);
    if (!cpu::has_fma_product()) GTEST_SKIP() << "this compiler builds no such products";
  }

 private:
  std::optional<ForcedCpuLevel> level_;
  at::NoGradGuard guard_;
};

TEST_F(PromptAttention, IsTheFormula) {
  struct Case { int64_t n, m, heads, kv_heads, d, dv; PromptOptions options; };
  const HeldOptions plain{.scale = 0.3};
  const std::vector<Case> cases{{1, 1, 2, 2, 8, 8, {plain}},
                                {70, 70, 4, 2, 64, 64, {plain}},
                                {49, 700, 10, 2, 20, 12, {plain}},                                     // more heads than a task takes; two blocks of keys
                                {5, 1100, 3, 3, 7, 5, {plain}},
                                {130, 130, 2, 1, 16, 16, {.scores = plain, .window = 20}},             // blocks that no row sees
                                {60, 640, 2, 2, 16, 16, {.scores = plain, .window = 1}},
                                {100, 620, 2, 1, 16, 16, {.scores = plain, .chunk = 48}},
                                {100, 600, 2, 1, 16, 16, {.scores = plain, .window = 30, .chunk = 64}},
                                {50, 20, 4, 4, 12, 20, {.scores = plain, .causal = false}},
                                {64, 64, 4, 4, 12, 8, {.scores = {.scale = 2, .cap = 3}}}};
  uint64_t seed = 1;
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16})
    for (Case c : cases)
      for (const bool odd : {false, true}) {  // sinks, values that are a part of the keys, and rows that lie apart
        SCOPED_TRACE(fmt::format("{} {} of {} rows, {} heads, {}", c10::toString(type), c.n, c.m, c.heads, odd ? "odd" : "plain"));
        const at::Tensor q = (odd ? testing::randn({c.n, c.heads, 2 * c.d}, seed++).narrow(2, c.d, c.d) : testing::randn({c.n, c.heads, c.d}, seed++)).to(type);
        const at::Tensor keys = testing::randn({c.m, c.kv_heads, c.d}, seed++).to(type);
        const HeldKeys held{keys, odd && c.dv <= c.d ? keys.narrow(2, 0, c.dv) : testing::randn({c.m, c.kv_heads, c.dv}, seed++).to(type)};
        if (odd) c.options.scores.sinks = testing::randn({c.heads}, seed++).to(type);
        ASSERT_TRUE(takes_prompt(q, held));
        const at::Tensor y = attend_prompt(q, held, c.options);
        ASSERT_EQ(y.scalar_type(), type);
        EXPECT_LT((y.to(at::kDouble) - formula(q, held, c.options)).abs().max().item<double>(), type == at::kFloat ? 4e-6 : 2e-2);
      }
}

TEST_F(PromptAttention, DoesNotDependOnThreads) {
  const HeldKeys held{testing::randn({900, 2, 32}, 1, at::kFloat), testing::randn({900, 2, 32}, 2, at::kFloat)};
  const at::Tensor q = testing::randn({300, 8, 32}, 3, at::kFloat);
  const int before = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor one = attend_prompt(q, held, {.scores = {.scale = 0.2}});
  at::set_num_threads(4);
  const at::Tensor four = attend_prompt(q, held, {.scores = {.scale = 0.2}});
  at::set_num_threads(before);
  EXPECT_TRUE(at::equal(one, four));
}

TEST_F(PromptAttention, WhatIsNoNumberStaysSoAndOnlyForThoseWhoSeeIt) {
  at::Tensor keys = testing::randn({100, 1, 16}, 1, at::kFloat);
  const at::Tensor q = testing::randn({100, 2, 16}, 2, at::kFloat), values = testing::randn({100, 1, 16}, 3, at::kFloat);
  keys[60].fill_(NAN);
  const at::Tensor y = attend_prompt(q, {keys, values}, {.scores = {.scale = 0.2}});
  EXPECT_TRUE(at::isfinite(y.narrow(0, 0, 60)).all().item<bool>());
  EXPECT_TRUE(at::isnan(y.narrow(0, 60, 40)).all().item<bool>());
}

TEST_F(PromptAttention, RefusesWhatDoesNotFit) {
  const at::Tensor q = testing::randn({4, 4, 8}, 1, at::kFloat), keys = testing::randn({6, 2, 8}, 2, at::kFloat);
  const auto code = [&](const at::Tensor& queries, const HeldKeys& held, const PromptOptions& options) {
    return testing::expect_error([&] { attend_prompt(queries, held, options); }).code();
  };
  EXPECT_EQ(code(q.narrow(1, 0, 3), {keys, keys}, {}), "kernels.shape");
  EXPECT_EQ(code(q.narrow(2, 0, 4), {keys, keys}, {}), "kernels.shape");
  EXPECT_EQ(code(q, {keys.narrow(0, 0, 3), keys.narrow(0, 0, 3)}, {}), "kernels.shape");
  EXPECT_EQ(code(q, {keys, keys.narrow(0, 0, 3)}, {}), "kernels.shape");
  EXPECT_EQ(code(q.to(at::kDouble), {keys, keys}, {}), "kernels.shape");
  EXPECT_EQ(code(q, {keys, keys}, {.scores = {.sinks = at::full({3}, 1.0)}}), "kernels.shape");
}

}  // namespace
}  // namespace switchyard::kernels
