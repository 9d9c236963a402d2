// The CUDA kernels of the experts and of the optimiser against the plain reference in float64.
#include <ATen/ATen.h>

#include "switchyard/base/differentiable.h"
#include "switchyard/kernels/grouped_ffn.h"
#include "switchyard/kernels/grouped_linear.h"
#include "switchyard/kernels/optimiser.h"
#include "switchyard/kernels/reference/reference.h"
#include "tests/kernels/cuda_place.h"
#include "tests/kernels/grouped_support.h"
#include "tests/support.h"

namespace switchyard::kernels {
namespace {

using switchyard::testing::emulated_capability;
using switchyard::testing::GroupedShape;
using switchyard::testing::Place;
using switchyard::testing::randn;
using switchyard::testing::relative;
using switchyard::testing::tolerance;

class CudaGrouped : public switchyard::testing::CudaTest {
 protected:
  /// A leaf of the graph, where the kernels read it.
  at::Tensor leaf(const at::Tensor& t, at::ScalarType type) const {
    return t.defined() ? there(t.detach().to(type)).clone().requires_grad_() : t;
  }
};
SWITCHYARD_CUDA_SUITE(CudaGrouped);

at::Tensor wide_leaf(const at::Tensor& t) { return t.defined() ? t.detach().cpu().to(at::kDouble).clone().requires_grad_() : t; }

enum class Spread { uneven, one_expert, even };

/// Rows of each expert: some have none; all to one; or as many each.
at::Tensor offsets(int64_t rows, int64_t experts, Spread spread) {
  std::vector<int64_t> offset(experts + 1, 0);
  for (int64_t e = 1; e < experts; ++e)
    offset[e] = spread == Spread::one_expert ? (e > experts / 2 ? rows : 0) : rows * (spread == Spread::even ? e : e / 2 * 2) / experts;
  offset[experts] = rows;
  return at::tensor(offset, at::kLong);
}

TEST_P(CudaGrouped, LinearEqualsTheReferenceInBothLayouts) {
  // Past one tile of 64 rows, 128 columns and 16 or 32 of depth, in each of them; rows of 16 bytes, and not; few rows, and many.
  const std::vector<GroupedShape> shapes = {{0, 3, 4, 0, 4}, {1, 1, 1, 0, 1}, {7, 16, 33, 0, 5}, {130, 2, 40, 0, 136}, {150, 3, 17, 0, 131}};
  in_every_order([&] {
    for (const auto& [type, weight_type] : {std::pair{at::kFloat, at::kFloat}, {at::kBFloat16, at::kBFloat16}, {at::kBFloat16, at::kFloat}})
      for (const GroupedShape& s : shapes)
        for (const WeightLayout layout : {WeightLayout::out_in, WeightLayout::in_out}) {
          const Spread spread = layout == WeightLayout::out_in ? Spread::uneven : Spread::one_expert;
          const at::Tensor offset = offsets(s.rows, s.experts, spread);
          const std::vector<int64_t> shape = layout == WeightLayout::out_in ? std::vector<int64_t>{s.experts, s.out, s.in}
                                                                             : std::vector<int64_t>{s.experts, s.in, s.out};
          const at::Tensor x = leaf(randn({s.rows, s.in}, 1), type), w = leaf(randn(shape, 2), weight_type), b = leaf(randn({s.experts, s.out}, 3), type);
          const at::Tensor xd = wide_leaf(x), wd = wide_leaf(w), bd = wide_leaf(b);
          const at::Tensor y = grouped_linear(x, w, there(offset), b, layout), yd = reference::grouped_linear(xd, wd, offset, bd, layout);
          const std::string where = std::string(c10::toString(type)) + " rows " + std::to_string(s.rows) + " layout " + std::to_string(static_cast<int>(layout));
          EXPECT_EQ(y.scalar_type(), type);
          EXPECT_LT(relative(y, yd), tolerance(type)) << where;
          const at::Tensor g = randn({s.rows, s.out}, 4).to(type);
          y.backward(there(g));
          yd.backward(g.to(at::kDouble));
          EXPECT_EQ(w.grad().scalar_type(), weight_type);
          for (const auto& [got, expected] : {std::pair{x, xd}, {w, wd}, {b, bd}}) EXPECT_LT(relative(got.grad(), expected.grad()), tolerance(type)) << where;
        }
  });
}

struct PlacedFfn {
  at::ScalarType type = at::kFloat, weight_type = at::kFloat;
  FeedForwardOptions options;
  WeightLayout layout = WeightLayout::out_in;
  bool bias = true, gathered = true, weighted = true;
  Spread spread = Spread::uneven;
};

class CudaFeedForward : public CudaGrouped {
 protected:
  /// One forward and backward, compared with the reference.
  void expect(const GroupedShape& s, const PlacedFfn& f, const std::string& where) {
    const auto stack = [&](int64_t a, int64_t b, uint64_t seed) {
      const at::Tensor w = randn({s.experts, a, b}, seed) * 0.3;
      return leaf(f.layout == WeightLayout::out_in ? w : w.transpose(1, 2).contiguous(), f.weight_type);
    };
    const auto bias = [&](int64_t width, uint64_t seed) { return f.bias ? leaf(randn({s.experts, width}, seed), f.type) : at::Tensor(); };
    const bool gated = is_gated(f.options.activation.kind);
    FeedForwardWeights w{.up = stack(s.hidden, s.in, 11), .gate = gated ? stack(s.hidden, s.in, 12) : at::Tensor(), .down = stack(s.out, s.hidden, 13),
                         .up_bias = bias(s.hidden, 14), .gate_bias = gated ? bias(s.hidden, 15) : at::Tensor(), .down_bias = bias(s.out, 16),
                         .layout = f.layout};
    const FeedForwardWeights wd{.up = wide_leaf(w.up), .gate = wide_leaf(w.gate), .down = wide_leaf(w.down), .up_bias = wide_leaf(w.up_bias),
                                .gate_bias = wide_leaf(w.gate_bias), .down_bias = wide_leaf(w.down_bias), .layout = f.layout};
    const int64_t tokens = f.gathered ? std::max<int64_t>(s.rows / 3, 1) : s.rows;
    const at::Tensor x = leaf(randn({tokens, s.in}, 21), f.type), xd = wide_leaf(x);
    const at::Tensor weight = f.weighted ? leaf(randn({s.rows}, 22), at::kFloat) : at::Tensor(), weight_d = wide_leaf(weight);
    const at::Tensor row = f.gathered ? Streams(5).integers(tokens, {s.rows}, {.purpose = "rows"}) : at::Tensor();
    const at::Tensor offset = offsets(s.rows, s.experts, f.spread);
    const at::Tensor y = grouped_ffn(x, there(offset), there(row), weight, w, f.options);
    const at::Tensor yd = reference::grouped_ffn(xd, offset, row, weight_d, wd, f.options);
    EXPECT_EQ(y.scalar_type(), f.type) << where;
    EXPECT_LT(relative(y, yd), tolerance(f.type)) << where;
    const at::Tensor g = randn(yd.sizes(), 23).to(f.type);
    y.backward(there(g));
    yd.backward(g.to(at::kDouble));
    const std::vector<std::pair<at::Tensor, at::Tensor>> pairs{{x, xd}, {weight, weight_d}, {w.up, wd.up}, {w.gate, wd.gate}, {w.down, wd.down},
                                                               {w.up_bias, wd.up_bias}, {w.gate_bias, wd.gate_bias}, {w.down_bias, wd.down_bias}};
    for (size_t i = 0; i < pairs.size(); ++i) {
      if (!pairs[i].first.defined()) continue;
      ASSERT_TRUE(pairs[i].first.grad().defined()) << where << " input " << i;
      EXPECT_LT(relative(pairs[i].first.grad(), pairs[i].second.grad()), tolerance(f.type)) << where << " input " << i;
    }
  }
};
SWITCHYARD_CUDA_SUITE(CudaFeedForward);

TEST_P(CudaFeedForward, EqualsTheReference) {
  // No row, one, few (decoding), more than one tile; widths that fill tiles and vectors, and that do not.
  const std::vector<GroupedShape> shapes = {{0, 3, 4, 6, 4}, {1, 1, 2, 1, 2}, {16, 8, 40, 24, 40}, {140, 2, 24, 72, 24}, {131, 5, 19, 13, 19}};
  in_every_order([&] {
    for (const GroupedShape& s : shapes)
      for (const bool plain : {false, true})
        for (const at::ScalarType type : {at::kFloat, at::kBFloat16})
          expect(s, {.type = type, .weight_type = plain ? type : at::kFloat, .bias = !plain, .gathered = !plain, .weighted = !plain,
                     .spread = plain ? Spread::one_expert : Spread::uneven},
                 std::to_string(s.rows) + " rows of " + c10::toString(type) + (plain ? ", plain" : ""));
  });
}

TEST_P(CudaFeedForward, AnyShapeEqualsTheReference) {
  const at::Tensor draws = Streams(31).integers(1 << 20, {20, 8}, {.purpose = "shapes"});
  for (int64_t i = 0; i < draws.size(0); ++i) {
    const auto draw = [&](int64_t which, int64_t below) { return draws[i][which].item<int64_t>() % below; };
    const GroupedShape s{.rows = draw(0, 200), .experts = 1 + draw(1, 9), .in = 1 + draw(2, 90), .hidden = 1 + draw(3, 140), .out = 1 + draw(2, 90)};
    const at::ScalarType type = draw(4, 2) ? at::kFloat : at::kBFloat16;
    if (GetParam() == Place::host) switchyard::testing::emulated_order() = static_cast<switchyard::testing::Order>(draw(5, 3));
    expect(s, {.type = type, .weight_type = draw(6, 2) ? type : at::kFloat, .layout = draw(6, 3) ? WeightLayout::out_in : WeightLayout::in_out,
               .bias = draw(7, 2) == 0, .gathered = draw(7, 3) > 0, .weighted = draw(7, 5) > 1, .spread = static_cast<Spread>(draw(4, 3))},
           "draw " + std::to_string(i) + ": " + std::to_string(s.rows) + " rows, " + std::to_string(s.experts) + " experts, widths " +
               std::to_string(s.in) + " and " + std::to_string(s.hidden) + ", " + c10::toString(type));
  }
  switchyard::testing::emulated_order() = switchyard::testing::Order::ascending;
}

TEST_P(CudaFeedForward, EveryActivationHasItsValueAndSlope) {
  for (int kind = 0; kind <= static_cast<int>(Activation::clamped_swiglu); ++kind)
    for (const int64_t rows : {int64_t{20}, kernels::cuda::kFewPositions + 2})
      expect({rows, 2, 8, 12, 8},
             {.options = {.activation = {.kind = static_cast<Activation>(kind), .limit = 1.0},
                          .intermediates = rows > 20 ? Intermediates::recompute : Intermediates::keep},
              .layout = kind % 2 ? WeightLayout::in_out : WeightLayout::out_in},
             "activation " + std::to_string(kind));
}

TEST_P(CudaFeedForward, WeightsMayMultiplyTheInput) {
  expect({50, 3, 16, 24, 16}, {.options = {.weigh_on = WeighOn::input}}, "input");
}

// What runs on newer devices in bfloat16: the maps by libtorch, the activation between them by a kernel.
TEST_P(CudaFeedForward, MayTakeTheLibrarysProduct) {
  emulated_capability() = 90;
  for (const bool bias : {false, true})
    for (const Spread spread : {Spread::uneven, Spread::one_expert, Spread::even})
      expect({144, 3, 16, 24, 16}, {.type = at::kBFloat16, .weight_type = at::kBFloat16, .bias = bias, .spread = spread}, bias ? "biases" : "no biases");
  emulated_capability() = 80;
}

TEST_P(CudaFeedForward, SecondDerivativesAreRightNotMissing) {
  const at::Tensor x = leaf(randn({6, 4}, 1), at::kFloat), xd = wide_leaf(x), offset = offsets(6, 2, Spread::even);
  const at::Tensor w = there(randn({2, 4, 4}, 2, at::kFloat)), wd = w.cpu().to(at::kDouble);
  const auto second = [&](const at::Tensor& input, const at::Tensor& y) {
    gradients({y.sum()}, {input}, {}, true, true)[0].square().sum().backward();
    return input.grad();
  };
  const at::Tensor got = second(x, grouped_ffn(x, there(offset), {}, {}, {.up = w, .gate = w, .down = w}));
  EXPECT_LT(relative(got, second(xd, reference::grouped_ffn(xd, offset, {}, {}, {.up = wd, .gate = wd, .down = wd}, {}))), 1e-4);
}

TEST_P(CudaGrouped, GradientsOfStacksAreAddedInPlace) {
  const cuda::Launchers& launchers = *cuda::launchers_for(there(at::empty({1})));
  ASSERT_TRUE(launchers.outer_products);
  in_every_order([&] {
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      const at::Tensor left = randn({70, 5}, 1).to(type), right = randn({70, 9}, 2).to(type), before = randn({3, 5, 9}, 3, at::kFloat);
      const at::Tensor offset = at::tensor({0, 69, 69, 70}, at::kLong), sum = there(before).clone();
      const at::Tensor l = there(left), r = there(right), begin = there(offset);
      const cuda::Call call(sum);
      call->outer_products({.number = cuda::number_of(type), .left = cuda::bytes(l), .right = cuda::bytes(r), .left_row = nullptr, .right_row = nullptr,
                            .offset = cuda::values<int64_t>(begin), .experts = 3, .m = 5, .n = 9, .gradient = cuda::raw(sum), .wide = true, .accumulate = true},
                           call.stream());
      at::Tensor expected = before.to(at::kDouble);
      for (int64_t e = 0; e < 3; ++e) {
        const int64_t from = offset[e].item<int64_t>(), to = offset[e + 1].item<int64_t>();
        expected[e] += left.slice(0, from, to).to(at::kDouble).t().matmul(right.slice(0, from, to).to(at::kDouble));
      }
      EXPECT_LT(relative(sum, expected), 1e-5);
      EXPECT_TRUE(at::equal(sum.cpu()[1], before[1]));
    }
  });
}

TEST_P(CudaGrouped, AdamWEqualsTheFormulas) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble, at::kBFloat16})
    for (const at::ScalarType grad_type : {at::kFloat, at::kDouble, at::kBFloat16}) {
      const int64_t n = 300;
      const at::ScalarType moments = type == at::kDouble ? at::kDouble : at::kFloat;
      const at::Tensor p = there(randn({n}, 1, type)), m = there(at::zeros({n}, moments)), v = there(at::zeros({n}, moments));
      at::Tensor pd = p.cpu().to(at::kDouble).clone(), md = at::zeros({n}, at::kDouble), vd = md.clone();
      for (int64_t step = 1; step <= 4; ++step) {
        const at::Tensor g = step == 3 ? at::Tensor() : randn({n}, 10 + step, grad_type);
        const AdamW o{.lr = 0.05, .beta2 = 0.95, .weight_decay = 0.1, .step = step, .grad_scale = 0.5};
        adamw_step(p, there(g), m, v, o);
        const at::Tensor gd = g.defined() ? g.to(at::kDouble) * o.grad_scale : at::zeros_like(pd);
        md = o.beta1 * md + (1 - o.beta1) * gd;
        vd = o.beta2 * vd + (1 - o.beta2) * gd * gd;
        pd = pd * (1 - o.lr * o.weight_decay) - o.lr * (md / (1 - std::pow(o.beta1, step))) / ((vd / (1 - std::pow(o.beta2, step))).sqrt() + o.eps);
      }
      // Four roundings of float32; bf16 keeps 8 bits of a parameter near 3.
      EXPECT_LT(relative(p, pd), type == at::kDouble ? 1e-12 : type == at::kFloat ? 1e-6 : 2e-2) << c10::toString(type) << " " << c10::toString(grad_type);
    }
  for (const int64_t n : {0, 1, 4096, 10000}) {
    const at::Tensor x = randn({n}, 5, at::kBFloat16);
    EXPECT_NEAR(sum_of_squares(there(x)), x.to(at::kDouble).square().sum().item<double>(), 1e-9 * static_cast<double>(n)) << n;
  }
}

}  // namespace
}  // namespace switchyard::kernels
