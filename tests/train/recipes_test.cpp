// The recipes that come with the project: they read, and the twins are what they claim.
#include "switchyard/train/recipe.h"

#include <cmath>
#include <filesystem>

#include "switchyard/models/decoder.h"
#include "tests/support.h"

namespace switchyard {
namespace {

std::string recipe_path(const char* name) { return (std::filesystem::path(SWITCHYARD_SOURCE_DIR) / "recipes" / name).string(); }

/// The model of a recipe, declared only.
Decoder declared(const char* name) {
  Recipe recipe = load_recipe(recipe_path(name));
  recipe.model.vocabulary = recipe.tokenizer.vocabulary;
  return Decoder(recipe.model);
}

void expect_within_percent(int64_t a, int64_t b, const char* what) {
  EXPECT_LT(std::abs(static_cast<double>(a) / static_cast<double>(b) - 1), 0.01) << what << ": " << a << " against " << b;
}

TEST(Recipes, DenseTwinsHaveEqualParameters) {
  const Decoder moe = declared("quickstart.yaml"), active = declared("twins/dense-active.yaml"), total = declared("twins/dense-total.yaml");
  std::printf("quickstart %ld parameters, %ld active; twins %ld and %ld\n", moe.schema().count(), moe.active_parameters(),
              active.schema().count(), total.schema().count());
  expect_within_percent(active.schema().count(), moe.active_parameters(), "equal active");
  expect_within_percent(total.schema().count(), moe.schema().count(), "equal total");
  EXPECT_EQ(active.schema().count(), active.active_parameters());
  EXPECT_GT(moe.schema().count(), moe.active_parameters() * 3 / 2);
  EXPECT_FALSE(moe.routings().empty());
  EXPECT_TRUE(active.routings().empty());
}

TEST(Recipes, TwinsDifferInTheModelOnly) {
  const Recipe moe = load_recipe(recipe_path("quickstart.yaml"));
  for (const char* name : {"twins/mixture.yaml", "twins/dense-active.yaml", "twins/dense-total.yaml"}) {
    const Recipe twin = load_recipe(recipe_path(name));
    EXPECT_EQ(to_yaml(write_options(twin.train)), to_yaml(write_options(moe.train)));
    EXPECT_EQ(to_yaml(write_options(twin.data)), to_yaml(write_options(moe.data)));
    EXPECT_EQ(to_yaml(write_options(twin.tokenizer)), to_yaml(write_options(moe.tokenizer)));
    EXPECT_NE(twin.output, moe.output);
  }
}

}  // namespace
}  // namespace switchyard
