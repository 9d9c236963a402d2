#include "switchyard/train/run.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/clone.h>

#include <chrono>
#include <optional>

#include "switchyard/base/error.h"
#include "switchyard/base/files.h"
#include "switchyard/base/progress.h"
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
    check(name == "run.lock" || name == "tokenizer" || name.starts_with("."), "train.output",
          "{} is no run but holds {}; choose another folder with output=...", folder.string(), name);
  }
}

/// The tokenizer that the run keeps; trained or taken over the first time.
std::shared_ptr<const Tokenizer> run_tokenizer(const fs::path& folder, const Recipe& recipe) {
  const fs::path kept = folder / "tokenizer";
  if (fs::exists(kept)) return load_tokenizer(kept);
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

/// A run between its start (or resumption) and its end.
class Training {
 public:
  Training(const fs::path& folder, const Recipe& recipe, std::shared_ptr<const Tokenizer> tokenizer, std::shared_ptr<Decoder> decoder)
      : folder_(folder), recipe_(recipe), options_(recipe_.train), tokenizer_(std::move(tokenizer)), decoder_(std::move(decoder)),
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

  void save() {
    const int64_t now = trainer_.step();
    if (saved_at_ == now) return;
    const fs::path checkpoint = checkpoint_folder(folder_, now);
    make_folder(checkpoint.parent_path());
    write_folder_atomically(checkpoint, [&](const fs::path& temporary) {
      save_model(temporary, *decoder_, tokenizer_.get());
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

  fs::path folder_;
  Recipe recipe_;
  TrainOptions options_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::shared_ptr<Decoder> decoder_;
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

std::shared_ptr<Decoder> fresh_model(const Recipe& recipe) {
  auto decoder = std::make_shared<Decoder>(recipe.model);
  initialise(decoder->schema(), Streams(static_cast<uint64_t>(recipe.seed)));
  return decoder;
}

/// The model of a checkpoint in memory of its own: a mapped file lies at other alignments, which may change the low bits
/// of a product.
std::shared_ptr<Decoder> checkpoint_model(const fs::path& checkpoint) {
  const std::shared_ptr<Decoder> decoder = load_model(checkpoint).decoder;
  const at::NoGradGuard guard;
  for (const Parameter& parameter : decoder->schema().all()) parameter.bind(parameter.tensor().detach().clone());
  return decoder;
}

void write_recipe(const fs::path& folder, const Recipe& recipe) {
  write_file_atomically(folder / "recipe.yaml", to_yaml(write_options(recipe)));
}

}  // namespace

RunResult train(Recipe recipe) {
  const fs::path folder = recipe.output;
  check(!recipe.output.empty(), "train.output", "the recipe names no output folder");
  check_output(folder);
  make_folder(folder);
  const FolderLock lock(folder);
  const auto tokenizer = run_tokenizer(folder, recipe);
  recipe.model = sized(recipe.model, *tokenizer);
  Training run(folder, recipe, tokenizer, fresh_model(recipe));
  write_recipe(folder, recipe);
  return run.go();
}

RunResult resume(const fs::path& folder, const std::vector<std::string>& overrides) {
  const fs::path file = folder / "recipe.yaml";
  check(fs::exists(file), "train.no_run", "{} holds no run: there is no recipe.yaml; begin one with `switchyard train RECIPE`",
        folder.string());
  for (const std::string& one : overrides)
    check(one.starts_with("train."), "train.override",
          "'{}' cannot change when a run is resumed; only train.* may, such as train.steps=2000", one);
  const FolderLock lock(folder);
  Recipe recipe = load_recipe(file.string(), overrides);
  recipe.output = folder.string();
  const auto tokenizer = run_tokenizer(folder, recipe);
  const auto all = checkpoints(folder);
  if (all.empty()) {
    log_info(fmt::format("{} has no checkpoint yet; the run begins again", folder.string()));
    Training run(folder, recipe, tokenizer, fresh_model(recipe));
    return run.go();
  }
  const fs::path& checkpoint = all.back().second;
  try {
    Training run(folder, recipe, tokenizer, checkpoint_model(checkpoint));
    run.restore(checkpoint);
    if (!overrides.empty()) write_recipe(folder, recipe);
    if (run.trainer().step() >= recipe.train.steps) {
      log_info(fmt::format("{} is complete at step {}; go further with train.steps=N", folder.string(), run.trainer().step()));
      return {.folder = folder, .step = run.trainer().step(), .steps = recipe.train.steps};
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

}  // namespace switchyard
