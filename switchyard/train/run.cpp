#include "switchyard/train/run.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/clone.h>

#include <chrono>
#include <optional>

#include "switchyard/base/error.h"
#include "switchyard/base/files.h"
#include "switchyard/base/progress.h"
#include "switchyard/convert/export.h"
#include "switchyard/models/checkpoint.h"
#include "switchyard/train/machine_peak.h"
#include "switchyard/train/metrics.h"
#include "switchyard/train/run_folder.h"
#include "switchyard/train/trainer.h"
#include "switchyard/train/training_state.h"

namespace switchyard {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

namespace {

void make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  check(!error, "file.write", "the folder {} cannot be made: {}", folder.string(), error.message());
}

/// What an unfinished start may have left; anything else is somebody's.
void check_output(const fs::path& folder) {
  if (!fs::exists(folder)) return;
  check(fs::is_directory(folder), "train.output", "{} is a file; choose another folder with output=...", folder.string());
  if (fs::exists(folder / "recipe.yaml"))
    fail("train.run_exists", "{} already holds a run; go on with `switchyard resume {}`, or choose another folder with output=...",
         folder.string(), folder.string());
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    check(name == "run.lock" || (name == "tokenizer" && fs::exists(folder / "run.lock")) || name.starts_with("."), "train.output",
          "{} is no run but holds {}; choose another folder with output=...", folder.string(), name);
  }
}

/// The tokenizer that the run keeps; trained or taken over the first time, from the recipe's own or `begun`, the model that it is for.
std::shared_ptr<const Tokenizer> run_tokenizer(const fs::path& folder, const Recipe& recipe, const LoadedModel* begun = nullptr) {
  const fs::path kept = folder / "tokenizer";
  // Without a recipe beside it, it is of a start that failed, perhaps with another recipe.
  if (fs::exists(folder / "recipe.yaml") && fs::exists(kept)) return load_tokenizer(kept);
  if (begun && recipe.tokenizer.from.empty()) {
    check(begun->tokenizer != nullptr, "train.tokenizer", "{} holds no tokenizer; name one with tokenizer.from", recipe.from);
    write_folder_atomically(kept, [&](const fs::path& temporary) { save_text_files(*begun, temporary); });
    return load_tokenizer(kept);
  }
  std::shared_ptr<Tokenizer> made;
  if (!recipe.tokenizer.from.empty()) {
    made = load_tokenizer(recipe.tokenizer.from);
  } else {
    log_info(fmt::format("training a tokenizer of {} tokens", recipe.tokenizer.vocabulary));
    made = train_tokenizer(recipe.tokenizer, document_stream(recipe.data, recipe.tokenizer.sample_bytes));
  }
  write_folder_atomically(kept, [&](const fs::path& temporary) { made->save(temporary); });
  return load_tokenizer(kept);  // what a resumed run will read
}

/// Operations that one token costs in forward and backward: 6 a parameter that multiplies it.
double operations_a_token(const Decoder& decoder) {
  double parameters = static_cast<double>(decoder.active_parameters());
  if (!decoder.options().tied_embeddings)  // looked up, not multiplied
    for (const Parameter& parameter : decoder.schema().all())
      if (parameter.spec().role == Role::embedding) parameters -= static_cast<double>(parameter.count());
  return 6 * parameters;
}

std::string count_text(int64_t n) {
  return n < 1000000 ? fmt::format("{:.1f} thousand", n / 1e3) : fmt::format("{:.2f} million", n / 1e6);
}

/// What is trained, and the config.json of the published family in whose layout checkpoints are written; null: in our own.
struct Trained {
  std::shared_ptr<Decoder> decoder;
  Node config;
};

/// A run between its start (or resumption) and its end.
class Training {
 public:
  Training(const fs::path& folder, const Recipe& recipe, std::shared_ptr<const Tokenizer> tokenizer, const Trained& trained)
      : folder_(folder), recipe_(recipe), options_(recipe_.train), tokenizer_(std::move(tokenizer)), decoder_(trained.decoder),
        config_(trained.config),
        data_(recipe.data, tokenizer_, static_cast<uint64_t>(recipe.seed)),
        trainer_(options_, decoder_, [this](int64_t sequences) { return data_.next(sequences); },
                 static_cast<uint64_t>(recipe.seed)) {}

  Trainer& trainer() { return trainer_; }

