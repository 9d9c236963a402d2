#include "switchyard/train/recipe.h"

#include <filesystem>

#include "switchyard/base/error.h"

namespace switchyard {

void Recipe::describe(Fields<Recipe>& f) {
  f.title("Recipe", "What is composed, on which data, trained how.");
  f("output", &Recipe::output, "the run's folder; empty = runs/ and the recipe's name");
  f("seed", &Recipe::seed, "of initial weights, data order and every random draw").range(0);
  f("tokenizer", &Recipe::tokenizer, "how text becomes tokens");
  f("data", &Recipe::data, "what is read");
  f("model", &Recipe::model, "what is trained");
  f("train", &Recipe::train, "how it is trained");
}

Recipe load_recipe(const std::string& path, const std::vector<std::string>& overrides) {
  Node root = load_yaml(path);
  for (const std::string& one : overrides) apply_override(root, one);
  Recipe recipe = read_options<Recipe>(root);
  if (recipe.output.empty()) recipe.output = (std::filesystem::path("runs") / std::filesystem::path(path).stem()).string();
  const TrainOptions& train = recipe.train;
  check(train.batch % train.accumulate == 0, "train.accumulate",
        "{}: train.batch is {} sequences, which train.accumulate = {} micro-batches do not divide", path, train.batch,
        train.accumulate);
  check(recipe.data.sequence <= recipe.model.context, "train.sequence",
        "{}: data.sequence is {} tokens, but model.context allows {}", path, recipe.data.sequence, recipe.model.context);
  return recipe;
}

}  // namespace switchyard
