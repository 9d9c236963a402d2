// switchyard convert: from one model to another. `export` gives a model to the ecosystem's libraries, `merge` puts adapters in.
#include <fmt/format.h>

#include "program/adapters.h"
#include "program/verb.h"
#include "switchyard/base/progress.h"
#include "switchyard/convert/export.h"
#include "switchyard/convert/rewrite.h"

namespace switchyard::program {

namespace {

struct ExportArguments {
  std::string model, out, family, dtype;
};

int export_folder(const ExportArguments& arguments) {
  const std::optional<at::ScalarType> dtype =
      arguments.dtype.empty() ? std::nullopt : std::optional(dtype_named(arguments.dtype));
  const LoadedModel model = load_model(arguments.model);
  const std::string type = export_model(model, arguments.out, {.model_type = arguments.family, .dtype = dtype});
  log_info(fmt::format("{} is written as {} to {}", model.folder.string(), type, arguments.out));
  return 0;
}

struct MergeArguments {
  std::string model, out;
  AdapterArguments adapters;
};

int merge_adapters(const MergeArguments& arguments) {
  const LoadedModel model = load_model(arguments.model);
  AdapterSet set(model);
  set.merge(load_adapters(set, read_adapters(arguments.adapters)));
  rewrite_model(model, arguments.out);
  log_info(fmt::format("{} with {} adapters merged into it is written to {}", model.folder.string(), set.names().size(), arguments.out));
  return 0;
}

}  // namespace

Verb convert_verb() {
  return {.name = "convert",
          .summary = "turn one model into another: export, merge",
          .example = "switchyard convert export runs/quickstart exported/",
          .setup = [](CLI::App& app) -> std::function<int()> {
            app.require_subcommand(1);
            auto arguments = std::make_shared<ExportArguments>();
            CLI::App* exporting = app.add_subcommand(
                "export", "a folder of a published family, which transformers loads; refused when no family is the same");
            exporting->add_option("model", arguments->model, "folder of a run, a checkpoint or a model")->required();
            exporting->add_option("out", arguments->out, "the new folder")->required();
            exporting->add_option("--family", arguments->family, "model type to write, such as mixtral; default whichever fits");
            exporting->add_option("--dtype", arguments->dtype, "type of the weights: float32, bfloat16, float16; default as they are");
            auto merging_arguments = std::make_shared<MergeArguments>();
            CLI::App* merging = app.add_subcommand("merge", "the same folder with adapters put into its weights");
            merging->add_option("model", merging_arguments->model, "folder of the base model")->required();
            merging->add_option("out", merging_arguments->out, "the new folder")->required();
            add_adapter_options(*merging, merging_arguments->adapters);
            merging->get_option("--adapter")->required();
            return [=] { return merging->parsed() ? merge_adapters(*merging_arguments) : export_folder(*arguments); };
          }};
}

}  // namespace switchyard::program
