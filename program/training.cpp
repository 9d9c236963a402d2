#include "program/training.h"

#include <fmt/format.h>

#include "switchyard/base/progress.h"

namespace switchyard::program {

int report_run(const RunResult& result) {
  const std::string folder = result.folder.string();
  if (result.interrupted) {
    log_info(fmt::format("stopped at step {} of {}; go on with: switchyard resume {}", result.step, result.steps, folder));
    return 130;
  }
  const std::string held_out = result.held_out > 0 ? fmt::format(", held-out loss {:.4f}", result.held_out) : "";
  log_info(fmt::format("{} is trained: {} steps{}", folder, result.step, held_out));
  log_info(fmt::format("look inside with: switchyard inspect {}   talk with it: switchyard generate {} --prompt \"...\"", folder,
                       folder));
  return 0;
}

}  // namespace switchyard::program
