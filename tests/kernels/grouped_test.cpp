// The fast grouped kernels against the plain reference in float64, at every instruction level of this processor.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>

#include "switchyard/base/differentiable.h"
#include "switchyard/kernels/batched_lora.h"
#include "switchyard/kernels/dispatch.h"
#include "switchyard/kernels/grouped_ffn.h"
#include "switchyard/kernels/grouped_linear.h"
#include "switchyard/kernels/permutation.h"
#include "switchyard/kernels/reference/reference.h"
#include "tests/kernels/grouped_support.h"
#include "tests/support.h"

namespace switchyard::kernels {
namespace {

using switchyard::testing::GroupedShape;
using switchyard::testing::randn;
using switchyard::testing::relative;
using switchyard::testing::tolerance;

const std::vector<GroupedShape> kShapes = {{0, 3, 4, 6, 4},      {1, 1, 2, 2, 2},      {5, 3, 6, 10, 4},      {37, 4, 34, 50, 18},
                                    {130, 2, 64, 300, 66}, {9, 16, 32, 48, 32}, {14, 5, 70, 130, 66}, {20, 4, 264, 520, 34}, {12, 4, 300, 264, 270}, {200, 1, 274, 18, 70}, {800, 2, 34, 20, 18}};

/// offset with some experts empty; all rows to the last one when `skewed`.
at::Tensor offsets(int64_t rows, int64_t experts, bool skewed) {
  at::Tensor offset = at::zeros({experts + 1}, at::kLong);
  for (int64_t e = 1; e <= experts; ++e)
    offset[e] = skewed ? (e == experts ? rows : 0) : (e == experts ? rows : rows * (e / 2 * 2) / experts);
  return offset;
}

std::vector<CpuLevel> levels() {
  std::vector<CpuLevel> list;
  for (CpuLevel level : {CpuLevel::portable, CpuLevel::avx2, CpuLevel::avx512, CpuLevel::avx512bf16})
    if (level <= detected_cpu_level()) list.push_back(level);
  return list;
}

at::Tensor leaf(const at::Tensor& t, at::ScalarType type) { return t.to(type).detach().clone().requires_grad_(); }

TEST(GroupedKernels, LinearEqualsTheReferenceInBothLayouts) {
  for (CpuLevel level : levels()) {
    ForcedCpuLevel forced(level);
    for (at::ScalarType type : {at::kFloat, at::kBFloat16})
      for (const GroupedShape& s : kShapes)
        for (WeightLayout layout : {WeightLayout::out_in, WeightLayout::in_out})
          for (bool skewed : {false, true}) {
            const at::Tensor offset = offsets(s.rows, s.experts, skewed);
            const std::vector<int64_t> shape = layout == WeightLayout::out_in ? std::vector<int64_t>{s.experts, s.out, s.in}
                                                                               : std::vector<int64_t>{s.experts, s.in, s.out};
            const at::Tensor x = leaf(randn({s.rows, s.in}, 1), type), w = leaf(randn(shape, 2), type), b = leaf(randn({s.experts, s.out}, 3), type);
            const at::Tensor xd = leaf(x, at::kDouble), wd = leaf(w, at::kDouble), bd = leaf(b, at::kDouble);
            const at::Tensor y = grouped_linear(x, w, offset, b, layout), yd = reference::grouped_linear(xd, wd, offset, bd, layout);
            const std::string where = std::string(name(level)) + " " + c10::toString(type) + " rows " + std::to_string(s.rows) + " layout " +
                                      std::to_string(static_cast<int>(layout)) + (skewed ? " skewed" : "");
            EXPECT_EQ(y.scalar_type(), type);
            EXPECT_LT(relative(y, yd.detach()), tolerance(type)) << where;
            const at::Tensor g = randn({s.rows, s.out}, 4).to(type);
            y.backward(g);
            yd.backward(g.to(at::kDouble));
            for (const auto& [got, expected] : {std::pair{x, xd}, {w, wd}, {b, bd}}) {
              ASSERT_TRUE(got.grad().defined()) << where;
              EXPECT_LT(relative(got.grad(), expected.grad()), tolerance(type)) << where;
            }
          }
  }
}

TEST(GroupedKernels, BitsOfARowDoNotDependOnHowManyRowsItsExpertHas) {
  if (detected_cpu_level() < CpuLevel::avx2) GTEST_SKIP() << "the products that this is about need AVX2";
  const ForcedCpuLevel forced(CpuLevel::avx2);
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16})
    for (const WeightLayout layout : {WeightLayout::out_in, WeightLayout::in_out}) {
      const at::Tensor x = randn({400, 272}, 1, at::kFloat).to(type), b = randn({1, 90}, 3, at::kFloat).to(type);
      const at::Tensor w = randn(layout == WeightLayout::out_in ? at::IntArrayRef{1, 90, 272} : at::IntArrayRef{1, 272, 90}, 2, at::kFloat).to(type);
      const auto map = [&](int64_t first, int64_t count) {
        return grouped_linear(x.narrow(0, first, count), w, at::tensor({int64_t{0}, count}, at::kLong), b, layout);
      };
      const at::Tensor all = map(0, 400);
      EXPECT_TRUE(at::equal(all, at::cat({map(0, 100), map(100, 100), map(200, 200)}))) << c10::toString(type) << static_cast<int>(layout);
      if (type == at::kFloat) {  // few rows, but not so few that they are met in strips
        for (const int64_t rows : {25, 27, 31, 32, 33}) EXPECT_TRUE(at::equal(all.narrow(0, 7, rows), map(7, rows))) << rows << static_cast<int>(layout);
      }
    }
}

