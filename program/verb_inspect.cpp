// switchyard inspect: what the routers of a run do, as a page and as numbers.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>

#include "program/verb.h"
#include "switchyard/base/error.h"
#include "switchyard/base/files.h"
#include "switchyard/base/progress.h"
#include "switchyard/inspect/probe.h"
#include "switchyard/inspect/report.h"
#include "switchyard/models/checkpoint.h"
#include "switchyard/train/recipe.h"
#include "switchyard/train/run_folder.h"

namespace switchyard::program {

namespace {

namespace fs = std::filesystem;

struct Arguments {
  std::string run, output;
  std::vector<std::string> data;
  int64_t tokens = 32768;
  int64_t checkpoints = 8;
  bool json = false;
};

/// Tokens of every domain on which checkpoints are compared: enough for a percent, little enough for eight models.
constexpr int64_t kSettlingTokens = 1024;

/// The run that a model folder belongs to; empty when it stands alone.
fs::path run_of(const fs::path& path) {
  const fs::path full = fs::weakly_canonical(path);
  for (const fs::path& candidate : {full, full.parent_path().parent_path()})
    if (fs::exists(candidate / "recipe.yaml")) return candidate;
  return {};
}

std::string count_text(int64_t n) {
  if (n < 10000) return std::to_string(n);
  return n < 1000000 ? fmt::format("{:.1f} thousand", static_cast<double>(n) / 1e3) : fmt::format("{:.1f} million", static_cast<double>(n) / 1e6);
}

std::string joined(const std::set<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

std::vector<std::pair<std::string, std::string>> facts_of(const LoadedModel& model, const fs::path& run, int64_t tokens) {
  const ModelOptions& options = model.decoder->options();
  std::vector<std::pair<std::string, std::string>> facts;
  facts.emplace_back("model", fmt::format("{} layers, {} wide", options.layers, options.width));
  std::set<std::string> routers, admissions, experts;
  for (const PlacedRouting& routing : model.decoder->routings()) {
    routers.insert(routing.station->options().router.slug);
    admissions.insert(routing.station->options().admission ? routing.station->options().admission.slug : "everybody");
    experts.insert(std::to_string(routing.station->experts()));
  }
  if (routers.empty()) {
    facts.emplace_back("routed places", "none (dense)");
  } else {
    facts.emplace_back("routed places", std::to_string(model.decoder->routings().size()));
    facts.emplace_back("experts in each", joined(experts));
    facts.emplace_back("router", joined(routers));
    facts.emplace_back("admission", joined(admissions));
  }
  const int64_t parameters = model.decoder->schema().count(), active = model.decoder->active_parameters();
  facts.emplace_back("parameters", parameters == active ? count_text(parameters) : fmt::format("{}, {} active", count_text(parameters), count_text(active)));
  facts.emplace_back("vocabulary", std::to_string(options.vocabulary));
  // "step-00000500" → "500".
  if (const std::string name = model.folder.filename().string(); name.starts_with("step-"))
    facts.emplace_back("step", name.substr(std::min(name.find_first_not_of('0', 5), name.size() - 1)));
  facts.emplace_back("probe text", fmt::format("{} tokens", count_text(tokens)));
  return facts;
}

/// A vocabulary entry as people read it: its text, or its own spelling when it is no text by itself.
std::string token_name(const Tokenizer& tokenizer, int64_t id) {
  if (id < 0 || id >= tokenizer.vocabulary()) return fmt::format("#{}", id);
  const std::string raw = tokenizer.token(id);
  std::string text = tokenizer.decode({id});
  if (text.empty() || text.find("\xef\xbf\xbd") != std::string::npos) return raw;
  // SentencePiece's mark of a word's beginning: decoding drops it where a text begins.
  if (raw.starts_with("\xe2\x96\x81") && text.front() != ' ') text.insert(0, " ");
  return text;
}

std::vector<std::string> pieces_of(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  TextStream stream(tokenizer);
  std::vector<std::string> pieces;
  for (const int32_t id : ids) pieces.push_back(stream.push(id));
  if (!pieces.empty()) pieces.back() += stream.flush();
  return pieces;
}

ProbeText probe_text(const Arguments& arguments, const LoadedModel& model, const fs::path& run) {
  const int64_t context = model.decoder->options().context;
  if (!arguments.data.empty()) return file_probe(arguments.data, *model.tokenizer, arguments.tokens, context);
  check(!run.empty(), "inspect.no_recipe",
        "{} belongs to no run, so there is no held-out text; name files to look at with --data", arguments.run);
  const Recipe recipe = load_recipe((run / "recipe.yaml").string());
  return held_out_probe(Data(recipe.data, model.tokenizer, static_cast<uint64_t>(recipe.seed)), arguments.tokens,
                        std::min(recipe.data.sequence, context));
}

RoutingTrace trace(const LoadedModel& model, const ProbeText& text, const std::string& task) {
  RoutingTrace result = trace_routing(*model.decoder, text, 1, [&](int64_t done, int64_t total) {
    check(!interrupted(), "inspect.interrupted", "stopped on request; no report was written");
    reporter().progress(task, done, total, {});
  });
  reporter().finished(task);
  return result;
}

/// At most `wanted` checkpoints, evenly spread, the first and the newest among them.
std::vector<std::pair<int64_t, fs::path>> spread(std::vector<std::pair<int64_t, fs::path>> all, int64_t wanted) {
  const auto n = static_cast<int64_t>(all.size());
  if (n <= wanted) return all;
  std::vector<std::pair<int64_t, fs::path>> chosen;
  for (int64_t i = 0; i < wanted; ++i) chosen.push_back(all[static_cast<size_t>(i * (n - 1) / std::max<int64_t>(1, wanted - 1))]);
  return chosen;
}

void add_checkpoints(ReportInput& input, const Arguments& arguments, const fs::path& run, const ProbeText& text) {
  const ProbeText probe = shorter(text, kSettlingTokens);
  for (const auto& [step, folder] : spread(checkpoints(run), arguments.checkpoints)) {
    std::optional<LoadedModel> model;
    try {
      model = load_model(folder);
    } catch (const Error& error) {  // a run in progress removes old checkpoints
      log_warning(fmt::format("{} is left out of the comparison: {}", folder.string(), error.what()));
      continue;
    }
    input.checkpoints.emplace_back(step, trace(*model, probe, fmt::format("checkpoint {}", step)));
  }
}

int inspect_run(const Arguments& arguments) {
  const LoadedModel model = load_model(arguments.run);
  check(model.tokenizer != nullptr, "inspect.tokenizer", "{} has no tokenizer, so no text can be shown to the model",
        model.folder.string());
  const fs::path run = run_of(model.folder);
  const ProbeText text = probe_text(arguments, model, run);

  ReportInput input;
  input.title = (run.empty() ? fs::weakly_canonical(model.folder) : run).filename().string();
  input.facts = facts_of(model, run, text.tokens());
  if (!run.empty()) {
    input.metrics = read_metrics(run / "metrics.jsonl");
    input.history = read_load_history(run / "routing.jsonl");
  }
  input.trace = trace(model, text, "routing");
  if (!run.empty() && model.folder != fs::path(arguments.run) && arguments.checkpoints > 1) add_checkpoints(input, arguments, run, text);
  const std::shared_ptr<const Tokenizer> tokenizer = model.tokenizer;
  input.token_name = [tokenizer](int32_t id) { return token_name(*tokenizer, id); };
  input.pieces = [tokenizer](const std::vector<int32_t>& ids) { return pieces_of(*tokenizer, ids); };

  const std::string json = report_json(input);
  if (arguments.json) {
    print(json + "\n");
    return 0;
  }
  // A checkpoint's folder stays as it was saved: only a run receives a report unasked.
  const bool whole_run = fs::exists(fs::path(arguments.run) / "recipe.yaml");
  const fs::path page = !arguments.output.empty() ? fs::path(arguments.output) : (whole_run ? fs::path(arguments.run) : fs::path(".")) / "report.html";
  fs::path numbers = page;
  numbers.replace_extension(".json");
  check(numbers != page, "inspect.output", "{} would hold both the page and its numbers; name a file that ends in .html", page.string());
  write_file_atomically(page, report_page(json));
  write_file_atomically(numbers, json);
  for (const std::string& finding : report_findings(json)) print("  " + finding + "\n");
  print(fmt::format("{}\n{}\n", page.string(), numbers.string()));
  return 0;
}

}  // namespace

Verb inspect_verb() {
  return {.name = "inspect",
          .summary = "show what the routers do, as one page that opens offline and as numbers",
          .example = "switchyard inspect runs/quickstart --output report.html",
          .computes = true,
          .setup = [](CommandLine& line) -> std::function<int()> {
            auto arguments = std::make_shared<Arguments>();
            line.option("run", arguments->run, "folder of a run, a checkpoint or a model").required();
            line.option("--data", arguments->data, "files, folders or globs to look at, each a domain; default: the run's held-out text");
            line.option("--output", arguments->output, "the page; its numbers go beside it as .json (default: report.html in the run)");
            line.option("--tokens", arguments->tokens, "tokens looked at, over all domains").between(int64_t{1}, int64_t{1} << 24);
            line.option("--checkpoints", arguments->checkpoints, "checkpoints compared with the newest; 0 = none").between(0, 64);
            line.flag("--json", arguments->json, "print the numbers as one JSON object and write no file");
            return [arguments] { return inspect_run(*arguments); };
          }};
}

}  // namespace switchyard::program
