// switchyard info: what this program is and what it makes of this machine.
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <torch/version.h>
#include <unistd.h>


#include "program/verb.h"
#include "switchyard/base/json.h"
#include "switchyard/base/registry.h"
#include "switchyard/kernels/cuda/backend.h"
#include "switchyard/kernels/dispatch.h"

namespace switchyard::program {

namespace {

nlohmann::ordered_json facts() {
  nlohmann::ordered_json info{{"version", SWITCHYARD_VERSION},
                              {"libtorch", TORCH_VERSION},
                              {"threads", at::get_num_threads()},
                              {"processors", ::sysconf(_SC_NPROCESSORS_ONLN)},
                              {"cpu_level", kernels::name(kernels::cpu_level())},
                              {"cpu_level_detected", kernels::name(kernels::detected_cpu_level())},
                              {"cuda_kernels", kernels::cuda::built()},
                              {"methods", Registry::instance().cards().size()},
                              {"operations", nlohmann::ordered_json::array()}};
  for (const kernels::OperationPath& path : kernels::operation_paths())
    info["operations"].push_back({{"operation", path.operation}, {"dtype", path.dtype}, {"path", path.path}});
  return info;
}

std::string text(const nlohmann::ordered_json& info) {
  std::string out = fmt::format("switchyard {} with libtorch {}\n", info["version"].get<std::string>(),
                                info["libtorch"].get<std::string>());
  out += fmt::format("threads     {} on {} processors (set OMP_NUM_THREADS to change)\n", info["threads"].get<int>(),
                     info["processors"].get<int64_t>());
  out += fmt::format("CPU level   {} (the processor has {}; SWITCHYARD_CPU_LEVEL lowers it)\n",
                     info["cpu_level"].get<std::string>(), info["cpu_level_detected"].get<std::string>());
  out += fmt::format("CUDA        {}\n", info["cuda_kernels"].get<bool>() ? "kernels for tensors on a GPU" : "no kernels in this build: plain ATen computes on a GPU");
  out += fmt::format("methods     {} (see switchyard catalog)\n\n", info["methods"].get<size_t>());
  out += fmt::format("{:<24}{:<10}{}\n", "operation", "dtype", "path");
  for (const auto& row : info["operations"])
    out += fmt::format("{:<24}{:<10}{}\n", row["operation"].get<std::string>(), row["dtype"].get<std::string>(),
                       row["path"].get<std::string>());
  return out;
}

}  // namespace

Verb info_verb() {
  return {.name = "info",
          .summary = "version, threads, processor level and the path each kernel takes",
          .example = "switchyard info --json",
          .setup = [](CommandLine& line) -> std::function<int()> {
            auto json = std::make_shared<bool>(false);
            line.flag("--json", *json, "one JSON object");
            return [json] {
              const nlohmann::ordered_json info = facts();
              print(*json ? json_text(info, 2) + "\n" : text(info));
              return 0;
            };
          }};
}

}  // namespace switchyard::program