struct Ffn {
  Ffn(const GroupedShape& s, at::ScalarType type, const ActivationOptions& activation, bool bias, WeightLayout layout = WeightLayout::out_in) {
    const auto make = [&](int64_t a, int64_t b, uint64_t seed) {
      const at::Tensor w = randn({s.experts, a, b}, seed) * 0.3;
      return leaf(layout == WeightLayout::out_in ? w : w.transpose(1, 2).contiguous(), type);
    };
    weights.layout = layout;
    weights.up = make(s.hidden, s.in, 11);
    if (is_gated(activation.kind)) weights.gate = make(s.hidden, s.in, 12);
    weights.down = make(s.out, s.hidden, 13);
    if (bias) {
      weights.up_bias = leaf(randn({s.experts, s.hidden}, 14), type);
      if (weights.gate.defined()) weights.gate_bias = leaf(randn({s.experts, s.hidden}, 15), type);
      weights.down_bias = leaf(randn({s.experts, s.out}, 16), type);
    }
  }
  Ffn as(at::ScalarType type) const {
    Ffn other = *this;
    for (at::Tensor* t : other.all())
      if (t->defined()) *t = leaf(*t, type);
    return other;
  }
  std::vector<at::Tensor*> all() {
    return {&weights.up, &weights.gate, &weights.down, &weights.up_bias, &weights.gate_bias, &weights.down_bias};
  }
  FeedForwardWeights weights;
};

