#include "switchyard/train/recipe.h"

#include <filesystem>

#include "switchyard/base/error.h"

namespace switchyard {

void Recipe::describe(Fields<Recipe>& f) {
  f.title("Recipe", "What is composed, on which data, trained how.");
  f("output", &Recipe::output, "the run's folder; empty = runs/ and the recipe's name");
  f("seed", &Recipe::seed, "of initial weights, data order and every random draw").range(0);
  f("from", &Recipe::from, "the model that training begins from, with its tokenizer: a published folder, a GGUF file, or a run; empty = "
    "the one that `model` describes, freshly drawn");
  f("set", &Recipe::set, "KEY=VALUE: other values of options of the model `from`, as `switchyard show DIR --options` lists them: "
    "mixtures.0.router.k=4 trains it with four experts at work");
  f("tokenizer", &Recipe::tokenizer, "how text becomes tokens");
  f("data", &Recipe::data, "what is read");
  f("model", &Recipe::model, "what is trained");
  f("train", &Recipe::train, "how it is trained");
}

Recipe load_recipe(const std::string& path, const std::vector<std::string>& overrides) {
  Node root = load_yaml(path);
  for (const std::string& one : overrides) apply_override(root, one);
  const Node* model = root.find("model");
  const bool described = model != nullptr && !model->is_null();
  if (!described) std::erase_if(root.entries(), [](const auto& entry) { return entry.first == "model"; });
  Recipe recipe = read_options<Recipe>(root);
  check(recipe.from.empty() || !described, "train.from",
        "{}: the model comes from {}, so `model` cannot describe it; leave it out, or say `model: null` where an included recipe has it", path,
        recipe.from);
  check(recipe.set.empty() || !recipe.from.empty(), "train.from", "{}: `set` changes the model that `from` names, and there is none; change `model`", path);
  if (recipe.output.empty()) recipe.output = (std::filesystem::path("runs") / std::filesystem::path(path).stem()).string();
  const TrainOptions& train = recipe.train;
  check(train.batch % train.accumulate == 0, "train.accumulate",
        "{}: train.batch is {} sequences, which train.accumulate = {} micro-batches do not divide", path, train.batch,
        train.accumulate);
  check(!recipe.from.empty() || recipe.data.sequence <= recipe.model.context, "train.sequence",
        "{}: data.sequence is {} tokens, but model.context allows {}", path, recipe.data.sequence, recipe.model.context);
  return recipe;
}

}  // namespace switchyard