  void restore(const fs::path& checkpoint) {
    TrainingState state = load_training_state(checkpoint / "training", trainer_.optimiser());
    check(state.seed == recipe_.seed, "train.state", "the checkpoint was trained with seed {}, the recipe says {}", state.seed,
          recipe_.seed);
    data_.seek(state.position);
    interval_ = std::move(state.interval);
    tokens_ = state.tokens;
    saved_at_ = state.step;
    if (state.steps != options_.steps)
      log_info(fmt::format("the schedule now runs towards {} steps instead of {}", options_.steps, state.steps));
  }

  void save() {
    const int64_t now = trainer_.step();
    if (saved_at_ == now) return;
    const fs::path checkpoint = checkpoint_folder(folder_, now);
    make_folder(checkpoint.parent_path());
    write_folder_atomically(checkpoint, [&](const fs::path& temporary) {
      save_weights(temporary);
      make_folder(temporary / "training");
      save_training_state(temporary / "training",
                          {.step = now, .seed = recipe_.seed, .tokens = tokens_, .position = data_.position(),
                           .interval = interval_, .schedule = options_.schedule, .steps = options_.steps},
                          trainer_.optimiser());
    });
    saved_at_ = now;
    if (options_.keep_last == 0) return;
    const auto all = checkpoints(folder_);
    for (size_t i = 0; i + static_cast<size_t>(options_.keep_last) < all.size(); ++i) {
      std::error_code ignored;
      fs::remove_all(all[i].second, ignored);
    }
  }

  RunResult go() {
    RunResult result{.folder = folder_, .steps = options_.steps, .parameters = decoder_->schema().count(),
                     .active_parameters = decoder_->active_parameters()};
    const int64_t first = trainer_.step();
    log_info(fmt::format("{} parameters, {} active for a token; {} to {} of {} steps in {}", count_text(result.parameters),
                         count_text(result.active_parameters), first, options_.steps, options_.steps, folder_.string()));
    if (options_.schedule.warmup >= options_.steps && options_.steps > 0)
      log_warning(fmt::format("the rate still rises at the last step: train.schedule.warmup is {} of {} steps",
                              options_.schedule.warmup, options_.steps));
    MetricsLog log(folder_, first == 0 ? -1 : first);
    const double peak = measured_peak(options_.precision), cost = operations_a_token(*decoder_);
    double seconds = 0;
    int64_t timed_tokens = 0;
    while (trainer_.step() < options_.steps) {
      if (interrupted()) {
        save();
        result.interrupted = true;
        break;
      }
      const auto begin = Clock::now();
      const StepResult step = trainer_.train_step();
      seconds += std::chrono::duration<double>(Clock::now() - begin).count();
      timed_tokens += step.tokens;
      tokens_ += step.tokens;
      interval_.add(step);

      const int64_t now = trainer_.step();
      const bool last = now == options_.steps;
      const double rate = seconds > 0 ? static_cast<double>(timed_tokens) / seconds : 0;
      reporter().progress("train", now, options_.steps, line(rate, peak > 0 ? rate * cost / peak : 0));
      if (now % options_.log_every == 0 || last) {
        result.loss = interval_.loss();
        write_line(log, step, rate, peak > 0 ? rate * cost / peak : 0);
        seconds = 0;
        timed_tokens = 0;
      }
      if (options_.evaluate_every > 0 && (now % options_.evaluate_every == 0 || last)) result.held_out = evaluate_now(log);
      if (last || (options_.checkpoint_every > 0 && now % options_.checkpoint_every == 0)) save();
    }
    if (options_.steps == 0) save();
    reporter().finished("train");
    result.step = trainer_.step();
    return result;
  }

 private:
  std::vector<std::pair<std::string, std::string>> line(double rate, double share) const {
    std::vector<std::pair<std::string, std::string>> values{{"loss", fmt::format("{:.4f}", interval_.loss())},
                                                            {"tok/s", fmt::format("{:.0f}", rate)},
                                                            {"of peak", fmt::format("{:.0f}%", 100 * share)}};
    if (!interval_.loads.empty()) {
      values.emplace_back("imbalance", fmt::format("{:.2f}", imbalance(interval_.loads)));
      values.emplace_back("drops", fmt::format("{:.1f}%", 100 * dropped(interval_.loads)));
    }
    if (held_out_ > 0) values.emplace_back("held-out", fmt::format("{:.4f}", held_out_));
    return values;
  }