/// One forward and backward of both, compared.
void expect_ffn(const GroupedShape& s, at::ScalarType type, const FeedForwardOptions& options, bool bias, bool gathered, bool weighted,
                const std::string& where) {
  Ffn fast(s, type, options.activation, bias), plain = fast.as(at::kDouble);
  const int64_t tokens = std::max<int64_t>(s.rows / 2, 1);
  const at::Tensor x = leaf(randn({gathered ? tokens : s.rows, s.in}, 21), type), xd = leaf(x, at::kDouble);
  at::Tensor row;
  if (gathered) row = Streams(5).integers(tokens, {s.rows}, {.purpose = "rows"});
  at::Tensor weight, weight_d;
  if (weighted) {
    weight = leaf(randn({s.rows}, 22).abs(), at::kFloat);
    weight_d = leaf(weight, at::kDouble);
  }
  const at::Tensor offset = offsets(s.rows, s.experts, false);
  const at::Tensor y = grouped_ffn(x, offset, row, weight, fast.weights, options);
  const at::Tensor yd = reference::grouped_ffn(xd, offset, row, weight_d, plain.weights, options);
  EXPECT_EQ(y.scalar_type(), type) << where;
  EXPECT_LT(relative(y, yd.detach()), tolerance(type)) << where;
  const at::Tensor g = randn(yd.sizes(), 23).to(type);
  y.backward(g);
  yd.backward(g.to(at::kDouble));
  std::vector<std::pair<at::Tensor, at::Tensor>> pairs{{x, xd}};
  if (weighted) pairs.push_back({weight, weight_d});
  for (size_t i = 0; i < fast.all().size(); ++i)
    if (fast.all()[i]->defined()) pairs.push_back({*fast.all()[i], *plain.all()[i]});
  for (size_t i = 0; i < pairs.size(); ++i) {
    ASSERT_TRUE(pairs[i].first.grad().defined()) << where << " input " << i;
    EXPECT_LT(relative(pairs[i].first.grad(), pairs[i].second.grad()), tolerance(type)) << where << " input " << i;
  }
}

TEST(GroupedKernels, FeedForwardEqualsTheReferenceAtEveryLevel) {
  for (CpuLevel level : levels()) {
    ForcedCpuLevel forced(level);
    for (at::ScalarType type : {at::kFloat, at::kBFloat16})
      for (const GroupedShape& s : kShapes)
        for (bool gathered : {false, true})
          for (bool weighted : {false, true}) {
            if (gathered && s.in != s.out && s.rows == 0) continue;
            expect_ffn(s, type, {}, weighted, gathered, weighted,
                       std::string(name(level)) + " " + c10::toString(type) + " rows " + std::to_string(s.rows) +
                           (gathered ? " gathered" : "") + (weighted ? " weighted" : ""));
          }
  }
}

TEST(GroupedKernels, EveryActivationHasItsValueAndSlope) {
  for (int kind = 0; kind <= static_cast<int>(Activation::clamped_swiglu); ++kind)
    for (Intermediates intermediates : {Intermediates::keep, Intermediates::recompute})
      expect_ffn({70, 3, 16, 24, 16}, at::kFloat,
                 {.activation = {.kind = static_cast<Activation>(kind), .limit = 1.0}, .intermediates = intermediates}, true, true, true,
                 "activation " + std::to_string(kind));
}

TEST(GroupedKernels, WeightsMayMultiplyTheInput) {
  expect_ffn({50, 3, 16, 24, 16}, at::kFloat, {.weigh_on = WeighOn::input}, true, true, true, "input");
}

TEST(GroupedKernels, ResultsDoNotDependOnTheThreadCount) {
  const GroupedShape s{200, 5, 64, 96, 64};
  const int before = at::get_num_threads();
  std::vector<std::vector<at::Tensor>> runs;
  for (int threads : {1, 2, 3}) {
    at::set_num_threads(threads);
    Ffn ffn(s, at::kFloat, {}, true);
    const at::Tensor x = leaf(randn({100, s.in}, 1), at::kFloat), w = leaf(randn({s.rows}, 2), at::kFloat);
    const at::Tensor row = Streams(5).integers(100, {s.rows}, {.purpose = "rows"});
    const at::Tensor y = grouped_ffn(x, offsets(s.rows, s.experts, false), row, w, ffn.weights);
    y.sum().backward();
    runs.push_back({y.detach(), x.grad(), w.grad(), ffn.weights.up.grad(), ffn.weights.down.grad(), ffn.weights.gate_bias.grad()});
  }
  at::set_num_threads(before);
  for (size_t r = 1; r < runs.size(); ++r)
    for (size_t i = 0; i < runs[0].size(); ++i) EXPECT_TRUE(at::equal(runs[0][i], runs[r][i])) << r << " " << i;
}

