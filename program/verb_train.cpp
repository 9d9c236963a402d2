// switchyard train: from a recipe to a trained run.


#include <memory>

#include "program/training.h"
#include "program/verb.h"
#include "switchyard/train/run.h"

namespace switchyard::program {

Verb train_verb() {
  return {.name = "train",
          .summary = "train a model from a recipe",
          .example = "switchyard train recipes/quickstart.yaml train.steps=200 output=runs/try",
          .computes = true,
          .setup = [](CommandLine& line) -> std::function<int()> {
            struct Arguments {
              std::string recipe;
              std::vector<std::string> overrides;
            };
            auto arguments = std::make_shared<Arguments>();
            line.option("recipe", arguments->recipe, "the recipe (YAML)").required();
            line.option("overrides", arguments->overrides, "key=value: any option of the recipe");
            return [arguments] { return report_run(train(load_recipe(arguments->recipe, arguments->overrides))); };
          }};
}

}  // namespace switchyard::program