  void write_line(MetricsLog& log, const StepResult& step, double rate, double share) {
    const int64_t now = trainer_.step();
    Scalars scalars{{"loss", interval_.loss()}};
    for (const auto& [name, sum] : interval_.term_sums) scalars.emplace_back(name, sum / static_cast<double>(interval_.steps));
    scalars.emplace_back("lr", options_.optimiser.lr * options_.schedule.at(now - 1, options_.steps));
    scalars.emplace_back("gradient_norm", step.gradient_norm);
    scalars.emplace_back("tokens", static_cast<double>(tokens_));
    if (!interval_.loads.empty()) {
      scalars.emplace_back("imbalance", imbalance(interval_.loads));
      scalars.emplace_back("dropped", dropped(interval_.loads));
      log.routing(now, interval_.loads);
    }
    scalars.emplace_back("tokens_per_second", rate);
    scalars.emplace_back("peak_share", share);
    log.step(now, scalars);
    interval_ = {};
  }

  double evaluate_now(MetricsLog& log) {
    if (!held_out_batches_) held_out_batches_ = data_.held_out(-1, options_.batch / options_.accumulate, options_.evaluate_tokens);
    const Evaluation evaluation = evaluate(trainer_, *held_out_batches_, data_.domains());
    if (evaluation.tokens == 0) {
      log_warning("no held-out tokens to evaluate on; raise data.held_out");
      return 0;
    }
    log.evaluation(trainer_.step(), evaluation.loss, evaluation.tokens, evaluation.domains);
    return held_out_ = evaluation.loss;
  }

  void save_weights(const fs::path& folder) const {
    if (config_.is_null()) return save_model(folder, *decoder_, tokenizer_.get());
    save_published(folder, config_, *decoder_);
    fs::copy(folder_ / "tokenizer", folder, fs::copy_options::recursive);
  }

  fs::path folder_;
  Recipe recipe_;
  TrainOptions options_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::shared_ptr<Decoder> decoder_;
  Node config_;
  Data data_;
  Trainer trainer_;
  std::optional<std::vector<Batch>> held_out_batches_;
  Interval interval_;
  int64_t tokens_ = 0, saved_at_ = -1;
  double held_out_ = 0;
};

/// The model options with the vocabulary that the tokenizer has.
ModelOptions sized(ModelOptions options, const Tokenizer& tokenizer) {
  if (options.vocabulary == 0) options.vocabulary = tokenizer.vocabulary();
  check(options.vocabulary >= tokenizer.vocabulary(), "train.vocabulary",
        "model.vocabulary is {}, but the tokenizer has {} tokens; leave it out or raise it", options.vocabulary,
        tokenizer.vocabulary());
  return options;
}

/// The model options with the recipe's routing losses and controllers wherever a mixture has none.
ModelOptions balanced(ModelOptions options, const TrainOptions& train) {
  const auto fill = [&](std::vector<MixtureOptions>& mixtures) {
    for (MixtureOptions& mixture : mixtures) {
      if (!mixture.router) continue;  // it follows the decision of another place
      if (mixture.losses.empty()) mixture.losses = train.losses;
      if (mixture.controllers.empty()) mixture.controllers = train.controllers;
    }
  };
  fill(options.mixtures);
  if (options.encoder) fill(options.encoder->mixtures);
  return options;
}

std::shared_ptr<Decoder> fresh_model(const Recipe& recipe) {
  auto decoder = std::make_shared<Decoder>(balanced(recipe.model, recipe.train));
  initialise(decoder->schema(), Streams(static_cast<uint64_t>(recipe.seed)));
  return decoder;
}

/// What was loaded, to be trained: unpacked, and in memory of its own, since a mapped file lies at other alignments, which may change
/// the low bits of a product. Takes the tensors away one by one.
std::shared_ptr<Decoder> trainable(const Decoder& loaded, const TrainOptions& train) {
  auto decoder = std::make_shared<Decoder>(balanced(loaded.options(), train));
  const at::NoGradGuard guard;
  const std::vector<Parameter>&from = loaded.schema().all(), &to = decoder->schema().all();
  for (size_t i = 0; i < to.size(); ++i) {
    to[i].bind(from[i].tensor().detach().clone());
    from[i].unbind();
  }
  return decoder;
}

Trained checkpoint_model(const fs::path& checkpoint, const TrainOptions& train) {
  const LoadedModel model = load_model(checkpoint);
  Trained trained{trainable(*model.decoder, train), {}};
  if (model.family) trained.config = parse_json(read_file(checkpoint / "config.json"), (checkpoint / "config.json").string());
  return trained;
}

/// The config.json with which a model is written again as what it was read as.
Node config_again(const LoadedModel& model) {
  if (!model.family) return {};
  try {
    return published_config(model);
  } catch (const Error& error) {
    if (error.code() != "convert.export.option") throw;
    log_info(fmt::format("checkpoints have this program's own layout, since {}", error.message()));
    return {};
  }
}