TEST(GroupedKernels, AutocastRunsInBf16AndKeepsTheGradientOfFloatWeights) {
  for (const GroupedShape& s : {GroupedShape{60, 3, 32, 48, 32}, GroupedShape{12, 3, 300, 270, 300}}) {
    Ffn ffn(s, at::kFloat, {}, false), plain = ffn.as(at::kDouble);
    const at::Tensor x = leaf(randn({s.rows, s.in}, 1), at::kFloat), xd = leaf(x, at::kDouble);
    at::autocast::set_autocast_enabled(at::kCPU, true);
    const at::Tensor y = grouped_ffn(x, offsets(s.rows, s.experts, false), {}, {}, ffn.weights);
    at::autocast::set_autocast_enabled(at::kCPU, false);
    EXPECT_EQ(y.scalar_type(), at::kBFloat16);
    y.sum().backward();
    reference::grouped_ffn(xd, offsets(s.rows, s.experts, false), {}, {}, plain.weights, {}).sum().backward();
    EXPECT_EQ(ffn.weights.up.grad().scalar_type(), at::kFloat);
    EXPECT_LT(relative(ffn.weights.up.grad(), plain.weights.up.grad()), 4e-2);
    EXPECT_LT(relative(x.grad(), xd.grad()), 4e-2);
  }
}

TEST(GroupedKernels, AMapUsedTwiceOrWithoutAGraphIsTheSameMap) {
  const GroupedShape s{40, 3, 32, 48, 32};
  const at::Tensor offset = offsets(s.rows, s.experts, false);
  for (const Intermediates intermediates : {Intermediates::keep, Intermediates::recompute}) {
    const FeedForwardOptions options{.intermediates = intermediates};
    Ffn ffn(s, at::kFloat, {}, true), once = ffn.as(at::kFloat);
    const at::Tensor x = leaf(randn({s.rows, s.in}, 1), at::kFloat), x1 = leaf(x, at::kFloat);
    const at::Tensor y = grouped_ffn(x, offset, {}, {}, ffn.weights, options);
    grouped_ffn(x1, offset, {}, {}, once.weights, options).sum().backward();
    // Two uses of the same weights in one graph, then the same graph again.
    const at::Tensor both = (y + grouped_ffn(x, offset, {}, {}, ffn.weights, options)).sum();
    both.backward({}, true);
    both.backward();
    for (const auto& [many, one] : {std::pair{x.grad(), x1.grad()}, std::pair{ffn.weights.up.grad(), once.weights.up.grad()},
                                    std::pair{ffn.weights.down.grad(), once.weights.down.grad()}})
      EXPECT_LT(relative(many, one * 4), 1e-5);

    const auto without = [&](const at::Tensor& z) {
      EXPECT_FALSE(z.requires_grad());
      EXPECT_TRUE(at::equal(z, y.detach()));
    };
    {
      const at::NoGradGuard guard;
      without(grouped_ffn(x, offset, {}, {}, ffn.weights, options));
    }
    const c10::InferenceMode guard;
    without(grouped_ffn(x, offset, {}, {}, ffn.weights, options));
    EXPECT_TRUE(at::equal(grouped_linear(x, ffn.weights.up, offset, ffn.weights.up_bias), grouped_linear(x.detach(), ffn.weights.up.detach(), offset, ffn.weights.up_bias.detach())));
  }
}

TEST(GroupedKernels, SecondDerivativesAreRightNotMissing) {
  const GroupedShape s{12, 2, 4, 6, 4};
  Ffn ffn(s, at::kFloat, {}, false), plain = ffn.as(at::kDouble);
  const at::Tensor x = leaf(randn({s.rows, s.in}, 1), at::kFloat), xd = leaf(x, at::kDouble);
  const auto second = [&](const at::Tensor& input, const at::Tensor& y) {
    const at::Tensor first = gradients({y.sum()}, {input}, {}, true, true)[0];
    first.square().sum().backward();
    return input.grad();
  };
  const at::Tensor got = second(x, grouped_ffn(x, offsets(s.rows, s.experts, false), {}, {}, ffn.weights));
  const at::Tensor expected = second(xd, reference::grouped_ffn(xd, offsets(s.rows, s.experts, false), {}, {}, plain.weights, {}));
  EXPECT_LT(relative(got, expected), 1e-4);
}

