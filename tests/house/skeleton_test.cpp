// The skeleton that users copy works as it stands.
#include <gtest/gtest.h>

#include "switchyard/base/registry.h"
#include "switchyard/routing/router.h"
#include "tests/support.h"

namespace switchyard {
namespace registrations {
void skeleton_router(Registry& registry);
}

namespace {

using testing::Pass;

/// From a registry of its own: the library's stays as it was.
std::shared_ptr<Router> skeleton(const std::string& options) {
  Registry registry;
  registrations::skeleton_router(registry);
  return registry.make<Router>("skeleton", parse_yaml(options, "recipe.yaml"));
}

TEST(Skeleton, EngagesTheExpertsWithTheSmallestAngle) {
  auto router = skeleton("{k: 2, temperature: 0.5}");
  Schema schema;
  router->declare(schema.in("router"), {.width = 2, .experts = 3});
  // Directions at 0, 90 and 180 degrees; lengths do not matter.
  schema.find("router.directions").bind(at::tensor({5.0, 0.0, 0.0, 0.1, -2.0, 0.0}, at::kDouble).view({3, 2}));
  const Pass pass(2);
  const at::Tensor x = at::tensor({1.0, 1.0, -3.0, 0.0}, at::kDouble).view({2, 2});
  const Engagement engagement = router->route({.x = x}, pass.context);
  const Selection& selection = std::get<Selection>(engagement);
  EXPECT_TRUE(
      selection.expert.equal(at::tensor({0, 1, 2, 1}, at::kLong)));  // 45 degrees from both: a tie goes to the lower id
  // Row 0: equal cosines, so 1/2 each. Row 1: cosines 1 and 0 over 0.5, so sigmoid(2) and its rest.
  const double high = 1 / (1 + std::exp(-2.0));
  EXPECT_LT(testing::difference(selection.weight, at::tensor({0.5, 0.5, high, 1 - high}, at::kDouble)), 1e-6);
}

TEST(Skeleton, IsDifferentiable) {
  auto router = skeleton("{k: 2, temperature: 0.5}");
  Schema schema;
  router->declare(schema.in("router"), {.width = 4, .experts = 5});
  at::Tensor directions = testing::randn({5, 4}, 1).requires_grad_(), x = testing::randn({6, 4}, 2).requires_grad_();
  schema.find("router.directions").bind(directions);
  const Pass pass(6);
  testing::expect_gradients([&] { return std::get<Selection>(router->route({.x = x}, pass.context)).weight; },
                            {directions, x});
}

TEST(Skeleton, RefusesMoreExpertsThanThereAre) {
  auto router = skeleton("{k: 6}");
  EXPECT_EQ(testing::expect_error([&] { router->declare(Schema(), {.width = 4, .experts = 5}); }).code(),
            "routing.k_range");
}

}  // namespace
}  // namespace switchyard
