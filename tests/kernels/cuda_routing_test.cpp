// The CUDA kernels of routing, run on the host (cuda_emulator.h), against the plain reference.
#include <ATen/ATen.h>

#include "switchyard/kernels/admission.h"
#include "switchyard/kernels/cuda/backend.h"
#include "switchyard/kernels/permutation.h"
#include "switchyard/kernels/reference/reference.h"
#include "switchyard/kernels/topk.h"
#include "tests/kernels/cuda_emulated.h"
#include "tests/support.h"

namespace switchyard::kernels {
namespace {

using switchyard::testing::emulated_launchers;
using switchyard::testing::emulated_order;
using switchyard::testing::expect_error;
using switchyard::testing::Order;
using switchyard::testing::randn;

/// Calls f with the kernels in place of the fronts' other paths, in each order of threads.
template <typename F>
void in_every_order(const F& f) {
  const cuda::ForcedLaunchers forced(emulated_launchers());
  for (const Order order : {Order::ascending, Order::descending, Order::shuffled}) {
    emulated_order() = order;
    f();
  }
  emulated_order() = Order::ascending;
}

at::Tensor random_slots(int64_t pairs, int64_t slots, uint64_t seed) { return Streams(seed).integers(slots, {pairs}, {.purpose = "slots"}); }

TEST(CudaRouting, TopKEqualsAStableSort) {
  in_every_order([] {
    for (const auto& [rows, columns] : std::vector<std::pair<int64_t, int64_t>>{{0, 4}, {1, 1}, {5, 7}, {19, 40}, {3, 130}})
      for (const int64_t k : {int64_t{1}, std::min<int64_t>(columns, 6), columns}) {
        // Rounded, so that ties abound; some columns are masked.
        at::Tensor scores = (randn({rows, columns}, 3, at::kFloat) * 2).round();
        scores = scores.masked_fill(randn({rows, columns}, 4).gt(1), -INFINITY);
        const TopK got = top_k(scores, k), expected = reference::top_k(scores, k);
        ASSERT_TRUE(at::equal(got.indices, expected.indices)) << rows << " " << columns << " " << k;
        ASSERT_TRUE(at::equal(got.values, expected.values));
      }
  });
}

TEST(CudaRouting, GroupedTopKEqualsTheReference) {
  struct Case { int64_t groups, width, chosen, best, k; };
  in_every_order([] {
    for (const Case& c : std::vector<Case>{{2, 1, 1, 1, 1}, {4, 8, 2, 2, 5}, {8, 32, 4, 2, 8}, {40, 3, 11, 1, 33}, {3, 5, 3, 5, 15}}) {
      at::Tensor scores = (randn({11, c.groups * c.width}, 5, at::kFloat) * 3).round();
      scores = scores.masked_fill(randn(scores.sizes(), 6).gt(1.5), -INFINITY);
      const GroupLimit limit{.groups = c.groups, .chosen = c.chosen, .best = c.best};
      const TopK got = top_k_grouped(scores, c.k, limit), expected = reference::top_k_grouped(scores, c.k, limit);
      ASSERT_TRUE(at::equal(got.indices, expected.indices)) << c.groups << " groups\n" << got.indices << expected.indices;
    }
  });
}

TEST(CudaRouting, NamesTheFirstRowThatIsNotANumber) {
  at::Tensor scores = at::zeros({70, 40});
  scores[60][1] = NAN;
  scores[20][39] = NAN;
  scores[20][37] = -NAN;
  in_every_order([&] {
    const Error error = expect_error([&] { top_k(scores, 2); });
    EXPECT_EQ(error.code(), "routing.nan");
    EXPECT_NE(error.message().find("row 20 of the routing scores is not a number at expert 37"), std::string::npos) << error.message();
    EXPECT_EQ(expect_error([&] { top_k_grouped(scores, 2, {.groups = 2, .chosen = 1, .best = 1}); }).code(), "routing.nan");
  });
}

TEST(CudaRouting, SortEqualsTheStableSort) {
  in_every_order([] {
    for (const auto& [pairs, slots] : std::vector<std::pair<int64_t, int64_t>>{{0, 3}, {1, 1}, {31, 1}, {33, 5}, {700, 9}, {3000, 2}, {500, 700}})
      for (const bool some : {false, true}) {
        const at::Tensor slot = random_slots(pairs, slots, 1), kept = some ? randn({pairs}, 2).gt(0) : at::Tensor();
        const SlotOrder got = sort_by_slot(slot, slots, kept), expected = reference::sort_by_slot(slot, slots, kept);
        ASSERT_TRUE(at::equal(got.order, expected.order)) << pairs << " pairs, " << slots << " slots";
        ASSERT_TRUE(at::equal(got.offset, expected.offset));
        at::Tensor inverse = at::full({pairs}, -1, at::kLong);
        inverse.index_put_({expected.order}, at::arange(expected.order.size(0), at::kLong));
        ASSERT_TRUE(at::equal(inverse_order(got.order, pairs), inverse));
      }
    at::Tensor slot = random_slots(900, 4, 3);
    slot[800] = -1;
    slot[333] = 4;
    const Error error = expect_error([&] { sort_by_slot(slot, 4); });
    EXPECT_EQ(error.code(), "kernels.slot_range");
    EXPECT_NE(error.message().find("pair 333 goes to slot 4"), std::string::npos) << error.message();
  });
}

TEST(CudaRouting, AdmissionEqualsTheReference) {
  in_every_order([] {
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
          const at::Tensor capacity = Streams(11).integers(pairs / bins + 2, {bins}, {.purpose = "capacity"});
          ASSERT_TRUE(at::equal(admit(bin, priority, exempt, capacity, bins), reference::admit(bin, priority, exempt, capacity, bins)))
              << pairs << " pairs, " << bins << " bins" << (priorities ? ", priorities" : "") << (exempts ? ", exempt ones" : "");
          ASSERT_TRUE(at::equal(admit(bin, priority, exempt, 0, bins), reference::admit(bin, priority, exempt, at::zeros({bins}, at::kLong), bins)));
        }
  });
}

TEST(CudaRouting, RowsGatherAndCombineLikeTheReference) {
  in_every_order([] {
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16})
      for (const auto& [positions, rows, width] : std::vector<std::array<int64_t, 3>>{{0, 3, 4}, {1, 1, 1}, {40, 7, 33}, {1500, 50, 3}}) {
        const at::Tensor row = random_slots(positions, rows, 12);
        const at::Tensor y = randn({positions, width}, 13).to(type), weight = randn({positions}, 14, at::kFloat), x = randn({rows, width}, 15).to(type);
        EXPECT_TRUE(at::equal(gather_rows(x, row), reference::gather_rows(x, row)));
        const auto leaf = [](const at::Tensor& t, at::ScalarType as) { return t.to(as).detach().clone().requires_grad_(); };
        const at::Tensor y1 = leaf(y, type), w1 = leaf(weight, at::kFloat), y2 = leaf(y, at::kDouble), w2 = leaf(weight, at::kDouble);
        const at::Tensor got = combine_rows(y1, row, w1, rows), expected = reference::combine_rows(y2, row, w2, rows);
        // Thirty terms a row: float32 keeps 6 digits; bfloat16 rounds the result to 8 bits.
        const double tolerance = type == at::kFloat ? 1e-5 : 2e-2;
        EXPECT_TRUE(at::allclose(got.to(at::kDouble), expected, tolerance, tolerance));
        EXPECT_TRUE(at::allclose(combine_rows(y, row, {}, rows).to(at::kDouble), reference::combine_rows(y.to(at::kDouble), row, {}, rows), tolerance, tolerance));
        const at::Tensor grad = randn({rows, width}, 16).to(type);
        got.backward(grad);
        expected.backward(grad.to(at::kDouble));
        EXPECT_TRUE(at::allclose(y1.grad().to(at::kDouble), y2.grad(), tolerance, tolerance));
        EXPECT_TRUE(at::allclose(w1.grad().to(at::kDouble), w2.grad(), tolerance, tolerance * 10));
      }
  });
}

}  // namespace
}  // namespace switchyard::kernels