TEST(GroupedKernels, RefusesWhatDoesNotFit) {
  const at::Tensor x = randn({4, 6}, 1, at::kFloat), w = randn({2, 5, 6}, 2, at::kFloat);
  const auto code = [](const std::function<void()>& call) { return switchyard::testing::expect_error(call).code(); };
  EXPECT_EQ(code([&] { grouped_linear(x, randn({2, 5, 7}, 2, at::kFloat), at::tensor({0, 2, 4}, at::kLong)); }), "kernels.shape");
  EXPECT_EQ(code([&] { grouped_linear(x, w, at::tensor({0, 3, 2}, at::kLong)); }), "kernels.offset");
  EXPECT_EQ(code([&] { grouped_linear(x, w, at::tensor({0, 4}, at::kLong)); }), "kernels.offset");
  EXPECT_EQ(code([&] { gather_rows(x, at::tensor({0, 4}, at::kLong)); }), "kernels.row_range");
  EXPECT_EQ(code([&] { combine_rows(x, at::tensor({0, 1, 2, -1}, at::kLong), {}, 3); }), "kernels.row_range");
  EXPECT_EQ(code([&] { sort_by_slot(at::tensor({0, 5}, at::kLong), 3); }), "kernels.slot_range");
}

/// The reference: one adapter after another.
at::Tensor plain_lora(const at::Tensor& y, const at::Tensor& x, const at::Tensor& a, const at::Tensor& b, const at::Tensor& scale, const at::Tensor& adapter) {
  at::Tensor sum = y;
  for (int64_t n = 0; n < a.size(0); ++n) {
    const at::Tensor mine = (adapter == n).to(y.scalar_type()).unsqueeze(1);
    const at::Tensor change = x.matmul(a[n].t()).matmul(b[n].t());
    sum = sum + mine * change * (scale.defined() ? scale[n] : at::ones({}, y.options()));
  }
  return sum;
}

TEST(BatchedLora, EqualsOneAdapterAfterAnotherWithGradients) {
  for (CpuLevel level : levels()) {
    ForcedCpuLevel forced(level);
    for (at::ScalarType type : {at::kFloat, at::kBFloat16, at::kDouble})
      for (int64_t rows : {0, 1, 5, 40}) {
        const int64_t adapters = 4, rank = 6, in = 34, out = 18;  // the last adapter has no row
        const at::Tensor adapter = Streams(2).integers(adapters, {rows}, {.purpose = "adapter"}) - 1;
        std::vector<at::Tensor> leaves{leaf(randn({rows, out}, 1), type), leaf(randn({rows, in}, 2), type), leaf(randn({adapters, rank, in}, 3), type),
                                       leaf(randn({adapters, out, rank}, 4), type), leaf(randn({adapters}, 5), type == at::kDouble ? type : at::kFloat)};
        std::vector<at::Tensor> wide;
        for (const at::Tensor& t : leaves) wide.push_back(leaf(t, at::kDouble));
        const at::Tensor got = batched_lora(leaves[0], leaves[1], leaves[2], leaves[3], leaves[4], adapter);
        const at::Tensor expected = plain_lora(wide[0], wide[1], wide[2], wide[3], wide[4], adapter);
        const double allowed = type == at::kDouble ? 1e-12 : tolerance(type);
        EXPECT_EQ(got.scalar_type(), type);
        EXPECT_LT(relative(got, expected.detach()), allowed);
        if (rows == 0) continue;
        const at::Tensor g = randn({rows, out}, 6).to(type);
        got.backward(g);
        expected.backward(g.to(at::kDouble));
        for (size_t i = 0; i < leaves.size(); ++i) {
          if (!leaves[i].grad().defined()) {
            EXPECT_TRUE((adapter == -1).all().item<bool>()) << i;
            continue;
          }
          EXPECT_LT(relative(leaves[i].grad(), wide[i].grad()), allowed) << name(level) << " " << c10::toString(type) << " rows " << rows << " input " << i;
        }
      }
  }
  const at::Tensor x = randn({2, 4}, 1, at::kFloat), y = randn({2, 3}, 2, at::kFloat), a = randn({2, 2, 4}, 3, at::kFloat), b = randn({2, 3, 2}, 4, at::kFloat);
  const auto code = [](const std::function<void()>& call) { return switchyard::testing::expect_error(call).code(); };
  EXPECT_EQ(code([&] { batched_lora(y, x, a, b, {}, at::tensor({0, 2}, at::kLong)); }), "kernels.slot_range");
  EXPECT_EQ(code([&] { batched_lora(y, x, a, b, {}, at::tensor({0, -2}, at::kLong)); }), "kernels.slot_range");
  EXPECT_EQ(code([&] { batched_lora(y, x, b, a, {}, at::tensor({0, 0}, at::kLong)); }), "kernels.shape");
}

