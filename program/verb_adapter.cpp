// switchyard adapter: what is done with adapters alone. `mix` makes one of several.
#include <fmt/format.h>

#include "program/adapters.h"
#include "program/verb.h"
#include "switchyard/base/error.h"
#include "switchyard/base/progress.h"
#include "switchyard/convert/mix_adapters.h"

namespace switchyard::program {

namespace {

struct Arguments {
  std::string out, type = "svd", election = "total";
  std::vector<std::string> adapters;
  double density = -1, clamp = -1;
  int64_t rank = 0, seed = 0;
};

int mix(const Arguments& arguments) {
  check(!std::filesystem::exists(arguments.out), "adapters.exists", "{} is there already; choose a new folder", arguments.out);
  std::vector<std::pair<peft::AdapterFile, double>> files = read_adapters({.adapters = arguments.adapters, .experts = {}});
  std::vector<WeightedAdapter> adapters;
  for (const auto& [file, weight] : files) adapters.push_back({&file, weight});
  MixOptions options{.mix = mix_named(arguments.type), .election = arguments.election == "total" ? Election::total : Election::frequency};
  if (arguments.density >= 0) options.density = arguments.density;
  if (arguments.clamp >= 0) options.svd_clamp = arguments.clamp;
  if (arguments.rank > 0) options.svd_rank = arguments.rank;
  options.seed = static_cast<uint64_t>(arguments.seed);
  const peft::AdapterFile mixed = mix_adapters(adapters, options);
  write_adapter(arguments.out, mixed);
  log_info(fmt::format("{} adapters mixed into one of rank {} on {} modules: {}", adapters.size(), mixed.config.rank, mixed.modules.size(),
                       arguments.out));
  return 0;
}

}  // namespace

Verb adapter_verb() {
  return {.name = "adapter",
          .summary = "make adapters of adapters: mix",
          .example = "switchyard adapter mix out/ --adapter one/=0.7 --adapter two/=0.3 --type ties --density 0.5",
          .setup = [](CommandLine& line) -> std::function<int()> {
            line.needs_subcommand();
            auto arguments = std::make_shared<Arguments>();
            CommandLine mixing = line.subcommand("mix", "one adapter in peft's form out of several, without their base");
            mixing.option("out", arguments->out, "the new folder").required();
            mixing.option("--adapter", arguments->adapters, "folder, or folder=weight; weights may be negative")
                .repeatable().required();
            mixing.option("--type", arguments->type, "linear, cat, svd, ties, ties_svd, dare_linear, dare_linear_svd, dare_ties, "
                          "dare_ties_svd, magnitude_prune or magnitude_prune_svd; cat and svd are exact (svd up to its rank)");
            mixing.option("--density", arguments->density, "share of values that the pruning types keep").between(0.0, 1.0);
            mixing.option("--rank", arguments->rank, "rank of the svd types; default the largest among the adapters")
                .between(1, 1 << 20);
            mixing.option("--clamp", arguments->clamp, "quantile at which the svd types cut their factors").between(0.0, 1.0);
            mixing.option("--majority", arguments->election, "how ties elects signs: total (of the values) or frequency")
                .one_of({"total", "frequency"});
            mixing.option("--seed", arguments->seed, "of the values that dare drops").not_negative();
            return [arguments] { return mix(*arguments); };
          }};
}

}  // namespace switchyard::program
