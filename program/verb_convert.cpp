// switchyard convert: from one model to another. `export` gives a model to the ecosystem's libraries, `merge` puts adapters in,
// `gguf` writes a model folder as a GGUF file, `quantize` one with its weights in fewer bits.
#include <fmt/format.h>

#include <filesystem>

#include "program/adapters.h"
#include "program/generation.h"
#include "program/verb.h"
#include "switchyard/base/error.h"
#include "switchyard/base/progress.h"
#include "switchyard/convert/export.h"
#include "switchyard/convert/quantise.h"
#include "switchyard/convert/rewrite.h"
#include "switchyard/convert/to_gguf.h"
#include "switchyard/models/checkpoint.h"

namespace switchyard::program {

namespace {

/// A folder is about to be written there; who names a file wants another verb.
void check_folder_name(const std::string& out) {
  check(std::filesystem::path(out).extension() != ".gguf", "program.usage", "{} names a GGUF file, and this writes a folder; `switchyard convert gguf` writes such a file of one", out);
}

struct ExportArguments {
  std::string model, out, family, dtype;
  std::vector<std::string> set;
};

int export_folder(const ExportArguments& arguments) {
  check_folder_name(arguments.out);
  const std::optional<at::ScalarType> dtype =
      arguments.dtype.empty() ? std::nullopt : std::optional(dtype_named(arguments.dtype));
  const LoadedModel model = load_model(arguments.model, {}, arguments.set);
  const std::string type = export_model(model, arguments.out, {.model_type = arguments.family, .dtype = dtype});
  log_info(fmt::format("{} is written as {} to {}", model.folder.string(), type, arguments.out));
  return 0;
}

struct MergeArguments {
  std::string model, out;
  AdapterArguments adapters;
};

int merge_adapters(const MergeArguments& arguments) {
  check_folder_name(arguments.out);
  const LoadedModel model = load_model(arguments.model);
  AdapterSet set(model);
  set.merge(load_adapters(set, read_adapters(arguments.adapters)));
  rewrite_model(model, arguments.out);
  log_info(fmt::format("{} with {} adapters merged into it is written to {}", model.folder.string(), set.names().size(), arguments.out));
  return 0;
}

struct QuantiseArguments {
  std::string in, out, keep;
  QuantiseOptions options;
  int64_t shard_megabytes = 0;
};

void add_packing_options(CommandLine& line, QuantiseArguments& arguments) {
  line.option("--keep", arguments.keep,
              "other types by role (embedding, head, router, attention, experts, shared, dense) or tensor: router=f32,head=q6_K");
  line.option("--shard-megabytes", arguments.shard_megabytes, "split into files of at most this size; default one file")
      .not_negative();
}

void report_packing(const QuantiseReport& report, const std::string& type) {
  for (const std::string& fallback : report.fallbacks) log_info(fmt::format("rows do not fit {}, so {}", type, fallback));
  if (report.packed_again > 0)
    log_info(fmt::format("{} tensors were packed in another format before and lost twice; start from a file in F16 or BF16", report.packed_again));
  log_info(fmt::format("{}: {} tensors packed, {:.1f} MB became {:.1f} MB", report.files.front().string(), report.packed,
                       static_cast<double>(report.bytes_before) / 1e6, static_cast<double>(report.bytes_after) / 1e6));
}

int quantise_file(QuantiseArguments arguments) {
  arguments.options.keep = parse_keep(arguments.keep);
  arguments.options.shard_bytes = static_cast<uint64_t>(arguments.shard_megabytes) << 20;
  report_packing(quantise_gguf(arguments.in, arguments.out, arguments.options), arguments.options.type);
  return 0;
}

int write_folder_as_gguf(QuantiseArguments arguments) {
  arguments.options.keep = parse_keep(arguments.keep);
  arguments.options.shard_bytes = static_cast<uint64_t>(arguments.shard_megabytes) << 20;
  const ToGgufReport report = convert_to_gguf(arguments.in, arguments.out, {.pack = arguments.options});
  for (const std::string& notice : report.notices) log_warning(notice);
  report_packing(report.written, arguments.options.type);
  return 0;
}

}  // namespace

Verb convert_verb() {
  return {.name = "convert",
          .summary = "turn one model into another: export, merge, gguf, quantize",
          .example = "switchyard convert export runs/quickstart exported/",
          .setup = [](CommandLine& line) -> std::function<int()> {
            line.needs_subcommand();
            auto arguments = std::make_shared<ExportArguments>();
            CommandLine exporting = line.subcommand(
                "export", "a folder of a published family, which transformers loads; refused when no family is the same");
            exporting.option("model", arguments->model, "folder of a run, a checkpoint or a model").required();
            exporting.option("out", arguments->out, "the new folder").required();
            exporting.option("--family", arguments->family, "model type to write, such as mixtral; default whichever fits");
            exporting.option("--dtype", arguments->dtype, "type of the weights: float32, bfloat16, float16; default as they are");
            add_set_option(exporting, arguments->set);
            auto merging_arguments = std::make_shared<MergeArguments>();
            CommandLine merging = line.subcommand("merge", "the same folder with adapters put into its weights");
            merging.option("model", merging_arguments->model, "folder of the base model").required();
            merging.option("out", merging_arguments->out, "the new folder").required();
            add_adapter_options(merging, merging_arguments->adapters);
            merging.at("--adapter").required();

            auto folding = std::make_shared<QuantiseArguments>();
            folding->options.type.clear();
            CommandLine writing = line.subcommand("gguf", "a GGUF file of a model folder, its tokenizer and chat template, which llama.cpp loads");
            writing.option("in", folding->in, "folder of a published model, or of a run, a checkpoint or a model saved here").required();
            writing.option("out", folding->out, "the new file").required();
            writing.option("--type", folding->options.type, "pack weight matrices: Q4_K, Q8_0, F16, ...; default as they are, bit for bit");
            add_packing_options(writing, *folding);

            auto packing = std::make_shared<QuantiseArguments>();
            CommandLine quantising = line.subcommand("quantize", "a GGUF file with its weights packed in fewer bits");
            quantising.option("in", packing->in, "GGUF file, or any file of a set; or the folder of a model, as `gguf` takes it").required();
            quantising.option("out", packing->out, "the new file").required();
            quantising.option("--type", packing->options.type, "of weight matrices: Q4_K, Q6_K, Q8_0, MXFP4, F16, ...; default Q4_K");
            add_packing_options(quantising, *packing);
            return [=] {
              const std::filesystem::path file = quantising.chosen() ? gguf_of(packing->in) : std::filesystem::path();
              if (!file.empty()) packing->in = file.string();
              const bool from_folder = quantising.chosen() && file.empty() && std::filesystem::is_directory(packing->in);
              return from_folder           ? write_folder_as_gguf(*packing)
                     : quantising.chosen() ? quantise_file(*packing)
                     : writing.chosen()    ? write_folder_as_gguf(*folding)
                     : merging.chosen()    ? merge_adapters(*merging_arguments)
                                           : export_folder(*arguments);
            };
          }};
}

}  // namespace switchyard::program
