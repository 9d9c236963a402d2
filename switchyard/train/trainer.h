// The pieces a training step is made of, and the state between steps: model, data, optimiser, position. Schemes
// (train/scheme.h) compose them; train/run.h runs steps and keeps what they leave.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "switchyard/base/autocast.h"
#include "switchyard/data/data.h"
#include "switchyard/layer/layer_losses.h"
#include "switchyard/models/decoder.h"
#include "switchyard/train/objective.h"
#include "switchyard/train/optimiser.h"
#include "switchyard/train/scheme.h"
#include "switchyard/train/train_options.h"

namespace switchyard {

/// Products run in this precision while it lives: float32 leaves everything as it is, bfloat16 turns autocast on.
class PrecisionScope {
 public:
  explicit PrecisionScope(Precision precision);

 private:
  AutocastScope scope_;
};

/// `batch` cut into `count` micro-batches of equally many rows. Throws train.accumulate when the rows cannot be shared
/// evenly or a document's segment crosses a cut.
std::vector<Batch> split(const Batch& batch, int64_t count);

class Trainer {
 public:
  /// `decoder` is bound. `data` is asked for batches of options.batch sequences.
  Trainer(const TrainOptions& options, std::shared_ptr<Decoder> decoder, std::function<Batch(int64_t sequences)> next_batch,
          uint64_t seed);

  const TrainOptions& options() const { return options_; }
  const Decoder& model() const { return *model_; }
  const Objective& objective() const { return *objective_; }
  Optimiser& optimiser() { return optimiser_; }
  const std::vector<std::shared_ptr<RoutingStation>>& stations() const { return stations_; }
  const Streams& random() const { return random_; }
  /// Steps done so far; the one that runs has this number.
  int64_t step() const { return optimiser_.steps(); }

  /// One step by the recipe's scheme.
  StepResult train_step() { return scheme_->step(*this); }

  // What schemes are written with.
  /// The step's batch as micro-batches.
  std::vector<Batch> next_micro_batches();
  Context context(const Batch& batch, int64_t micro) const;
  /// The objective's loss; a router that meets NaN first is reported like a loss that is NaN.
  LossSum forward(Runner& runner, int64_t micro) const;
  /// Throws train.not_finite unless `value` is finite; names the term and what is the first without finite values:
  /// a parameter, a block's output, or the loss itself.
  void check_finite(const std::string& term, double value, const Batch& batch, int64_t micro) const;
  /// Throws train.not_finite unless the norm is finite; names the parameter.
  void check_gradient(double norm) const;
  /// The optimiser's step at the schedule's rate, then the controllers of every place that routes.
  void update(double gradient_norm, const std::vector<LayerLoad>& loads);

 private:
  std::string first_not_finite(const Batch& batch, int64_t micro) const;

  TrainOptions options_;
  std::shared_ptr<Decoder> model_;
  std::function<Batch(int64_t)> next_batch_;
  Streams random_;
  std::vector<std::shared_ptr<RoutingStation>> stations_;
  std::shared_ptr<Objective> objective_;
  std::shared_ptr<Scheme> scheme_;
  Optimiser optimiser_;
};

/// Held-out loss a token: over everything, and by the domain of each row where the data say it.
struct Evaluation {
  double loss = 0;
  int64_t tokens = 0;
  std::vector<std::pair<std::string, double>> domains;
};
Evaluation evaluate(const Trainer& trainer, const std::vector<Batch>& held_out, const std::vector<std::string>& domains);

}  // namespace switchyard