TEST(Permutation, SortIsStableAndLeavesOutWhatWasDropped) {
  const at::Tensor slot = at::tensor({2, 0, 2, 1, 0}, at::kLong), kept = at::tensor({1, 1, 1, 0, 1}, at::kLong).to(at::kBool);
  const SlotOrder sorted = sort_by_slot(slot, 4, kept);
  EXPECT_TRUE(at::equal(sorted.order, at::tensor({1, 4, 0, 2}, at::kLong)));
  EXPECT_TRUE(at::equal(sorted.offset, at::tensor({0, 2, 2, 4, 4}, at::kLong)));
  EXPECT_TRUE(at::equal(inverse_order(sorted.order, 5), at::tensor({2, 0, 3, -1, 1}, at::kLong)));
  const SlotOrder plain = reference::sort_by_slot(slot, 4, kept);
  EXPECT_TRUE(at::equal(sorted.order, plain.order));
  EXPECT_EQ(sort_by_slot(at::zeros({0}, at::kLong), 2).order.size(0), 0);
}

TEST(Permutation, GatherAndCombineEqualTheReferenceWithGradients) {
  for (at::ScalarType type : {at::kFloat, at::kDouble, at::kBFloat16}) {
    const at::Tensor row = Streams(3).integers(7, {20}, {.purpose = "rows"});
    const at::Tensor y = leaf(randn({20, 3, 5}, 1), type), yd = leaf(y, at::kDouble);
    const at::Tensor w = leaf(randn({20}, 2), type == at::kDouble ? at::kDouble : at::kFloat), wd = leaf(w, at::kDouble);
    const at::Tensor got = combine_rows(y, row, w, 9), expected = reference::combine_rows(yd, row, wd, 9);
    EXPECT_LT(relative(got, expected.detach()), type == at::kBFloat16 ? 1e-2 : 1e-6);
    const at::Tensor g = randn(expected.sizes(), 3).to(type);
    got.backward(g);
    expected.backward(g.to(at::kDouble));
    EXPECT_LT(relative(y.grad(), yd.grad()), type == at::kBFloat16 ? 1e-2 : 1e-6);
    EXPECT_LT(relative(w.grad(), wd.grad()), type == at::kBFloat16 ? 1e-2 : 1e-6);
    const at::Tensor x = leaf(randn({7, 4}, 4), type), xd = leaf(x, at::kDouble);
    const at::Tensor gx = gather_rows(x, row);
    EXPECT_TRUE(at::equal(gx.detach(), x.detach().index_select(0, row)));
    const at::Tensor gg = randn({20, 4}, 5).to(type);
    gx.backward(gg);
    xd.index_select(0, row).backward(gg.to(at::kDouble));
    EXPECT_LT(relative(x.grad(), xd.grad()), type == at::kBFloat16 ? 1e-2 : 1e-6);
  }
}

}  // namespace
}  // namespace switchyard::kernels
