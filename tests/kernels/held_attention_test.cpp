// One row over the keys that its sequence holds, against the formula in float64.
#include "switchyard/kernels/held_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>

#include "switchyard/base/error.h"
#include "switchyard/kernels/dispatch.h"
#include "tests/support.h"

namespace switchyard::kernels {
namespace {

/// q: [H, d] of one row.
at::Tensor formula(const at::Tensor& q, const HeldKeys& held, const HeldOptions& options) {
  const int64_t group = q.size(0) / held.keys.size(1), m = held.keys.size(0);
  const auto every_head = [&](const at::Tensor& t) { return t.to(at::kDouble).repeat_interleave(group, 1); };
  at::Tensor scores = at::einsum("hd,mhd->hm", {q.to(at::kDouble), every_head(held.keys)}) * options.scale;
  if (options.cap > 0) scores = (scores / options.cap).tanh() * options.cap;
  if (options.sinks.defined()) scores = at::cat({scores, options.sinks.to(at::kDouble).unsqueeze(1)}, 1);
  return at::einsum("hm,mhd->hd", {scores.softmax(1).narrow(1, 0, m), every_head(held.values)});
}

struct Case { int64_t heads, kv_heads, d, dv; std::vector<int64_t> lengths; };

TEST(HeldAttention, IsTheFormulaAtEveryLevel) {
  const at::NoGradGuard guard;
  const std::vector<Case> cases{{4, 4, 16, 16, {1}}, {8, 2, 64, 64, {5, 1, 130}}, {6, 2, 20, 12, {33}}, {20, 1, 48, 32, {1030, 7}}, {3, 3, 7, 5, {2500}}};
  uint64_t seed = 1;
  for (const CpuLevel level : {CpuLevel::portable, CpuLevel::avx2, CpuLevel::avx512, CpuLevel::avx512bf16}) {
    if (level > detected_cpu_level()) continue;
    const ForcedCpuLevel forced(level);
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16})
      for (const Case& c : cases)
        for (const bool odd : {false, true}) {  // capped scores, sinks, and values that are a part of the keys
          SCOPED_TRACE(fmt::format("{} {} heads of {}, {}", name(level), c.heads, c.d, odd ? "odd" : "plain"));
          const int64_t rows = static_cast<int64_t>(c.lengths.size());
          const at::Tensor q = testing::randn({rows, c.heads, c.d}, seed++).to(type);
          std::vector<HeldKeys> held;
          for (const int64_t m : c.lengths) {
            const at::Tensor keys = testing::randn({m, c.kv_heads, c.d}, seed++).to(type);
            held.push_back({keys, odd ? keys.narrow(2, 0, c.dv) : testing::randn({m, c.kv_heads, c.dv}, seed++).to(type)});
          }
          HeldOptions options{.scale = 0.3};
          if (odd) options.cap = 2;
          if (odd) options.sinks = testing::randn({c.heads}, seed++).to(type);
          const at::Tensor y = attend_held(q, held, options);
          ASSERT_EQ(y.scalar_type(), type);
          for (int64_t t = 0; t < rows; ++t) {
            const at::Tensor wanted = formula(q[t], held[static_cast<size_t>(t)], options);
            EXPECT_LT((y[t].to(at::kDouble) - wanted).abs().max().item<double>(), type == at::kFloat ? 2e-6 : 2e-2) << "row " << t;
            const at::Tensor alone = attend_held(q.narrow(0, t, 1), std::span(held).subspan(static_cast<size_t>(t), 1), options);
            EXPECT_TRUE(at::equal(alone[0], y[t])) << "row " << t << " depends on the others";
          }
        }
  }
}

TEST(HeldAttention, DoesNotDependOnThreads) {
  const at::NoGradGuard guard;
  const HeldKeys held{testing::randn({3000, 2, 32}, 1, at::kFloat), testing::randn({3000, 2, 32}, 2, at::kFloat)};
  const at::Tensor q = testing::randn({1, 8, 32}, 3, at::kFloat);
  const int before = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor one = attend_held(q, {&held, 1}, {.scale = 0.2});
  at::set_num_threads(4);
  const at::Tensor four = attend_held(q, {&held, 1}, {.scale = 0.2});
  at::set_num_threads(before);
  EXPECT_TRUE(at::equal(one, four));
}

TEST(HeldAttention, ShowsWhatIsNoNumberAndRefusesOtherShapes) {
  const at::NoGradGuard guard;
  const at::Tensor q = testing::randn({1, 2, 8}, 1, at::kFloat);
  HeldKeys held{testing::randn({40, 1, 8}, 2, at::kFloat), testing::randn({40, 1, 8}, 3, at::kFloat)};
  held.keys[17][0][3] = NAN;
  EXPECT_TRUE(attend_held(q, {&held, 1}, {}).isnan().all().item<bool>());
  const HeldKeys large{at::full({4, 1, 8}, 1e4f), testing::randn({4, 1, 8}, 4, at::kFloat)};
  EXPECT_FALSE(attend_held(q * 1e4, {&large, 1}, {}).isnan().any().item<bool>());
  const HeldKeys narrow{testing::randn({4, 1, 6}, 5, at::kFloat), testing::randn({4, 1, 8}, 6, at::kFloat)};
  const HeldKeys three{testing::randn({4, 3, 8}, 7, at::kFloat), testing::randn({4, 3, 8}, 8, at::kFloat)};
  for (const HeldKeys* wrong : {&narrow, &three}) EXPECT_EQ(testing::expect_error([&] { attend_held(q, {wrong, 1}, {}); }).code(), "kernels.shape");
  EXPECT_EQ(testing::expect_error([&] { attend_held(q, {}, {}); }).code(), "kernels.shape");
  EXPECT_FALSE(takes_held(q.to(at::kDouble), held));
}

}  // namespace
}  // namespace switchyard::kernels