void write_recipe(const fs::path& folder, const Recipe& recipe) {
  Node node = write_options(recipe);
  if (!recipe.from.empty()) std::erase_if(node.entries(), [](const auto& entry) { return entry.first == "model"; });
  write_file_atomically(folder / "recipe.yaml", to_yaml(node));
}

/// From a checkpoint to the recipe's last step.
RunResult go_on(const fs::path& folder, const Recipe& recipe, std::shared_ptr<const Tokenizer> tokenizer, const fs::path& checkpoint) {
  try {
    Training run(folder, recipe, std::move(tokenizer), checkpoint_model(checkpoint, recipe.train));
    run.restore(checkpoint);
    write_recipe(folder, recipe);
    const int64_t step = run.trainer().step();
    if (step > 0 && step >= recipe.train.steps) {
      log_info(fmt::format("{} is complete at step {}; go further with train.steps=N", folder.string(), step));
      return {.folder = folder, .step = step, .steps = recipe.train.steps};
    }
    return run.go();
  } catch (const Error& error) {
    const std::string& code = error.code();
    if (code.starts_with("formats.") || code.starts_with("json.") || code.starts_with("options.") || code.starts_with("model.") ||
        code.starts_with("parameters.") || code == "train.state" || code == "data.position" || code == "file.missing")
      fail("train.checkpoint", "{} cannot be resumed: {}; remove that folder to go on from the checkpoint before it",
           checkpoint.string(), error.what());
    throw;
  }
}

/// From the beginning. A model that came from elsewhere is saved before its first step, and trained as it is read from there: so a
/// run never needs again what it began from.
RunResult begin(const fs::path& folder, Recipe recipe) {
  if (recipe.from.empty()) {
    const auto tokenizer = run_tokenizer(folder, recipe);
    recipe.model = sized(recipe.model, *tokenizer);
    Training run(folder, recipe, tokenizer, {fresh_model(recipe), {}});
    write_recipe(folder, recipe);
    return run.go();
  }
  LoadedModel model = load_model(recipe.from, at::kFloat, recipe.set);
  const ModelOptions& options = model.decoder->options();
  check(recipe.data.sequence <= options.context, "train.sequence", "data.sequence is {} tokens, but the model of {} allows {}",
        recipe.data.sequence, recipe.from, options.context);
  const auto tokenizer = run_tokenizer(folder, recipe, &model);
  check(options.patches || tokenizer->vocabulary() <= options.vocabulary, "train.vocabulary", "the tokenizer has {} tokens, but the model of {} only {}",
        tokenizer->vocabulary(), recipe.from, options.vocabulary);
  if (!recipe.tokenizer.from.empty()) model.end_ids.clear();  // they were of the model's own
  model.tokenizer = tokenizer;
  {
    Node config = config_again(model);
    Training run(folder, recipe, tokenizer, {trainable(*model.decoder, recipe.train), std::move(config)});
    write_recipe(folder, recipe);
    run.save();
  }
  model.decoder.reset();
  return go_on(folder, recipe, tokenizer, checkpoint_folder(folder, 0));
}

}  // namespace

RunResult train(Recipe recipe) {
  const fs::path folder = recipe.output;
  check(!recipe.output.empty(), "train.output", "the recipe names no output folder");
  check_output(folder);
  make_folder(folder);
  const FolderLock lock(folder);
  return begin(folder, std::move(recipe));
}

RunResult resume(const fs::path& folder, const std::vector<std::string>& overrides) {
  const fs::path file = folder / "recipe.yaml";
  check(fs::exists(file), "train.no_run", "{} holds no run: there is no recipe.yaml; begin one with `switchyard train RECIPE`",
        folder.string());
  for (const std::string& one : overrides)
    check(one.starts_with("train.") && !one.starts_with("train.losses") && !one.starts_with("train.controllers"), "train.override",
          "'{}' cannot change when a run is resumed; only train.* may (losses and controllers aside), such as train.steps=2000", one);
  const FolderLock lock(folder);
  Recipe recipe = load_recipe(file.string(), overrides);
  recipe.output = folder.string();
  const auto all = checkpoints(folder);
  if (!all.empty()) return go_on(folder, recipe, run_tokenizer(folder, recipe), all.back().second);
  log_info(fmt::format("{} has no checkpoint yet; the run begins again", folder.string()));
  return begin(folder, std::move(recipe));
}

}  // namespace switchyard
