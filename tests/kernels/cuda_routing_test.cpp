// The CUDA kernels of routing and of rows against the plain reference.
#include <ATen/ATen.h>

#include "switchyard/kernels/admission.h"
#include "switchyard/kernels/permutation.h"
#include "switchyard/kernels/reference/reference.h"
#include "switchyard/kernels/topk.h"
#include "tests/kernels/cuda_place.h"
#include "tests/support.h"

namespace switchyard::kernels {
namespace {

using switchyard::testing::expect_error;
using switchyard::testing::randn;

class CudaRouting : public switchyard::testing::CudaTest {};
SWITCHYARD_CUDA_SUITE(CudaRouting);

at::Tensor random_slots(int64_t pairs, int64_t slots, uint64_t seed) { return Streams(seed).integers(slots, {pairs}, {.purpose = "slots"}); }

TEST_P(CudaRouting, TopKEqualsAStableSort) {
  in_every_order([&] {
    for (const auto& [rows, columns] : std::vector<std::pair<int64_t, int64_t>>{{0, 4}, {1, 1}, {5, 7}, {19, 40}, {3, 130}})
      for (const int64_t k : {int64_t{1}, std::min<int64_t>(columns, 6), columns}) {
        // Rounded, so that ties abound; some columns are masked.
        at::Tensor scores = (randn({rows, columns}, 3, at::kFloat) * 2).round();
        scores = scores.masked_fill(randn({rows, columns}, 4).gt(1), -INFINITY);
        const TopK got = top_k(there(scores), k), expected = reference::top_k(scores, k);
        ASSERT_TRUE(at::equal(got.indices.cpu(), expected.indices)) << rows << " " << columns << " " << k;
        ASSERT_TRUE(at::equal(got.values.cpu(), expected.values));
      }
  });
}

TEST_P(CudaRouting, GroupedTopKEqualsTheReference) {
  struct Case { int64_t groups, width, chosen, best, k; };
  in_every_order([&] {
    for (const Case& c : std::vector<Case>{{2, 1, 1, 1, 1}, {4, 8, 2, 2, 5}, {8, 32, 4, 2, 8}, {40, 3, 11, 1, 33}, {3, 5, 3, 5, 15}}) {
      at::Tensor scores = (randn({11, c.groups * c.width}, 5, at::kFloat) * 3).round();
      scores = scores.masked_fill(randn(scores.sizes(), 6).gt(1.5), -INFINITY);
      const GroupLimit limit{.groups = c.groups, .chosen = c.chosen, .best = c.best};
      const TopK got = top_k_grouped(there(scores), c.k, limit), expected = reference::top_k_grouped(scores, c.k, limit);
      ASSERT_TRUE(at::equal(got.indices.cpu(), expected.indices)) << c.groups << " groups\n" << got.indices << expected.indices;
    }
  });
}

TEST_P(CudaRouting, NamesTheFirstRowThatIsNotANumber) {
  at::Tensor scores = at::zeros({70, 40});
  scores[60][1] = NAN;
  scores[20][39] = NAN;
  scores[20][37] = -NAN;
  in_every_order([&] {
    const Error error = expect_error([&] { top_k(there(scores), 2); });
    EXPECT_EQ(error.code(), "routing.nan");
    EXPECT_NE(error.message().find("row 20 of the routing scores is not a number at expert 37"), std::string::npos) << error.message();
    EXPECT_EQ(expect_error([&] { top_k_grouped(there(scores), 2, {.groups = 2, .chosen = 1, .best = 1}); }).code(), "routing.nan");
  });
}

TEST_P(CudaRouting, SortEqualsTheStableSort) {
  in_every_order([&] {
    for (const auto& [pairs, slots] : std::vector<std::pair<int64_t, int64_t>>{{0, 3}, {1, 1}, {31, 1}, {33, 5}, {700, 9}, {3000, 2}, {500, 700}})
      for (const bool some : {false, true}) {
        const at::Tensor slot = random_slots(pairs, slots, 1), kept = some ? randn({pairs}, 2).gt(0) : at::Tensor();
        const SlotOrder got = sort_by_slot(there(slot), slots, there(kept)), expected = reference::sort_by_slot(slot, slots, kept);
        ASSERT_TRUE(at::equal(got.order.cpu(), expected.order)) << pairs << " pairs, " << slots << " slots";
        ASSERT_TRUE(at::equal(got.offset.cpu(), expected.offset));
        at::Tensor inverse = at::full({pairs}, -1, at::kLong);
        inverse.index_put_({expected.order}, at::arange(expected.order.size(0), at::kLong));
        ASSERT_TRUE(at::equal(inverse_order(got.order, pairs).cpu(), inverse));
      }
    at::Tensor slot = random_slots(900, 4, 3);
    slot[800] = -1;
    slot[333] = 4;
    const Error error = expect_error([&] { sort_by_slot(there(slot), 4); });
    EXPECT_EQ(error.code(), "kernels.slot_range");
    EXPECT_NE(error.message().find("pair 333 goes to slot 4"), std::string::npos) << error.message();
  });
}

TEST_P(CudaRouting, AdmissionEqualsTheReference) {
  in_every_order([&] {
    for (const auto& [pairs, bins] : std::vector<std::pair<int64_t, int64_t>>{{0, 2}, {1, 1}, {40, 3}, {900, 1}, {1300, 4}})
      for (const bool priorities : {false, true})
        for (const bool exempts : {false, true}) {
          const at::Tensor bin = random_slots(pairs, bins + 1, 7) - 1;  // -1 asks for nothing
          // Few values of both signs, zeros of both signs, and infinities: ties at the bar are certain.
          at::Tensor priority, exempt;
          if (priorities) {
            priority = (randn({pairs}, 8, at::kFloat) * 2).round();
            priority = at::where(randn({pairs}, 9).gt(1), priority * -1, priority * 1e-3f).contiguous();
            if (pairs > 20) priority[7] = INFINITY, priority[9] = -INFINITY;
          }
          if (exempts) exempt = randn({pairs}, 10).gt(1);
          const at::Tensor none = at::zeros({bins}, at::kLong);
          for (const at::Tensor& capacity : {Streams(11).integers(pairs / bins + 2, {bins}, {.purpose = "capacity"}), none})
            ASSERT_TRUE(at::equal(admit(there(bin), there(priority), there(exempt), there(capacity), bins).cpu(),
                                  reference::admit(bin, priority, exempt, capacity, bins)))
                << pairs << " pairs, " << bins << " bins" << (priorities ? ", priorities" : "") << (exempts ? ", exempt ones" : "");
        }
  });
}

TEST_P(CudaRouting, RowsGatherAndCombineLikeTheReference) {
  in_every_order([&] {
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16})
      for (const auto& [positions, rows, width] : std::vector<std::array<int64_t, 3>>{{0, 3, 4}, {1, 1, 1}, {40, 7, 33}, {1100, 50, 3}}) {
        const at::Tensor row = random_slots(positions, rows, 12);
        const at::Tensor y = randn({positions, width}, 13).to(type), weight = randn({positions}, 14, at::kFloat), x = randn({rows, width}, 15).to(type);
        EXPECT_TRUE(at::equal(gather_rows(there(x), there(row)).cpu(), reference::gather_rows(x, row)));
        const auto leaf = [](const at::Tensor& t, at::ScalarType as) { return t.to(as).detach().clone().requires_grad_(); };
        const at::Tensor y1 = leaf(there(y), type), w1 = leaf(there(weight), at::kFloat), y2 = leaf(y, at::kDouble), w2 = leaf(weight, at::kDouble);
        const at::Tensor got = combine_rows(y1, there(row), w1, rows), expected = reference::combine_rows(y2, row, w2, rows);
        // Twenty terms a row: float32 keeps 6 digits; bfloat16 rounds the result to 8 bits.
        const double tolerance = type == at::kFloat ? 1e-5 : 2e-2;
        const auto near = [&](const at::Tensor& t, const at::Tensor& of) {
          EXPECT_TRUE(at::allclose(t.cpu().to(at::kDouble), of, tolerance, tolerance * 10)) << positions << " positions of " << c10::toString(type);
        };
        near(got, expected);
        near(combine_rows(there(y), there(row), {}, rows), reference::combine_rows(y.to(at::kDouble), row, {}, rows));
        const at::Tensor grad = randn({rows, width}, 16).to(type);
        got.backward(there(grad));
        expected.backward(grad.to(at::kDouble));
        near(y1.grad(), y2.grad());
        near(w1.grad(), w2.grad());
      }
  });
}

}  // namespace
}  // namespace switchyard::kernels
