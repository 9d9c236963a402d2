// switchyard resume: go on with a run that was stopped, bit for bit.
#include <memory>

#include "program/training.h"
#include "program/verb.h"
#include "switchyard/train/run.h"

namespace switchyard::program {

Verb resume_verb() {
  return {.name = "resume",
          .summary = "go on with a run from its newest checkpoint",
          .example = "switchyard resume runs/quickstart",
          .computes = true,
          .setup = [](CommandLine& line) -> std::function<int()> {
            struct Arguments {
              std::string run;
              std::vector<std::string> overrides;
            };
            auto arguments = std::make_shared<Arguments>();
            line.option("run", arguments->run, "the run's folder").required();
            line.option("overrides", arguments->overrides, "train.KEY=value, such as train.steps=2000");
            return [arguments] { return report_run(resume(arguments->run, arguments->overrides)); };
          }};
}

}  // namespace switchyard::program
